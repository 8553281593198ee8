"""What open pages cost a daemon: latency of frames with 20 of them, CPU and memory of a whole session with one."""

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.loop_watch import Busy
from benchmarks.page_browser import browser_on
from benchmarks.page_clients import Seen, pages
from benchmarks.page_session import PACE_HZ, Camera, Running, daemon, hole_places, plant, rss_mb

PAGES = 20
TURNS = 10  # with and without pages, one after the other, so that what else runs here hits both alike
SETTLE_S = 1.0  # frames that are not measured: pages have just been opened or closed
SPEED = 100.0


class Turn(NamedTuple):
    """What was measured in one turn: latencies of frames in ms, and the loop."""

    latency_ms: list[float]
    busy: Busy
    seen: Seen | None = None


def turn(running: Running, camera: Camera, count: int, seconds: float) -> Turn:
    """Frames for so many seconds with ``count`` pages open."""

    def shoot() -> list[float]:
        camera.session(SETTLE_S)
        running.busy()
        return [seconds * 1e3 for seconds in camera.session(seconds)]

    if not count:
        return Turn(shoot(), running.busy())
    with pages(running.address, count) as opened:
        opened.seen()
        latency_ms = shoot()
        return Turn(latency_ms, running.busy(), opened.seen())


def ratio(turns: tuple[list[Turn], list[Turn]], figure: Callable[[NDArray[np.float64]], float], what: str) -> str:
    """Without -> with pages, their ratio, and its 90 % interval when whole turns are drawn anew."""
    values = [[_values(one, what) for one in side] for side in turns]
    without, with_pages = (figure(np.concatenate(side)) for side in values)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(1000):
        picks = rng.integers(len(values[0]), size=len(values[0]))
        one, other = (figure(np.concatenate([side[i] for i in picks])) for side in values)
        drawn.append(other / one - 1)
    low, high = np.percentile(drawn, (5, 95))
    return f"{without:.2f} -> {with_pages:.2f} ms ({with_pages / without - 1:+.0%}, {low:+.0%} to {high:+.0%})"


def _values(one: Turn, what: str) -> NDArray[np.float64]:
    found = {"latency": one.latency_ms, "rows": one.busy.rows_ms, "frames": one.busy.frames_ms}
    return np.asarray(found[what])


def p(percent: float) -> Callable[[NDArray[np.float64]], float]:
    """The figure that takes so many percent's value."""
    return lambda values: float(np.percentile(values, percent))


def many(seconds: float, table: Table) -> None:
    """Frame latency with no page and with 20, in alternation."""
    turns: tuple[list[Turn], list[Turn]] = ([], [])
    with tempfile.TemporaryDirectory(prefix="cryonaut-bench-") as folder:
        plant(Path(folder) / "bench")
        with daemon(Path(folder)) as running:
            camera = Camera(running.settings, places=hole_places())
            camera.session(3)
            for _ in range(TURNS):
                turns[0].append(turn(running, camera, 0, seconds / TURNS))
                turns[1].append(turn(running, camera, PAGES, seconds / TURNS))
    counts = " + ".join(str(sum(len(one.latency_ms) for one in side)) for side in turns)
    what = f"0 -> {PAGES} pages"
    spread = f"{counts} frames in {TURNS} + {TURNS} turns; interval: 90 %, whole turns drawn anew"
    table.add_row(f"frame acknowledged, p50, {what}", ratio(turns, p(50), "latency"), "-", spread)
    table.add_row("the same, p99", ratio(turns, p(99), "latency"), "< +10 %", "wall time, with all that else runs here")
    table.add_row("the same, longest", ratio(turns, np.max, "latency"), "-", "")
    how = "CPU of the loop's thread from a frame's header to its acknowledgement"
    table.add_row(f"loop's work for a frame, p50, {what}", ratio(turns, p(50), "frames"), "-", how)
    table.add_row(
        "the same, p99",
        ratio(turns, p(99), "frames"),
        "< +10 %",
        "a frame that takes over 0.1 s has pages' slices in it",
    )
    how = "CPU between two looks at the sockets: so long may a frame lie there"
    table.add_row(f"loop busy in a row, p99, {what}", ratio(turns, p(99), "rows"), "-", how)
    table.add_row("the same, longest", ratio(turns, np.max, "rows"), "-", "")
    garbage = [max(one.busy.garbage_ms for one in side) for side in turns]
    table.add_row("longest collection of garbage", f"{garbage[0]:.1f}, {garbage[1]:.1f} ms", "-", "without, with")
    seen = [one.seen for one in turns[1] if one.seen is not None]
    delays = np.concatenate([one.delays_ms for one in seen])
    text = f"p50 {np.median(delays):.0f} ms, p99 {np.percentile(delays, 99):.0f} ms, max {delays.max():.0f} ms"
    news, answers = sum(one.news for one in seen), sum(one.answers for one in seen)
    share = float(np.mean([one.cpu_share for one in seen]))
    how = f"{news} news and {answers} answers to clients that take {share:.1%} of a core together"
    table.add_row(f"news on its way to one of {PAGES} pages", text, "< 1 s", how)


class Course:
    """CPU share and memory of one daemon over a session."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.begun = time.monotonic()
        self.used_s = running.cpu_s()
        self.held_mb = [running.rss_mb()]

    def mark(self) -> None:
        """Note what it holds."""
        self.held_mb.append(self.running.rss_mb())

    @property
    def share(self) -> float:
        """CPU share of one core."""
        return (self.running.cpu_s() - self.used_s) / (time.monotonic() - self.begun)

    @property
    def grown(self) -> str:
        """MB grown in each quarter."""
        return ", ".join(
            f"{after - before:+.1f}" for before, after in zip(self.held_mb, self.held_mb[1:], strict=False)
        )


def soak(hours: float, table: Table) -> None:
    """A session at 100 times its pace, on two daemons at once: nobody looks at one, a real browser at the other."""
    seconds = hours * 3600 / SPEED
    with (
        tempfile.TemporaryDirectory(prefix="cryonaut-bench-") as one,
        tempfile.TemporaryDirectory(prefix="cryonaut-bench-") as other,
        daemon(Path(one)) as bare,
        daemon(Path(other)) as watched,
        browser_on(watched.address) as page,
    ):
        cameras = [Camera(running.settings) for running in (bare, watched)]
        counts = [0, 0]

        def shoot(which: int, wanted_s: float) -> None:
            counts[which] += len(cameras[which].session(wanted_s))

        def both(wanted_s: float) -> None:
            threads = [threading.Thread(target=shoot, args=(which, wanted_s)) for which in (0, 1)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        both(10.0)  # warm
        courses = [Course(bare), Course(watched)]
        counts[:] = [0, 0]
        for _ in range(4):
            both(seconds / 4)
            for course in courses:
                course.mark()
        shares = [course.share for course in courses]
        seen = page.evaluate("cryonaut.model.points.length")
        helpers = [rss_mb(pid) for pid in watched.helpers]
    how = (
        f"{hours:g} h at {SPEED:g} times their pace ({PACE_HZ:g} micrographs/s for {seconds:.0f} s), two daemons at"
        f" once; {counts[0]} and {counts[1]} taken, {seen} points seen by the browser"
    )
    table.add_row("CPU of the daemon without / with a page", f"{shares[0]:.1%} / {shares[1]:.1%} of one core", "-", how)
    text = f"{shares[1] - shares[0]:+.1%} of one core"
    how = f"the difference; with {len(helpers)} program beside the daemon, which holds {sum(helpers):.0f} MB"
    table.add_row("CPU that one open page costs", text, "< 5 %", how)
    text = f"without {courses[0].grown} MB; with {courses[1].grown} MB"
    table.add_row("memory growth in each quarter", text, "none by the page", "resident set; the session itself grows")
