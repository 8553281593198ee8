"""Where bars and torn film are, once some holes are sure: a learned finder sees holes in their noise."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.holes.prepare import Plane, Working

Floats = NDArray[np.float64]

_INNER, _FROM, _TO = 0.7, 1.15, 1.5  # radii: half sides of the squares whose means stand for a hole and its ring
_SHOWS = 0.12  # of the usual step: below it, noise may be all that stands there
_NEARLY_ALL = 2.0, 98.0  # percentiles


@dataclass(frozen=True, slots=True)
class Bars:
    """What is round the holes of a lattice, and so what is no foil.

    Attributes
    ----------
    hole, ring
        Mean of what a hole at each pixel would cover and of what is round it, working counts.
    low, high
        Between which the rings of nearly all sure holes are.
    step
        Usual step from ring to hole, 0 or more.
    sign
        1 when holes are brighter than the foil.
    """

    hole: Plane
    ring: Plane
    low: float
    high: float
    step: float
    sign: int

    @classmethod
    def beside(cls, work: Working, holes: Floats, radius: float, sign: int) -> "Bars":
        """Bars beside sure ``holes`` (n, 2) of ``radius``; working pixels."""
        inner, middle, outer = (_sums(work, radius * share) for share in (_INNER, _FROM, _TO))
        hole = np.asarray(inner[0] / np.maximum(inner[1], 1.0), np.float32)
        ring = np.asarray((outer[0] - middle[0]) / np.maximum(outer[1] - middle[1], 1.0), np.float32)
        planes = cls(hole, ring, 0.0, 0.0, 0.0, sign)
        levels, steps = planes._at(holes)
        low, high = np.percentile(levels, _NEARLY_ALL)
        return cls(hole, ring, float(low), float(high), max(float(np.median(steps)), 0.0), sign)

    def at(self, points: Floats) -> NDArray[np.bool_]:
        """Whether each of ``points`` (n, 2) is on a bar or on torn film: no foil is round it, and no hole shows."""
        level, step = self._at(points)
        outside = (level < self.low - self.step) | (level > self.high + self.step)
        return np.asarray(outside & (step < _SHOWS * self.step))

    def _at(self, points: Floats) -> tuple[Floats, Floats]:
        """Level of the ring and step to the hole at ``points`` (n, 2)."""
        rows, columns = self.ring.shape
        column, row = np.rint(points).astype(np.int64).T.reshape(2, -1)
        at = row.clip(0, rows - 1), column.clip(0, columns - 1)
        return self.ring[at].astype(np.float64), self.sign * (self.hole[at] - self.ring[at]).astype(np.float64)


def _sums(work: Working, half: float) -> tuple[Plane, Plane]:
    """Sum of the values, and number of pixels that count, in a square about each pixel."""
    side = 2 * max(1, round(half)) + 1

    def total(plane: Plane) -> Plane:
        summed = cv2.boxFilter(plane, cv2.CV_32F, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(summed, np.float32)

    return total(work.values * work.seen), total(work.seen)
