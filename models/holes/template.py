"""Normalised correlation of a frame with a disc inside a ring, frame edges and blind pixels left out.

For a template that is one on a disc and zero on the ring round it, the correlation coefficient (Lewis, Vision
Interface 1995, "Fast normalized cross-correlation") is the difference of the two means over the standard
deviation of the pixels under the template, times ``sqrt(p * q)`` with the shares of pixels in disc and ring.
Computed with a mask, a hole that the frame cuts correlates as well as a whole one.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

_DISC, _RING_IN, _RING_OUT = 0.92, 1.08, 1.45  # in radii
_RIM_WIDTH, _RIM_GAP = 0.14, 0.24
_LEAST_SEEN = 0.35  # share of disc and of ring that must be seen


def kernels(radius: float) -> tuple[Plane, Plane]:
    """Disc and ring of a hole of ``radius`` pixels, soft at the border, shape (2 k + 1, 2 k + 1)."""
    half = int(np.ceil(radius * _RING_OUT + 0.5))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    r = np.hypot(x, y)
    disc = np.clip(radius * _DISC - r + 0.5, 0.0, 1.0)
    ring = np.clip(r - radius * _RING_IN + 0.5, 0.0, 1.0) * np.clip(radius * _RING_OUT - r + 0.5, 0.0, 1.0)
    return disc.astype(np.float32), ring.astype(np.float32)


def rim_kernels(radius: float) -> tuple[Plane, Plane]:
    """Rim of a hole of ``radius`` pixels, and the disc and ring on its two sides, shape (2 k + 1, 2 k + 1)."""
    half = int(np.ceil(radius * _RING_OUT + 0.5))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    r = np.hypot(x, y)
    rim = np.clip(radius * _RIM_WIDTH - np.abs(r - radius) + 0.5, 0.0, 1.0)
    beside = np.clip(radius * _RING_OUT - r + 0.5, 0.0, 1.0) * np.clip(
        np.abs(r - radius) - radius * _RIM_GAP + 0.5, 0.0, 1.0
    )
    return rim.astype(np.float32), beside.astype(np.float32)


def match(values: Plane, seen: Plane, radius: float) -> Plane:
    """Correlation with holes of ``radius`` pixels: 1 bright on dark, -1 dark on bright (see ``correlate``)."""
    return correlate(values, seen, *kernels(radius))


def match_rim(values: Plane, seen: Plane, radius: float) -> Plane:
    """Correlation of the steps in the frame with rims of ``radius`` pixels, whatever the contrast inside.

    Thick ice hides a hole but for arcs of its rim, bright here and dark there; the size of the local step, without
    its sign and compressed so that no single edge outweighs the others, still forms a circle.
    """
    soft = cv2.GaussianBlur(values, (0, 0), max(0.8, 0.09 * radius))
    step = np.hypot(cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1))
    usual = cv2.GaussianBlur(step, (0, 0), 1.5 * radius) + 1e-6
    blind = cv2.dilate((seen <= 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    return correlate(step / (step + usual), np.where(blind > 0, 0.0, seen).astype(np.float32), *rim_kernels(radius))


def correlate(values: Plane, seen: Plane, disc: Plane, ring: Plane) -> Plane:
    """Correlation with a template of ones on ``disc`` and zeros on ``ring``, from -1 to 1; 0 where little is seen.

    Parameters
    ----------
    values
        Frame, shape (rows, columns); any offset and gain.
    seen
        1 where a pixel counts, 0 where it is blind; same shape.
    disc, ring
        Weights of the two parts, odd square shapes.
    """
    centre = float(values.mean())
    masked = (values - centre) * seen

    def total(plane: Plane, kernel: Plane) -> Plane:
        return np.asarray(cv2.filter2D(plane, cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT), np.float32)

    n_disc, n_ring = covered(seen, disc), covered(seen, ring)
    n_disc_safe, n_ring_safe = np.maximum(n_disc, 1e-3), np.maximum(n_ring, 1e-3)
    sum_disc, sum_ring = total(masked, disc), total(masked, ring)
    n = n_disc_safe + n_ring_safe
    square = total(masked * masked, disc + ring)
    variance = square / n - ((sum_disc + sum_ring) / n) ** 2
    floor = 1e-6 * float(masked.var()) + 1e-12
    step = sum_disc / n_disc_safe - sum_ring / n_ring_safe
    correlation = step * np.sqrt(n_disc_safe * n_ring_safe) / n / np.sqrt(np.maximum(variance, floor))
    enough = (n_disc > _LEAST_SEEN * disc.sum()) & (n_ring > _LEAST_SEEN * ring.sum()) & (variance > floor)
    return np.where(enough, np.clip(correlation, -1.0, 1.0), 0.0).astype(np.float32)


def covered(seen: Plane, kernel: Plane) -> Plane:
    """Weight of a kernel (odd square shape) that lies on seen pixels, at each place.

    Where the seen pixels are one rectangle, as in nearly all frames, the answer only changes near its edges: it is
    computed on a rectangle without the middle, and spread out.
    """
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    plain = len(rows) > 0 and (seen.min() == 1.0 or float(seen.sum()) == len(rows) * len(columns) * 1.0)
    if not plain or np.ptp(rows) + 1 != len(rows) or np.ptp(columns) + 1 != len(columns):
        return np.asarray(cv2.filter2D(seen, cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT), np.float32)
    half = kernel.shape[0] // 2
    down, right = _without_middle(seen.shape[0], rows, half), _without_middle(seen.shape[1], columns, half)
    small = np.ascontiguousarray(seen[np.ix_(np.unique(down), np.unique(right))])
    part = cv2.filter2D(small, cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT)
    at_row, at_column = np.searchsorted(np.unique(down), down), np.searchsorted(np.unique(right), right)
    return np.asarray(np.take(np.take(part, at_row, axis=0), at_column, axis=1), np.float32)


def _without_middle(length: int, inside: NDArray[np.int64], half: int) -> NDArray[np.int64]:
    """For each line, a line that sees the same: itself near the edges of what is seen, else one in the middle."""
    lines = np.arange(length)
    first, last = int(inside[0]) + 2 * half, int(inside[-1]) - 2 * half
    if last <= first:
        return lines
    return np.where((lines > first) & (lines < last), first, lines)


def peaks(response: Plane, least: float, apart: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Local maxima of a response above ``least`` and at least ``apart`` pixels from a higher one.

    Returns
    -------
    points, heights
        Shapes (n, 2) as (x, y), to a fraction of a pixel, and (n,), highest first.
    """
    k = max(1, round(apart))
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * k + 1, 2 * k + 1))
    top = (response >= cv2.dilate(response, window)) & (response > least)
    y, x = np.nonzero(top)
    height = response[y, x].astype(np.float64)
    order = np.lexsort((x, y, -height))
    x, y, height = x[order], y[order], height[order]
    rows, columns = response.shape
    points = np.stack([x, y], axis=1).astype(np.float64)
    for axis, (size, dx, dy) in enumerate(((columns, 1, 0), (rows, 0, 1))):
        at = points[:, axis]
        inner = (at > 0) & (at < size - 1)
        lower = response[y - dy * inner, x - dx * inner].astype(np.float64)
        upper = response[y + dy * inner, x + dx * inner].astype(np.float64)
        bend = lower - 2.0 * height + upper
        shift = np.where(inner & (bend < -1e-9), 0.5 * (lower - upper) / np.minimum(bend, -1e-9), 0.0)
        points[:, axis] = at + np.clip(shift, -0.5, 0.5)
    return points, height
