"""Ports for daemons that start in a moment."""

import socket

from agent.ports import FIRST, LAST, free_ports


def test_ports_are_different_and_nothing_listens_there() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    for port in ports:
        assert FIRST <= port < LAST
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
