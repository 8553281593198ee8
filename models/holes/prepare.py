"""A working copy of a medium-mag frame, and which of its pixels count."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

_LARGEST = 1024  # longer side of the working copy
_BLIND_PX = 40  # smallest flat patch that is taken for a burnt-in or dead one


@dataclass(frozen=True, slots=True)
class Working:
    """The frame as the finder works on it.

    Attributes
    ----------
    values
        Counts clipped at robust limits, mean 0 and deviation 1 over the pixels that count; float32, shape
        (rows, columns) of the working copy.
    seen
        1 where a pixel counts, 0 in constant margins and flat black patches; same shape.
    scale
        Working pixels per image pixel, at most 1.
    shape
        (rows, columns) of the image.
    """

    values: Plane
    seen: Plane
    scale: float
    shape: tuple[int, int]
    _smaller: dict[float, tuple[Plane, Plane, float]] = field(default_factory=dict, repr=False)

    def to_image(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n, 2) in working pixels as image pixels."""
        return (points + 0.5) / self.scale - 0.5

    def shrunk(self, factor: float) -> tuple[Plane, Plane, float]:
        """Values, seen and the factor in use, reduced by ``factor`` (at most 1) with pixel means."""
        if factor >= 0.999:
            return self.values, self.seen, 1.0
        key = round(factor, 4)
        if key not in self._smaller:
            values, seen = resized(self.values, factor), resized(self.seen, factor)
            scale = values.shape[1] / self.values.shape[1]
            self._smaller[key] = (values, (seen > 0.5).astype(np.float32), scale)
        return self._smaller[key]


def resized(plane: Plane, factor: float) -> Plane:
    """Plane made ``factor`` (at most 1) times as large with pixel means, at least 8 pixels on a side."""
    rows, columns = plane.shape
    size = (max(8, round(columns * factor)), max(8, round(rows * factor)))
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def prepare(plain: Plane) -> Working | None:
    """Working copy of a finite float32 image, or None when it holds nothing but constant pixels."""
    seen = _seen(plain)
    side = max(plain.shape)
    scale = min(1.0, _LARGEST / side)
    values = plain
    if scale < 1.0:
        values = resized(plain, scale)
        seen = (resized(seen, scale) > 0.5).astype(np.float32)
        scale = values.shape[1] / plain.shape[1]
    counted = values[seen > 0]
    if counted.size < 256:
        return None
    low, high = np.percentile(counted[:: max(1, counted.size // 200_000)], (0.2, 99.8))
    if not high > low:
        return None
    values = np.clip(values, low, high)
    counted = values[seen > 0].astype(np.float64)
    values = ((values - counted.mean()) / max(float(counted.std()), 1e-30)).astype(np.float32)
    return Working(values * seen, seen, scale, (plain.shape[0], plain.shape[1]))


def _seen(plain: Plane) -> Plane:
    """1 where a pixel counts: not in a constant margin, not in a flat patch at the image's lowest value."""
    seen = np.ones(plain.shape, np.float32)
    for axis in (0, 1):
        lines = plain if axis == 0 else plain.T
        mask = seen if axis == 0 else seen.T
        flat = np.ptp(lines, axis=1) == 0.0
        for step in (1, -1):
            for k in range(len(flat) // 4):
                at = k if step == 1 else len(flat) - 1 - k
                if not flat[at]:
                    break
                mask[at] = 0.0
    lowest = (plain <= plain.min()).astype(np.uint8)
    flat_black = cv2.morphologyEx(lowest, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    if int(flat_black.sum()) >= _BLIND_PX:
        seen[cv2.dilate(flat_black, np.ones((3, 3), np.uint8)) > 0] = 0.0
    return seen
