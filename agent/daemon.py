"""The daemon: opens the session folder, the sockets and the models, and runs until it is told to stop.

::

    drivers  --ROUTER-->  Door  ------inputs------>  Core (state, journal)  --events-->  Publisher --PUB--> watchers
                            |                         ^   ^
                          Intake (frames) --inputs----+   |
                            +-- Analyst (threads)         |
    operator --ROUTER-->  ControlServer  -----------------+
"""

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import zmq
import zmq.asyncio

from agent import __version__, health, systemd
from agent.advice import Adviser
from agent.control import ControlServer
from agent.core import Core
from agent.desk import Desk
from agent.door import Door
from agent.errors import ConfigError, CryonautError, JournalError
from agent.frames import FrameStore
from agent.ids import new_id
from agent.inference import Analyst
from agent.intake import Intake
from agent.journal import Journal
from agent.keys import Keyring, is_loopback
from agent.links import Links
from agent.metrics import METRICS
from agent.notifier import Notifier
from agent.policy import lessons
from agent.recording.keeper import Keeper
from agent.session import inputs as inp
from agent.session.state import Prior
from agent.settings import Settings
from agent.watch import Publisher
from agent.web.daemon_page import WebPage
from agent.web.live.lamps import Lamps
from agent.web.precedence import Precedence
from agent.wire import MAX_HEADER_BYTES

log = structlog.get_logger("daemon")
Job = Callable[[], Coroutine[Any, Any, None]]


def session_folder(settings: Settings) -> Path:
    """Where the session of these settings lives."""
    return settings.session.folder / settings.session.name


def prior_of(path: Path | None) -> Prior | None:
    """What earlier sessions taught, from the file that the config names.

    Raises
    ------
    ConfigError
        If the file cannot be read.
    """
    if path is None:
        return None
    try:
        return lessons.decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.prior_file: {path}: {error}; `cryonaut session learned SESSION --out {path}` makes one"
        ) from error


class Daemon:
    """One daemon on one session folder.

    Raises
    ------
    ConfigError
        If an endpoint is not allowed or not free, or a model does not exist.
    JournalError
        If the session folder is in use or damaged.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        journal: Callable[[Path], Journal] = Journal,
        analyst: Analyst | None = None,
        store: Callable[[Path], FrameStore] = FrameStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.folder = session_folder(settings)
        self._journal = journal
        self._analyst = analyst
        self._store = store
        self._clock = clock
        self.core: Core
        self.door: Door
        self.intake: Intake
        self.notifier: Notifier
        self.web: WebPage | None = None
        self.endpoints: dict[str, str] = {}
        self.ready = asyncio.Event()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End in good order; the session goes on at the next start."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`, SIGINT or SIGTERM; what is journalled by then is all that counts."""
        begun = time.monotonic()
        async with self._open() as jobs:
            try:
                async with asyncio.TaskGroup() as tasks:
                    running = [tasks.create_task(job(), name=name) for name, job in jobs.items()]
                    await self._begin()
                    log.info(
                        "daemon.ready",
                        session=str(self.folder),
                        epoch=self.core.state.epoch,
                        phase=self.core.state.phase,
                        seconds=round(time.monotonic() - begun, 3),
                        **self.endpoints,
                    )
                    self.ready.set()
                    systemd.notify("READY=1")
                    await self._stop.wait()
                    log.info("daemon.stopping", events=self.core.state.seq)
                    systemd.notify("STOPPING=1")
                    for task in running:
                        task.cancel()
                await asyncio.to_thread(self._keeper.end)
            except BaseExceptionGroup as group:
                first = group.exceptions[0]
                if len(group.exceptions) == 1 and isinstance(first, CryonautError):
                    raise first from group
                raise

    async def _begin(self) -> None:
        started = inp.Started(
            session_id=new_id(),
            version=__version__,
            models=self.intake.analyst.describe(),
            prior=None if self.core.state.session_id else prior_of(self.settings.policy.prior_file),
        )
        await self.core.submit(started)
        await asyncio.to_thread(self._keeper.begin)
        self.intake.resume()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[dict[str, Job]]:
        settings = self.settings
        async with AsyncExitStack() as stack:
            keyring = Keyring(settings.keys)
            try:
                analyst = self._analyst or Analyst(settings.inference, settings.quality)
            except KeyError as error:
                raise ConfigError(f"inference: {error.args[0]}") from error
            stack.callback(analyst.close)
            journal = self._journal(self.folder)
            stack.callback(journal.close)
            store = self._store(self.folder)
            self.core = Core(journal, settings, self._clock)
            self._keeper = Keeper(self.folder, self.core, settings, analyst.describe())
            context = zmq.asyncio.Context()
            stack.callback(context.term)
            if (guard := keyring.guard(context)) is not None:
                guard.start()
                stack.callback(guard.stop)
            drivers = self._listen(stack, context, keyring, "drivers", zmq.ROUTER)
            control = self._listen(stack, context, keyring, "control", zmq.ROUTER)
            events = self._listen(stack, context, keyring, "events", zmq.PUB)
            links = Links(drivers)
            self.intake = Intake(links, self.core, store, analyst, settings)
            adviser = Adviser(links, self.core, settings)
            self.door = Door(drivers, links, self.intake, adviser, self.core, settings, keyring)
            desk = Desk(self.core, self.folder)
            server = ControlServer(control, desk, keyring)
            jobs: dict[str, Job] = {
                "core": self.core.run,
                "drivers": self.door.run,
                "outbox": links.post,
                "frames": self.intake.save_frames,
                "models": self.intake.analyse_frames,
                "findings": self.intake.take_findings,
                "advice": adviser.run,
                "control": server.run,
                "events": Publisher(events, self.core).run,
                "heartbeat": self._beat,
                "recording": self._keeper.run,
            }
            if settings.endpoints.health:
                if not is_loopback(settings.endpoints.health):
                    raise ConfigError(
                        f"endpoints.health: {settings.endpoints.health} can be reached from other machines and has no"
                        " keys: listen on 127.0.0.1 and let a reverse proxy guard it"
                    )
                jobs["health"] = partial(self._serve_health, settings.endpoints.health)
                self.endpoints["health"] = settings.endpoints.health
            self.notifier = Notifier(self.core, self.folder, settings.notices)
            stack.callback(self.notifier.close)
            jobs |= {"notices": self.notifier.watch, "notices.post": self.notifier.post, "watchdog": self._watchdog}
            if settings.web.address:
                self.web = self._page(stack, desk)
                jobs |= {"page": self.web.run, "page.stream": self.web.hub.run}
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                with suppress(NotImplementedError, RuntimeError, ValueError):  # not in a thread: tests, the demo
                    loop.add_signal_handler(number, self.stop)
                    stack.callback(loop.remove_signal_handler, number)
            yield jobs

    def _page(self, stack: AsyncExitStack, desk: Desk) -> WebPage:
        lamps = Lamps(self.core, self.disk_trouble, self.notifier.lamp)
        web = WebPage(self.settings, desk, lamps, Precedence(lambda: self.intake.busy))
        web.on_listening = lambda address: self.endpoints.update(page=address)
        stack.callback(web.close)
        return web

    def _listen(
        self, stack: AsyncExitStack, context: "zmq.asyncio.Context", keyring: Keyring, name: str, kind: int
    ) -> "zmq.asyncio.Socket":
        endpoint: str = getattr(self.settings.endpoints, name)
        socket = context.socket(kind)
        stack.callback(socket.close, 0)
        socket.linger = 0
        socket.maxmsgsize = (self.settings.limits.frame_mb << 20) + MAX_HEADER_BYTES if name == "drivers" else 1 << 20
        socket.rcvhwm = self.settings.limits.frames_waiting if name == "drivers" else 1000
        socket.sndhwm = 10_000
        socket.heartbeat_ivl = 10_000  # finds a dead cable; whether a peer is well, our own heartbeats tell
        socket.heartbeat_timeout = 60_000
        socket.handshake_ivl = 5_000
        if kind == zmq.ROUTER:
            socket.router_mandatory = True
            socket.router_handover = True
        keyring.protect(socket, endpoint)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"endpoints.{name}: {endpoint}: {error.strerror}; is another daemon running? `cryonaut doctor` shows it"
            ) from error
        self.endpoints[name] = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\x00")
        return socket

    async def _beat(self) -> None:
        """Feed the heartbeat from the core: when the core is stuck, drivers hear nothing and make themselves safe."""
        disk_low = self.core.state.suspensions.get("disk", "")
        while True:
            await asyncio.sleep(self.settings.link.heartbeat_s)
            try:
                await self.core.submit(inp.Tick())
            except JournalError as error:
                log.error("tick.not_journalled", error=str(error))
            await self.door.beat()
            text = self.disk_trouble()
            if bool(text) != bool(disk_low):
                disk_low = text
                with suppress(JournalError):
                    await self.core.submit(inp.Held(cause="disk", detail=text))

    def disk_trouble(self) -> str:
        """Why frames cannot be stored, or an empty text."""
        free_gb = shutil.disk_usage(self.folder).free / 1e9
        limit = self.settings.limits.free_disk_gb
        return f"{free_gb:.1f} GB free, limits.free_disk_gb asks for {limit:g}" if free_gb < limit else ""

    def warnings(self) -> dict[str, str]:
        """What a person should mend though the night can go on."""
        found = {}
        state, text = self.notifier.lamp()
        METRICS.notices_failing.set(state == "bad")
        METRICS.disk_free.set(shutil.disk_usage(self.folder).free)
        METRICS.pages_open.set(len(self.web.hub.pages) if self.web is not None else 0)
        if state != "well":
            found["notices"] = text
        if self.web is not None and self.web.trouble:
            found["page"] = self.web.trouble
        return found

    async def _watchdog(self) -> None:
        await systemd.feed_watchdog(
            lambda: self.core.steps, lambda: f"{self.core.state.phase}: {self.core.state.exposures} exposures"
        )

    async def _serve_health(self, address: str) -> None:
        server = health.server(address, self.core, self.disk_trouble, self.warnings)
        try:
            await server.serve()
        except SystemExit as error:  # uvicorn's way to say that the port is taken
            raise ConfigError(
                f"endpoints.health: {address} cannot be listened on; is another daemon running?"
            ) from error
        finally:
            if server.started:  # cut short by a cancel: uvicorn itself would leave the port open
                server.force_exit = True
                await server.shutdown()
