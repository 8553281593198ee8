"""What lies in the ice of a hole: particles, gold and vesicles, placed once and for all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.specimen import noise
from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.truth import ObjectKind

KINDS: tuple[ObjectKind, ...] = ("particle", "gold6", "gold12", "vesicle")
PARTICLE, GOLD6, GOLD12, VESICLE = range(4)


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects as arrays of shape (n,): places on the stage in µm, diameter, and ``pose`` that picks the look."""

    kind: NDArray[np.int8]
    x_um: NDArray[np.float64]
    y_um: NDArray[np.float64]
    diameter_nm: NDArray[np.float64]
    pose: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kind)

    def within(self, inside: NDArray[np.bool_]) -> Objects:
        """Those that a mask picks."""
        return Objects(
            self.kind[inside],
            self.x_um[inside],
            self.y_um[inside],
            self.diameter_nm[inside],
            self.pose[inside],
        )


def joined(parts: list[Objects]) -> Objects:
    """All objects of several lists."""
    if not parts:
        none = np.zeros(0)
        return Objects(none.astype(np.int8), none, none, none, none.astype(np.int64))
    return Objects(
        np.concatenate([p.kind for p in parts]),
        np.concatenate([p.x_um for p in parts]),
        np.concatenate([p.y_um for p in parts]),
        np.concatenate([p.diameter_nm for p in parts]),
        np.concatenate([p.pose for p in parts]),
    )


def _apart(points: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Keep points in order unless they overlap one kept before, found through a raster of cells."""
    keep = np.zeros(len(points), bool)
    size = 2 * float(radii.max(initial=1e-3))
    cells: dict[tuple[int, int], list[int]] = {}
    places = np.floor(points / size).astype(int).tolist()
    flat, rs = points.tolist(), radii.tolist()
    for n, (i, j) in enumerate(places):
        x, y = flat[n]
        near = (k for a in (-1, 0, 1) for b in (-1, 0, 1) for k in cells.get((i + a, j + b), ()))
        if all((flat[k][0] - x) ** 2 + (flat[k][1] - y) ** 2 > (rs[k] + rs[n]) ** 2 for k in near):
            keep[n] = True
            cells.setdefault((i, j), []).append(n)
    return keep


def in_hole(
    settings: SpecimenSettings,
    square: int,
    row: int,
    x_um: float,
    y_um: float,
    radius_um: float,
    ice_nm: float,
) -> Objects:
    """Objects of one hole, from its number alone."""
    rng = noise.stream(settings.seed, 29, square, row)
    parts = []
    reach = radius_um - 0.045  # the edge of a hole is not a perfect circle
    if ice_nm >= 6 and reach > 0:
        if "vesicles" in settings.content:
            parts.append(_scattered(rng, VESICLE, reach, 120.0 * rng.uniform(0.2, 1.4), 44.0, 4.0))
            parts.append(_crowded(rng, VESICLE, reach, 44.0, 4.0))
        if "gold" in settings.content:
            parts.append(_clustered_gold(rng, reach))
        if "particles" in settings.content:
            size = species_nm(settings)
            fit = min(1.0, ice_nm / (size * 1.3))
            density = 0.5 * rng.uniform(0.2, 1.5) * fit / (size * 1e-3) ** 2
            parts.append(_scattered(rng, PARTICLE, reach, density, size, 0.0))
    found = joined(parts)
    places = np.stack([found.x_um, found.y_um], axis=1)
    keep = _apart(places, found.diameter_nm * 0.5e-3)
    found = found.within(keep)
    return Objects(found.kind, found.x_um + x_um, found.y_um + y_um, found.diameter_nm, found.pose)


def species_nm(settings: SpecimenSettings) -> float:
    """Diameter of the grid's particle."""
    from simulators.specimen.particles import SPECIES, species_of

    return SPECIES[species_of(settings.seed)][0]


def _disc(rng: np.random.Generator, n: int, radius_um: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r, t = radius_um * np.sqrt(rng.uniform(size=n)), rng.uniform(0, 2 * math.pi, n)
    return r * np.cos(t), r * np.sin(t)


def _scattered(
    rng: np.random.Generator, kind: int, radius_um: float, per_um2: float, size_nm: float, spread_nm: float
) -> Objects:
    n = int(rng.poisson(per_um2 * math.pi * radius_um**2))
    x, y = _disc(rng, n, radius_um * 0.99)
    size = np.clip(rng.normal(size_nm, spread_nm, n), 0.6 * size_nm, 1.6 * size_nm)
    return Objects(np.full(n, kind, np.int8), x, y, size, rng.integers(0, 2**31, n))


def _crowded(rng: np.random.Generator, kind: int, radius_um: float, size_nm: float, spread_nm: float) -> Objects:
    """Crowds of a few dozen, as vesicles gather; overlaps are thinned out by the caller."""
    xs, ys = [np.zeros(0)], [np.zeros(0)]
    for _ in range(int(rng.poisson(1.2 * math.pi * radius_um**2))):
        cx, cy = _disc(rng, 1, radius_um * 0.9)
        arms, n = rng.uniform(0.08, 0.25, 2), int(rng.integers(15, 90))
        xs.append(cx + rng.normal(0, arms[0], n))
        ys.append(cy + rng.normal(0, arms[1], n))
    x, y = np.concatenate(xs), np.concatenate(ys)
    size = np.clip(rng.normal(size_nm, spread_nm, len(x)), 0.6 * size_nm, 1.6 * size_nm)
    crowd = Objects(np.full(len(x), kind, np.int8), x, y, size, rng.integers(0, 2**31, len(x)))
    return crowd.within(np.hypot(x, y) < radius_um)


def _clustered_gold(rng: np.random.Generator, radius_um: float) -> Objects:
    kinds, xs, ys, sizes = [], [], [], []
    area = math.pi * radius_um**2
    for kind, clusters, inside, size, spread in (
        (GOLD6, 5.0, 24, 6.0, 0.5),
        (GOLD12, 4.0, 5, 12.0, 0.9),
    ):
        for _ in range(int(rng.poisson(clusters * area))):
            n = int(rng.poisson(inside * rng.uniform(0.4, 1.4))) + 1
            cx, cy = _disc(rng, 1, radius_um * 0.95)
            arms = rng.uniform(0.05, 0.11, 2)
            xs.append(cx + rng.normal(0, arms[0], n))
            ys.append(cy + rng.normal(0, arms[1], n))
            sizes.append(np.clip(rng.normal(size, spread, n), 0.75 * size, 1.3 * size))
            kinds.append(np.full(n, kind, np.int8))
        n = int(rng.poisson(12.0 * area))
        x, y = _disc(rng, n, radius_um)
        xs.append(x)
        ys.append(y)
        sizes.append(np.clip(rng.normal(size, spread, n), 0.75 * size, 1.3 * size))
        kinds.append(np.full(n, kind, np.int8))
    x, y = np.concatenate(xs), np.concatenate(ys)
    inside_hole = np.hypot(x, y) < radius_um * 0.99
    found = Objects(np.concatenate(kinds), x, y, np.concatenate(sizes), rng.integers(0, 2**31, len(x)))
    return found.within(inside_hole)
