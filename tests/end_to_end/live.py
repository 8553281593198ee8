"""A daemon in a thread of its own, for tests that need nothing but its sockets and its journal."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.core import restore
from agent.daemon import Daemon
from agent.inference import Analyst
from agent.journal import Journal
from agent.session import events as ev
from agent.session.state import State
from agent.settings import Settings


@contextmanager
def daemon(settings: Settings, *, analyst: Analyst | None = None) -> Iterator[Daemon]:
    """A running daemon; ends in good order at the end of the block."""
    made = Daemon(settings, analyst=analyst)
    begun = threading.Event()
    failed: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        running = asyncio.create_task(made.run())
        ready = asyncio.create_task(made.ready.wait())
        await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
        begun.set()
        ready.cancel()
        await running

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=run, name="daemon")
    thread.start()
    begun.wait(30)
    try:
        if failed:
            raise failed[0]
        yield made
    finally:
        if thread.is_alive():
            loops[0].call_soon_threadsafe(made.stop)
        thread.join(30)
    assert not thread.is_alive(), "the daemon did not end"
    assert not failed, failed


def wait_for(what: Callable[[], bool], seconds: float = 60.0, text: Callable[[], str] = lambda: "") -> None:
    """Wait until ``what()`` is true; fail with ``text()`` when it is not in time."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {text()}"
        time.sleep(0.01)


def state_of(folder: Path) -> State:
    """The state of a session folder, from its journal."""
    journal = Journal(folder, write=False)
    try:
        return restore(journal)
    finally:
        journal.close()


def events_of(folder: Path) -> list[ev.AnyEvent]:
    """Every event of a session folder."""
    journal = Journal(folder, write=False)
    try:
        return [ev.decode_event(entry.body) for entry in journal.replay()]
    finally:
        journal.close()
