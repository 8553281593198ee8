"""The pixels in and round each hole, for all holes of a frame at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.holes.prepare import Working

Floats = NDArray[np.float64]

_ACROSS = 16  # samples from the centre to the outer ring, at most
_AT_ONCE = 4_000_000  # samples held at a time


@dataclass(frozen=True, slots=True)
class Discs:
    """What each hole looks like, shapes (n,), in working counts.

    Attributes
    ----------
    mean, ring
        Median inside 0.8 radii, and from 1.15 to 1.45 radii.
    spread
        Standard deviation inside.
    dark_share
        Share of the inside that is far darker than its brighter part: the rest may be covered for the most part.
    seen
        Share of the hole that the frame shows.
    """

    mean: Floats
    ring: Floats
    spread: Floats
    dark_share: Floats
    seen: Floats


def measure(work: Working, points: Floats, radius: float) -> Discs:
    """Discs of the holes at ``points``, shape (n, 2) as (x, y), of ``radius``; working pixels."""
    reach = int(np.ceil(1.5 * radius)) + 1
    step = max(1, reach // _ACROSS)
    offset = np.arange(-reach, reach + 2, step)
    part = max(1, _AT_ONCE // len(offset) ** 2)
    parts = [_measured(work, points[k : k + part], radius, offset) for k in range(0, len(points), part)]
    if not parts:
        return Discs(*(np.zeros(0) for _ in range(5)))
    return Discs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _measured(work: Working, points: Floats, radius: float, offset: NDArray[np.int64]) -> tuple[Floats, ...]:
    rows, columns = work.values.shape
    x = points[:, 0].astype(np.int64)[:, None] + offset
    y = points[:, 1].astype(np.int64)[:, None] + offset
    r = np.sqrt(
        ((y - points[:, 1:2]) ** 2)[:, :, None].astype(np.float32)
        + ((x - points[:, 0:1]) ** 2)[:, None, :].astype(np.float32)
    ).reshape(len(points), -1)
    in_frame = (((y >= 0) & (y < rows))[:, :, None] & ((x >= 0) & (x < columns))[:, None, :]).reshape(len(points), -1)
    at = (y.clip(0, rows - 1)[:, :, None] * columns + x.clip(0, columns - 1)[:, None, :]).reshape(len(points), -1)
    values = work.values.ravel()[at]
    known = in_frame & (work.seen.ravel()[at] > 0)
    inside, ring = (r <= 0.8 * radius) & known, (r > 1.15 * radius) & (r <= 1.45 * radius) & known
    whole = (r <= 0.98 * radius).sum(axis=1)
    share = np.minimum(1.0, (known & (r <= 0.98 * radius)).sum(axis=1) / np.maximum(whole, 1))
    count = inside.sum(axis=1)
    mean = _median(values, inside, 0.0)
    noise = 1.4826 * _median(np.abs(values - mean[:, None]), inside, 0.0) + 1e-6
    noise = np.minimum(noise, 1.5 * float(np.median(noise[count >= 3])) if (count >= 3).any() else noise)
    clean = _median(values, inside & (values >= mean[:, None]), 0.0)  # of the brighter half
    limit = (clean - np.maximum(5.0 * noise, 0.35))[:, None]
    held = np.maximum(count, 1)
    dark = (inside & (values < limit)).sum(axis=1) / held
    centred = np.where(inside, values - mean[:, None], 0.0)
    spread = np.sqrt(np.maximum((centred**2).sum(axis=1) / held - (centred.sum(axis=1) / held) ** 2, 0.0))
    level = np.where(ring.any(axis=1), _median(values, ring, 0.0), mean)
    blank = count < 3
    return tuple(np.where(blank, 0.0, v).astype(np.float64) for v in (mean, level, spread, dark, share))


def _median(values: NDArray[np.floating], chosen: NDArray[np.bool_], empty: float) -> Floats:
    """Median of the chosen values in each row; ``empty`` where none is chosen."""
    ordered = np.sort(np.where(chosen, values, np.inf).astype(np.float32), axis=1)
    count = chosen.sum(axis=1)
    row = np.arange(len(values))
    low = ordered[row, np.maximum((count - 1) // 2, 0)]
    high = ordered[row, np.maximum(np.minimum(count // 2, values.shape[1] - 1), 0)]
    return np.where(count > 0, (low + high) / 2.0, empty)
