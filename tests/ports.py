"""Free ports on loopback for real sockets."""

import socket


def free_endpoints(*names: str) -> dict[str, str]:
    """One free endpoint for each name; all different."""
    probes = [socket.socket() for _ in names]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = {name: f"tcp://127.0.0.1:{probe.getsockname()[1]}" for name, probe in zip(names, probes, strict=True)}
    for probe in probes:
        probe.close()
    return found
