"""The driver's end of a replay: one real socket, what was sent over it, and what came back."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zmq
import zmq.asyncio
from msgspec.structs import replace
from numpy.typing import NDArray

from agent import wire
from agent.errors import BadMessageError, LinkError
from agent.messages import (
    Accepted,
    Command,
    CommandResult,
    Frame,
    Heartbeat,
    Hello,
    Message,
    Refused,
    Targets,
    View,
    Welcome,
)

WELCOME_S = 60.0


class DriverLink:
    """Says hello, keeps itself heard, and notes everything that the daemon says.

    Parameters
    ----------
    endpoint
        Where the daemon listens for drivers.
    hello
        The recorded hello, as the replay says it.
    """

    def __init__(self, endpoint: str, hello: Hello) -> None:
        self.endpoint = endpoint
        self.hello = hello
        self.welcome: Welcome | None = None
        self.commands: dict[str, Command] = {}
        self.results: dict[str, CommandResult] = {}
        self.safe: set[str] = set()  # frames, results and measurements that the daemon has on disk
        self.refused: dict[str, Refused] = {}
        self.answered: dict[str, Targets] = {}
        self.views: dict[str, View] = {}
        self.working_on = ""
        self._news = asyncio.Event()
        self._again: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect, say hello, wait for the welcome."""
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.reconnect_ivl = 50
        self._socket.connect(self.endpoint)
        self.welcome = None
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._beat())]
        await self.say_hello()

    async def say_hello(self) -> None:
        """Say who is here and what became of its commands, and wait for the welcome."""
        untold = tuple(result for name, result in self.results.items() if name not in self.safe)
        running = self.working_on if self.working_on not in self.results else ""
        deadline = time.monotonic() + WELCOME_S
        while self.welcome is None:
            await self.send(replace(self.hello, results=untold, running=running))
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.until(lambda: self.welcome is not None)
            if time.monotonic() > deadline:
                raise LinkError(f"the daemon at {self.endpoint} did not welcome the replay within {WELCOME_S:g} s")

    async def close(self) -> None:
        """Vanish: no goodbye."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close(0)
        self._context.term()

    @property
    def session_id(self) -> str:
        """The session of the replay."""
        return self.welcome.session_id if self.welcome else ""

    async def send(self, message: Message, *parts: Any) -> None:
        """Send a message as it is."""
        await self._socket.send_multipart([wire.encode(message), *parts], copy=not parts)

    async def send_frame(self, frame: Frame, image: NDArray[Any]) -> None:
        """Send a frame; whether it is on disk, ``safe`` says."""
        await self._socket.send_multipart(wire.frame_parts(frame, image), copy=False)

    async def tell(self, result: CommandResult) -> None:
        """Send the result of a command and wait until it is on disk."""
        self.results[result.command_id] = result
        await self.send(result)
        await self.until(lambda: result.command_id in self.safe)
        if self.working_on == result.command_id:
            self.working_on = ""

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until ``what()`` is true; it is asked after everything that the daemon says."""
        while not what():
            self._news.clear()
            if what():
                return
            await self._news.wait()

    async def news(self, seconds: float) -> None:
        """Wait until the daemon says something, but not longer than ``seconds``."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def wanted_again(self, about: str) -> bool:
        """Whether the daemon asked to send this again."""
        asked = about in self._again
        self._again.discard(about)
        return asked

    async def _listen(self) -> None:
        while True:
            parts = await self._socket.recv_multipart()
            try:
                message = wire.decode(parts[-1], wire.TO_DRIVER)
            except BadMessageError:
                continue
            await self._take(message)
            self._news.set()

    async def _take(self, message: Any) -> None:
        match message:
            case Welcome():
                self.welcome = message
                self.safe.update(message.finished)
            case Accepted(about=about):
                self.safe.add(about)
            case Refused(about="hello"):
                self.welcome = None
                await self.send(self.hello)
            case Refused(retry=True, about=about) if about:
                self._again.add(about)
            case Refused(about=about):
                self.refused[about] = message
            case Command(command_id=name):
                self.commands[name] = message
                if (known := self.results.get(name)) is not None:
                    await self.send(known)  # asked twice, answered twice
            case Targets(frame_id=name):
                self.answered[name] = message
            case View(request_id=name):
                self.views[name] = message
            case _:
                pass

    async def _beat(self) -> None:
        while True:
            if self.welcome is not None:
                beat = Heartbeat(progress=len(self.safe), working_on=self.working_on, epoch=self.welcome.epoch)
                await self.send(beat)
            await asyncio.sleep(self.welcome.heartbeat_s if self.welcome else 0.2)
            self._news.set()
