"""What Leginon does with squares: places them on the atlas, merges doubles of tile overlaps, puts them in an order."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]
FEWEST = 10  # squares; with fewer, or on one or two tiles, nothing is merged


@dataclass(frozen=True, slots=True)
class Target:
    """One square target: Leginon's ids, its place on the stage, its score."""

    square_id: int
    tile_id: int
    grid_id: int
    x_um: float
    y_um: float
    area_um2: float
    brightness: float
    score: float


def merged(targets: list[Target], tiles: int, warnings: list[str]) -> list[Target]:
    """Targets without doubles: of each pair nearer than sqrt(90th percentile of the area) the better one is kept.

    The 10 % dimmest are left out of the percentile. A distance that reaches the pitch of the squares would make Leginon
    merge without end: that is a warning.
    """
    if tiles <= 2 or len(targets) < FEWEST:
        return targets
    bright = np.array([t.brightness for t in targets])
    areas = np.array([t.area_um2 for t in targets])[bright >= np.percentile(bright, 10)]
    reach = math.sqrt(float(np.percentile(areas, 90)))
    kept: list[Target] = []
    for target in sorted(targets, key=lambda t: -t.score):
        if all(math.hypot(target.x_um - k.x_um, target.y_um - k.y_um) >= reach for k in kept):
            kept.append(target)
    pitch = _pitch([(t.x_um, t.y_um) for t in kept])
    if reach > 0.9 * pitch:
        warnings.append(f"squares are merged up to {reach:.0f} µm, their pitch is {pitch:.0f} µm: Leginon merges all")
    return kept


def _pitch(points: list[tuple[float, float]]) -> float:
    if len(points) < 2:
        return math.inf
    gaps = [min(math.dist(p, q) for q in points if q is not p) for p in points]
    return float(np.median(gaps))


def ordered(targets: list[Target], scores: dict[int, float]) -> list[int]:
    """Square ids by the integers that Leginon makes of scores, highest first; what has no score comes last."""
    coded = {t.square_id: int(1000 * scores.get(t.square_id, -1.0)) for t in targets}
    return sorted(coded, key=lambda square_id: (-coded[square_id], square_id))
