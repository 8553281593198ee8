"""Strokes: what a brush drawn along points covers on one plane of a volume."""

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]


def plane_of(volume: NDArray[np.uint8], axis: int, index: int) -> Plane:
    """A plane of a volume (z, y, x) as a view: rows and columns are the two other axes, in their order."""
    return volume[(slice(None),) * axis + (index,)]


def covered(
    points: NDArray[np.float64], radius: float, shape: tuple[int, int]
) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Pixels no farther than ``radius`` from a line along points: their window (rows, columns), and which of it.

    Parameters
    ----------
    points
        Rows (x, y) in pixels, at least one; the centre of the first pixel is (0, 0).
    radius
        Of the brush in pixels; the pixels that the line runs through are always covered.
    shape
        Rows and columns of the plane; what lies outside is cut off.
    """
    reach = max(radius, 0.0) + 1
    low = np.floor(points.min(axis=0) - reach).astype(int)
    high = np.ceil(points.max(axis=0) + reach).astype(int) + 1
    left, top = (int(v) for v in np.clip(low, 0, (shape[1], shape[0])))
    right, bottom = (int(v) for v in np.clip(high, 0, (shape[1], shape[0])))
    out = np.zeros((max(0, bottom - top), max(0, right - left)), bool)
    limit = max(radius, 0.71)  # half a pixel's diagonal: a line of one pixel has no gaps
    ends = points[1:] if len(points) > 1 else points
    for a, b in zip(points[: len(ends)], ends, strict=True):
        x0, y0 = np.maximum(np.floor(np.minimum(a, b) - reach).astype(int), (left, top))
        x1, y1 = np.minimum(np.ceil(np.maximum(a, b) + reach).astype(int) + 1, (right, bottom))
        if x1 <= x0 or y1 <= y0:
            continue
        x, y = np.arange(x0, x1)[None, :] - a[0], np.arange(y0, y1)[:, None] - a[1]
        way = b - a
        along = np.clip((x * way[0] + y * way[1]) / max(float(way @ way), 1e-12), 0, 1)
        far = (x - along * way[0]) ** 2 + (y - along * way[1]) ** 2
        out[y0 - top : y1 - top, x0 - left : x1 - left] |= far <= limit**2
    return slice(top, top + out.shape[0]), slice(left, left + out.shape[1]), out
