"""What fell onto the grid: ice lumps of all sizes, clumps of them, and flakes of film."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.specimen import noise


@dataclass(frozen=True, slots=True)
class Dirt:
    """Lumps of one square, in µm about its centre; all arrays have shape (n,).

    ``thickness_nm`` is that of the middle; ``lobes`` seeds the outline; ``crystal`` are six-sided plates.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    radius: NDArray[np.float64]
    thickness_nm: NDArray[np.float64]
    lobes: NDArray[np.int64]
    crystal: NDArray[np.bool_]

    def cover(
        self, x: NDArray[np.float64], y: NDArray[np.float64], radius: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Share of each disc (x, y, radius in µm) that lumps cover, as the sum of overlaps, at most 1."""
        if not len(self.x):
            return np.zeros(len(x))
        away = np.hypot(self.x[:, None] - x[None, :], self.y[:, None] - y[None, :])
        r, big = self.radius[:, None], radius[None, :]
        depth = np.clip((r + big - away) / (2 * np.minimum(r, big)), 0, 1)
        return np.asarray(np.minimum((depth * np.minimum(r, big) ** 2 / big**2).sum(axis=0), 1.0))


def draw(seed: int, square: int, half_um: float, amount: float) -> Dirt:
    """Lumps of one square, ``amount`` times the usual number, sizes by a power law."""
    rng = noise.stream(seed, 13, square)
    single = rng.poisson(22 * amount * (half_um / 46) ** 2)
    x = rng.uniform(-half_um, half_um, single)
    y = rng.uniform(-half_um, half_um, single)
    radius = 0.07 * rng.pareto(1.35, single) + 0.06
    parts = [np.stack([x, y, radius])]
    for _ in range(rng.poisson(2.2 * amount)):
        size, n = math.exp(rng.normal(0.1, 0.6)), int(rng.integers(5, 40))
        arm = rng.normal(0, size, (2, n)) * rng.uniform(0.4, 1.4, (2, 1))
        where = rng.uniform(-half_um, half_um, (2, 1))
        parts.append(np.concatenate([where + arm, rng.uniform(0.12, 0.42, (1, n)) * size**0.7]))
    x, y, radius = np.concatenate(parts, axis=1)
    radius = np.minimum(radius, 3.5)
    flat = rng.uniform(0.25, 1.0, len(x))
    return Dirt(
        x=x,
        y=y,
        radius=radius,
        thickness_nm=np.minimum(2000 * radius * flat, 2500),
        lobes=rng.integers(0, 2**31, len(x)),
        crystal=rng.uniform(size=len(x)) < 0.12,
    )
