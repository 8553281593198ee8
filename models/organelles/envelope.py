"""The surface that a cloud of points lies on, such as the nuclear envelope through its pores, and its normals.

Points are freed from jitter by medians of neighbours, then joined by the triangles of an alpha complex (Edelsbrunner &
Mücke, ACM Trans Graph 13, 43, 1994): those of the Delaunay triangulation whose smallest sphere is empty and no larger
than alpha. Unlike the outline of an alpha shape these also exist where the points lie on one sheet, without an inside.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError, cKDTree

from models.organelles.numbers import NUMBERS

Rows = NDArray[np.float64]  # shape (n, 3), (z, y, x)
NEIGHBOURS = int(NUMBERS["pores"]["neighbours"])  # whose median frees a point from jitter
ALPHA = float(NUMBERS["pores"]["alpha"])  # times the usual distance between neighbours
_FLAT = 1e-6


@dataclass(frozen=True, slots=True)
class Surface:
    """Triangles in space: their centres, unit normals (either way), areas."""

    centres: Rows
    normals: Rows
    areas: NDArray[np.float64]

    def normals_at(self, points: Rows, count: int = 6) -> Rows:
        """Unit normal at each point: that of the nearest triangles, larger ones counting more; NaN without any."""
        if not len(self.areas):
            return np.full((len(points), 3), np.nan)
        _, near = cKDTree(self.centres).query(points, min(count, len(self.areas)))
        out = []
        for row in np.asarray(near).reshape(len(points), -1):
            spread = np.einsum("n,ni,nj->ij", self.areas[row], self.normals[row], self.normals[row])
            out.append(np.linalg.eigh(spread)[1][:, -1])
        return np.array(out).reshape(-1, 3)


def freed(points: Rows, neighbours: int = NEIGHBOURS) -> Rows:
    """Each point moved to the median of itself and its nearest ones along the direction in which these lie flattest.

    Along the sheet points stay where they are, so that the rim of a cloud does not shrink.
    """
    if len(points) < 4:
        return points.copy()
    _, near = cKDTree(points).query(points, min(neighbours + 1, len(points)))
    out = points.copy()
    for n, row in enumerate(near):
        around = points[row]
        middle = np.median(around, axis=0)
        normal = np.linalg.svd(around - around.mean(axis=0))[2][-1]
        out[n] += normal * ((middle - points[n]) @ normal)
    return out


def envelope(points: Rows, alpha: float | None = None) -> Surface:
    """The surface through a cloud of points.

    Parameters
    ----------
    points
        Shape (n, 3).
    alpha
        Radius of the largest triangle's smallest sphere, in their unit; None: 2.5 times the median distance between
        neighbours.
    """
    points = np.asarray(points, float)
    if len(points) < 3:
        return Surface(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    if alpha is None:
        near, _ = cKDTree(points).query(points, min(4, len(points)))
        alpha = ALPHA * float(np.median(near[:, 1:].mean(axis=1)))
    return _surface(points[_triangles(points, alpha)])


def _triangles(points: Rows, alpha: float) -> NDArray[np.int64]:
    centre = points.mean(axis=0)
    flat = np.linalg.svd(points - centre, full_matrices=False)
    try:
        if len(points) < 4 or flat[1][-1] < _FLAT * max(flat[1][0], 1e-12):  # all in one plane
            plane = (points - centre) @ flat[2][:2].T
            faces = Delaunay(plane).simplices if len(points) > 3 else np.array([[0, 1, 2]])
        else:
            cells = Delaunay(points).simplices
            faces = np.unique(np.sort(np.concatenate([cells[:, list(c)] for c in combinations(range(4), 3)])), axis=0)
    except QhullError:  # in one line
        return np.zeros((0, 3), np.int64)
    middle, radius = _smallest_spheres(points[faces])
    fits = radius <= alpha
    faces, middle, radius = faces[fits], middle[fits], radius[fits]
    if not len(faces):
        return np.zeros((0, 3), np.int64)
    near, _ = cKDTree(points).query(middle)
    return np.asarray(faces[near >= radius * (1 - 1e-9)], np.int64)


def _smallest_spheres(corners: NDArray[np.float64]) -> tuple[Rows, NDArray[np.float64]]:
    """Centre and radius of the circle through three points, which is the great circle of the smallest such sphere."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac = b - a, c - a
    normal = np.cross(ab, ac)
    size = np.maximum((normal**2).sum(axis=1), 1e-300)[:, None]
    to = (np.cross(normal, ab) * (ac**2).sum(axis=1)[:, None] + np.cross(ac, normal) * (ab**2).sum(axis=1)[:, None]) / (
        2 * size
    )
    return a + to, np.linalg.norm(to, axis=1)


def _surface(corners: NDArray[np.float64]) -> Surface:
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    good = length > 0
    return Surface(corners[good].mean(axis=1), normal[good] / length[good, None], length[good] / 2)
