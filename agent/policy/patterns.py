"""Image-shift patterns on the lattice of a square: n x n holes, or rings of them around one."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.policy.lattice import Lattice

Indices = NDArray[np.int64]  # shape (n, 2)


class Tiles(NamedTuple):
    """A square cut into patterns.

    Parameters
    ----------
    size
        Holes across one pattern.
    centres
        Index of the middle of the pattern that each hole belongs to, shape (n, 2).
    rings
        How far from that middle each hole is, in rings, shape (n,).
    """

    size: int
    centres: Indices
    rings: NDArray[np.int64]


def reach_um(lattice: Lattice, size: int) -> float:
    """Longest image shift within a pattern of ``size`` holes across, in micrometres."""
    return float(np.hypot(*(_inside(lattice, size) @ lattice.axes_um).T).max())


def fitting_size(lattice: Lattice, size: int, max_shift_um: float) -> int:
    """The largest pattern up to ``size`` that image shift reaches all of; 1 where that is a single hole."""
    step = 2 if lattice.symmetry == "hexagonal" else 1
    while size > 1 and reach_um(lattice, size) > max_shift_um + 1e-9:
        size -= step
    return max(size, 1)


def cut(lattice: Lattice, size: int, worth: NDArray[np.float64]) -> Tiles:
    """The lattice's holes in patterns of ``size`` across, laid so that what they are worth comes together.

    Parameters
    ----------
    lattice
        Of n holes.
    size
        Holes across one pattern; odd where the lattice is hexagonal.
    worth
        What each hole is worth, 0 where it is not wanted, shape (n,).
    """
    best, best_value = np.zeros_like(lattice.indices), -math.inf
    for start in _inside(lattice, size):
        centres = _centres(lattice, size, start)
        _, tile = np.unique(centres, axis=0, return_inverse=True)
        value = float((np.bincount(tile.ravel(), worth) ** 2).sum())
        if value > best_value + 1e-9:
            best, best_value = centres, value
    return Tiles(size, best, _rings(lattice, lattice.indices - best))


def spiral(lattice: Lattice, tiles: Tiles, rows: NDArray[np.int64]) -> list[int]:
    """Holes of one pattern in the order in which they are shot: the middle, then ring by ring, each once around."""
    away = (lattice.indices[rows] - tiles.centres[rows]) @ lattice.axes_um
    turn = np.round(np.arctan2(away[:, 1], away[:, 0]), 6)
    return [int(rows[i]) for i in np.lexsort((turn, tiles.rings[rows]))]


def _inside(lattice: Lattice, size: int) -> Indices:
    """Indices of one pattern about its middle (0, 0)."""
    if lattice.symmetry == "hexagonal":
        rings = (size - 1) // 2
        one = np.arange(-rings, rings + 1)
        all_of_them = np.stack(np.meshgrid(one, one), axis=-1).reshape(-1, 2)
        return np.asarray(all_of_them[_rings(lattice, all_of_them) <= rings])
    one = np.arange(size) - (size - 1) // 2
    return np.asarray(np.stack(np.meshgrid(one, one), axis=-1).reshape(-1, 2))


def _centres(lattice: Lattice, size: int, start: Indices) -> Indices:
    """Middle of the pattern of each hole, when one pattern has its middle at ``start``; patterns cover the plane."""
    at = lattice.indices - start
    if lattice.symmetry == "square":
        low = (size - 1) // 2
        return np.asarray((at + low) // size * size + start)
    r = (size - 1) // 2
    # hexagons of r rings tile the plane from these two middles on
    steps = np.array([(r + 1, r), (-r, 2 * r + 1)])
    near = np.floor(at @ np.linalg.inv(steps)).astype(np.int64)
    found = np.zeros_like(at)
    for u in (-1, 0, 1, 2):
        for v in (-1, 0, 1, 2):
            middle = (near + np.array([u, v])) @ steps
            hit = _rings(lattice, at - middle) <= r
            found[hit] = middle[hit]
    return np.asarray(found + start)


def _rings(lattice: Lattice, index: Indices) -> NDArray[np.int64]:
    """Rings between a middle and what lies at these indices from it."""
    q, s = index[:, 0], index[:, 1]
    if lattice.symmetry == "hexagonal":
        return np.asarray(np.maximum(np.maximum(abs(q), abs(s)), abs(q + s)))
    return np.asarray(np.maximum(abs(q), abs(s)))
