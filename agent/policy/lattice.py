"""The lattice that the holes of a square lie on: which row and column each of them has."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Symmetry = Literal["square", "hexagonal"]
FOLDS: dict[Symmetry, int] = {"square": 4, "hexagonal": 6}
FEWEST = 6  # holes; fewer tell no lattice
WORST = 0.25  # median distance of the holes from the lattice, in pitches: beyond, there is none


class Lattice(NamedTuple):
    """A lattice and where the holes are on it.

    Parameters
    ----------
    symmetry
        ``square``: the second axis at 90 degrees to the first; ``hexagonal``: at 60 degrees.
    origin_um
        Stage position of index (0, 0), shape (2,), x and y.
    axes_um
        The two axes, shape (2, 2), one in each row, x and y.
    indices
        Index of each hole along the axes, shape (n, 2).
    """

    symmetry: Symmetry
    origin_um: NDArray[np.float64]
    axes_um: NDArray[np.float64]
    indices: NDArray[np.int64]

    @property
    def pitch_um(self) -> float:
        """Mean length of the axes."""
        return float(np.hypot(*self.axes_um.T).mean())

    def place_um(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Stage positions of indices, both of shape (..., 2)."""
        return np.asarray(self.origin_um + index @ self.axes_um)


def fit(points_um: NDArray[np.float64], symmetry: Symmetry) -> Lattice | None:
    """The lattice of holes at ``points_um``, shape (n, 2), x and y; None where they follow none.

    Direction and pitch come from the vectors between neighbours; from the middle outwards the holes are then counted
    and the axes fitted to them, so that a small error does not add up over a square.
    """
    if len(points_um) < FEWEST:
        return None
    tree = KDTree(points_um)
    pitch = float(np.median(tree.query(points_um, k=2)[0][:, 1]))
    pairs = tree.query_pairs(1.3 * pitch, output_type="ndarray")
    if pitch <= 0 or not len(pairs):
        return None
    steps = points_um[pairs[:, 1]] - points_um[pairs[:, 0]]
    fold = FOLDS[symmetry]
    turn = float(np.angle(np.exp(1j * fold * np.arctan2(steps[:, 1], steps[:, 0])).mean())) / fold
    pitch = float(np.median(np.hypot(*steps.T)))
    angles = (turn, turn + 2 * math.pi / fold)
    axes = pitch * np.array([(math.cos(angle), math.sin(angle)) for angle in angles])
    away = np.hypot(*(points_um - np.median(points_um, axis=0)).T)
    origin = points_um[int(np.argmin(away))]
    away = np.hypot(*(points_um - origin).T)
    for reach in (2.5, 5.0, 10.0, 20.0, np.inf):
        near = points_um[away <= reach * pitch]
        columns = np.column_stack([np.round((near - origin) @ np.linalg.inv(axes)), np.ones(len(near))])
        if np.linalg.matrix_rank(columns) < 3:
            continue
        found = np.linalg.lstsq(columns, near, rcond=None)[0]
        if abs(np.linalg.det(found[:2])) < 0.5 * pitch**2:
            return None
        axes, origin = found[:2], found[2]
    at = (points_um - origin) @ np.linalg.inv(axes)
    indices = np.round(at).astype(np.int64)
    off = np.hypot(*((at - indices) @ axes).T)
    if float(np.median(off)) > WORST * pitch:
        return None
    return Lattice(symmetry, origin, axes, indices)
