"""What stands at each site of the lattice: a hole that was seen, one that ice hides, or none; and further lattices.

Neighbouring squares, or parts of a torn foil, carry lattices of their own, so what is left over is fitted again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.holes.anchors import Anchors
from models.holes.choice import SURE, significance
from models.holes.lattice import LatticeFit, fit_lattice
from models.holes.prepare import Working
from models.holes.sites import Site, foil

Points = NDArray[np.float64]

_REACH = 0.25  # of the pitch: how far from its site a hole is looked for
_BEYOND = 0.75  # of the usual correlation: what a hole in the shadow of a bar must reach
_MOSTLY = 0.5  # share of the 24 sites around an inferred hole that must be seen where the answer there is doubtful
_LATTICES = 6  # in one frame, at most
_REST = 8  # points that are left over make a further lattice
_SAME = 0.85, 1.18  # how much its pitch may differ
_NEAR = 1.6  # pitches: how far from its members a further lattice reaches


@dataclass(frozen=True, slots=True)
class Answers:
    """Where a hole answers, and how well.

    Attributes
    ----------
    points, heights
        Shapes (n, 2) as (x, y) working pixels, and (n,): correlations or chances, up to 1.
    sure
        Height from which a hole needs no others round it.
    doubtful
        Height from which a place counts as foil whatever its grey level, and below which a hole that is inferred
        needs most of the sites round it seen; -1: heights do not tell.
    around
        Share of the 24 sites round an unsure or inferred hole at which one must be seen.
    fine
        How far off points may be for their raster alone, working pixels.
    at
        Answers at any places, (n, 2) -> (n,).
    qualities
        Chance of a good micrograph at each point, shape (n,), or None.
    quality_at
        The same at any places, or None.
    """

    points: Points
    heights: NDArray[np.float64]
    fine: float
    at: Callable[[Points], NDArray[np.float64]]
    qualities: NDArray[np.float64] | None = None
    quality_at: Callable[[Points], NDArray[np.float64]] | None = None
    sure: float = -1.0
    doubtful: float = -1.0
    around: float = 0.35


def all_sites(work: Working, fit: LatticeFit, points: Points, answers: Answers, radius: float) -> list[Site]:
    """Sites of the lattice and of every further one that what is left over stands on.

    Parameters
    ----------
    work
        Frame.
    fit, points
        Lattice and the points that it was fitted to, shape (n, 2), working pixels.
    answers
        Where holes answer.
    radius
        Of the holes.
    """
    sites = lattice_sites(work, fit, points, answers, radius)
    for _ in range(_LATTICES - 1):
        seen = np.array([[s.x, s.y] for s in sites if not s.inferred]).reshape(-1, 2)
        usual = float(np.median([s.correlation for s in sites if not s.inferred] or [1.0]))
        strong = answers.heights > _BEYOND * usual
        apart = _gap(answers.points, seen) > 0.5 * fit.pitch
        rest = answers.points[strong & apart]
        again = fit_lattice(rest) if len(rest) >= _REST else None
        if again is None or significance(again) <= SURE or not _SAME[0] < again.pitch / fit.pitch < _SAME[1]:
            break
        found = lattice_sites(work, again, rest, answers, radius)
        at = np.array([[s.x, s.y] for s in found]).reshape(-1, 2)
        new = (_gap(at, seen) > 0.5 * fit.pitch) & (_gap(at, rest[again.member]) < _NEAR * fit.pitch)
        kept = [replace(s, index=None) for s, is_new in zip(found, new, strict=True) if is_new]
        if not any(not s.inferred for s in kept):
            break
        fresh = np.array([[s.x, s.y] for s in kept if not s.inferred])
        here = np.array([[s.x, s.y] for s in sites])
        free = _gap(here, fresh) > 0.5 * fit.pitch
        sites = [s for s, is_free in zip(sites, free, strict=True) if is_free or not s.inferred] + kept
    return sites


def lattice_sites(work: Working, fit: LatticeFit, points: Points, answers: Answers, radius: float) -> list[Site]:
    """Hole at each lattice site in the frame: measured where one answers, else inferred on foil (see `all_sites`)."""
    rows, columns = work.values.shape
    on_foil = foil(work, fit.pitch, points[fit.member])
    reach = max(answers.fine, _REACH * fit.pitch)
    heights, seen_at = answers.heights, answers.points
    close = _gap(seen_at, points[fit.member]) < reach
    usual = float(np.median(heights[close])) if close.any() else 0.0
    index, place = _sites_in_frame(fit, Anchors.of(fit, points), rows, columns, 0.5)
    at_row, at_column = (np.rint(place[:, k]).astype(int).clip(0, n - 1) for k, n in ((1, rows), (0, columns)))
    open_ = on_foil[at_row, at_column]
    depth = np.full(len(place), np.inf)
    if not on_foil.all():
        depth = cv2.distanceTransform(on_foil.astype(np.uint8), cv2.DIST_L2, 3)[at_row, at_column].astype(np.float64)
    best = _best_near(place, seen_at, heights, reach)
    found = best >= 0
    # Where the frame cuts more than a third of a hole, the lattice knows its place better.
    inside = np.minimum(place, np.array([columns - 1.0, rows - 1.0]) - place).min(axis=1)
    where = np.where((found & (inside >= 0.5 * radius))[:, None], seen_at[best] if len(seen_at) else place, place)
    height = np.where(found, heights[best] if len(heights) else 0.0, answers.at(place))
    known = open_ | ((answers.doubtful > 0) & (height >= answers.doubtful))
    shadow = found & ~known & (height > _BEYOND * usual)
    kept = shadow | (known & (found | (inside >= 0)))
    quality = np.zeros(len(place))
    if answers.quality_at is not None and answers.qualities is not None:
        quality = np.where(found, answers.qualities[best] if len(heights) else 0.0, answers.quality_at(place))
    sites: list[Site] = []
    for k in np.flatnonzero(kept).tolist():
        site = Site(
            float(where[k, 0]),
            float(where[k, 1]),
            float(height[k]),
            inferred=not found[k],
            index=(int(index[k, 0]), int(index[k, 1])),
            shadow=bool(shadow[k]),
            quality=None if answers.qualities is None else float(quality[k]),
            foil_px=float(depth[k]),
        )
        sites.append(site)
    known_sites = [s for s in sites if not s.shadow]
    return _supported(known_sites + _next_to([s for s in sites if s.shadow], known_sites), index, answers)


def _best_near(place: Points, points: Points, heights: NDArray[np.float64], reach: float) -> NDArray[np.int64]:
    """For each of ``place`` (n, 2), which of ``points`` within ``reach`` answers best and nearest; -1 for none."""
    best = np.full(len(place), -1)
    if not len(points):
        return best
    nearby = cKDTree(points).query_ball_point(place, reach)
    count = np.array([len(near) for near in nearby])
    owner = np.repeat(np.arange(len(place)), count)
    other = np.array([k for near in nearby for k in near], np.int64)
    worth = heights[other] - 0.3 * np.hypot(*(points[other] - place[owner]).T) / reach
    order = np.lexsort((other, worth, owner))  # the last of each owner is its best
    best[owner[order]] = other[order]
    return best


def _supported(sites: list[Site], in_frame: NDArray[np.int64], answers: Answers) -> list[Site]:
    """Sites without the unsure ones round which too few holes are seen: there the foil ends."""
    first = in_frame.min(axis=0) - 2 if len(in_frame) else np.zeros(2, np.int64)
    shape = tuple(np.ptp(in_frame, axis=0) + 5) if len(in_frame) else (5, 5)
    possible, seen = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    possible[tuple((in_frame - first).T)] = 1.0
    sure = [s.index for s in sites if s.index is not None and not s.inferred and s.correlation >= answers.sure]
    if sure:
        seen[tuple((np.array(sure) - first).T)] = 1.0
    around = [
        cv2.boxFilter(grid, cv2.CV_32F, (5, 5), normalize=False, borderType=cv2.BORDER_CONSTANT) - grid
        for grid in (seen, possible)
    ]
    kept = []
    for site in sites:
        if site.index is not None:
            i, j = site.index[0] - int(first[0]), site.index[1] - int(first[1])
            least = _MOSTLY if site.inferred and site.correlation < answers.doubtful else answers.around
            if not seen[i, j] and around[0][i, j] < least * around[1][i, j] - 1e-3:
                continue
        kept.append(site)
    return kept


def _next_to(beyond: list[Site], sites: list[Site]) -> list[Site]:
    """Those in shadow that hang together with holes on the foil, step by step."""
    taken = {s.index for s in sites if s.index is not None}
    around = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
    left = beyond
    kept: list[Site] = []
    while True:
        near = [s for s in left if s.index and any((s.index[0] + di, s.index[1] + dj) in taken for di, dj in around)]
        if not near:
            return kept
        kept += near
        taken |= {s.index for s in near if s.index is not None}
        left = [s for s in left if s.index not in taken]


def _gap(points: Points, others: Points) -> NDArray[np.float64]:
    """Distance from each of ``points`` to the nearest of ``others``; infinite where there are none."""
    if not len(others) or not len(points):
        return np.full(len(points), np.inf)
    return np.asarray(cKDTree(others).query(points)[0], np.float64)


def _sites_in_frame(
    fit: LatticeFit, anchors: Anchors, rows: int, columns: int, margin: float
) -> tuple[NDArray[np.int64], Points]:
    """Index and place, shapes (n, 2), of each lattice site that lies at most ``margin`` outside the frame."""
    corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]], float)
    units = np.linalg.solve(fit.basis, (corners - fit.origin).T).T
    low = np.floor(units.min(axis=0)).astype(int) - 1
    high = np.ceil(units.max(axis=0)).astype(int) + 1
    i, j = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij")
    index = np.stack([i.ravel(), j.ravel()], axis=1).astype(np.int64)
    place = anchors.place(index)
    limit = np.array([columns - 1.0, rows - 1.0]) + margin
    inside = ((place > -margin) & (place < limit)).all(axis=1)
    return index[inside], place[inside]
