"""Simulated grids with the true quality of squares and holes, to see how well scores rank them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.finder_sets import Example, square_set
from simulators.specimen import Specimen, SpecimenSettings, View, detector

SEED = 4099  # of no training and no other set
GOOD = 0.5
_ICE = ("mixed", "good", "thick", "mixed", "poor")


@dataclass(frozen=True, slots=True)
class RankedHoles:
    """A medium-mag frame in counts, its whole holes (n, 2) as (x, y), their quality, the counts of the open beam."""

    image: NDArray[Any]
    holes: NDArray[np.float64]
    quality: list[float]
    open_beam: float


def ranked_holes(count: int, side: int = 640) -> Iterator[RankedHoles]:
    """Frames of ``count`` grids of all kinds of ice, carbon and gold."""
    for number in range(count):
        rng = np.random.default_rng([SEED, number])
        diameter = float(rng.choice([1.2, 2.0, 2.0, 3.5]))
        grid = Specimen(
            SpecimenSettings(
                seed=int(rng.integers(2**31)),
                grid_radius_um=160.0,
                foil="gold" if rng.uniform() < 0.4 else "carbon",
                hole_diameter_um=diameter,
                hole_pitch_um=diameter * float(rng.choice([1.6, 2.0, 2.5])),
                ice=_ICE[number % len(_ICE)],  # type: ignore[arg-type]
            )
        )
        alive = [s for s in grid.squares if s.state != "dark"] or list(grid.squares)
        square = alive[int(rng.integers(len(alive)))]
        pixel = diameter * 1e4 / 2 / float(np.exp(rng.uniform(np.log(5.0), np.log(25.0))))
        dose = float(np.exp(rng.uniform(np.log(150.0), np.log(8000.0)))) / pixel**2
        dx, dy = rng.uniform(-20, 20, 2)
        view = View(
            square.x_um + float(dx),
            square.y_um + float(dy),
            pixel,
            (side, side),
            rotation_deg=float(rng.uniform(0, 360)),
            defocus_um=float(rng.uniform(0, 150)),
            dose_e_per_a2=dose,
            frame_seed=number,
        )
        near = [s for s in grid.squares if math.hypot(s.x_um - view.x_um, s.y_um - view.y_um) < view.reach_um + 90]
        known = [hole for s in near for hole in grid.holes(s.index) if hole.state != "broken"]
        at = np.array([grid.stage_to_pixel(view, h.x_um, h.y_um) for h in known]).reshape(-1, 2)
        radius = diameter * 1e4 / 2 / pixel
        whole = np.asarray(((at > radius) & (at < side - 1 - radius)).all(axis=1), bool)
        if whole.sum() >= 4:
            quality = [h.quality for h, inside in zip(known, whole.tolist(), strict=True) if inside]
            open_beam = detector.camera_gain(dose, pixel) * dose * pixel**2
            yield RankedHoles(grid.render(view), at[whole], quality, open_beam)


def ranked_squares(count: int) -> Iterator[Example]:
    """Low-mag frames of ``count`` grids of middle difficulty."""
    yield from square_set("middle", count, seed=SEED)


def matched(truth: NDArray[np.float64], items: Sequence[Any], quality: list[float]) -> list[tuple[Any, float]]:
    """Detections with the quality of the truth (n, 2) that each is nearest to, those within a third of its distance."""
    if len(truth) < 2 or not items:
        return []
    gap = np.hypot(*(truth[:, None] - truth[None]).transpose(2, 0, 1))
    reach = 0.33 * float(np.median(np.where(gap > 0, gap, np.inf).min(axis=1)))
    pairs = []
    for item in items:
        away = np.hypot(*(truth - np.array([item.x, item.y])).T)
        if away.min() < reach:
            pairs.append((item, quality[int(away.argmin())]))
    return pairs


def area_under(scores: Sequence[float], quality: Sequence[float]) -> float:
    """Chance that a good one has a higher score than one that is not; NaN where all are of one kind."""
    good = np.array(quality) >= GOOD
    if not 0 < good.sum() < len(good):
        return math.nan
    rank = rankdata(np.array(scores))
    return float((rank[good].sum() - good.sum() * (good.sum() + 1) / 2) / (good.sum() * (~good).sum()))
