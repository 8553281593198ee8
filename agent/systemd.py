"""Words to systemd (`Type=notify`): ready, alive as long as work gets done, stopping. Without systemd: nothing."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable


def notify(text: str) -> None:
    """Send lines such as ``READY=1`` to the socket that systemd names, where it does."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        datagram.sendto(text.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)


async def feed_watchdog(finished: Callable[[], int], status: Callable[[], str]) -> None:
    """Say ``WATCHDOG=1`` only when something was finished since the last time: never from a timer alone."""
    period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    if not period_s:
        return
    before = -1
    while True:
        now = finished()
        if now != before:
            notify(f"WATCHDOG=1\nSTATUS={status()}")
            before = now
        await asyncio.sleep(period_s)
