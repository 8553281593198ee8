"""The field's rule for finding squares and holes: selected locations against predicted regions, one to one.

A selected location is found when exactly one predicted region holds it and that region holds no other location. A
region with none or several locations is a false positive; a location in no region, in several, or only in such a bad
one is missed (Kim et al., Ptolemy, 2023, section on hole localisation). Locations that operators picked are
incomplete, so precision is a lower bound there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2), each (x, y)


@dataclass(frozen=True, slots=True)
class Counts:
    """Hits, false positives and misses; ``+`` adds those of another image of the same session."""

    hits: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.hits + other.hits, self.false + other.false, self.missed + other.missed)

    @property
    def precision(self) -> float | None:
        """Share of the regions that hit; None without a region."""
        return self.hits / (self.hits + self.false) if self.hits + self.false else None

    @property
    def recall(self) -> float | None:
        """Share of the locations that were hit; None without a location."""
        return self.hits / (self.hits + self.missed) if self.hits + self.missed else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of both; None where there is neither a region nor a location."""
        total = 2 * self.hits + self.false + self.missed
        return 2 * self.hits / total if total else None


def one_to_one(inside: NDArray[np.bool_]) -> tuple[Counts, list[tuple[int, int]]]:
    """Counts by the rule, and the pairs (location, region) that hit.

    Parameters
    ----------
    inside
        Shape (locations, regions): whether the location lies in the region.
    """
    alone = inside.sum(axis=1) == 1
    single = inside.sum(axis=0) == 1
    pairs = [(int(i), int(j)) for i, j in zip(*np.nonzero(inside & alone[:, None] & single[None, :]), strict=True)]
    locations, regions = inside.shape
    return Counts(len(pairs), regions - len(pairs), locations - len(pairs)), pairs


def in_discs(locations: Points, centres: Points, radii: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which locations (n, 2) lie in which discs: shape (n, m); the rim counts as inside."""
    if len(locations) == 0 or len(centres) == 0:
        return np.zeros((len(locations), len(centres)), bool)
    away = np.hypot(*(locations[:, None, :] - centres[None, :, :]).transpose(2, 0, 1))
    return np.asarray(away <= radii[None, :])


def in_polygons(locations: Points, polygons: Sequence[Points]) -> NDArray[np.bool_]:
    """Which locations (n, 2) lie in which polygons: shape (n, m)."""
    found = np.zeros((len(locations), len(polygons)), bool)
    for column, polygon in enumerate(polygons):
        contour = np.asarray(polygon, np.float32).reshape(-1, 1, 2)
        for row, (x, y) in enumerate(locations):
            found[row, column] = cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0
    return found


def overlap(one: Points, other: Points) -> float:
    """Intersection over union of two convex polygons."""
    a, b = (cv2.convexHull(np.asarray(p, np.float32).reshape(-1, 1, 2)) for p in (one, other))
    shared, _ = cv2.intersectConvexConvex(a, b)
    union = cv2.contourArea(a) + cv2.contourArea(b) - shared
    return float(shared / union) if union > 0 else 0.0
