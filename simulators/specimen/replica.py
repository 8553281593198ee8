"""A shadowed replica of fractured membranes: what immunogold is usually looked at on.

Platinum is evaporated from one side, so slopes that face it are dark and those behind are bright; folds of the
fractured surface are thick dark lines, and proteins in the membranes are fields of small bumps.
"""

from __future__ import annotations

import numpy as np

from simulators.specimen import noise
from simulators.specimen.noise import Field


def platinum_nm(seed: int, x: Field, y: Field) -> Field:
    """Platinum in nm at stage points (µm)."""
    angle = float(noise.stream(seed, 61).uniform(0, 6.283))
    step = np.float32(0.008)
    from_x, from_y = x + step * np.float32(np.cos(angle)), y + step * np.float32(np.sin(angle))
    slope = 9.0 * _rise(seed + 31, 3.6, x, y, from_x, from_y, 5.0)
    slope += 3.0 * _rise(seed + 38, 3.2, x, y, from_x, from_y, 2.3)
    bump_slope = _rise(seed + 32, -9.0, x, y, from_x, from_y, 0.9)
    studded = np.clip(noise.sample(seed + 33, 3.0, x, y, 4.0) * 1.5 - 0.6, 0.04, 1)
    folds = np.zeros_like(x)
    for k, period, width in ((34, 4.3, 0.016), (35, 3.1, 0.012), (36, 2.2, 0.007), (37, 3.7, 0.02)):
        field = noise.sample(seed + k, 3.9, x, y, period, smooth=True)
        rise = field - noise.sample(seed + k, 3.9, from_x, from_y, period, smooth=True)
        facing = np.clip(rise * np.float32(70), -1, 1)
        tall = np.clip(noise.sample(seed + k + 10, 3.4, x, y, 3.0) + 0.2, 0, 1.6)
        line = np.exp(-((field / np.float32(width * 4)) ** 2))
        folds += line * tall * (0.35 + facing)
    out = 1.6 + slope + np.float32(0.35) * bump_slope * studded + np.float32(3.2) * folds
    return np.asarray(np.clip(out, 0.15, 12.0), dtype=np.float32)


def _rise(seed: int, exponent: float, x: Field, y: Field, from_x: Field, from_y: Field, period_um: float) -> Field:
    here = noise.sample(seed, exponent, x, y, period_um, smooth=True)
    return here - noise.sample(seed, exponent, from_x, from_y, period_um, smooth=True)
