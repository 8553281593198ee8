"""A low-mag frame beside an earlier one of the same place: by how much what they show was turned and shifted."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detections import GridSighting

NAME, VERSION = "realign-grid", "1"
COARSE_PX, FINE_PX = 192, 512  # longer side at which turns are tried, and at which shift and turn are refined
MOST_TURN_DEG, STEP_DEG, FINE_STEP_DEG = 6.0, 0.5, 0.1
MOST_SHIFT = 0.25  # of the shorter side
Plane = NDArray[np.float32]


def sight(before: NDArray[Any], now: NDArray[Any], *, most_shift_px: float | None = None) -> GridSighting:
    """How ``before`` lies on ``now``, both of one shape (rows, columns) and one magnification.

    Normalised cross-correlation over turns of up to 6 degrees and shifts of up to ``most_shift_px`` (a quarter of the
    shorter side), first on small images, then refined. On a mesh, whose every opening looks like the next, the whole
    content decides: which openings are broken, dark or dirty, and where the grid ends.
    """
    if before.shape != now.shape:
        note = f"frames of {before.shape} and {now.shape} pixels"
        return GridSighting(turn_deg=0.0, dx=0.0, dy=0.0, correlation=0.0, note=note)
    most = MOST_SHIFT * min(before.shape) if most_shift_px is None else most_shift_px
    small, small_now, coarse = _plane(before, COARSE_PX), _plane(now, COARSE_PX), _scale(before, COARSE_PX)
    turns = np.arange(-MOST_TURN_DEG, MOST_TURN_DEG + 1e-9, STEP_DEG).tolist()
    best = max((_best(small, small_now, turn, most * coarse) for turn in turns), key=lambda found: found[0])
    fine = _scale(before, FINE_PX)
    large, large_now = _plane(before, FINE_PX), _plane(now, FINE_PX)
    near = (best[2] * fine / coarse, best[3] * fine / coarse)
    steps = [best[1] + FINE_STEP_DEG * k for k in range(-5, 6)]
    tried = [_best(large, large_now, turn, 3.0 * fine / coarse, near) for turn in steps]
    top = max(range(len(tried)), key=lambda k: tried[k][0])
    turn = tried[top][1]
    if 0 < top < len(tried) - 1:
        turn += FINE_STEP_DEG * _vertex(tried[top - 1][0], tried[top][0], tried[top + 1][0])
    score, turn, dx, dy = _best(large, large_now, turn, 3.0, tried[top][2:])
    return GridSighting(
        turn_deg=round(turn, 4), dx=round(dx / fine, 3), dy=round(dy / fine, 3), correlation=round(score, 4)
    )


def _scale(image: NDArray[Any], side: int) -> float:
    return float(min(1.0, side / max(image.shape)))


def _plane(image: NDArray[Any], side: int) -> Plane:
    """A small image with mean 0 and deviation 1, its extremes cut."""
    scale = _scale(image, side)
    rows, columns = (max(8, round(n * scale)) for n in image.shape)
    found = cv2.resize(image.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(found, (1.0, 99.0))
    found = np.clip(found, low, max(high, low + 1e-6))
    return np.asarray((found - found.mean()) / max(float(found.std()), 1e-6), np.float32)


def _best(
    before: Plane, now: Plane, turn_deg: float, most: float, near: tuple[float, float] = (0.0, 0.0)
) -> tuple[float, float, float, float]:
    """Correlation, turn and shift (x, y) of the best shift within ``most`` pixels of ``near``."""
    turned, inside = _turned(before, turn_deg)
    rows, columns = before.shape
    shape = (cv2.getOptimalDFTSize(2 * rows), cv2.getOptimalDFTSize(2 * columns))
    ones = np.ones_like(now)

    def spectrum(plane: Plane) -> NDArray[np.complex128]:
        return np.fft.rfft2(plane, shape)

    a, a2, m = spectrum(turned * inside), spectrum(turned**2 * inside), spectrum(inside)
    b, b2, n = spectrum(now), spectrum(now**2), spectrum(ones)

    def across(left: NDArray[np.complex128], right: NDArray[np.complex128]) -> NDArray[np.float64]:
        return np.asarray(np.fft.irfft2(np.conj(left) * right, shape))

    count = np.maximum(across(m, n), 1.0)
    sum_a, sum_b = across(a, n), across(m, b)
    covariance = across(a, b) - sum_a * sum_b / count
    spread = (across(a2, n) - sum_a**2 / count) * (across(m, b2) - sum_b**2 / count)
    pearson = np.where(
        (count > 0.25 * rows * columns) & (spread > 1e-3), covariance / np.sqrt(np.maximum(spread, 1e-3)), -1.0
    )
    dy = np.fft.fftfreq(shape[0], 1.0 / shape[0])[:, None]
    dx = np.fft.fftfreq(shape[1], 1.0 / shape[1])[None, :]
    pearson = np.where(np.hypot(dx - near[0], dy - near[1]) <= max(most, 1.0), pearson, -1.0)
    i, j = (int(v) for v in np.unravel_index(int(np.argmax(pearson)), pearson.shape))
    y = float(dy[i, 0]) + _vertex(pearson[i - 1, j], pearson[i, j], pearson[(i + 1) % shape[0], j])
    x = float(dx[0, j]) + _vertex(pearson[i, j - 1], pearson[i, j], pearson[i, (j + 1) % shape[1]])
    return float(pearson[i, j]), turn_deg, x, y


def _turned(plane: Plane, turn_deg: float) -> tuple[Plane, Plane]:
    """The image turned about its middle, x towards y, and a mask of where it then has pixels."""
    rows, columns = plane.shape
    turn = math.radians(turn_deg)
    cos, sin, cx, cy = math.cos(turn), math.sin(turn), (columns - 1) / 2, (rows - 1) / 2
    matrix = np.array([(cos, -sin, cx - cos * cx + sin * cy), (sin, cos, cy - sin * cx - cos * cy)])
    found = cv2.warpAffine(plane, matrix, (columns, rows), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones_like(plane), matrix, (columns, rows), flags=cv2.INTER_NEAREST)
    return np.asarray(found, np.float32), np.asarray(inside, np.float32)


def _vertex(before: float, here: float, after: float) -> float:
    """Where between -0.5 and 0.5 the parabola through three values has its top; 0 where a neighbour was left out."""
    bend = before - 2.0 * here + after
    if min(before, after) <= -1.0 or bend >= -1e-12:
        return 0.0
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
