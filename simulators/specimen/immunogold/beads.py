"""Gold particles: where they lie, how large they are, and the metal they put into the beam."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.specimen.immunogold.texture import Field

SUBSAMPLES = 3


@dataclass(frozen=True, slots=True)
class Beads:
    """Particles as arrays of shape (n,): centres in pixels, diameter in nm, nominal size, elongation and its angle."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    diameter_nm: NDArray[np.float64]
    nominal_nm: NDArray[np.float64]
    elongation: NDArray[np.float64]
    angle_rad: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.x)


def place(
    rng: np.random.Generator,
    shape: tuple[int, int],
    pixel_nm: float,
    sizes_nm: tuple[float, ...],
    per_um2: float,
    touching: float,
    spread: float,
) -> Beads:
    """Particles in clusters, alone, and a share ``touching`` of them leaning on a neighbour; none overlap much.

    Parameters
    ----------
    rng, shape, pixel_nm
        Randomness, (rows, columns), pixel size in nm.
    sizes_nm
        Nominal diameters; each gets about the same number.
    per_um2
        Particles per square micrometre, all sizes together.
    touching
        Share of particles put beside another one.
    spread
        Relative standard deviation of the diameters of one nominal size.
    """
    rows, columns = shape
    count = int(rng.poisson(per_um2 * rows * columns * pixel_nm**2 * 1e-6))
    kept: list[tuple[float, float, float, float]] = []
    cells: dict[tuple[int, int], list[int]] = {}
    cell = 1.3 * max(sizes_nm) / pixel_nm
    hub, hub_left, hub_size, arm = (0.0, 0.0), 0, sizes_nm[0], 1.0
    for _ in range(6 * count):
        if len(kept) >= count:
            break
        nominal = float(rng.choice(sizes_nm))
        if hub_left > 0:
            hub_left -= 1
            nominal = hub_size if rng.uniform() < 0.85 else nominal
            x, y = hub[0] + rng.normal(0, arm), hub[1] + rng.normal(0, arm)
        else:
            x, y = rng.uniform(-0.5, columns - 0.5), rng.uniform(-0.5, rows - 0.5)
            if rng.uniform() < 0.12:
                hub, hub_left, hub_size = (x, y), int(rng.integers(4, 30)), nominal
                arm = rng.uniform(25, 110) / pixel_nm
        d = nominal * float(np.clip(rng.normal(1, spread), 0.7, 1.4))
        if kept and rng.uniform() < touching:
            other = kept[int(rng.integers(0, len(kept)))]
            reach = (d + other[2]) / 2 / pixel_nm * rng.uniform(0.93, 1.25)
            angle = rng.uniform(0, 2 * math.pi)
            x, y = other[0] + reach * math.cos(angle), other[1] + reach * math.sin(angle)
        if not (-0.5 <= x < columns - 0.5 and -0.5 <= y < rows - 0.5):
            continue
        i, j = int(x // cell), int(y // cell)
        near = (kept[k] for a in (-1, 0, 1) for b in (-1, 0, 1) for k in cells.get((i + a, j + b), ()))
        if all(math.hypot(x - o[0], y - o[1]) > 0.92 * (d + o[2]) / 2 / pixel_nm for o in near):
            cells.setdefault((i, j), []).append(len(kept))
            kept.append((x, y, d, nominal))
    table = np.array(kept, np.float64).reshape(-1, 4)
    elongation = 1 + np.abs(rng.normal(0, 0.02 + 0.005 * table[:, 2]))
    return Beads(
        table[:, 0], table[:, 1], table[:, 2], table[:, 3],
        np.minimum(elongation, 1.5), rng.uniform(0, math.pi, len(table)),
    )  # fmt: skip


def metal_nm(beads: Beads, shape: tuple[int, int], pixel_nm: float) -> Field:
    """Gold along the beam in nm, shape (rows, columns): chords of slightly long ellipsoids."""
    out = np.zeros(shape, np.float32)
    offsets = (np.arange(SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5
    for x, y, d, long, angle in zip(
        beads.x, beads.y, beads.diameter_nm, beads.elongation, beads.angle_rad, strict=True
    ):
        a = d / 2 / pixel_nm * math.sqrt(long)
        b = d / 2 / pixel_nm / math.sqrt(long)
        half = math.ceil(a) + 1
        i, j = round(x), round(y)
        top, bottom = max(0, j - half), min(shape[0], j + half + 1)
        left, right = max(0, i - half), min(shape[1], i + half + 1)
        if top >= bottom or left >= right:
            continue
        v = (np.arange(top, bottom)[:, None] + offsets[None, :]).ravel()[:, None] - y
        u = (np.arange(left, right)[:, None] + offsets[None, :]).ravel()[None, :] - x
        c, s = math.cos(angle), math.sin(angle)
        r2 = ((c * u + s * v) / a) ** 2 + ((c * v - s * u) / b) ** 2
        chord = d * np.sqrt(np.maximum(1 - r2, 0))
        fine = chord.reshape(bottom - top, SUBSAMPLES, right - left, SUBSAMPLES).mean(axis=(1, 3))
        out[top:bottom, left:right] += fine.astype(np.float32)
    return out
