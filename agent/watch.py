"""The event stream: every journalled event in words, for pages, terminals and the simulator's watchers.

Publishing drops what a slow watcher does not take; whoever must not miss anything asks `control events` for the rest.
"""

import asyncio

import zmq
import zmq.asyncio

from agent import wire
from agent.answers import detections_for
from agent.core import Core
from agent.desk import as_line
from agent.messages import Message
from agent.metrics import METRICS
from agent.session import events as ev

MOST_WAITING = 5_000


class Publisher:
    """Sends each event to whoever subscribed, topic = kind of message."""

    def __init__(self, socket: "zmq.asyncio.Socket", core: Core) -> None:
        self.socket = socket
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(MOST_WAITING)
        core.listeners.append(self._heard)

    def _heard(self, seq: int, utc: float, event: ev.AnyEvent) -> None:
        self._put(as_line(seq, utc, event))
        if (found := detections_for(event)) is not None:
            self._put(found)

    def _put(self, message: Message) -> None:
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            METRICS.notices_dropped.inc()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            message = await self._waiting.get()
            topic = str(message.__struct_config__.tag).encode()
            await self.socket.send_multipart([topic, wire.encode(message)])
