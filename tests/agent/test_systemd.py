"""systemd hears READY once, WATCHDOG only for finished work, STOPPING at the end."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import systemd
from tests.helpers import running, settings_in, until


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that systemd would listen on."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(path)
        made.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield made


def read(said: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(said.recv(4096).decode())
        except BlockingIOError:
            return found


async def test_a_daemon_says_ready_alive_and_stopping(
    tmp_path: Path, said: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    heard: list[str] = []

    def alive() -> bool:
        heard.extend(read(said))
        return sum(text.startswith("WATCHDOG=1") for text in heard) >= 2

    async with running(settings_in(tmp_path)):
        await until(alive, 60)
    heard += read(said)
    assert heard.count("READY=1") == heard.count("STOPPING=1") == 1
    assert heard[-1] == "STOPPING=1"
    assert any("STATUS=collecting: 0 exposures" in text for text in heard)


async def test_without_finished_work_the_watchdog_hears_nothing(
    said: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    asked = 0

    def stuck() -> int:
        nonlocal asked
        asked += 1
        return 5

    feeding = asyncio.create_task(systemd.feed_watchdog(stuck, lambda: ""))
    await until(lambda: asked > 5, 60)
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    assert len(read(said)) == 1  # the first look only


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
