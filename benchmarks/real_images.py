"""How the finders do on real images with hand marks: ``python -m benchmarks.real_images``.

Prints precision, recall, F1, centre error and time of each image and their macro averages; writes overlays and
lists of detections where ``--out`` says. Does nothing, and says so, where the image folder is absent.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agent.inference import BEST, FALLBACK, build
from benchmarks.marks import Tally, pitch_of, tally
from drivers.images import read_image
from models.detections import HoleDetection, SquareDetection

_CLASSICAL: list[bool] = []  # filled by --classical
_COLOURS = {  # blue, green, red
    "good": (0, 220, 0),
    "thick": (255, 128, 0),
    "thin": (255, 255, 0),
    "empty": (0, 255, 255),
    "broken": (0, 0, 255),
    "dirty": (0, 128, 255),
    "dark": (255, 0, 255),
    "partial": (170, 170, 170),
    "unknown": (255, 255, 255),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What one image gave."""

    stem: str
    score: Tally | None
    pitch_px: float | None
    seconds: float
    found: int


@cache
def _finder(level: Literal["low", "medium"]) -> Any:
    """The finder in use, or the classical one where ``--classical`` asks for it."""
    return build((FALLBACK if _CLASSICAL else BEST)[level])


def detections(level: str, image: NDArray[Any]) -> tuple[list[SquareDetection] | list[HoleDetection], float | None]:
    """What the finder of this level finds, and the pitch that it found."""
    if level == "lowmag":
        squares = _finder("low").find(image)
        return list(squares.squares), squares.pitch_px
    holes = _finder("medium").find(image)
    lattice = holes.lattice
    pitch = float(min(np.hypot(*lattice.a), np.hypot(*lattice.b))) if lattice is not None else None
    return list(holes.holes), pitch


def overlay(image: NDArray[Any], found: list[SquareDetection] | list[HoleDetection]) -> NDArray[np.uint8]:
    """Image with the detections drawn on it, in the colour of their label, inferred holes with a dot."""
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    zoom = max(1, round(1400 / max(grey.shape)))
    grey = cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
    canvas = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)

    def place(x: float, y: float) -> tuple[int, int]:
        return round((x + 0.5) * zoom), round((y + 0.5) * zoom)

    for d in found:
        colour = _COLOURS[d.label]
        if isinstance(d, SquareDetection):
            cv2.polylines(canvas, [np.array([place(*v) for v in d.vertices], np.int32)], True, colour, 1)
            cv2.circle(canvas, place(d.x, d.y), 2, colour, -1)
        else:
            cv2.circle(canvas, place(d.x, d.y), max(2, round(d.radius_px * zoom)), colour, 1)
            if d.inferred:
                cv2.circle(canvas, place(d.x, d.y), 2, colour, -1)
    return np.asarray(canvas, np.uint8)


def plain_list(found: list[SquareDetection] | list[HoleDetection]) -> list[dict[str, Any]]:
    """Detections as JSON objects of x, y, score and, for squares, vertices."""
    rows: list[dict[str, Any]] = []
    for d in found:
        row: dict[str, Any] = {"x": d.x, "y": d.y, "score": d.score, "label": d.label}
        if isinstance(d, SquareDetection):
            row["vertices"] = [list(v) for v in d.vertices]
        rows.append(row)
    return rows


def measure(level: str, path: Path, truth: dict[str, Any] | None, out: Path | None) -> Result:
    """Run one image, score it and write its overlay."""
    image, _ = read_image(path)  # pixel sizes are withheld: finders find their own scale
    begin = time.perf_counter()
    found, found_pitch = detections(level, image)
    seconds = time.perf_counter() - begin
    if out is not None:
        (out / f"{path.stem}.json").write_text(json.dumps(plain_list(found)))
        cv2.imwrite(str(out / f"{path.stem}.png"), overlay(image, found))
    places = np.array([[d.x, d.y] for d in found], float).reshape(-1, 2)
    score = tally(truth, places) if truth is not None else None
    pitch = (pitch_of(truth) if truth is not None else None) or found_pitch
    return Result(path.stem, score, pitch, seconds, len(found))


def table(level: str, results: list[Result]) -> Table:
    """Rich table of the results of one level, macro average last."""
    view = Table(title=level)
    view.add_column("image", width=30, no_wrap=True)
    for name in ("found", "hits", "false", "miss", "P", "R", "F1", "err px", "err/pitch", "s"):
        view.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for r in results:
        t = r.score
        if t is None:
            view.add_row(r.stem, str(r.found), *["-"] * 8, f"{r.seconds:.2f}")
            continue
        error = float(np.mean(t.errors_px)) if t.errors_px else float("nan")
        view.add_row(
            r.stem,
            *(str(n) for n in (r.found, t.hits, t.false, t.missed)),
            *(f"{v:.3f}" for v in (t.precision, t.recall, t.f1)),
            f"{error:.2f}",
            f"{error / r.pitch_px:.3f}" if r.pitch_px else "-",
            f"{r.seconds:.2f}",
        )
    scored = [r.score for r in results if r.score is not None]
    if scored:
        means = [float(np.mean([getattr(t, k) for t in scored])) for k in ("precision", "recall", "f1")]
        view.add_section()
        view.add_row("macro average", *[""] * 4, *(f"{v:.4f}" for v in means), "", "", "")
    return view


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 also where there are no images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=None, help="folder for overlays and detections")
    parser.add_argument("--classical", action="store_true", help="the finders that need no weights")
    options = parser.parse_args(arguments)
    if options.classical:
        _CLASSICAL.append(True)
    data: Path = options.data
    if not (data / "truth").is_dir():
        print(f"{data / 'truth'} is absent: real images are not part of the project; nothing measured")
        return 0
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=124)
    for level in ("lowmag", "medmag"):
        results = []
        for path in sorted((data / level).iterdir()):
            marks = data / "truth" / level / f"{path.stem}.json"
            truth = json.loads(marks.read_text()) if marks.exists() else None
            results.append(measure(level, path, truth, options.out))
        console.print(table(level, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
