"""Indexed points from which other points and indices are located, exact where a lattice is bent a little."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.holes.lattice import LatticeFit, Points


@dataclass(frozen=True, slots=True)
class Anchors:
    """Points with known indices, from which others are located: exact where the lattice is bent a little.

    Attributes
    ----------
    points, indices
        Shapes (n, 2): positions as (x, y) and lattice indices as (i, j).
    basis
        Matrix whose columns are the lattice vectors.
    """

    points: Points
    indices: NDArray[np.int64]
    basis: Points

    @classmethod
    def of(cls, fit: LatticeFit, points: Points) -> "Anchors":
        """Anchors from the members of a fit to ``points``, shape (n, 2)."""
        return cls(points[fit.member], fit.indices[fit.member], fit.basis)

    def locate(self, others: Points) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Index of each of ``others`` (n, 2), and its distance from the place of that index, in pixels."""
        near, weight = self._nearest(self.points, others)
        step = others[:, None, :] - self.points[near]
        units = self.indices[near] + np.einsum("ij,nkj->nki", np.linalg.inv(self.basis), step)
        mean = np.einsum("nk,nki->ni", weight, units)
        whole = np.rint(mean)
        return whole.astype(np.int64), np.hypot(*((mean - whole) @ self.basis.T).T)

    def place(self, indices: NDArray[np.int64]) -> Points:
        """Position of each of ``indices`` (n, 2), as (x, y)."""
        near, weight = self._nearest(self.indices @ self.basis.T, indices @ self.basis.T)
        step = indices[:, None, :] - self.indices[near]
        guesses = self.points[near] + np.einsum("ij,nkj->nki", self.basis, step.astype(float))
        return np.asarray(np.einsum("nk,nki->ni", weight, guesses))

    def _nearest(self, known: Points, wanted: Points) -> tuple[NDArray[np.int64], Points]:
        """The few nearest of ``known`` to each of ``wanted``, and their weights, shapes (n, k)."""
        k = min(6, len(known))
        distance, near = cKDTree(known).query(wanted, k=k)
        distance, near = distance.reshape(len(wanted), k), near.reshape(len(wanted), k)
        weight = 1.0 / (distance**2 + 0.5 * float(np.abs(np.linalg.det(self.basis))))
        return near, weight / weight.sum(axis=1, keepdims=True)
