"""The frame on every scale as the hole network sees it: one level for each octave of hole sizes.

A hole of any size is between `SMALLEST` and `LARGEST` pixels in radius on one level, so one small network finds all.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.holes.prepare import Working

Plane = NDArray[np.float32]

SMALLEST, LARGEST = 2.8, 6.6  # radii in level pixels that the network answers to
MULTIPLE = 16  # sides of a level are padded to a multiple of this
_WINDOW = 33  # pixels: over which contrast is made even
_ENLARGED = 640  # working copies up to this size get a level at twice the scale
_LARGEST_HOLE = 0.42  # radius as a share of the shorter side


@dataclass(frozen=True, slots=True)
class Level:
    """One scale.

    Attributes
    ----------
    planes
        What the network sees, shape (2, rows, columns): the frame, and the frame with even local contrast.
    scale
        Level pixels per working pixel.
    rows, columns
        Part of the planes that the frame fills; the rest is padding at the bottom and right.
    """

    planes: Plane
    scale: float
    rows: int
    columns: int

    def to_working(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n, 2) in level pixels as working pixels."""
        return (points + 0.5) / self.scale - 0.5


def planes_of(values: Plane) -> Plane:
    """The two planes that the network sees of a picture, shape (2, rows, columns), any offset and gain."""
    values = values - values.mean()
    values = values / max(float(values.std()), 1e-6)
    box = (_WINDOW, _WINDOW)
    mean = cv2.boxFilter(values, cv2.CV_32F, box, borderType=cv2.BORDER_REFLECT)
    square = cv2.sqrBoxFilter(values, cv2.CV_32F, box, borderType=cv2.BORDER_REFLECT)
    even = (values - mean) / np.sqrt(np.maximum(square - mean * mean, 0.0) + 0.003)
    return np.asarray(np.clip(np.stack([values, even]), -4.0, 4.0), np.float32)


def levels_of(work: Working) -> list[Level]:
    """Every level of a frame, the coarsest first."""
    rows, columns = work.values.shape
    scale = 2.0 if max(rows, columns) <= _ENLARGED else 1.0
    values = work.values
    if scale > 1:
        values = cv2.resize(values, (columns * 2, rows * 2), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    found: list[Level] = []
    while True:
        found.append(_level(values, scale))
        if LARGEST / scale >= _LARGEST_HOLE * min(rows, columns) or min(values.shape) < 16:
            return found[::-1]
        half = (max(8, round(values.shape[1] / 2)), max(8, round(values.shape[0] / 2)))
        values = cv2.resize(values, half, interpolation=cv2.INTER_AREA).astype(np.float32)
        scale = values.shape[1] / columns


def _level(values: Plane, scale: float) -> Level:
    rows, columns = values.shape
    planes = planes_of(values)
    down, right = -rows % MULTIPLE, -columns % MULTIPLE
    if down or right:
        planes = np.pad(planes, ((0, 0), (0, down), (0, right)))
    return Level(planes, scale, rows, columns)
