"""`kill -9` of the daemon at every step: nothing acknowledged is lost, nothing is exposed twice."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from agent.core import restore
from agent.errors import JournalError
from agent.journal import Journal
from agent.session.state import State, summary
from agent.settings import Settings
from tests.end_to_end.live import wait_for
from tests.end_to_end.scene import driver, quick_settings
from tests.ports import free_endpoints

pytestmark = pytest.mark.timeout(300)


class Nursery:
    """Starts daemons of one session, the next when the last has died."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._in: IO[str] = self._process.stdin  # type: ignore[assignment]
        self._out: IO[str] = self._process.stdout  # type: ignore[assignment]

    def start(self, settings: Settings, log: Path, die_at: int = 0, side: str = "before") -> int:
        order = {"settings": settings.model_dump(mode="json"), "die_at": die_at, "side": side, "log": str(log)}
        self._in.write(json.dumps(order) + "\n")
        self._in.flush()
        return int(self._out.readline())

    def close(self) -> None:
        self._in.close()
        self._process.wait(10)
        self._out.close()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def end(pid: int) -> None:
    """Kill a daemon and wait until it is gone."""
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
    for _ in range(2000):
        if not alive(pid):
            return
        time.sleep(0.005)


def read(folder: Path) -> tuple[State, int]:
    """State and number of commits of a session, as its journal tells."""
    try:
        journal = Journal(folder, write=False)
    except (JournalError, sqlite3.Error):  # it is being made right now
        return State(), 0
    state = restore(journal)
    commits = len({entry.utc for entry in journal.replay()})
    journal.close()
    return state, commits


def play(nursery: Nursery, folder: Path, die_at: int, side: str) -> tuple[dict[str, Any], list[Any], int]:
    """One whole session with one death; gives the end state, the dose ledger and the number of deaths."""
    settings = quick_settings(folder, free_endpoints("drivers", "control", "events"))
    session = folder / "short"
    log = folder / "daemon.log"
    deaths = 0
    with driver(settings.endpoints.drivers, folder / "ledger.sqlite") as (scope, _):
        pid = nursery.start(settings, log, die_at, side)
        deadline = time.monotonic() + 60
        try:
            while read(session)[0].phase != "stopped":
                if not alive(pid):
                    deaths += 1
                    assert deaths == 1, log.read_text()[-2000:]
                    pid = nursery.start(settings, log)
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.02)
            if die_at and not deaths:  # it is told to die at the very last commit
                wait_for(lambda: not alive(pid), 30)
                deaths += 1
        finally:
            end(pid)
    state, _ = read(session)
    outcome = summary(state)
    outcome.pop("session_id")
    ledger = [(grid, round(x, 6), round(y, 6), dose) for grid, x, y, dose in scope.ledger]
    return outcome, ledger, deaths


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome, ledger, deaths = play(nursery, folder, 0, "before")
    assert deaths == 0
    assert read(folder / "short")[1] == STEPS, "set STEPS to the number of commits of the short session"
    return outcome, ledger


STEPS = 16  # commits of the short session; every test asserts that its death really came


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_kill_at_any_step_changes_neither_the_end_nor_the_dose(
    nursery: Nursery, undisturbed: tuple[dict[str, Any], list[Any]], tmp_path: Path, step: int, side: str
) -> None:
    """The session ends as without the kill, and every place has the same dose as without it."""
    outcome, ledger, deaths = play(nursery, tmp_path, step, side)
    assert deaths == 1
    assert outcome == undisturbed[0]
    assert ledger == undisturbed[1]
    assert len({(x, y) for _, x, y, _ in ledger}) == len(ledger) == 2
