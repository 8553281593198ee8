"""What several tests need: small settings, a daemon in this process, a driver that speaks the wire by hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zmq
import zmq.asyncio
from numpy.typing import NDArray

from agent import control_messages as say
from agent import wire
from agent.control import ControlClient
from agent.daemon import Daemon
from agent.messages import PROTOCOL, Frame, Heartbeat, Hello, Message, ScopeState, Stage, Welcome
from agent.settings import Settings, load

M = TypeVar("M", bound=Message)
HOST = "tcp://127.0.0.1:*"


def settings_in(folder: Path, **changes: Any) -> Settings:
    """Settings of a session below ``folder`` on free ports; ``changes`` as in `agent.settings.load`, dots as ``__``."""
    values: dict[str, Any] = {
        "session.folder": str(folder),
        "session.name": "test",
        "endpoints.drivers": HOST,
        "endpoints.control": HOST,
        "endpoints.events": HOST,
        "endpoints.health": "",
        "web.address": "",
        "link.heartbeat_s": 0.1,
        "limits.free_disk_gb": 0.0,
        "atlas.radius_um": 100.0,
        "squares.per_grid": 2,
        "holes.per_square": 4,
    }
    return load(None, values | {key.replace("__", "."): value for key, value in changes.items()})


@asynccontextmanager
async def running(settings: Settings, **more: Any) -> AsyncIterator[Daemon]:
    """A daemon as a task of this process; it ends in good order with the block."""
    daemon = Daemon(settings, **more)
    task = asyncio.create_task(daemon.run())
    ready = asyncio.create_task(daemon.ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        ready.cancel()
        if task.done():
            await task
        yield daemon
    finally:
        ready.cancel()
        daemon.stop()
        await asyncio.gather(task, return_exceptions=True)
    task.result()


def image_of(dtype: str = "<u2", shape: tuple[int, int] = (64, 96), seed: int = 0) -> NDArray[Any]:
    """Pixels that no check refuses: noise about 40 counts."""
    rng = np.random.default_rng(seed)
    return np.ascontiguousarray(rng.normal(40.0, 6.0, shape).clip(0, 120).astype(dtype))


def frame_of(image: NDArray[Any], **fields: Any) -> Frame:
    """A valid header for ``image``."""
    plain, name = wire.plain_pixels(image)
    values: dict[str, Any] = {
        "frame_id": "frame-1",
        "session_id": "session-1",
        "level": "low",
        "pixel_size_angstrom": 6000.0,
        "shape": plain.shape,
        "dtype": name,
        "digest": wire.digest(plain),
        "stage": Stage(x_um=10.0, y_um=-20.0),
    }
    return Frame(**(values | fields))


class RawDriver:
    """A DEALER that speaks `agent.wire`; keeps everything it hears in ``heard``."""

    def __init__(self, endpoint: str, *, arm: Callable[[Any], None] | None = None) -> None:
        self._context = zmq.asyncio.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        if arm is not None:
            arm(self.socket)
        self.socket.connect(endpoint)
        self.heard: list[Any] = []
        self._unread: list[Any] = []
        self.welcome: Welcome | None = None

    async def send(self, message: Message, *pixels: Any) -> None:
        """Send a message as it is."""
        await self.socket.send_multipart([wire.encode(message), *pixels])

    async def send_raw(self, *parts: bytes) -> None:
        """Send any parts."""
        await self.socket.send_multipart(list(parts))

    async def send_frame(self, image: NDArray[Any], **fields: Any) -> Frame:
        """Send a good frame of the session that welcomed this driver."""
        assert self.welcome is not None
        frame = frame_of(image, **({"session_id": self.welcome.session_id} | fields))
        await self.socket.send_multipart(wire.frame_parts(frame, image), copy=True)
        return frame

    async def hello(self, driver: str = "raw", *, can_pilot: bool = True, **fields: Any) -> Welcome:
        """Say hello and wait for the welcome."""
        state = fields.pop("state", ScopeState(grid_id="G1"))
        await self.send(Hello(protocol=PROTOCOL, driver=driver, can_pilot=can_pilot, state=state, **fields))
        self.welcome = await self.expect(Welcome)
        return self.welcome

    async def expect(self, *kinds: type[M], seconds: float = 20.0) -> M:
        """The next message of one of these kinds; what comes between is only kept in ``heard``."""
        deadline = time.monotonic() + seconds
        while True:
            while self._unread:
                message = self._unread.pop(0)
                if isinstance(message, kinds):
                    return message
            left = deadline - time.monotonic()
            if left <= 0 or not await self.socket.poll(max(1, int(left * 1000))):
                said = [type(message).__name__ for message in self.heard if not isinstance(message, Heartbeat)]
                raise AssertionError(f"no {[kind.__name__ for kind in kinds]} within {seconds} s; heard {said}")
            await self._read()

    async def _read(self) -> None:
        message = wire.decode((await self.socket.recv_multipart())[-1], wire.TO_DRIVER)
        self.heard.append(message)
        self._unread.append(message)

    async def quiet(self, seconds: float) -> list[Any]:
        """Everything but heartbeats that comes within ``seconds``."""
        deadline = time.monotonic() + seconds
        found: list[Any] = []
        while (left := deadline - time.monotonic()) > 0:
            if self._unread:
                found.append(self._unread.pop(0))
            elif await self.socket.poll(max(1, int(left * 1000))):
                await self._read()
        return [message for message in found if not isinstance(message, Heartbeat)]

    async def nothing(self, *kinds: type[Message], seconds: float = 0.3) -> None:
        """Fail when a message of one of these kinds comes."""
        found = [message for message in await self.quiet(seconds) if isinstance(message, kinds)]
        assert not found, found

    def close(self) -> None:
        """Close the socket."""
        self.socket.close(0)
        self._context.term()


async def ask(daemon: Daemon, verb: say.AnyVerb, request_id: str | None = None, **client: Any) -> say.Reply:
    """The daemon's answer to an operator's request, over the real socket."""

    def blocking() -> say.Reply:
        with ControlClient(daemon.endpoints["control"], **client) as operator:
            return operator.ask(verb, request_id)

    return await asyncio.to_thread(blocking)


async def until(condition: Callable[[], object], seconds: float = 10.0, what: str = "") -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        await asyncio.sleep(0.01)


class RawDaemon:
    """A ROUTER that speaks `agent.wire` by hand: the daemon's end of a driver's link."""

    def __init__(self, session_id: str = "night", *, safe_after_s: float = 30.0, port: str = "*") -> None:
        self._context = zmq.asyncio.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.router_handover = True
        self.socket.bind(f"tcp://127.0.0.1:{port}")
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\x00")
        self.session_id = session_id
        self.safe_after_s = safe_after_s
        self.epoch = 1
        self.peer = b""
        self.heard: list[Any] = []
        self.pixels: dict[str, bytes] = {}
        self._unread: list[Any] = []

    async def send(self, message: Message) -> None:
        """Send a message to the driver that spoke last."""
        await self.socket.send_multipart([self.peer, wire.encode(message)])

    async def welcome(self, **fields: Any) -> Hello:
        """Wait for a hello and welcome the driver."""
        hello = await self.expect(Hello)
        values: dict[str, Any] = {
            "protocol": PROTOCOL,
            "session_id": self.session_id,
            "epoch": self.epoch,
            "heartbeat_s": 0.05,
            "safe_after_s": self.safe_after_s,
        }
        await self.send(Welcome(**(values | fields)))
        return hello

    async def expect(self, *kinds: type[M], seconds: float = 20.0) -> M:
        """The next message of one of these kinds."""
        deadline = time.monotonic() + seconds
        while True:
            while self._unread:
                message = self._unread.pop(0)
                if isinstance(message, kinds):
                    return message
            left = deadline - time.monotonic()
            if left <= 0 or not await self.socket.poll(max(1, int(left * 1000))):
                said = [type(message).__name__ for message in self.heard if not isinstance(message, Heartbeat)]
                raise AssertionError(f"no {[kind.__name__ for kind in kinds]} within {seconds} s; heard {said}")
            self.peer, header, *more = await self.socket.recv_multipart()
            message = wire.decode(header, wire.FROM_DRIVER)
            if more:
                self.pixels[message.frame_id] = more[0]
            self.heard.append(message)
            self._unread.append(message)

    async def nothing(self, *kinds: type[Message], seconds: float = 0.3) -> None:
        """Fail when a message of one of these kinds comes."""
        try:
            found = await self.expect(*kinds, seconds=seconds)
        except AssertionError:
            return
        raise AssertionError(f"heard {found}")

    def close(self) -> None:
        """Close the socket."""
        self.socket.close(0)
        self._context.term()
