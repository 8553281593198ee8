"""A real daemon to replay into: in this process, or as a program of its own that can be killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import yaml

from agent import recording
from agent.daemon import Daemon, session_folder
from agent.errors import LinkError
from agent.frames import FrameStore
from agent.session import State
from agent.settings import Settings
from simulators.replay import turns
from simulators.replay.turns import PacedAnalyst

START_S = 60.0


class Host(Protocol):
    """What a player needs of a daemon."""

    folder: Path
    drivers: str
    control: str

    def state(self) -> State:
        """The session as it is now."""
        ...

    async def allow(self, frame_id: str | None) -> None:
        """Let the answer of a model into the session; None: from now on every one as it comes."""
        ...

    @property
    def running(self) -> "asyncio.Task[None] | None":
        """The daemon, where it is a task of this process: it must not end before the replay."""
        ...

    async def kill(self) -> None:
        """End the daemon by SIGKILL and start it again.

        Raises
        ------
        NotImplementedError
            If it lives in this process.
        """
        ...


class OwnHost:
    """A daemon in this process; its sockets are real."""

    def __init__(self, daemon: Daemon, analyst: PacedAnalyst, running: "asyncio.Task[None]") -> None:
        self.daemon = daemon
        self.running = running
        self.analyst = analyst
        self.folder = daemon.folder
        self.drivers = daemon.endpoints["drivers"]
        self.control = daemon.endpoints["control"]

    def state(self) -> State:
        """The session as it is now."""
        return self.daemon.core.state

    async def allow(self, frame_id: str | None) -> None:
        """Let the answer of a model into the session."""
        await self.analyst.allow(frame_id)

    async def kill(self) -> None:
        """Not possible here."""
        raise NotImplementedError


@asynccontextmanager
async def own_host(
    settings: Settings,
    *,
    paced: bool,
    make: Callable[..., PacedAnalyst] = PacedAnalyst,
    store: Callable[[Path], FrameStore] = FrameStore,
) -> AsyncIterator[OwnHost]:
    """A daemon as a task of this process; it ends in good order with the block."""
    analyst = make(settings.inference, settings.quality, paced=paced)
    daemon = Daemon(settings, analyst=analyst, store=store)
    running = asyncio.create_task(daemon.run())
    ready = asyncio.create_task(daemon.ready.wait())
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=START_S)
        if running.done():
            await running  # raises what was wrong
        yield OwnHost(daemon, analyst, running)
    finally:
        ready.cancel()
        await analyst.allow(None)
        daemon.stop()
        await asyncio.wait({running})
    await running


class ProgramHost:
    """A daemon as a program of its own (`simulators.replay.program`), which is told whose answer's turn it is."""

    running: "asyncio.Task[None] | None" = None

    def __init__(self, settings: Settings, *, paced: bool = True) -> None:
        self.settings = settings
        self.folder = session_folder(settings)
        self.drivers = settings.endpoints.drivers
        self.control = settings.endpoints.control
        self._process: asyncio.subprocess.Process | None = None
        self._allowed: list[str | None] = [] if paced else [None]

    def state(self) -> State:
        """The session as its journal has it now."""
        return recording.read(self.folder).state

    async def allow(self, frame_id: str | None) -> None:
        """Let the answer of a model into the session, in this epoch and after every restart."""
        self._allowed.append(frame_id)
        await self._tell(frame_id)

    async def _tell(self, *frame_ids: str | None) -> None:
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(ConnectionError):  # it has just ended: at its next start it hears all of them
                process.stdin.writelines(turns.line(frame_id) for frame_id in frame_ids)
                await process.stdin.drain()

    async def start(self) -> None:
        """Start the program and wait until it listens."""
        config = self.folder.parent / f"{self.folder.name}.replay.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(self.settings.model_dump(mode="json")), encoding="utf-8")
        epoch = self._epoch()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "simulators.replay.program", str(config),
                stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        await self._tell(*self._allowed)
        async with asyncio.timeout(START_S):
            while self._epoch() <= epoch:
                if self._process.returncode is not None:
                    raise LinkError(f"the daemon of the replay ended at once; {self.log} says why")
                await asyncio.sleep(0.05)

    @property
    def log(self) -> Path:
        """What the program said."""
        return self.folder.parent / f"{self.folder.name}.replay.log"

    def _epoch(self) -> int:
        with suppress(Exception):  # no folder yet, or it is just being written
            return self.state().epoch
        return 0

    async def kill(self) -> None:
        """End it by SIGKILL and start it again."""
        await self._end(signal.SIGKILL)
        await self.start()

    async def stop(self) -> None:
        """End it in good order."""
        await self._end(signal.SIGINT)

    async def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.kill(process.pid, how)
        try:
            async with asyncio.timeout(START_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def program_host(settings: Settings, *, paced: bool) -> AsyncIterator[ProgramHost]:
    """A daemon as a program of its own; it ends with the block."""
    host = ProgramHost(settings, paced=paced)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()
