"""What Leginon wants to know of a square beside its place: mean counts inside, and area."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]


def polygon_area(vertices: Sequence[Point]) -> float:
    """Area of a polygon whose corners are given in ring order, by the shoelace formula."""
    if len(vertices) < 3:
        return 0.0
    x, y = np.asarray(vertices, float).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def mean_inside(image: NDArray[Any], vertices: Sequence[Point], centre: Point) -> float:
    """Mean counts inside a polygon; where none of its pixels is on the image, the counts at the nearest one."""
    rows, columns = image.shape
    if len(vertices) >= 3:
        corners = np.asarray(vertices, float)
        left, top = np.clip(np.floor(corners.min(axis=0)), 0, (columns, rows)).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, (columns, rows)).astype(int)
        if right > left and bottom > top:
            part = image[top:bottom, left:right]
            mask = np.zeros(part.shape, np.uint8)
            cv2.fillPoly(mask, [np.round(corners - (left, top)).astype(np.int32)], 1)
            if mask.any():
                return float(part[mask > 0].mean(dtype=np.float64))
    x, y = (int(np.clip(round(v), 0, side - 1)) for v, side in zip(centre, (columns, rows), strict=True))
    return float(image[y, x])
