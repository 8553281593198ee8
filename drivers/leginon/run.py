"""The driver as one process: settings, shell, register, courier and HTTP put together, ended by Ctrl-C or SIGTERM."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable

import structlog

from agent.errors import ConfigError
from drivers.leginon.courier import Courier
from drivers.leginon.history import History
from drivers.leginon.hooks import LeginonAdvisor
from drivers.leginon.register import Register
from drivers.leginon.server import application, server
from drivers.leginon.service import Service
from drivers.leginon.settings import HttpSettings, LeginonSettings
from drivers.leginon.spool import Spool
from drivers.leginon.stateless import Stateless
from drivers.shell import Shell

log = structlog.get_logger("leginon")


class LeginonDriver:
    """One driver; ``ready`` is set, and ``url`` known, once Leginon may ask."""

    def __init__(self, settings: LeginonSettings) -> None:
        self.settings = settings
        self.hooks = LeginonAdvisor(settings.name)
        daemon = settings.daemon
        self.shell = Shell(
            self.hooks,
            daemon.endpoint,
            ledger=daemon.folder / "ledger.sqlite",
            envelope=settings.interlocks,
            key=daemon.key,
            server_key=daemon.server_key,
        )
        self.register: Register  # open while it runs
        self.url = ""
        self.ready = asyncio.Event()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End in good order; from the driver's own loop."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises
        ------
        ConfigError
            If the address cannot be listened at.
        BadFileError
            If the register cannot be used.
        """
        folder = self.settings.daemon.folder
        register = self.register = Register(folder / "register.sqlite")
        try:
            spool = Spool(folder / "tiles")
            courier = Courier(self.shell, register, spool, self.settings)
            self.hooks.on_answer = courier.on_answer
            service = Service(register, spool, courier, self.settings)
            history = History(register, courier, self.settings)
            app = application(service, history, Stateless(self.settings), self.settings.http)
            port = listening(self.settings.http)
            http = server(app, self.settings.http)
            jobs = [asyncio.create_task(job) for job in (self.shell.run(), http.serve([port]), courier.run())]
            try:
                await self._until_ended(port, jobs)
            finally:
                http.should_exit = http.force_exit = True
                self.shell.stop()
                await asyncio.wait(jobs[:2])
                port.close()
                jobs[2].cancel()
                await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            register.close()

    async def _until_ended(self, port: socket.socket, jobs: "list[asyncio.Task[None]]") -> None:
        host, number = port.getsockname()[:2]
        self.url = f"http://{host}:{number}"
        log.info("leginon.ready", url=self.url, daemon=self.settings.daemon.endpoint)
        self.ready.set()
        stop = asyncio.create_task(self._stop.wait())
        try:
            ended, _ = await asyncio.wait([stop, *jobs], return_when=asyncio.FIRST_COMPLETED)
            for job in ended - {stop}:
                job.result()
        finally:
            stop.cancel()


def listening(settings: HttpSettings) -> socket.socket:
    """The socket at the address of the settings.

    Raises
    ------
    ConfigError
        If it cannot be listened at.
    """
    try:
        return socket.create_server((settings.host, settings.port), backlog=128)
    except OSError as error:
        raise ConfigError(
            f"http: {settings.host}:{settings.port} cannot be listened at: {error.strerror}; is another driver, or a"
            " Ptolemy server, running?"
        ) from error


async def serve(settings: LeginonSettings, say: Callable[[str], None] = lambda url: None) -> None:
    """Run until SIGINT or SIGTERM; ``say`` is told the address once Leginon may ask."""
    driver = LeginonDriver(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, driver.stop)
    running = asyncio.create_task(driver.run())
    ready = asyncio.create_task(driver.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        say(driver.url)
    ready.cancel()
    await running


def run(settings: LeginonSettings, say: Callable[[str], None] = lambda url: None) -> None:
    """Be the driver."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(settings, say))
