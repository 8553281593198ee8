"""Simulated sets with known truth at three difficulties, drawn on the fly from fixed seeds.

``easy``: clean grids, well exposed, seen from above. ``middle``: mixed ice, hexagonal foils and meshes, bars in the
frame, tilts to 20 degrees, a tenth of the dose. ``hard``: thick or poor ice, tilts to 45 degrees, contrast inverted in
every second image, uneven light, blur, holes of 3 to 70 pixels radius and openings from 6 pixels, little dose.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen import HoleTruth, Specimen, SpecimenSettings, SquareTruth, View

Difficulty = Literal["easy", "middle", "hard"]
Ice = Literal["mixed", "good", "thick", "poor"]
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "middle", "hard")
_HOLE_ICE: dict[Difficulty, list[Ice]] = {
    "easy": ["good"],
    "middle": ["mixed", "mixed", "good", "thick"],
    "hard": ["thick", "poor", "mixed"],
}
_SQUARE_ICE: dict[Difficulty, list[Ice]] = {
    "easy": ["good", "mixed"],
    "middle": ["mixed", "thick", "poor"],
    "hard": ["thick", "poor"],
}
_MOST_HIDDEN = 0.6
_LEAST_STEP, _LEAST_SIGNAL = 0.025, 4.0  # of the foil's level, in standard errors: below either, a hole is hidden


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its truth.

    Attributes
    ----------
    name
        Difficulty, number and what is special.
    image
        Counts, shape (rows, columns).
    truth
        As hand marks are written (``benchmarks.marks``): ``holes`` or ``squares`` with ``x``, ``y``, ``state``; those
        with state ``partial`` count neither way. And: ``quality`` (0 to 1), ``hidden``, of holes ``radius``.
    session
        Number of the grid that it was taken of.
    """

    name: str
    image: NDArray[Any]
    truth: dict[str, Any]
    session: int


def hole_set(difficulty: Difficulty, count: int = 20, side: int = 1024, seed: int = 2026) -> Iterator[Example]:
    """Medium-mag images of a difficulty; each is of a grid of its own.

    An image in which nobody could see holes tells nothing of a finder: a view that hides more than `_MOST_HIDDEN` of
    its holes, or shows fewer than four, is drawn again.
    """
    for k in range(count):
        for attempt in range(40):
            rng = np.random.default_rng([seed, DIFFICULTIES.index(difficulty), k, attempt])
            example = _hole_example(rng, difficulty, k, side)
            whole = [m for m in example.truth["holes"] if m["state"] != "partial"]
            hidden = sum(m["hidden"] for m in whole)
            if len(whole) - hidden >= 4 and hidden <= _MOST_HIDDEN * len(whole):
                break
        yield example


def square_set(difficulty: Difficulty, count: int = 16, side: int = 1024, seed: int = 2026) -> Iterator[Example]:
    """Low-mag images of a difficulty; each is of a grid of its own."""
    for k in range(count):
        rng = np.random.default_rng([seed, 50 + DIFFICULTIES.index(difficulty), k])
        yield _square_example(rng, difficulty, k, side)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _hole_example(rng: np.random.Generator, difficulty: Difficulty, k: int, side: int) -> Example:
    hard, easy = difficulty == "hard", difficulty == "easy"
    diameter = float(rng.choice([1.2, 2.0, 2.0, 3.5]))
    ice = _HOLE_ICE[difficulty]
    lattice: Literal["square", "hexagonal"] = "hexagonal" if not easy and rng.uniform() < 0.3 else "square"
    grid = Specimen(
        SpecimenSettings(
            seed=int(rng.integers(2**31)),
            grid_radius_um=160.0,
            foil="gold" if rng.uniform() < 0.3 else "carbon",
            lattice=lattice,
            hole_diameter_um=diameter,
            hole_pitch_um=diameter * float(rng.choice([1.6, 2.0, 2.0, 2.5])),
            ice=ice[k % len(ice)],
            inverted=hard and k % 2 == 1,
        )
    )
    low, high = {"easy": (5.0, 45.0), "middle": (3.6, 60.0), "hard": (3.2, 70.0)}[difficulty]
    radius_px = _log_uniform(rng, low, high)
    pixel = diameter * 1e4 / 2 / radius_px
    side = min(side, int(2.2e6 / pixel))  # a medium-mag frame shows a square and parts of its neighbours
    alive = [s for s in grid.squares if s.state not in ("dark",) and _intact(grid, s)] or list(grid.squares)
    square = alive[int(rng.integers(len(alive)))]
    reach = {"easy": 6.0, "middle": 22.0, "hard": 30.0}[difficulty]
    dose = {"easy": (3000.0, 12000.0), "middle": (300.0, 3000.0), "hard": (80.0, 800.0)}[difficulty]
    tilt = 0.0 if easy else float(rng.choice([0.0, rng.uniform(0, 20 if not hard else 45)]))
    view = View(
        square.x_um + float(rng.uniform(-reach, reach)),
        square.y_um + float(rng.uniform(-reach, reach)),
        pixel,
        (side, side),
        rotation_deg=float(rng.uniform(0, 360)),
        tilt_deg=tilt,
        defocus_um=0.0 if easy else float(rng.uniform(0, 150)),
        dose_e_per_a2=_log_uniform(rng, *dose) / pixel**2,
        frame_seed=k,
    )
    image: NDArray[Any] = grid.render(view)
    marks = _hole_marks(grid, view, image)
    if hard:
        image = _worn(rng, image)
    name = f"{difficulty} {k:02d} r {radius_px:.1f} px {lattice}" + (f" tilt {tilt:.0f}" if tilt else "")
    rows, columns = image.shape
    truth = {"holes": marks, "width": columns, "height": rows, "level": "medmag", "lattice": _vectors(grid, view)}
    return Example(name, image, truth, k)


def _intact(grid: Specimen, square: SquareTruth) -> bool:
    holes = grid.holes(square.index)
    return len(holes) >= 9 and sum(hole.state != "broken" for hole in holes) > 0.5 * len(holes)


def _vectors(grid: Specimen, view: View) -> dict[str, list[float]]:
    """Two vectors as long as the lattice's shorter one, as the tolerance needs it."""
    pitch = grid.settings.hole_pitch_um / view.pixel_size_um * math.cos(math.radians(view.tilt_deg))
    return {"a": [pitch, 0.0], "b": [0.0, pitch]}


def _hole_marks(grid: Specimen, view: View, image: NDArray[Any]) -> list[dict[str, Any]]:
    rows, columns = view.shape
    marks: list[dict[str, Any]] = []
    for square in grid.squares:
        if math.hypot(square.x_um - view.x_um, square.y_um - view.y_um) > view.reach_um + 90:
            continue
        for hole in grid.holes(square.index):
            x, y = grid.stage_to_pixel(view, hole.x_um, hole.y_um)
            radius = hole.radius_um / view.pixel_size_um
            if -radius < x < columns + radius and -radius < y < rows + radius:
                marks.append(_hole_mark(hole, x, y, radius, image))
        for x_um, y_um, radius_um in grid.cut_holes(square.index):
            x, y = grid.stage_to_pixel(view, float(x_um), float(y_um))
            radius = float(radius_um) / view.pixel_size_um
            if -radius < x < columns + radius and -radius < y < rows + radius:
                marks.append({"x": x, "y": y, "radius": radius, "state": "partial", "quality": 0.0, "hidden": False})
    return marks


def _hole_mark(hole: HoleTruth, x: float, y: float, radius: float, image: NDArray[Any]) -> dict[str, Any]:
    rows, columns = image.shape
    whole = radius <= x <= columns - 1 - radius and radius <= y <= rows - 1 - radius
    state = hole.state if whole and hole.state != "broken" else "partial"
    return {
        "x": x,
        "y": y,
        "radius": radius,
        "state": state,
        "is": hole.state,
        "quality": hole.quality,
        "hidden": whole and _hidden(image, x, y, radius),
    }


def _hidden(image: NDArray[Any], x: float, y: float, radius: float) -> bool:
    """Whether the step from foil to hole is lost in noise or below a fortieth of the level."""
    reach = math.ceil(1.5 * radius)
    left, top = max(0, round(x) - reach), max(0, round(y) - reach)
    part = image[top : round(y) + reach + 1, left : round(x) + reach + 1].astype(np.float64)
    v, u = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]]
    r = np.hypot(u - x, v - y)
    inner, ring = part[r < 0.75 * radius], part[(r > 1.15 * radius) & (r < 1.5 * radius)]
    if len(inner) < 3 or len(ring) < 3:
        return False
    step = abs(float(inner.mean() - ring.mean()))
    error = math.sqrt(float(inner.var()) / len(inner) + float(ring.var()) / len(ring))
    return step < _LEAST_STEP * max(float(ring.mean()), 1e-9) or step < _LEAST_SIGNAL * error


def _worn(rng: np.random.Generator, image: NDArray[Any]) -> NDArray[np.float32]:
    """Uneven light, a blur of up to a pixel, and 8 bits, as exported images have."""
    rows, columns = image.shape
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) / np.float32(max(rows, columns)) - np.float32(0.5)
    light = 1 + np.float32(rng.uniform(-0.5, 0.5)) * x + np.float32(rng.uniform(-0.5, 0.5)) * y
    soft = cv2.GaussianBlur(image.astype(np.float32) * light, (0, 0), float(rng.uniform(0.3, 1.0)))
    low, high = np.percentile(soft, (0.1, 99.9))
    return np.asarray(np.rint(np.clip((soft - low) / max(float(high - low), 1e-9), 0, 1) * 255), np.float32)


def _square_example(rng: np.random.Generator, difficulty: Difficulty, k: int, side: int) -> Example:
    hard, easy = difficulty == "hard", difficulty == "easy"
    ice = _SQUARE_ICE[difficulty]
    pitch = float(rng.choice([85.0, 127.0, 127.0]))
    opening_px = _log_uniform(rng, *{"easy": (40.0, 150.0), "middle": (16.0, 120.0), "hard": (6.0, 60.0)}[difficulty])
    bar = float(rng.uniform(25, 40))
    pixel = (pitch - bar) * 1e4 / opening_px
    mesh: Literal["square", "hexagonal"] = "hexagonal" if not easy and k % 4 == 3 else "square"
    field_um = side * pixel / 1e4
    grid = Specimen(
        SpecimenSettings(
            seed=int(rng.integers(2**31)),
            grid_radius_um=min(1000.0, 0.75 * field_um + 60),
            mesh=mesh,
            mesh_pitch_um=pitch,
            bar_um=bar,
            ice=ice[k % len(ice)],
            hole_diameter_um=2.0,
            hole_pitch_um=4.0,
        )
    )
    shape = (side, side) if field_um <= 2400 else (int(2.4e7 / pixel),) * 2
    dose = {"easy": (1000.0, 4000.0), "middle": (150.0, 1000.0), "hard": (30.0, 300.0)}[difficulty]
    view = View(
        float(rng.uniform(-60, 60)),
        float(rng.uniform(-60, 60)),
        pixel,
        shape,
        rotation_deg=float(rng.uniform(0, 90)),
        tilt_deg=float(rng.uniform(0, 30)) if hard else 0.0,
        dose_e_per_a2=_log_uniform(rng, *dose) / pixel**2,
        frame_seed=k,
    )
    image: NDArray[Any] = grid.render(view)
    marks = square_marks(grid, view, image)
    if hard:
        image = _worn(rng, image)
    rows, columns = image.shape
    truth = {"squares": marks, "width": columns, "height": rows, "level": "lowmag"}
    return Example(f"{difficulty} {k:02d} {opening_px:.0f} px {mesh} {ice[k % len(ice)]}", image, truth, k)


def square_marks(grid: Specimen, view: View, image: NDArray[Any]) -> list[dict[str, Any]]:
    """Marks of all openings that touch the frame; those that are cut, or as dark as the bars, count neither way."""
    rows, columns = view.shape
    bars = float(np.percentile(image, 2))
    marks: list[dict[str, Any]] = []
    for square in grid.squares:
        corners = np.array([grid.stage_to_pixel(view, x, y) for x, y in square.vertices_um])
        x, y = grid.stage_to_pixel(view, square.x_um, square.y_um)
        low, high = corners.min(axis=0), corners.max(axis=0)
        if high[0] < 0 or high[1] < 0 or low[0] > columns or low[1] > rows:
            continue
        cut = low[0] < 0 or low[1] < 0 or high[0] > columns - 1 or high[1] > rows - 1
        mask = np.zeros(view.shape, np.uint8)
        cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
        part = image[mask > 0]
        level = float(part.mean()) if len(part) else bars
        noise = math.sqrt(max(level, 1.0) / max(1, len(part)))
        seen = level - bars > 0.04 * float(np.percentile(image, 98)) and level - bars > 5 * noise
        marks.append(
            {
                "x": x,
                "y": y,
                "polygon": corners.tolist(),
                "state": "partial" if cut or not seen else square.state,
                "is": square.state,
                "quality": square.quality,
                "hidden": not seen,
            }
        )
    return marks
