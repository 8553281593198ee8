"""From probability maps to first spheres: a cone of nearness round each centre.

The second map falls evenly from 1 at a vesicle's centre to 0 at its outside, so each vesicle is a cone whose tip is its
centre and whose foot is its radius; vesicles that touch stay two cones. Centres and radii are in voxels, (z, y, x).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Rows = NDArray[np.float64]

_TIP = 0.22  # smallest nearness (smoothed) of a centre
_APART = 5.0  # voxels between two tips
_LEAST_FILL = 0.5  # mean probability inside a sphere
_SAME = 0.65  # of the larger radius: spheres with closer centres are one vesicle seen twice
_RADII = (5.0, 22.0)


@dataclass(frozen=True, slots=True)
class Spheres:
    """Vesicles as spheres.

    Attributes
    ----------
    centres
        Shape (n, 3), (z, y, x) in voxels.
    radii
        Outer radii in voxels, shape (n,).
    scores
        Mean probability inside, from 0 to 1.
    """

    centres: Rows
    radii: Rows
    scores: Rows

    def __len__(self) -> int:
        return len(self.radii)

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Spheres":
        """Those that an index or a mask picks."""
        return Spheres(self.centres[which], self.radii[which], self.scores[which])


NONE = Spheres(np.zeros((0, 3)), np.zeros(0), np.zeros(0))


def tips(near: NDArray[np.uint8], *, slab: int = 64) -> Rows:
    """Local maxima of the nearness map, shape (n, 3); worked through in slabs along z."""
    found: list[Rows] = []
    margin = 12
    for low in range(0, near.shape[0], slab):
        a, b = max(0, low - margin), min(near.shape[0], low + slab + margin)
        part = ndimage.gaussian_filter(near[a:b].astype(np.float32) / 255, 1.3, radius=4, mode="constant")
        top = (part == ndimage.maximum_filter(part, size=7)) & (part > _TIP)
        at = np.argwhere(top).astype(np.float64)
        height = part[top]
        at[:, 0] += a
        mine = (at[:, 0] >= low) & (at[:, 0] < low + slab)
        found.append(np.concatenate([at, height[:, None]], axis=1)[mine])
    rows = np.concatenate(found) if found else np.zeros((0, 4))
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0], -rows[:, 3]))]
    keep = np.ones(len(rows), bool)
    tree = cKDTree(rows[:, :3]) if len(rows) else None
    for i in range(len(rows)):
        if keep[i] and tree is not None:
            others = [j for j in tree.query_ball_point(rows[i, :3], _APART) if j > i]
            keep[others] = False
    return rows[keep, :3]


def cones(maps: NDArray[np.uint8], starts: Rows) -> Spheres:
    """A sphere for each start, fitted to the nearness around it that belongs to no other start.

    Parameters
    ----------
    maps
        Probability and nearness times 255, (2, z, y, x).
    starts
        Shape (n, 3).
    """
    if not len(starts):
        return NONE
    centres, radii, scores = starts.copy(), np.zeros(len(starts)), np.zeros(len(starts))
    tree = cKDTree(starts)
    for i, start in enumerate(starts):
        rivals = starts[[j for j in tree.query_ball_point(start, 2 * _RADII[1]) if j != i]]
        centres[i], radii[i], scores[i] = _cone(maps, start, rivals)
    good = (scores >= _LEAST_FILL) & (radii >= _RADII[0]) & (radii <= _RADII[1])
    return without_doubles(Spheres(centres, radii, scores).take(good))


def _cone(maps: NDArray[np.uint8], start: Rows, rivals: Rows) -> tuple[Rows, float, float]:
    half = int(_RADII[1]) + 2
    low = np.maximum(np.rint(start).astype(int) - half, 0)
    high = np.minimum(np.rint(start).astype(int) + half + 1, maps.shape[1:])
    at = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    z, y, x = at
    near = maps[1, z, y, x].astype(np.float64) / 255
    inside = maps[0, z, y, x].astype(np.float64) / 255
    points = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in at], indexing="ij"), axis=-1).reshape(-1, 3)
    values = near.ravel()
    mine = np.ones(len(points), bool)
    own = ((points - start) ** 2).sum(axis=1)
    for rival in rivals:
        mine &= own < ((points - rival) ** 2).sum(axis=1)
    centre, radius = start.astype(np.float64), 10.0
    for _ in range(12):
        offset = points - centre
        distance = np.sqrt((offset**2).sum(axis=1))
        used = mine & (distance < 1.05 * radius + 1)
        d, v, o = np.maximum(distance[used], 1e-6), values[used], offset[used]
        wanted = np.clip(1 - d / radius, 0, None)
        slope = (d < radius).astype(np.float64)
        jacobian = np.concatenate(
            [slope[:, None] * o / (d * radius)[:, None], (slope * d / radius**2)[:, None]], axis=1
        )
        normal = jacobian.T @ jacobian + np.diag([1e-3] * 4)
        step = np.linalg.solve(normal, jacobian.T @ (v - wanted))
        step = np.clip(step, -2, 2)
        centre = centre + step[:3]
        radius = float(np.clip(radius + step[3], 4.0, 24.0))
        if np.abs(step).max() < 1e-3:
            break
    distance = np.sqrt(((points - centre) ** 2).sum(axis=1))
    ball = (distance <= radius).reshape(near.shape)
    score = float(inside[ball].mean()) if ball.any() else 0.0
    return centre, radius, score


def without_doubles(spheres: Spheres) -> Spheres:
    """The same without spheres that lie in a better one."""
    order = np.argsort(-spheres.scores, kind="stable")
    spheres = spheres.take(order)
    keep = np.ones(len(spheres), bool)
    if not len(spheres):
        return spheres
    tree = cKDTree(spheres.centres)
    for i in range(len(spheres)):
        if not keep[i]:
            continue
        for j in tree.query_ball_point(spheres.centres[i], 2 * _RADII[1] * _SAME):
            if j > i and keep[j]:
                gap = float(np.linalg.norm(spheres.centres[i] - spheres.centres[j]))
                keep[j] = gap >= _SAME * max(spheres.radii[i], spheres.radii[j])
    return spheres.take(keep)
