"""Driver and daemon are killed with SIGKILL while the simulated Leginon plays: what it sees afterwards is the same."""

import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulators.leginon import LeginonProgram
from simulators.leginon.calls import Calls
from simulators.leginon.program import Pace, Record
from tests.drivers.leginon_scene import blocks, driver_settings, raster, scope, session_settings
from tests.ports import free_endpoints

PACE = Pace(radius_um=10.0, squares=2, exposures=2)
LONG_S = 60.0
TILE = blocks(raster(64.0, 3, 60.0), 40.0)


class Programs:
    """The daemon and the driver as programs of their own; each can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        ends = free_endpoints("drivers", "control", "events", "http")
        changes = {f"endpoints__{name}": ends[name] for name in ("drivers", "control", "events")}
        daemon = session_settings(folder, **changes).model_dump(mode="json")
        port = int(ends["http"].rpartition(":")[2])
        driver = driver_settings(folder, ends["drivers"], http={"port": port, "answer_s": LONG_S}).model_dump(
            mode="json"
        )
        self.calls: dict[str, list[str]] = {}
        for name, values, call in (("daemon", daemon, ["run"]), ("driver", driver, ["driver", "leginon"])):
            config = folder / f"{name}.yaml"
            config.write_text(yaml.safe_dump(values), encoding="utf-8")
            self.calls[name] = [sys.executable, "-m", "agent.cli", *call, "--config", str(config), "--log", "json"]
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(self.calls[name], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running[name].wait(LONG_S)

    def wait(self) -> None:
        """Until the driver answers and has its daemon."""
        deadline = time.monotonic() + LONG_S
        while True:
            with contextlib.suppress(OSError, HTTPException):
                if Calls(self.url).send("GET", "/")[1]["daemon"]:
                    return
            for name, process in self.running.items():
                assert process.poll() is None, (self.folder / f"{name}.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextmanager
def programs(folder: Path) -> Iterator[Programs]:
    folder.mkdir()
    made = Programs(folder)
    try:
        for name in made.calls:
            made.start(name)
        made.wait()
        yield made
    finally:
        for process in made.running.values():
            process.kill()
            process.wait(LONG_S)


def view(url: str) -> tuple[Any, Any, Any]:
    """Everything that Leginon can see: squares, learned order, holes."""
    calls = Calls(url)
    squares, order = calls.current_lm_state(), calls.select_next_square()
    holes = calls.send("GET", "/current_mm_state")[1]
    assert calls.warnings == []
    return squares, order, holes


def play(folder: Path, kills: dict[int, str]) -> tuple[Record, list[str], int]:
    """A whole session; before its n-th step the program ``kills[n]`` is killed and started again."""
    steps = 0
    with programs(folder) as run:
        calls = Calls(run.url)
        program = LeginonProgram(scope(), calls, pace=PACE)

        def between(_: str) -> None:
            nonlocal steps
            steps += 1
            if name := kills.get(steps):
                before = view(run.url)
                run.kill(name)
                run.start(name)
                run.wait()
                assert view(run.url) == before

        record = program.run(between)
        return record, calls.warnings, steps


@pytest.mark.timeout(240)
def test_kills_at_random_steps_change_nothing_that_leginon_sees(tmp_path: Path) -> None:
    calm, none, steps = play(tmp_path / "calm", {})
    assert none == []
    rng = random.Random(2)
    kills = {step: ("driver", "daemon")[n % 2] for n, step in enumerate(rng.sample(range(2, steps + 1), 4))}
    record, warnings, _ = play(tmp_path / "killed", kills)
    assert warnings == []
    assert (record.visited, record.orders, record.exposed) == (calm.visited, calm.orders, calm.exposed)
    assert record.squares == calm.squares
    assert record.holes == calm.holes


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["daemon", "driver"])
def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_calls(tmp_path: Path, name: str) -> None:
    rng = random.Random(7)
    stored: dict[int, bool] = {}
    with programs(tmp_path / "s") as run:

        def push(tile_id: int) -> None:
            with contextlib.suppress(OSError, HTTPException):
                status, _ = Calls(run.url).send(
                    "POST", "/push_lm", {"image": (TILE + tile_id).tolist(), "grid_id": 5, "tile_id": tile_id}
                )
                stored[tile_id] = status == 200

        pushing = [threading.Thread(target=push, args=(n,)) for n in range(6)]
        for thread in pushing:
            thread.start()
            time.sleep(rng.uniform(0.0, 0.05))
        run.kill(name)
        for thread in pushing:
            thread.join()
        run.start(name)
        run.wait()
        safe = {tile_id for tile_id, was in stored.items() if was}
        squares = Calls(run.url).current_lm_state()
        assert safe <= {row["tile_id"] for row in squares}
        for tile_id in range(6):  # Leginon's user pushes what is missing again
            push(tile_id)
        everything = Calls(run.url).current_lm_state()
        kept = {row["square_id"]: row for row in everything}
        assert all(kept[row["square_id"]] == row for row in squares)
        assert sorted(row["tile_id"] for row in everything) == sorted(list(range(6)) * 9)
        square = everything[0]["square_id"]
        assert Calls(run.url).send("POST", "/visit_square", {"square_id": square})[1] == {"stored": True}
        run.kill(name)  # right after the answer
        run.start(name)
        run.wait()
        assert square not in {row["square_id"] for row in Calls(run.url).select_next_square()}
