"""What stands at each site of the lattice: a hole that was seen, one that ice hides, or none; and further lattices.

Neighbouring squares, or parts of a torn foil, carry lattices of their own, so what is left over is fitted again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

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
        Answer at any place (x, y).
    qualities
        Chance of a good micrograph at each point, shape (n,), or None.
    quality_at
        The same at any place, or None.
    """

    points: Points
    heights: NDArray[np.float64]
    fine: float
    at: Callable[[float, float], float]
    qualities: NDArray[np.float64] | None = None
    quality_at: Callable[[float, float], float] | None = None
    sure: float = -1.0
    doubtful: float = -1.0
    around: float = 0.35

    def quality(self, k: int) -> float | None:
        """Quality at point ``k``."""
        return None if self.qualities is None else float(self.qualities[k])


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
    nearby = cKDTree(seen_at).query_ball_point(place, reach) if len(seen_at) else [[]] * len(place)
    sites: list[Site] = []
    beyond: list[Site] = []
    for (i, j), at, near in zip(index, place, nearby, strict=True):
        x, y = int(np.clip(round(at[0]), 0, columns - 1)), int(np.clip(round(at[1]), 0, rows - 1))
        where = (int(i), int(j))
        if near:
            gap = np.hypot(*(seen_at[near] - at).T)
            best = near[int(np.argmax(heights[near] - 0.3 * gap / reach))]
            # Where the frame cuts more than a third of a hole, the lattice knows its place better.
            cut = min(at[0], at[1], columns - 1 - at[0], rows - 1 - at[1]) < 0.5 * radius
            (x_seen, y_seen), height = (at if cut else seen_at[best]), float(heights[best])
            site = Site(float(x_seen), float(y_seen), height, False, where, quality=answers.quality(best))
            if on_foil[y, x] or 0 < answers.doubtful <= height:
                sites.append(site)
            elif height > _BEYOND * usual:
                beyond.append(replace(site, shadow=True))
        elif 0 <= at[0] <= columns - 1 and 0 <= at[1] <= rows - 1:
            x_at, y_at = float(at[0]), float(at[1])
            height = answers.at(x_at, y_at)
            if on_foil[y, x] or 0 < answers.doubtful <= height:
                quality = None if answers.quality_at is None else answers.quality_at(x_at, y_at)
                sites.append(Site(x_at, y_at, height, True, where, quality=quality))
    sites += _next_to(beyond, sites)
    return _supported(sites, {(int(i), int(j)) for i, j in index}, answers)


def _supported(sites: list[Site], in_frame: set[tuple[int, int]], answers: Answers) -> list[Site]:
    """Sites without the unsure ones round which too few holes are seen: there the foil ends."""
    seen = {s.index for s in sites if not s.inferred and s.correlation >= answers.sure}
    around = [(di, dj) for di in range(-2, 3) for dj in range(-2, 3) if (di, dj) != (0, 0)]
    kept = []
    for site in sites:
        if site.index not in seen and site.index is not None:
            near = [(site.index[0] + di, site.index[1] + dj) for di, dj in around]
            possible = [n for n in near if n in in_frame]
            least = _MOSTLY if site.inferred and site.correlation < answers.doubtful else answers.around
            if sum(n in seen for n in possible) < least * len(possible):
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
