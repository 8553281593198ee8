"""Daemons with a page for the benchmark of it: in a process of their own, on a large session, shot at by a camera."""

import http.client
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agent import wire
from agent.frames import FrameStore
from agent.inference import Analyst
from agent.journal import Draft, Journal
from agent.messages import Accepted, Frame, Stage
from agent.ports import free_ports
from agent.session import events as ev
from agent.session.state import Decision, Hole, Square, hole_id, square_id
from agent.settings import InferenceSettings, Settings, load
from benchmarks import loop_watch
from benchmarks.daemon_io import NoModel, connect, header_of, hello

ANSWER_S = 120
PACE_HZ = 8.0  # frames a second: a micrograph every 12.5 s, 100 times as fast
SQUARES, HOLES = 25, 200
THRESHOLDS = {"square_score": 0.3, "hole_score": 0.3, "squares_per_grid": 12, "exposures_per_square": 30}
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rss_mb(pid: int) -> float:
    """Memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


class Running(NamedTuple):
    """A daemon that answers."""

    pid: int
    settings: Settings
    address: str
    pipe: Connection

    def busy(self) -> loop_watch.Busy:
        """What its loop did since this was asked last."""
        self.pipe.send("busy")
        found: Any = self.pipe.recv()
        return loop_watch.Busy(*found)

    @property
    def helpers(self) -> list[int]:
        """Process ids of the programs that it has started."""
        lists = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for file in lists for pid in file.read_text().split()]

    def cpu_s(self) -> float:
        """CPU seconds that it and its helpers have used."""
        ticks = 0
        for pid in (self.pid, *self.helpers):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def rss_mb(self) -> float:
        """Memory that it holds."""
        return rss_mb(self.pid)


def settings_for(folder: Path) -> tuple[Settings, str]:
    """An advisor's daemon with a page on free ports, and the page's address."""
    *ports, page = free_ports(4)
    ends = zip(("drivers", "control", "events"), ports, strict=True)
    changes: dict[str, Any] = {f"endpoints.{name}": f"tcp://127.0.0.1:{port}" for name, port in ends}
    changes |= {"endpoints.health": "", "session.folder": str(folder), "session.name": "bench"}
    changes |= {"session.mode": "advisor", "session.autonomy": "suggest", "limits.free_disk_gb": 0.0}
    changes |= {"link.lost_after_s": 600.0, "link.safe_after_s": 600.0}  # the camera is silent while a browser starts
    return load(None, changes | {"web.address": f"127.0.0.1:{page}"}), f"127.0.0.1:{page}"


def serve(settings: Settings, models: bool, pipe: Connection) -> None:
    """The daemon, in a process of its own."""
    from agent import interpreter, logs
    from agent.daemon import Daemon
    from agent.memory import keep_frame_memory, spare_what_is_old

    keep_frame_memory()  # all of it as `cryonaut run` does
    interpreter.share_fairly()
    logs.configure(json=True, level="error")
    analyst = Analyst(settings.inference) if models else NoModel(InferenceSettings())
    loop_watch.run(Daemon(settings, analyst=analyst), pipe, spare_what_is_old)


@contextmanager
def daemon(folder: Path, *, models: bool = False) -> Iterator[Running]:
    """A daemon that answers."""
    settings, address = settings_for(folder)
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(settings, models, there))
    process.start()
    there.close()
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                get(address, "/me")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise SystemExit("the daemon's page did not come up within 60 s") from None
                time.sleep(0.1)
        yield Running(process.pid or 0, settings, address, here)
    finally:
        process.terminate()
        process.join(20)
        here.close()


def get(address: str, path: str) -> Any:
    """JSON from the page's server."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


class Camera:
    """Sends micrographs and measures how long each takes to be acknowledged.

    Parameters
    ----------
    settings
        Of the daemon that gets them.
    side
        Pixels of a micrograph's side.
    places
        Where on the stage (µm) they are taken, one after the other; without any, on a raster of 5 µm.
    """

    def __init__(self, settings: Settings, side: int = 512, places: Sequence[tuple[float, float]] = ()) -> None:
        self.socket = connect(int(settings.endpoints.drivers.rpartition(":")[2]))
        self.session_id = hello(self.socket)
        rng = np.random.default_rng(1)
        self.image = rng.normal(400, 60, (side, side)).clip(0, 2000).astype("<u2")
        self.places = places or [(i % 40 * 5.0, i // 40 * 5.0) for i in range(1600)]
        self.number = 0

    def shoot(self) -> float:
        """One micrograph; seconds until it is acknowledged."""
        self.number += 1
        frame = header_of(self.image, self.session_id, self.number)
        x_um, y_um = self.places[self.number % len(self.places)]
        place = Stage(x_um=x_um, y_um=y_um)
        frame = Frame(**{name: getattr(frame, name) for name in frame.__struct_fields__} | {"stage": place})
        begun = time.perf_counter()
        self.socket.send_multipart([wire.encode(frame), self.image.tobytes()])
        while self.socket.poll(ANSWER_S * 1000):
            message = wire.decode(self.socket.recv_multipart()[-1], wire.TO_DRIVER)
            if isinstance(message, Accepted) and message.about == frame.frame_id:
                return time.perf_counter() - begun
        raise SystemExit(f"the daemon said nothing of {frame.frame_id} within {ANSWER_S} s")

    def session(self, seconds: float) -> list[float]:
        """Micrographs at the pace of a session."""
        times = []
        begun = time.perf_counter()
        while (now := time.perf_counter() - begun) < seconds:
            times.append(self.shoot())
            time.sleep(max(0.0, 1 / PACE_HZ - (time.perf_counter() - begun - now)))
        return times


def hole_places() -> list[tuple[float, float]]:
    """Stage positions (µm) of the holes that `plant` puts into a session, those of one square after the other."""
    side = round(HOLES**0.5) + 1
    return [
        (x + (i % side - 7) * 3.9, y + (i // side - 6.5) * 3.9)
        for x, y in (((n % 5 - 2) * 90.0, (n // 5 - 2) * 90.0) for n in range(SQUARES))
        for i in range(HOLES)
    ]


def plant(folder: Path) -> None:
    """A session with one atlas frame, 25 mapped squares and 5,000 holes."""
    store, journal = FrameStore(folder), Journal(folder)
    image = np.random.default_rng(0).normal(300, 40, (1024, 1024)).clip(0, 4000).astype("<u2")
    frame = header_of(image, "bench", 1, "low")
    frame = Frame(**{name: getattr(frame, name) for name in frame.__struct_fields__} | {"pixel_size_angstrom": 6000.0})
    events: list[ev.AnyEvent] = [
        ev.SessionOpened(session_id="bench", name="bench", config="x", version="0", mode="advisor", autonomy="suggest",
                         thresholds=THRESHOLDS, grids=(("G1", None),)),
        ev.GridChanged(grid_id="G1", state="screening", decision=Decision(why="planted")),
        ev.FrameReceived(frame=frame, file=store.save(frame, image), grid_id="G1", area_id=""),
    ]  # fmt: skip
    squares, places = [], hole_places()
    for n in range(SQUARES):
        x, y = (n % 5 - 2) * 90.0, (n // 5 - 2) * 90.0
        box = tuple((x + u, y + v) for u, v in ((-30, -30), (30, -30), (30, 30), (-30, 30)))
        squares.append(
            Square(area_id=square_id("G1", n + 1), x_um=x, y_um=y, size_um=60.0, vertices_um=box, score=n / 25)
        )
    events.append(
        ev.SquaresFound(grid_id="G1", frame_id=frame.frame_id, model="x", fingerprint="x", squares=tuple(squares))
    )
    for square in squares:
        holes = tuple(
            Hole(area_id=hole_id(square.area_id, i + 1), x_um=x, y_um=y, radius_um=0.6, score=(i * 37 % 100) / 100,
                 inferred=i % 9 == 0)
            for i, (x, y) in enumerate(places[:HOLES])
        )  # fmt: skip
        del places[:HOLES]
        events.append(ev.HolesFound(square_id=square.area_id, frame_id="m", model="x", fingerprint="x", holes=holes))
        why = Decision(why="planted")
        events.append(ev.AreaChanged(area_id=square.area_id, state="mapped", decision=why))
    journal.append([Draft(ev.kind_of(event), ev.encode_event(event)) for event in events], utc=time.time(), epoch=1)
    journal.close()
