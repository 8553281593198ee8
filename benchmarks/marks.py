"""Scoring of detections against hand marks: which mark each detection hits, and what that adds up to.

Holes are paired one to one within a quarter of the lattice pitch (0.35 radius where there is no lattice), squares
by the detection's centre inside the marked polygon; most pairs first, then least distance. Marks that are cut,
hidden or in an ignored region are neither hits nor misses, and detections on them are no false alarms.
"""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Points = NDArray[np.float64]

_PITCH_SHARE, _RADIUS_SHARE, _GROWN = 0.25, 0.35, 1.15
_FAR = 1e6


@dataclass(frozen=True, slots=True)
class Tally:
    """Hits, false alarms and misses of one image, with the centre error of each hit in pixels."""

    hits: int
    false: int
    missed: int
    dropped: int
    errors_px: list[float] = field(default_factory=list)
    missed_at: list[tuple[float, float]] = field(default_factory=list)
    false_at: list[tuple[float, float]] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """Share of the counted detections that hit."""
        return self.hits / (self.hits + self.false) if self.hits + self.false else float(self.missed == 0)

    @property
    def recall(self) -> float:
        """Share of the counted marks that were hit."""
        return self.hits / (self.hits + self.missed) if self.hits + self.missed else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2.0 * self.precision * self.recall / both if both else 0.0


def contains(polygon: Points, points: Points) -> NDArray[np.bool_]:
    """Which of ``points`` (n, 2) lie in ``polygon`` (m, 2)."""
    contour = np.asarray(polygon, np.float32)[:, None, :]
    return np.array([cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0 for x, y in points], bool)


def pitch_of(truth: dict[str, Any]) -> float | None:
    """Shorter lattice vector of a marked image in pixels, or None."""
    lattice = truth.get("lattice")
    if not lattice or "a" not in lattice:
        return None
    return float(min(np.hypot(*lattice["a"]), np.hypot(*lattice["b"])))


def tally(truth: dict[str, Any], found: Points) -> Tally:
    """Score the detections ``found``, shape (n, 2) as (x, y), against one file of hand marks."""
    squares = "squares" in truth
    marks = truth["squares"] if squares else truth["holes"]
    ignored = [np.array(p, float) for p in truth.get("ignore", [])]
    places = np.array([[m["x"], m["y"]] for m in marks], float).reshape(-1, 2)
    free = np.array([m["state"] == "partial" or m.get("visible") is False for m in marks], bool)
    for polygon in ignored:
        free |= contains(polygon, places)
    counted = [m for m, f in zip(marks, free, strict=True) if not f]
    spared = [m for m, f in zip(marks, free, strict=True) if f]
    pairs = _pairs(counted, found, pitch_of(truth), squares)
    paired = {k for _, k in pairs}
    left = np.array([k not in paired for k in range(len(found))], bool)
    excused = _excused(truth, spared, ignored, found, squares)
    at = places[~free]
    hit = {i for i, _ in pairs}
    return Tally(
        hits=len(pairs),
        false=int((left & ~excused).sum()),
        missed=len(counted) - len(pairs),
        dropped=int((left & excused).sum()),
        errors_px=[float(np.hypot(*(at[i] - found[k]))) for i, k in pairs],
        missed_at=[(float(x), float(y)) for i, (x, y) in enumerate(at) if i not in hit],
        false_at=[(float(x), float(y)) for x, y in found[left & ~excused]],
    )


def _pairs(counted: list[dict[str, Any]], found: Points, pitch: float | None, squares: bool) -> list[tuple[int, int]]:
    if not counted or not len(found):
        return []
    at = np.array([[m["x"], m["y"]] for m in counted], float)
    distance = np.hypot(*(at[:, None, :] - found[None, :, :]).transpose(2, 0, 1))
    if squares:
        allowed = np.array([contains(np.array(m["polygon"], float), found) for m in counted])
    else:
        limit = [_PITCH_SHARE * pitch if pitch else _RADIUS_SHARE * m["radius"] for m in counted]
        allowed = distance <= np.array(limit)[:, None]
    rows, columns = linear_sum_assignment(np.where(allowed, distance, _FAR))
    return [(int(i), int(k)) for i, k in zip(rows, columns, strict=True) if allowed[i, k]]


def _excused(
    truth: dict[str, Any], spared: list[dict[str, Any]], ignored: list[Points], found: Points, squares: bool
) -> NDArray[np.bool_]:
    left, top, right, bottom = truth.get("crop") or (0, 0, truth["width"], truth["height"])
    x, y = found.T
    excused = ~((left - 0.5 <= x) & (x <= right - 0.5) & (top - 0.5 <= y) & (y <= bottom - 0.5))
    for polygon in ignored:
        excused |= contains(polygon, found)
    pitch = pitch_of(truth)
    for mark in spared:
        if squares:
            polygon = np.array(mark["polygon"], float)
            middle = polygon.mean(axis=0)
            excused |= contains(middle + (polygon - middle) * _GROWN, found)
        else:
            tolerance = _PITCH_SHARE * pitch if pitch else _RADIUS_SHARE * mark["radius"]
            excused |= np.hypot(x - mark["x"], y - mark["y"]) <= max(tolerance, mark["radius"])
    return np.asarray(excused, bool)
