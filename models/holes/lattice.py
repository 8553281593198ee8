"""The lattice that explains a set of points: its two vectors, the index of each point, and how well it fits.

The search looks at difference vectors between neighbouring points, so a lattice may be square, hexagonal
or oblique, may miss points, and may be bent a little by stage drift or montage seams: indices spread from
neighbour to neighbour and never through one global rounding. The fit itself is linear least squares,
reweighted against outliers (Huber, Robust Statistics, 1981, section 7.8).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree

from models.detections import Lattice, Symmetry

Points = NDArray[np.float64]

_NEIGHBOURS = 10
_MODES = 10
_BASES = 5
_LEAST_SHARE = 0.2  # of the steps between neighbours: what a lattice explains at least
_TOLERANCE = 0.14  # of the shorter vector: how far one step between neighbours may be off
_SQUARE_DEG, _SQUARE_RATIO = 5.0, 1.09


@dataclass(frozen=True, slots=True)
class LatticeFit:
    """A fitted lattice and what it says of each point.

    Attributes
    ----------
    origin, a, b
        Position of index (0, 0) and the two vectors, pixels, as (x, y).
    indices
        Index (i, j) of each point, shape (n, 2); meaningless where ``member`` is false.
    member
        Which points belong to the lattice, shape (n,).
    residual
        Rms distance of the members from their lattice points, in pixels.
    occupancy
        Mean share of a member's four neighbour sites that hold a member: 1 for a full lattice.
    """

    origin: Points
    a: Points
    b: Points
    indices: NDArray[np.int64]
    member: NDArray[np.bool_]
    residual: float
    occupancy: float

    @property
    def pitch(self) -> float:
        """Length of the shorter vector, in pixels."""
        return float(min(np.hypot(*self.a), np.hypot(*self.b)))

    @property
    def basis(self) -> Points:
        """Matrix whose columns are ``a`` and ``b``: position = origin + basis @ (i, j)."""
        return np.stack([self.a, self.b], axis=1)

    def symmetry(self) -> Symmetry:
        """Square, hexagonal or oblique, from the two (reduced) vectors."""
        return symmetry_of(self.a, self.b)

    def record(self) -> Lattice:
        """Lattice as the detection records carry it."""
        return Lattice(
            origin=(float(self.origin[0]), float(self.origin[1])),
            a=(float(self.a[0]), float(self.a[1])),
            b=(float(self.b[0]), float(self.b[1])),
            symmetry=self.symmetry(),
            residual_px=self.residual,
        )


def symmetry_of(a: Points, b: Points) -> Symmetry:
    """Symmetry of the lattice with reduced vectors ``a`` and ``b`` (angle between 60 and 90 degrees)."""
    la, lb = float(np.hypot(*a)), float(np.hypot(*b))
    angle = float(np.degrees(np.arccos(np.clip(abs(float(a @ b)) / (la * lb), 0.0, 1.0))))
    if max(la, lb) > _SQUARE_RATIO * min(la, lb):
        return "oblique"
    if angle > 90.0 - _SQUARE_DEG:
        return "square"
    if angle < 60.0 + _SQUARE_DEG:
        return "hexagonal"
    return "oblique"


def reduce_basis(a: Points, b: Points) -> tuple[Points, Points]:
    """Shortest two vectors of the lattice of ``a`` and ``b`` (Lagrange-Gauss), made unique.

    The first points right (within -45 to 45 degrees where that is possible) and the pair is right-handed on
    the screen: ``a`` turned clockwise, as seen with y down, gives ``b``.
    """
    for _ in range(64):
        if np.hypot(*a) > np.hypot(*b):
            a, b = b, a
        b_new = b - np.round(float(a @ b) / float(a @ a)) * a
        if np.allclose(b_new, b):
            break
        b = b_new
    if float(a @ b) < 0:
        b = -b
    if abs(a[0]) < abs(a[1]) and abs(b[0]) > abs(b[1]):
        a, b = b, a
    if a[0] < 0:
        a, b = -a, -b
    if a[0] * b[1] - a[1] * b[0] < 0:
        b = -b
    return a, b


def fit_lattice(points: Points, *, min_points: int = 3) -> LatticeFit | None:
    """Lattice that explains most of ``points``, or None.

    Parameters
    ----------
    points
        Centres, shape (n, 2), as (x, y) pixels.
    min_points
        Fewest points that make a lattice. Three points always span some lattice, so with three members only a
        square or hexagonal one counts; an oblique one takes four.

    Returns
    -------
    LatticeFit or None
        The best fit, in reduced vectors.
    """
    if len(points) < max(3, min_points):
        return None
    pairs = _neighbour_pairs(points)
    if not len(pairs.step):
        return None
    best: LatticeFit | None = None
    best_score = 0.0
    for u, v in _bases(_difference_modes(pairs.step), pairs.step):
        fit = _fit(points, pairs, u, v)
        if fit is None or fit.member.sum() < min_points:
            continue
        if fit.member.sum() == 3 and fit.symmetry() == "oblique":
            continue
        score = float(fit.member.sum()) * (0.2 + fit.occupancy) * (1.0 - 2.0 * fit.residual / fit.pitch)
        if score > best_score * 1.001:
            best, best_score = fit, score
        if fit.member.mean() > 0.9 and fit.occupancy > 0.8 and fit.residual < 0.05 * fit.pitch:
            break
    return best


def _bases(modes: list[Points], step: Points) -> list[tuple[Points, Points]]:
    """Different lattices that two of the modes span, those first that explain most steps between neighbours."""
    bases: list[tuple[Points, Points]] = []
    shares: list[float] = []
    for i, u in enumerate(modes):
        for v in modes[i + 1 :]:
            lu, lv = float(np.hypot(*u)), float(np.hypot(*v))
            sine = abs(float(u[0] * v[1] - u[1] * v[0])) / (lu * lv)
            if sine < 0.5 or max(lu, lv) > 2.2 * min(lu, lv):
                continue
            a, b = reduce_basis(u, v)
            near = 0.1 * float(min(np.hypot(*a), np.hypot(*b)))
            if any(np.hypot(*(a - p)) < near and np.hypot(*(b - q)) < near for p, q in bases):
                continue
            share = float(_agrees(step, a, b)[0].mean())
            if share > _LEAST_SHARE:
                bases.append((a, b))
                shares.append(share)
    return [bases[k] for k in np.argsort(-np.array(shares), kind="stable")[:_BASES]]


def _agrees(step: Points, a: Points, b: Points) -> tuple[NDArray[np.bool_], Points]:
    """Which steps, shape (m, 2), are near a lattice vector, and the nearest in units of ``a`` and ``b``."""
    basis = np.stack([a, b], axis=1)
    pitch = float(min(np.hypot(*a), np.hypot(*b)))
    reach = 2.3 * float(max(np.hypot(*a), np.hypot(*b)))
    units = step @ np.linalg.inv(basis).T
    whole = np.rint(units)
    off = np.hypot(*((units - whole) @ basis.T).T)
    steps = np.abs(whole).sum(axis=1)
    near = (steps > 0) & (np.hypot(*step.T) < reach)
    return near & (off <= _TOLERANCE * pitch * np.sqrt(np.maximum(steps, 1))), whole


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Each point with its nearest others: who, whom, and the step between them, shapes (m,), (m,) and (m, 2)."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    step: Points


def _neighbour_pairs(points: Points) -> _Pairs:
    n = len(points)
    k = min(n, _NEIGHBOURS + 1)
    distance, other = cKDTree(points).query(points, k=k)
    apart = distance.ravel() > 1e-6
    source, target = np.repeat(np.arange(n), k)[apart], other.ravel()[apart]
    return _Pairs(source, target, points[target] - points[source])


def _fit(points: Points, pairs: _Pairs, a: Points, b: Points) -> LatticeFit | None:
    """Fit the lattice that starts from the reduced vectors ``a`` and ``b`` to the points that it explains."""
    found = _index(len(points), pairs, a, b)
    if found is None:
        return None
    indices, member = found
    spanned = indices[member] - indices[member][0]
    if member.sum() < 3 or np.linalg.matrix_rank(spanned) < 2:
        return None
    origin, a, b, residual = _least_squares(points[member], indices[member].astype(float))
    a_new, b_new = reduce_basis(a, b)
    change = np.linalg.solve(np.stack([a_new, b_new], axis=1), np.stack([a, b], axis=1))
    indices = np.where(member[:, None], np.rint(indices @ change.T).astype(np.int64), 0)
    return LatticeFit(origin, a_new, b_new, indices, member, residual, _occupancy(indices[member]))


def _index(n: int, pairs: _Pairs, a: Points, b: Points) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
    """Lattice index of each point, spread from neighbour to neighbour; None when no two points agree.

    Returns
    -------
    indices, member
        Shapes (n, 2) and (n,); ``member`` is true for the largest set of points that hang together.
    """
    good, whole = _agrees(pairs.step, a, b)
    if not good.any():
        return None
    source, target, whole = pairs.source[good], pairs.target[good], whole[good].astype(np.int64)
    source, target = np.concatenate([source, target]), np.concatenate([target, source])
    whole = np.concatenate([whole, -whole])
    graph = coo_matrix((np.ones(len(source)), (source, target)), shape=(n, n)).tocsr()
    _, part = connected_components(graph, directed=False)
    member = part == np.bincount(part).argmax()
    order, parent = breadth_first_order(graph, int(np.flatnonzero(member)[0]), directed=True)
    key = source.astype(np.int64) * n + target
    by_key = np.argsort(key, kind="stable")
    wanted = parent[order[1:]].astype(np.int64) * n + order[1:]
    steps_taken = whole[by_key[np.searchsorted(key[by_key], wanted)]]
    indices = np.zeros((n, 2), np.int64)
    for node, taken in zip(order[1:], steps_taken, strict=True):
        indices[node] = indices[parent[node]] + taken
    return indices, member


def _difference_modes(difference: Points) -> list[Points]:
    """Most repeated of the difference vectors (m, 2) between neighbours, one half plane, best supported first."""
    flip = (difference[:, 0] < 0) | ((difference[:, 0] == 0) & (difference[:, 1] < 0))
    difference = np.where(flip[:, None], -difference, difference)
    if len(difference) > 4000:
        difference = difference[:: len(difference) // 4000 + 1]
    both = np.concatenate([difference, -difference])
    tree = cKDTree(both)
    length = np.hypot(*difference.T)
    support = np.array(tree.query_ball_point(difference, 0.1 * length, return_length=True), dtype=np.int64)
    # Longer vectors gather more by chance (their circle grows) and matter less.
    weight = support / (1.0 + length / np.median(length))
    free = np.ones(len(difference), bool)
    modes: list[Points] = []
    while len(modes) < _MODES and free.any():
        k_best = int(np.argmax(np.where(free, weight, -1.0)))
        near = tree.query_ball_point(difference[k_best], 0.1 * length[k_best])
        mode = np.asarray(both[near].mean(axis=0))
        modes.append(mode)
        gap = np.minimum(np.hypot(*(difference - mode).T), np.hypot(*(difference + mode).T))
        free &= gap > 0.15 * length[k_best]
    return modes


def _least_squares(points: Points, indices: Points) -> tuple[Points, Points, Points, float]:
    """Origin, two vectors and rms residual of points at known indices, by reweighted least squares."""
    design = np.column_stack([np.ones(len(points)), indices])
    weight = np.ones(len(points))
    solution = np.zeros((3, 2))
    off = np.zeros(len(points))
    for _ in range(5):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(design * root, points * root, rcond=None)[0]
        off = np.hypot(*(points - design @ solution).T)
        scale = 1.5 * float(np.median(off)) + 1e-9
        weight = np.minimum(1.0, scale / np.maximum(off, 1e-12))
    residual = float(np.sqrt(np.mean(off**2)))
    return solution[0], solution[1], solution[2], residual


def _occupancy(indices: NDArray[np.int64]) -> float:
    """Mean share of two neighbour sites of each index that are taken (four inside, two at a corner)."""
    taken = {(int(i), int(j)) for i, j in indices}
    if len(taken) < 2:
        return 0.0
    share = sum(
        min(2, ((i + 1, j) in taken) + ((i - 1, j) in taken) + ((i, j + 1) in taken) + ((i, j - 1) in taken))
        for i, j in taken
    )
    return share / (2.0 * len(taken))
