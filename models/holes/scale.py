"""How large the holes are: every radius and both contrasts are tried, and what each explains is measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.holes.prepare import Working
from models.holes.template import match, match_rim, peaks

_WORK_RADIUS = 6.0  # the frame is reduced until the template has this radius
_STEP = 1.2  # ratio of one radius to the next
_NEAR = 1.5  # ratio up to which a radius is near another
_SMALLEST, _LARGEST = 2.2, 0.3  # pixels; share of the shorter side
_DARK_PENALTY = 0.6  # holes are brighter than the foil, nearly always
_OUTSIDE = 0.4  # of the radius: how far outside the frame a centre may lie
_RIM_RADIUS, _SMALLEST_RIM, _LEAST_RIM, _STRONG_RIM = 10.0, 10.0, 0.22, 0.5
_MOST_POINTS = 1500


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Holes of one radius and contrast.

    Attributes
    ----------
    radius
        In working pixels.
    sign
        1: brighter than the foil; -1: darker; 0: seen by their rims alone.
    points, heights
        Centres (n, 2) as (x, y) in working pixels, and their correlations (n,), highest first.
    """

    radius: float
    sign: int
    points: NDArray[np.float64]
    heights: NDArray[np.float64]

    def chosen(self, those: NDArray[np.bool_]) -> "Hypothesis":
        """The same with some of its points."""
        return Hypothesis(self.radius, self.sign, self.points[those], self.heights[those])

    def explained(self, area: float, chosen: NDArray[np.bool_] | None = None) -> float:
        """Share of ``area`` pixels that these holes explain, each weighted by its correlation."""
        heights = self.heights if chosen is None else self.heights[chosen]
        weight = 1.0 if self.sign > 0 else _DARK_PENALTY
        return float((heights**4).sum() * np.pi * self.radius**2 / area * weight)


def noise_level(radius: float) -> float:
    """Correlation that white noise hardly ever reaches with a hole of ``radius`` pixels."""
    return float(max(0.42, 3.2 / np.sqrt(0.92 * np.pi * (1.45 * radius) ** 2)))


def _radii(smallest: float, largest: float, near: Sequence[float] | None) -> list[float]:
    """Radii to be tried, working pixels: all, or those that are near one of some."""
    radii, radius = [], smallest
    while radius <= largest:
        radii.append(radius)
        radius *= _STEP
    return radii if near is None else [r for r in radii if any(abs(np.log(r / n)) < np.log(_NEAR) for n in near)]


def rim_hypotheses(work: Working, near: Sequence[float] | None = None) -> list[Hypothesis]:
    """One hypothesis for each radius at which steps in the frame form circles, whatever their contrast.

    With ``near``, only radii near one of these (working pixels) are tried.
    """
    found: list[Hypothesis] = []
    for radius in _radii(_SMALLEST_RIM, _LARGEST * min(work.values.shape), near):
        values, seen, k = work.shrunk(_RIM_RADIUS / radius)
        pad = round(_OUTSIDE * radius * k)
        values, seen = np.pad(values, pad, mode="edge"), np.pad(seen, pad)
        points, heights = peaks(match_rim(values, seen, radius * k), _LEAST_RIM, radius * k)
        if len(points):
            strong = heights > _STRONG_RIM * heights[:5].mean()  # ice alone makes many weak circles
            points = (points[strong][:_MOST_POINTS] - pad + 0.5) / k - 0.5
            found.append(Hypothesis(radius, 0, points, heights[strong][:_MOST_POINTS]))
    return found


def hypotheses(work: Working, near: Sequence[float] | None = None) -> list[Hypothesis]:
    """One hypothesis for each radius and contrast that found anything; see `rim_hypotheses` for ``near``."""
    rows, columns = work.values.shape
    found: list[Hypothesis] = []
    smallest = _SMALLEST * max(1.0, max(rows, columns) / 700.0)
    for radius in _radii(smallest, _LARGEST * min(rows, columns), near):
        values, seen, k = work.shrunk(_WORK_RADIUS / radius)
        # Centres may lie a little outside the frame: the visible part of the hole still shows where.
        pad = round(_OUTSIDE * radius * k)
        values, seen = np.pad(values, pad), np.pad(seen, pad)
        response = match(values, seen, radius * k)
        for sign in (1, -1):
            points, heights = peaks(sign * response, noise_level(radius * k), radius * k)
            if len(points):
                points = (points[:_MOST_POINTS] - pad + 0.5) / k - 0.5
                found.append(Hypothesis(radius, sign, points, heights[:_MOST_POINTS]))
    return found
