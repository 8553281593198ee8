"""How the finders do on simulated sets with known truth: ``python -m benchmarks.finders``.

Recall and precision at three difficulties, what the lattice adds, time with its parts, memory, growth with pixels,
a cold start, and the published figures beside ours. ``--only`` picks parts, ``--count`` the images of each set.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import tifffile
from rich.console import Console
from rich.table import Table

from agent.inference import BEST, build
from benchmarks.finder_ranking import area_under, matched, ranked_holes, ranked_squares
from benchmarks.finder_sets import DIFFICULTIES, Example, hole_set, square_set
from benchmarks.marks import tally
from models import runtime
from models.conditions import Conditions

GOALS: dict[str, dict[str, tuple[float, float | None]]] = {
    "holes": {"easy": (0.995, 0.99), "middle": (0.98, 0.97), "hard": (0.93, 0.90)},
    "squares": {"easy": (0.995, None), "middle": (0.985, None), "hard": (0.95, None)},
}
PARTS = ("holes", "squares", "ranking", "speed", "growth", "cold", "published")
console = Console(width=150)


@dataclass
class Sum:
    """Counts over a set."""

    hits: int = 0
    false: int = 0
    missed: int = 0
    missed_before: int = 0
    hidden: int = 0
    hidden_found: int = 0
    recalls: list[float] = field(default_factory=list)
    precisions: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    @property
    def recall(self) -> float:
        """Share of the holes or squares that were found, mean over the images."""
        return float(np.mean(self.recalls))

    @property
    def precision(self) -> float:
        """Share of what was found that is there, mean over the images."""
        return float(np.mean(self.precisions))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """OpenCV and networks with so many threads."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    runtime.configure(runtime.Options(threads=count))
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def places(items: Any) -> Any:
    """Positions of detections, shape (n, 2)."""
    return np.array([[item.x, item.y] for item in items], float).reshape(-1, 2)


def alone(hole: Any) -> bool:
    """Whether a hole needs no lattice: seen, and where a network says how surely, with a chance of a half or more."""
    return not hole.inferred and ("promise" not in hole.features or hole.features["correlation"] >= 0.5)


def over_set(model: Any, examples: Iterator[Example], what: str, say: bool) -> Sum:
    """Score a finder on a set."""
    total = Sum()
    for example in examples:
        begun = time.process_time()
        found = model.find(example.image)
        total.cpu_s.append(time.process_time() - begun)
        items = found.holes if what == "holes" else found.squares
        score = tally(example.truth, places(items))
        total.hits += score.hits
        total.false += score.false
        total.missed += score.missed
        total.recalls.append(score.recall)
        total.precisions.append(score.precision)
        if what == "holes":
            seen = tally(example.truth, places([item for item in items if alone(item)]))
            total.missed_before += seen.missed
            hidden = [mark for mark in example.truth["holes"] if mark["hidden"] and mark["state"] != "partial"]
            only = tally(example.truth | {"holes": hidden}, places(items))
            total.hidden += len(hidden)
            total.hidden_found += only.hits
            pitch = float(np.hypot(*example.truth["lattice"]["a"]))
            total.errors += [error / pitch for error in score.errors_px]
        if say:
            text = f"{example.name:44s} there {score.hits + score.missed:5d}  missed {score.missed:4d}"
            console.print(f"{text}  false {score.false:4d}  {total.cpu_s[-1]:.2f} cpu s  {found.note}")
    return total


def sets(what: str, names: list[str], count: int, say: bool, seed: int) -> None:
    """Print recall and precision at three difficulties."""
    view = Table(title=f"{what}: simulated sets of {count} images each, means over images (goals in brackets)")
    for name in ("finder", "set", "there", "recall", "precision", "of all: recall"):
        view.add_column(name, justify="right" if name not in ("finder", "set") else "left")
    if what == "holes":
        for name in ("missed, alone", "missed, with lattice", "cut by", "hidden found", "error / pitch"):
            view.add_column(name, justify="right")
    view.add_column("cpu s", justify="right")
    make = hole_set if what == "holes" else square_set
    for name in names:
        model: Any = build(name)
        for difficulty in DIFFICULTIES:
            s = over_set(model, make(difficulty, count, seed=seed), what, say)
            there = s.hits + s.missed
            recall_goal, precision_goal = GOALS[what][difficulty]
            row = [name, difficulty, str(there), f"{s.recall:.4f} ({recall_goal})"]
            row.append(f"{s.precision:.4f}" + (f" ({precision_goal})" if precision_goal else ""))
            row.append(f"{s.hits / max(1, there):.4f}")
            if what == "holes":
                cut = 1 - s.missed / s.missed_before if s.missed_before else 0.0
                row += [f"{s.missed_before / there:.2%}", f"{s.missed / there:.2%}", f"{cut:.0%}"]
                row += [f"{s.hidden_found}/{s.hidden}", f"{float(np.mean(s.errors or [0.0])):.4f}"]
            view.add_row(*row, f"{np.mean(s.cpu_s):.3f}")
    console.print(view)


def ranking(count: int) -> None:
    """Print how well scores rank against the true quality, on simulated grids that no training saw."""
    scores: dict[str, tuple[list[float], list[float], list[float]]] = {}

    def note(name: str, truth: Any, items: Any, quality: list[float]) -> None:
        every, good, within = scores.setdefault(name, ([], [], []))
        pairs = [(d.score, q) for d, q in matched(truth, items, quality)]
        every += [score for score, _ in pairs]
        good += [q for _, q in pairs]
        within.append(area_under([score for score, _ in pairs], [q for _, q in pairs]))

    holes: Any = build(BEST["medium"])
    for scene in ranked_holes(count):
        known = Conditions(open_beam=scene.open_beam, voltage_kv=300.0)
        note("holes, by the frame's own greys", scene.holes, holes.find(scene.image).holes, scene.quality)
        note("holes, with the open beam", scene.holes, holes.find(scene.image, None, known).holes, scene.quality)
    for name in ("squares-mixture", "squares-net"):
        finder: Any = build(name)
        for example in ranked_squares(count):
            marks = [m for m in example.truth["squares"] if m["state"] != "partial"]
            at = np.array([[m["x"], m["y"]] for m in marks]).reshape(-1, 2)
            note(f"squares, {name}", at, finder.find(example.image).squares, [m["quality"] for m in marks])
    view = Table(title=f"area under the curve of scores (quality at least 0.5), {count} grids of a seed of their own")
    for name in ("scores", "found", "good", "all frames", "within a frame (mean)"):
        view.add_column(name, justify="left" if name == "scores" else "right")
    for name, (every, good, within) in scores.items():
        own = [v for v in within if np.isfinite(v)]
        row = [str(len(every)), f"{np.mean(np.array(good) >= 0.5):.0%}", f"{area_under(every, good):.3f}"]
        view.add_row(name, *row, f"{float(np.mean(own)):.3f} ({len(own)})" if own else "-")
    console.print(view)


def timed(work: Callable[[], Any], rounds: int = 7) -> tuple[float, float]:
    """Least wall time and least CPU time of several rounds, in milliseconds."""
    wall, cpu = [], []
    for _ in range(rounds):
        a, b = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - a)
        cpu.append(time.process_time() - b)
    return 1000 * min(wall), 1000 * min(cpu)


def speed(holes: list[str], squares: list[str]) -> None:
    """Print time and memory on 1024 x 1024 images, two threads, weights loaded."""
    view = Table(title="1024 x 1024, two threads, weights loaded: least of 7 (goals: holes 120 ms, squares 80 ms)")
    for name in ("finder", "image", "found", "wall ms", "cpu ms", "times Ptolemy's own", "peak MB of this process"):
        view.add_column(name, justify="left" if name in ("finder", "image") else "right")
    with threads(2):
        for what, names, theirs in (("holes", holes, 4100.0), ("squares", squares, 2700.0)):
            make = hole_set if what == "holes" else square_set
            images = [e for d in DIFFICULTIES for e in make(d, 6) if e.image.shape == (1024, 1024)][:6]
            for name in names:
                model: Any = build(name)
                for example in images:
                    items = model.find(example.image)
                    wall, cpu = timed(lambda m=model, e=example: m.find(e.image))  # type: ignore[misc]
                    number = len(items.holes if what == "holes" else items.squares)
                    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                    row = [name, example.name, str(number), f"{wall:.0f}", f"{cpu:.0f}"]
                    view.add_row(*row, f"{theirs / wall:.0f} x", f"{peak:.0f}")
    console.print(view)
    console.print("Ptolemy's own: 4.1 s (holes) and 2.7 s (squares) for such images, quiet machine, two threads.")


def growth(holes: list[str], squares: list[str]) -> None:
    """Print time against the number of pixels."""
    view = Table(title="growth with pixels (cpu ms, least of 3)")
    view.add_column("finder")
    sides = (512, 1024, 2048, 4096)
    for side in sides:
        view.add_column(f"{side}²", justify="right")
    view.add_column("per pixel, 4096 against 1024", justify="right")
    with threads(2):
        for what, names in (("holes", holes), ("squares", squares)):
            make = hole_set if what == "holes" else square_set
            base = next(e for e in make("middle", 8) if e.image.shape == (1024, 1024)).image
            for name in names:
                model: Any = build(name)
                cpu = []
                for side in sides:
                    image = cv2.resize(base.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
                    cpu.append(timed(lambda m=model, i=image: m.find(i), 3)[1])  # type: ignore[misc]
                view.add_row(name, *(f"{c:.0f}" for c in cpu), f"{cpu[3] / cpu[1] / 16:.2f}")
    console.print(view)


def cold() -> None:
    """Print how long the whole command takes from nothing."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "hole.tif"
        tifffile.imwrite(file, next(hole_set("easy", 1)).image)
        for what in ("holes", "squares"):
            command = [sys.executable, "-m", "agent.cli", "find", what, str(file), "--format", "json", "--out", folder]
            command[1:3] = ["-c", "from agent.cli import main; main()"]
            wall, cpu = [], []
            for _ in range(3):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                begun = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                wall.append(time.perf_counter() - begun)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            console.print(
                f"cold `cryonaut find {what} FILE`: {min(wall):.2f} s wall, {min(cpu):.2f} s cpu (goal 1.5 s)"
            )


def published() -> None:
    """Print Ptolemy's published and measured figures, to stand beside ours."""
    view = Table(title="Ptolemy (Kim et al., IUCrJ 10, 90, 2023) beside the tables above")
    view.add_column("what")
    view.add_column("figure")
    for what, figure in (
        ("squares: share of those that operators chose found, 1304 images", "0.988"),
        ("holes, held-out sessions, U-Net alone: recall, precision (operators' choices)", "0.984, 0.703"),
        ("holes, misses before and after the lattice fit", "1.6 % -> 0.7 %"),
        ("holes, data of Yokoyama et al.: precision, recall, F1", "0.685, 0.950, 0.796"),
        ("its public code on such simulated images, its own scale: recall easy, middle, hard", "1.00, 0.93, 0.16"),
        ("its public code, mixed scales: recall middle, hard", "0.06, 0.01"),
        ("its public code, squares: F1 easy, middle", "1.00, 0.974"),
    ):
        view.add_row(what, figure)
    console.print(view)


def main() -> None:
    """Run the parts that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; may be given again (default: all)")
    parser.add_argument("--count", type=int, default=16, help="images in each set")
    parser.add_argument("--seed", type=int, default=2026, help="of the sets; finders were made while looking at 2026")
    parser.add_argument("--holes", default="holes-net,holes-template", help="hole finders, with commas")
    parser.add_argument("--squares", default="squares-net", help="square finders, with commas")
    parser.add_argument("--images", action="store_true", help="a line for each image")
    given = parser.parse_args()
    holes, squares = given.holes.split(","), given.squares.split(",")
    for part in given.only or PARTS:
        if part in ("holes", "squares"):
            sets(part, holes if part == "holes" else squares, given.count, given.images, given.seed)
        elif part == "ranking":
            ranking(3 * given.count)
        elif part in ("speed", "growth"):
            (speed if part == "speed" else growth)(holes, squares)
        else:
            (cold if part == "cold" else published)()


if __name__ == "__main__":
    main()
