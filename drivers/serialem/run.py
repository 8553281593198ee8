"""The driver as one process: settings, hooks and shell put together, ended in good order by Ctrl-C or SIGTERM."""

import asyncio
import contextlib
import signal

from drivers.serialem.advisor import SerialEMAdvisor
from drivers.serialem.pilot import SerialEMPilot
from drivers.serialem.settings import SerialEMSettings
from drivers.shell import Shell

Hooks = SerialEMPilot | SerialEMAdvisor


def build(settings: SerialEMSettings) -> tuple[Hooks, Shell]:
    """The hooks for a mode, and the shell that joins them to the daemon."""
    daemon = settings.daemon
    hooks: Hooks
    if settings.mode == "pilot":
        hooks = SerialEMPilot(settings, daemon.ledger.with_suffix(".cassette.json"))
    else:
        hooks = SerialEMAdvisor(settings)
    shell = Shell(
        hooks,
        daemon.endpoint,
        ledger=daemon.ledger,
        envelope=settings.interlocks,
        key=daemon.key,
        server_key=daemon.server_key,
    )
    hooks.takeover = shell.taken_over
    if isinstance(hooks, SerialEMPilot):
        hooks.session = lambda: shell.welcome.session_id if shell.welcome is not None else ""
    else:
        hooks.advise = shell.advise
        hooks.start()
    return hooks, shell


async def serve(settings: SerialEMSettings) -> None:
    """Run until SIGINT or SIGTERM; on every way out the microscope reaches its safe state."""
    hooks, shell = build(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, shell.stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: shell.stop())
    try:
        await shell.run()
    finally:
        await asyncio.to_thread(hooks.close)


def run(settings: SerialEMSettings) -> None:
    """Be the driver."""
    with contextlib.suppress(KeyboardInterrupt):
        runner = asyncio.Runner(loop_factory=_loop)
        with runner:
            runner.run(serve(settings))


def _loop() -> asyncio.AbstractEventLoop:
    """An event loop that ZeroMQ can use: on Windows that is not the default one."""
    return asyncio.SelectorEventLoop()
