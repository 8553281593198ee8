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

    def kept(self, those: NDArray[np.bool_]) -> Dirt:
        """The lumps that a mask picks."""
        return Dirt(
            self.x[those], self.y[those], self.radius[those], self.thickness_nm[those], self.lobes[those],
            self.crystal[those],
        )  # fmt: skip

    def cover(self, x: NDArray[np.float64], y: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each disc (x, y, radius in µm) that lumps cover, as the sum of overlaps, at most 1."""
        if not len(self.x):
            return np.zeros(len(x))
        away = np.hypot(self.x[:, None] - x[None, :], self.y[:, None] - y[None, :])
        r, big = self.radius[:, None], radius[None, :]
        depth = np.clip((r + big - away) / (2 * np.minimum(r, big)), 0, 1)
        return np.asarray(np.minimum((depth * np.minimum(r, big) ** 2 / big**2).sum(axis=0), 1.0))


FROST_PER_UM2 = 25.0
_FROST_NM = (6.0, 9.0)  # smallest radius, and scale of the rest


def frost_cover(amount: NDArray[np.float64], clumped: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of a hole that ``frost`` of this amount covers on average; a clump is a tenth of it."""
    low, scale = _FROST_NM[0] * 1e-3, _FROST_NM[1] * 1e-3
    lumps = amount * FROST_PER_UM2 * math.pi * (low**2 + 2 * low * scale + 2 * scale**2)
    return np.asarray(np.minimum(lumps + 0.1 * clumped, 1.0))


def frost(
    seed: int,
    square: int,
    row: int,
    centre_um: tuple[float, float],
    radius_um: float,
    amount: float,
    clumped: bool,
) -> Dirt:
    """Small lumps in and around one hole, too small for low magnification; places about the square's centre."""
    rng = noise.stream(seed, 19, square, row)
    reach = 1.5 * radius_um
    n = int(rng.poisson(amount * FROST_PER_UM2 * math.pi * reach**2))
    r, t = reach * np.sqrt(rng.uniform(size=n)), rng.uniform(0, 2 * math.pi, n)
    x, y = centre_um[0] + r * np.cos(t), centre_um[1] + r * np.sin(t)
    radius = (_FROST_NM[0] + rng.exponential(_FROST_NM[1], n)) * 1e-3
    twin = rng.uniform(size=n) < 0.35  # lumps that touch
    side = rng.uniform(0, 2 * math.pi, n)
    x = np.concatenate([x, (x + 1.3 * radius * np.cos(side))[twin]])
    y = np.concatenate([y, (y + 1.3 * radius * np.sin(side))[twin]])
    radius = np.concatenate([radius, radius[twin] * 0.8])
    if clumped:
        away, way, many = radius_um * rng.uniform(0.2, 0.9), rng.uniform(0, 2 * math.pi), int(rng.integers(25, 70))
        size = 0.17 * radius_um * rng.uniform(0.6, 1.4, (2, 1))
        blob = rng.normal(0, 1, (2, many)) * size
        x = np.concatenate([x, centre_um[0] + away * math.cos(way) + blob[0]])
        y = np.concatenate([y, centre_um[1] + away * math.sin(way) + blob[1]])
        radius = np.concatenate([radius, rng.uniform(0.015, 0.045, many) * radius_um])
    return Dirt(
        x=x,
        y=y,
        radius=radius,
        thickness_nm=1300 * radius * rng.uniform(0.35, 1.0, len(x)),
        lobes=rng.integers(0, 2**31, len(x)),
        crystal=rng.uniform(size=len(x)) < 0.03,
    )


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
        crystal=rng.uniform(size=len(x)) < 0.05,
    )
