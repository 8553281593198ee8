"""The drivers that are connected, and the one outbox through which everything to them leaves."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import zmq
import zmq.asyncio

from agent import wire
from agent.messages import Command, Message, Refused, ScopeState
from agent.metrics import METRICS

log = structlog.get_logger("links")
BAD_MESSAGES_IN_A_ROW = 3


@dataclass
class Link:
    """One driver as the daemon knows it."""

    peer: bytes
    name: str
    can_pilot: bool
    heard: float = field(default_factory=time.monotonic)
    progress: int = 0
    scope: ScopeState = field(default_factory=ScopeState)
    bad_in_a_row: int = 0


class Links:
    """Who is connected. ``may_leave`` is asked about each command once more, right before the socket."""

    def __init__(self, socket: "zmq.asyncio.Socket") -> None:
        self.socket = socket
        self.by_peer: dict[bytes, Link] = {}
        self.may_leave: Callable[[Command], bool] = lambda command: True
        self._outbox: asyncio.Queue[tuple[bytes, Message]] = asyncio.Queue()
        self._posting = False

    @property
    def busy(self) -> bool:
        """Whether a message is on its way out."""
        return self._posting or not self._outbox.empty()

    def pilot(self) -> Link | None:
        """The driver that carries out commands."""
        return next((link for link in self.by_peer.values() if link.can_pilot), None)

    def named(self, name: str | None) -> list[Link]:
        """The links of the driver with this name; of all drivers when the name is not known."""
        return [link for link in self.by_peer.values() if name is None or link.name == name]

    def send(self, peer: bytes, message: Message) -> None:
        """Put a message in the outbox."""
        self._outbox.put_nowait((peer, message))

    def refuse(self, peer: bytes, why: str, about: str = "") -> str:
        """Refuse a message for good; gives a reason to hold the session when it was not the first in a row."""
        METRICS.messages_refused.inc()
        log.warning("message.refused", why=why)
        self.send(peer, Refused(reason=why[:2000], about=about))
        link = self.by_peer.get(peer)
        if link is None:
            return ""
        link.bad_in_a_row += 1
        if link.bad_in_a_row != BAD_MESSAGES_IN_A_ROW:
            return ""
        return f"{BAD_MESSAGES_IN_A_ROW} bad messages in a row from {link.name}, the last: {why}"

    async def post(self) -> None:
        """Send what is in the outbox, in order, until cancelled."""
        while True:
            self._posting = False
            peer, message = await self._outbox.get()
            self._posting = True
            if isinstance(message, Command) and not self.may_leave(message):
                continue
            try:
                await self.socket.send_multipart([peer, wire.encode(message)], copy=True)
            except zmq.ZMQError as error:  # the peer is gone; what must not be lost is sent again at its next hello
                log.info("peer.unreachable", kind=type(message).__name__, error=str(error))
