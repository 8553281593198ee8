"""The camera: counts from intensity, with shot noise, the gains of its pixels and a gain that fits 16 bits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simulators.specimen import noise
from simulators.specimen.noise import Field

FULL_SCALE = 30000.0
_GAUSS_ABOVE = 30.0


def camera_gain(dose_e_per_a2: float, pixel_angstrom: float) -> float:
    """Counts per electron: 1, and less where the open beam would exceed 30 000 counts."""
    return min(1.0, FULL_SCALE / max(dose_e_per_a2 * pixel_angstrom**2, 1e-9))


@lru_cache(maxsize=4)
def fixed_pattern(shape: tuple[int, int]) -> Field:
    """Gain of each pixel that flat-fielding left over: 0.6 % per pixel, blocks of read-out 0.15 %."""
    rng = noise.stream(2027, 1, *shape)
    pattern = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.006)
    columns = rng.normal(0, 0.0015, shape[1]).astype(np.float32)
    return np.asarray(1 + pattern + columns[None, :], dtype=np.float32)


def expose(intensity: Field, dose_e_per_a2: float, pixel_angstrom: float, frame_seed: int) -> NDArray[np.uint16]:
    """Counts of one exposure; ``intensity`` is 1 in the open beam, shape (rows, columns)."""
    rng = noise.stream(frame_seed, 23)
    electrons = dose_e_per_a2 * pixel_angstrom**2
    gain = camera_gain(dose_e_per_a2, pixel_angstrom)
    mean = np.maximum(intensity, 0) * np.float32(electrons)
    counts: Field
    if electrons < _GAUSS_ABOVE:
        counts = rng.poisson(mean).astype(np.float32)
    else:
        counts = np.sqrt(mean) * rng.standard_normal(mean.shape, dtype=np.float32)
        counts += mean
    counts *= fixed_pattern((int(mean.shape[0]), int(mean.shape[1])))
    counts *= np.float32(gain)
    if electrons >= _GAUSS_ABOVE:
        counts += rng.random(mean.shape, dtype=np.float32)
    else:
        counts += np.float32(0.5)
    return np.clip(counts, 0, 65535).astype(np.uint16)
