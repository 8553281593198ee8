"""How fast Leginon is answered, by HTTP and by the external command, and what each answer is made of.

``python -m benchmarks.leginon`` starts a daemon and a driver as programs of their own and prints, in one run:

* a tile of 1024 x 1024 pixels pushed, and its squares readable (goal <= 0.5 s);
* a hole image of 1024 x 1024 pixels pushed and answered (goal <= 0.8 s);
* both in parts: reading the JSON, the model, and everything else (HTTP, disks, journal, ids, the table);
* eight tiles pushed at once: how many were answered, and when the last was readable;
* the external command beside its model (goal: at most 0.4 s more), with warm finders and without.

The images are the virtual microscope's. Client and server share this machine's cores, as Leginon's do not.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agent.core import restore
from agent.journal import Journal
from agent.ports import free_ports
from agent.session import events as ev
from drivers.leginon import body
from drivers.leginon.command.client import is_alive, meeting_place
from drivers.leginon.command.find import Finders
from drivers.leginon.command.install import install
from drivers.leginon.settings import LeginonSettings
from simulators.clock import SimClock
from simulators.leginon.calls import Calls
from simulators.microscope import VirtualMicroscope
from simulators.specimen import SpecimenSettings

Image = NDArray[np.float32]


@contextmanager
def programs(folder: Path) -> Iterator[tuple[str, Path, list[int]]]:
    """Daemon and driver as programs of their own: the driver's address, the session's folder, process ids."""
    drivers, control, events, http = free_ports(4)
    session = {
        "session": {"name": "bench", "folder": str(folder), "mode": "advisor", "autonomy": "suggest"},
        "endpoints": {
            "drivers": f"tcp://127.0.0.1:{drivers}",
            "control": f"tcp://127.0.0.1:{control}",
            "events": f"tcp://127.0.0.1:{events}",
            "health": "",
        },
        "web": {"address": ""},
    }
    driver = {
        "daemon": {"endpoint": f"tcp://127.0.0.1:{drivers}", "folder": str(folder / "driver")},
        "http": {"port": http},
    }
    running = []
    try:
        for name, values, call in (("daemon", session, ["run"]), ("driver", driver, ["driver", "leginon"])):
            config = folder / f"{name}.yaml"
            config.write_text(yaml.safe_dump(values), encoding="utf-8")
            with (folder / f"{name}.log").open("wb") as log:
                command = [sys.executable, "-m", "agent.cli", *call, "--config", str(config), "--log", "json"]
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        url = f"http://127.0.0.1:{http}"
        _until_there(url)
        yield url, folder / "bench", [process.pid for process in running]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


def _until_there(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Calls(url).send("GET", "/")[1]["daemon"]:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"nobody answers at {url}")


def pictures() -> tuple[Image, Image]:
    """A tile and a hole image of 1024 x 1024 pixels."""
    scope = VirtualMicroscope({"G1": SpecimenSettings(seed=5, ice="good")}, clock=SimClock(float("inf")))
    low = scope.acquire("low").image
    best = max(scope.specimen.squares, key=lambda square: square.quality)
    scope.move(best.x_um, best.y_um)
    return low.astype(np.float32), scope.acquire("medium").image.astype(np.float32)


def post(url: str, path: str, text: bytes) -> Any:
    """One call whose text was made before: what Leginon spends on its JSON is not ours."""
    import http.client

    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=300)
    try:
        connection.request("POST", path, body=text)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def squares_of(url: str) -> int:
    """How many squares can be read."""
    return len(Calls(url).current_lm_state())


def model_seconds(session: Path) -> dict[str, list[float]]:
    """Seconds that the models of the session took, from its journal."""
    journal = Journal(session, write=False)
    try:
        restore(journal)
        found = [ev.decode_event(row.body) for row in journal.replay()]
    finally:
        journal.close()
    return {
        "tile": [e.elapsed_s for e in found if isinstance(e, ev.SquaresFound)],
        "hole": [e.elapsed_s for e in found if isinstance(e, ev.HolesFound)],
    }


def timed(what: Callable[[], Any]) -> float:
    """Seconds that ``what`` takes."""
    begun = time.perf_counter()
    what()
    return time.perf_counter() - begun


def as_text(image: Image, n: int, **ids: int) -> bytes:
    """A body as Leginon sends it: every pixel with all its digits."""
    noise = np.random.default_rng(n).normal(0.0, 0.1, image.shape).astype(np.float32)
    return json.dumps({"image": (image + noise).tolist(), **ids}).encode()


class Times:
    """Seconds of calls: by the clock, of the servers' processors, and of reading the JSON."""

    def __init__(self, processes: list[int]) -> None:
        self.processes = processes
        self.total: list[float] = []
        self.cpu: list[float] = []
        self.json: list[float] = []

    def measure(self, text: bytes, call: Callable[[], Any], read: Callable[[bytes], Any]) -> None:
        """One call, and the reading of its text by itself."""
        self.json.append(timed(partial(read, text)))
        before = sum(map(cpu_seconds, self.processes))
        self.total.append(timed(call))
        self.cpu.append(sum(map(cpu_seconds, self.processes)) - before)

    def row(self, name: str, goal: str, megabytes: float, model: list[float]) -> tuple[str, str, str, str]:
        """A row of the table; the first call, which warms everything up, does not count."""
        total, read, own = (statistics.median(values[1:]) for values in (self.total, self.json, model))
        parts = f"JSON {read:.3f} ({megabytes:.0f} MB) + model {own:.3f} + the rest {total - own - read:.3f} s"
        cpu = statistics.median(self.cpu[1:])
        return name, f"median {total:.3f} s, max {max(self.total[1:]):.3f} s", goal, f"{parts}; {cpu:.2f} CPU-s in all"


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def http_route(turns: int, table: Table) -> None:
    """Tiles and hole images over HTTP."""
    folder = Path(tempfile.mkdtemp(prefix="cryonaut-bench-"))
    low, medium = pictures()
    try:
        with programs(folder) as (url, session, processes):
            tiles, holes = Times(processes), Times(processes)
            for n in range(turns + 1):
                text = as_text(low, n, grid_id=1, tile_id=n)
                tiles.measure(text, lambda t=text: (post(url, "/push_lm", t), squares_of(url)), body.tile)  # type: ignore[misc]
            squares = [row["square_id"] for row in Calls(url).current_lm_state()]
            for n in range(turns + 1):
                text = as_text(medium, n, grid_id=1, tile_id=0, square_id=squares[n], mm_img_id=1000 + n)
                holes.measure(text, partial(post, url, "/push_and_evaluate_mm", text), body.hole_image)
            texts = [as_text(low, 50 + n, grid_id=2, tile_id=100 + n) for n in range(8)]
            begun = time.perf_counter()
            with ThreadPoolExecutor(8) as pool:
                stored = sum(one.get("stored", False) for one in pool.map(partial(post, url, "/push_lm"), texts))
            rows = Calls(url).current_lm_state()
            together = time.perf_counter() - begun
            answered = len({row["tile_id"] for row in rows if row["grid_id"] == 2})
            models = model_seconds(session)
        size = len(text) / 1e6
        table.add_row(*tiles.row("tile pushed, squares readable", "<= 0.5 s", size, models["tile"][: turns + 1]))
        table.add_row(*holes.row("hole image pushed and answered", "<= 0.8 s", size, models["hole"][: turns + 1]))
        what = f"{stored} stored, {answered} with squares, all readable after {together:.2f} s"
        table.add_row("8 tiles at once", what, "8 and 8", f"{together / 8:.2f} s a tile")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command_route(turns: int, table: Table) -> None:
    """The scripts, sourced as Leginon does, beside the model alone."""
    folder = Path(tempfile.mkdtemp(prefix="cn-bench-", dir="/tmp"))
    names = LeginonSettings().finders
    try:
        install(folder / "bin", squares=names.squares, holes=names.holes, meet=folder / "meet")
        finders = Finders(names.squares, names.holes)
        for (what, image), level in zip((("squares", 0), ("holes", 1)), ("tile", "hole image"), strict=True):
            path = folder / f"{what}.mrc"
            with mrcfile.new(path) as file:
                file.set_data(pictures()[image])
            request = {"what": what, "image": str(path)}
            finders.find(request)
            alone = statistics.median(timed(partial(finders.find, request)) for _ in range(turns))
            line = f"source {folder}/bin/{what}.sh job_{what} {path} {folder}"
            call = ["/bin/bash", "-c", line]
            first = timed(partial(subprocess.run, call, check=True))
            times = [timed(partial(subprocess.run, call, check=True)) for _ in range(turns)]
            more = statistics.median(times) - alone
            table.add_row(
                f"command, {level}",
                f"median {statistics.median(times):.3f} s, max {max(times):.3f} s",
                "model + 0.4 s",
                f"model with reading the file {alone:.3f} s + the rest {more:.3f} s; the first call {first:.2f} s",
            )
    finally:
        stem = meeting_place(folder / "meet", names.squares, names.holes)
        if is_alive(stem):
            subprocess.run(["kill", stem.with_suffix(".alive").read_text().strip()], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run both routes, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="counted turns of each")
    parser.add_argument("--only", choices=("http", "command"))
    options = parser.parse_args()
    table = Table("what", "measured", "goal", "parts", title="Leginon", title_justify="left")
    if options.only in (None, "http"):
        http_route(options.turns, table)
    if options.only in (None, "command"):
        command_route(options.turns, table)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
