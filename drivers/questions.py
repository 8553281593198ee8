"""What a driver asks or tells the daemon and waits for: sent again until it is answered, whatever the link does."""

import asyncio
from collections.abc import Callable

from agent.messages import Message, Refused

AGAIN_AFTER_S = 5.0


class Questions:
    """Open questions by their id; ``send`` puts a message on its way. Lives in one event loop."""

    def __init__(self, send: Callable[[Message], None], way_is_free: Callable[[], bool]) -> None:
        self._send = send
        self._way_is_free = way_is_free  # else what was sent before still waits for the link
        self._open: dict[str, tuple[Message, asyncio.Future[Message]]] = {}
        self._closed = False

    def __contains__(self, about: str) -> bool:
        return about in self._open

    async def ask(self, about: str, message: Message) -> Message:
        """The answer to ``message``, whose id is ``about``; asked anew every few seconds while there is none."""
        if self._closed:
            return Refused(reason="the driver ends", about=about)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[about] = (message, future)
        try:
            self._send(message)
            while not (await asyncio.wait({future}, timeout=AGAIN_AFTER_S))[0]:
                if self._way_is_free():
                    self._send(message)
            return future.result()
        finally:
            self._open.pop(about, None)

    def answered(self, about: str, answer: Message) -> bool:
        """Take an answer; False when nobody waits for it."""
        entry = self._open.get(about)
        if entry is None:
            return False
        if not entry[1].done():
            entry[1].set_result(answer)
        return True

    def again(self, about: str = "") -> None:
        """Send a question anew (without an id: all of them), as after a return of the daemon."""
        for key, (message, _) in list(self._open.items()):
            if about in ("", key):
                self._send(message)

    def close(self) -> None:
        """The driver ends: nobody waits any longer."""
        self._closed = True
        for about, (_, future) in self._open.items():
            if not future.done():
                future.set_result(Refused(reason="the driver ends", about=about))
