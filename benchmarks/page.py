"""What the operator's page costs the daemon, and how quickly it draws.

``python -m benchmarks.page`` prints, in one run:

* CPU share and memory of the daemon at the pace of a session 100 times as fast as a real one, without a page and with
  one that is open in a real browser (goal: the page costs under 5 % of one core, memory does not grow);
* time from a frame to its acknowledgement with no page and with 20 pages open, in alternating turns (goal: 99th
  percentile grows by less than 10 %);
* time from a click's request to its acknowledgement while models work (goal: under 200 ms);
* time to draw 5,000 holes on one atlas in a real browser, and the pace of moving it (goal: under 1 s).

Daemons are processes of their own; CPU seconds are read from ``/proc``, so that a busy machine does not change them.
"""

import argparse
import asyncio
import http.client
import json
import multiprocessing
import os
import selectors
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agent import wire
from agent.frames import FrameStore
from agent.inference import Analyst
from agent.journal import Draft, Journal
from agent.messages import Accepted, Frame, Stage
from agent.ports import free_ports
from agent.session import events as ev
from agent.session.state import Decision, Hole, Square, hole_id, square_id
from agent.settings import InferenceSettings, Settings, load
from benchmarks.daemon_io import NoModel, connect, header_of, hello

CHROMIUM = os.environ.get("CRYONAUT_CHROMIUM") or shutil.which("chromium") or ""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ANSWER_S = 120
PACE_HZ = 8.0  # frames a second: a micrograph every 12 s, 100 times as fast
SQUARES, HOLES = 25, 200
THRESHOLDS = {"square_score": 0.3, "hole_score": 0.3, "squares_per_grid": 12, "exposures_per_square": 30}
DRAWING = """async () => {
  const view = cryonaut.views.atlas;
  view.view = { x: 0, y: 0, scale: 1.0 };
  const once = [];
  for (let i = 0; i < 30; i++) {
    view.pan(1, 0);
    view.drawNow();
    once.push(view.drawn_ms);
  }
  const frames = [];
  let last = performance.now();
  for (let i = 0; i < 90; i++) {
    view.pan(Math.sin(i / 9) * 6, 2);
    if (i % 10 === 5) view.zoom(i % 20 > 9 ? 1.1 : 1 / 1.1);
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - last);
    last = performance.now();
  }
  return [once, frames];
}"""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def settings_for(folder: Path) -> tuple[Settings, str]:
    """An advisor's daemon with a page on free ports, and the page's address."""
    *ports, page = free_ports(4)
    ends = zip(("drivers", "control", "events"), ports, strict=True)
    changes: dict[str, Any] = {f"endpoints.{name}": f"tcp://127.0.0.1:{port}" for name, port in ends}
    changes |= {"endpoints.health": "", "session.folder": str(folder), "session.name": "bench"}
    changes |= {"session.mode": "advisor", "session.autonomy": "suggest", "limits.free_disk_gb": 0.0}
    changes |= {"link.lost_after_s": 600.0, "link.safe_after_s": 600.0}  # the camera is silent while a browser starts
    return load(None, changes | {"web.address": f"127.0.0.1:{page}"}), f"127.0.0.1:{page}"


def serve(settings: Settings, models: bool) -> None:
    """The daemon, in a process of its own."""
    from agent import logs
    from agent.daemon import Daemon
    from agent.memory import keep_frame_memory

    keep_frame_memory()
    logs.configure(json=True, level="error")
    analyst = Analyst(settings.inference) if models else NoModel(InferenceSettings())
    asyncio.run(Daemon(settings, analyst=analyst).run())


@contextmanager
def daemon(folder: Path, *, models: bool = False) -> Iterator[tuple[int, Settings, str]]:
    """A daemon that answers: its process id, settings, and the address of its page."""
    settings, address = settings_for(folder)
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(settings, models))
    process.start()
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
        yield process.pid or 0, settings, address
    finally:
        process.terminate()
        process.join(20)


def get(address: str, path: str) -> Any:
    """JSON from the page's server."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    """Memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


class Camera:
    """Sends micrographs and measures how long each takes to be acknowledged."""

    def __init__(self, settings: Settings, side: int = 512) -> None:
        self.socket = connect(int(settings.endpoints.drivers.rpartition(":")[2]))
        self.session_id = hello(self.socket)
        rng = np.random.default_rng(1)
        self.image = rng.normal(400, 60, (side, side)).clip(0, 2000).astype("<u2")
        self.number = 0

    def shoot(self) -> float:
        """One micrograph; seconds until it is acknowledged."""
        self.number += 1
        frame = header_of(self.image, self.session_id, self.number)
        place = Stage(x_um=float(self.number % 40) * 5, y_um=float(self.number // 40 % 40) * 5)
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


@contextmanager
def browser_on(address: str) -> Iterator[Any]:
    """The page open in a real browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(f"http://{address}/")
        page.wait_for_function("() => Boolean(window.cryonaut?.model.summary)")
        yield page
        browser.close()


@contextmanager
def readers(address: str, count: int) -> Iterator[None]:
    """``count`` pages' streams, read as they come."""
    host, _, port = address.rpartition(":")
    chosen = selectors.DefaultSelector()
    sockets = [socket.create_connection((host, int(port))) for _ in range(count)]
    for one in sockets:
        one.sendall(f"GET /stream HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        one.setblocking(False)
        chosen.register(one, selectors.EVENT_READ)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            for key, _ in chosen.select(0.2):
                key.fileobj.recv(1 << 16)  # type: ignore[union-attr]

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for one in sockets:
            one.close()


def soak(seconds: float, table: Table) -> None:
    """CPU and memory of a session at 100 times its pace, without and with a page."""
    with (
        tempfile.TemporaryDirectory(prefix="cryonaut-bench-") as folder,
        daemon(Path(folder)) as (pid, settings, address),
    ):
        camera = Camera(settings)
        camera.session(seconds / 4)  # warm

        def share() -> tuple[float, tuple[float, float], int]:
            """CPU share, MB grown in the first and in the second half, and how many were shot."""
            before, begun, held = cpu_s(pid), time.monotonic(), [rss_mb(pid)]
            count = 0
            for _ in range(2):
                count += len(camera.session(seconds / 2))
                held.append(rss_mb(pid))
            wall = time.monotonic() - begun
            return (cpu_s(pid) - before) / wall, (held[1] - held[0], held[2] - held[1]), count

        bare, grown_bare, _ = share()
        with browser_on(address) as page:
            camera.session(seconds / 4)
            watched, grown, count = share()
            seen = page.evaluate("cryonaut.model.points.length")
        again, _, _ = share()
    cost = watched - (bare + again) / 2
    how = f"{PACE_HZ:g} micrographs/s for {seconds:g} s; {count} shot with the page open, {seen} points seen by it"
    table.add_row(
        "CPU without / with a page / without", f"{bare:.1%} / {watched:.1%} / {again:.1%} of one core", "–", how
    )
    table.add_row("CPU that one open page costs", f"{cost:.1%} of one core", "< 5 %", "the difference")
    first, second = grown
    growth = f"{first:+.1f}, {second:+.1f} MB with; {grown_bare[0]:+.1f}, {grown_bare[1]:+.1f} MB without"
    table.add_row(
        "memory growth in the first and the second half", growth, "none by the page in the second", "resident set"
    )


def many(seconds: float, table: Table) -> None:
    """Frame latency with no page and with 20, in alternation."""
    times: dict[int, list[float]] = {0: [], 20: []}
    with (
        tempfile.TemporaryDirectory(prefix="cryonaut-bench-") as folder,
        daemon(Path(folder)) as (_, settings, address),
    ):
        camera = Camera(settings)
        camera.session(3)
        for _ in range(10):  # short turns, so that what else runs here hits both alike
            times[0] += camera.session(seconds / 10)
            with readers(address, 20):
                times[20] += camera.session(seconds / 10)
    p50, p99 = ({n: float(np.percentile(t, q)) * 1e3 for n, t in times.items()} for q in (50, 99))
    text = f"p50 {p50[0]:.1f} -> {p50[20]:.1f} ms, p99 {p99[0]:.1f} -> {p99[20]:.1f} ms ({p99[20] / p99[0] - 1:+.0%})"
    table.add_row(
        "frame acknowledged, 0 -> 20 pages", text, "p99 < +10 %", f"{len(times[0])} + {len(times[20])} frames"
    )


def control(count: int, table: Table) -> None:
    """Requests from the page while models work."""
    times = []
    with (
        tempfile.TemporaryDirectory(prefix="cryonaut-bench-") as folder,
        daemon(Path(folder), models=True) as (_, settings, address),
        readers(address, 1),
    ):
        camera = Camera(settings, side=2048)
        stop = threading.Event()

        def shoot() -> None:
            while not stop.is_set():
                camera.shoot()

        thread = threading.Thread(target=shoot)
        thread.start()
        token = get(address, "/me")["csrf"]
        connection = http.client.HTTPConnection(address, timeout=60)
        for number in range(count):
            verb = {"verb": "threshold", "name": "hole_score", "value": 0.3 + 0.1 * (number % 2)}
            body = json.dumps({"kind": "control", "request_id": f"bench-{number}", "verb": verb})
            begun = time.perf_counter()
            connection.request("POST", "/control", body, {"x-csrf-token": token, "content-type": "application/json"})
            answer = connection.getresponse()
            assert json.loads(answer.read())["ok"]
            times.append((time.perf_counter() - begun) * 1e3)
            time.sleep(0.05)
        stop.set()
        thread.join()
        connection.close()
    p50, p99 = statistics.median(times), float(np.percentile(times, 99))
    text = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {max(times):.0f} ms"
    table.add_row(
        "request acknowledged during inference", text, "< 200 ms", f"{count} requests, 2048² frames without pause"
    )


def plant(folder: Path) -> None:
    """A session with one atlas frame and 5,000 holes."""
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
    squares = []
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
        side = round(HOLES**0.5) + 1
        holes = tuple(
            Hole(area_id=hole_id(square.area_id, i + 1), x_um=square.x_um + (i % side - 7) * 3.9,
                 y_um=square.y_um + (i // side - 6.5) * 3.9, radius_um=0.6, score=(i * 37 % 100) / 100,
                 inferred=i % 9 == 0)
            for i in range(HOLES)
        )  # fmt: skip
        events.append(ev.HolesFound(square_id=square.area_id, frame_id="m", model="x", fingerprint="x", holes=holes))
    journal.append([Draft(ev.kind_of(event), ev.encode_event(event)) for event in events], utc=time.time(), epoch=1)
    journal.close()


def draw(table: Table) -> None:
    """5,000 holes in a real browser."""
    with tempfile.TemporaryDirectory(prefix="cryonaut-bench-") as folder:
        plant(Path(folder) / "bench")
        with daemon(Path(folder)) as (_, _, address), browser_on(address) as page:
            page.wait_for_function(f"() => cryonaut.model.holes.size === {SQUARES * HOLES}")
            loaded = page.evaluate("performance.now()")
            once, frames = page.evaluate(DRAWING)
    text = f"first {once[0]:.0f} ms, then median {statistics.median(once):.1f} ms, max {max(once):.0f} ms"
    table.add_row(f"draw {SQUARES * HOLES} holes", text, "< 1 s", "script time of one drawing, chromium without a GPU")
    text = f"median {statistics.median(frames):.0f} ms, p95 {float(np.percentile(frames, 95)):.0f} ms a frame"
    table.add_row("move and zoom them", text, "< 50 ms", "90 animation frames, rasterised in software")
    table.add_row(
        "page loaded with all of them", f"{loaded / 1e3:.2f} s", "< 3 s", "from navigation, snapshot included"
    )


def main() -> None:
    """Run all, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each measured part")
    parser.add_argument("--only", choices=("soak", "many", "control", "draw"))
    options = parser.parse_args()
    table = Table("what", "measured", "goal", "how", title="The operator's page", title_justify="left")
    parts: dict[str, Callable[[], None]] = {
        "soak": lambda: soak(options.seconds, table),
        "many": lambda: many(options.seconds, table),
        "control": lambda: control(200, table),
        "draw": lambda: draw(table),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            if name in ("soak", "draw") and not CHROMIUM:
                table.add_row(name, "not measured", "–", "no chromium here")
                continue
            part()
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
