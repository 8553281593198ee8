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
from agent.inference import Analyst
from agent.session import State
from agent.settings import InferenceSettings, Settings

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


class PacedAnalyst(Analyst):
    """Models whose answers wait until it is their turn: recorded inputs were taken in one order, and so are these."""

    def __init__(self, settings: InferenceSettings, *, paced: bool = True) -> None:
        super().__init__(settings)
        self._allowed: set[str] = set()
        self._paced = paced
        self._news = asyncio.Condition()

    async def turn(self, frame_id: str) -> None:
        """Wait until it is this frame's turn; models have looked at the next ones meanwhile."""
        async with self._news:
            await self._news.wait_for(lambda: not self._paced or frame_id in self._allowed)

    async def allow(self, frame_id: str | None) -> None:
        """It is this frame's turn; None: everybody's."""
        async with self._news:
            if frame_id is None:
                self._paced = False
            else:
                self._allowed.add(frame_id)
            self._news.notify_all()


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
    analyst = make(settings.inference, paced=paced)
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
    """A daemon as a program of its own; the order in which its models answer is its own, too."""

    running: "asyncio.Task[None] | None" = None

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = session_folder(settings)
        self.drivers = settings.endpoints.drivers
        self.control = settings.endpoints.control
        self._process: asyncio.subprocess.Process | None = None

    def state(self) -> State:
        """The session as its journal has it now."""
        return recording.read(self.folder).state

    async def allow(self, frame_id: str | None) -> None:
        """Nothing to do: it does not wait."""

    async def start(self) -> None:
        """Start the program and wait until it listens."""
        config = self.folder.parent / f"{self.folder.name}.replay.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(self.settings.model_dump(mode="json")), encoding="utf-8")
        epoch = self._epoch()
        with (self.folder.parent / f"{self.folder.name}.replay.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agent.cli", "run", "--config", str(config), stdout=log, stderr=log
            )
        async with asyncio.timeout(START_S):
            while self._epoch() <= epoch:
                if self._process.returncode is not None:
                    raise LinkError(f"the daemon of the replay ended at once; {log.name} says why")
                await asyncio.sleep(0.05)

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
async def program_host(settings: Settings) -> AsyncIterator[ProgramHost]:
    """A daemon as a program of its own; it ends with the block."""
    host = ProgramHost(settings)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()
