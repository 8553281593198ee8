"""Where vesicles lie: clusters and single ones in a slab, none through another."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def place(
    rng: np.random.Generator,
    room_px: NDArray[np.float32],
    pixel_nm: float,
    count: int,
    diameters_nm: tuple[float, float],
    depth_nm: float,
    touching: float,
    large: float = 0.0,
) -> Rows:
    """Vesicles as rows (x, y in pixels, depth, radius in nm).

    Parameters
    ----------
    rng
        Randomness.
    room_px
        How far each pixel is from what a vesicle must not touch, shape (rows, columns), in pixels.
    pixel_nm
        Pixel size.
    count
        How many are tried for.
    diameters_nm
        Smallest and largest outer diameter of the usual ones.
    depth_nm
        Centres lie at depths of at most half of this, to both sides; more for those that only reach in.
    touching
        Share of them put beside another one.
    large
        Share that is up to twice as large.
    """
    rows, columns = room_px.shape
    found = np.zeros((count, 4))
    n = 0
    for _ in range(count * 6):
        if n == count:
            break
        radius = rng.uniform(*diameters_nm) / 2
        if rng.random() < large:
            radius = min(radius * rng.uniform(1.3, 2.0), 54.0)
        if n and rng.random() < touching:
            x, y, z, other = found[int(rng.integers(n))]
            way = rng.standard_normal(3) * (1, 1, 0.35 if depth_nm < 60 else 1)
            way *= (radius + other + rng.exponential(1.5)) / np.linalg.norm(way)
            x, y, z = x + way[0] / pixel_nm, y + way[1] / pixel_nm, z + way[2]
        else:
            x, y = rng.uniform(-5, columns + 4), rng.uniform(-5, rows + 4)
            z = rng.uniform(-depth_nm / 2 - 0.6 * radius, depth_nm / 2 + 0.6 * radius)
        if abs(z) > depth_nm / 2 + 0.75 * radius:
            continue
        column, row = math.floor(x + 0.5), math.floor(y + 0.5)
        if not (
            -radius / pixel_nm < x < columns + radius / pixel_nm and -radius < y * pixel_nm < (rows * pixel_nm) + radius
        ):
            continue
        if room_px[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)] * pixel_nm < radius:
            continue
        kept = found[:n]
        apart = np.sqrt(((kept[:, :2] - (x, y)) ** 2).sum(axis=1) * pixel_nm**2 + (kept[:, 2] - z) ** 2)
        if n and float((apart - kept[:, 3]).min()) < radius:
            continue
        found[n] = x, y, z, radius
        n += 1
    return found[:n]
