"""The learning policy on a recorded survey: the same learner and planner as in a live session."""

import math
from collections.abc import Iterator

import numpy as np

from agent.evaluation.routes import COSTS, Tour
from agent.evaluation.survey import GOOD_ANGSTROM
from agent.policy.learning import Belief, Floats, Posterior, Region, neighbourhood
from agent.policy.planning import Board, Here, Site

MOST_MERIT = 0.6
APART = 1e4  # pitches between patches: how they lie to each other is not known
# Nothing is known: good is as likely as bad, and squares differ as much as what no score tells apart.
COLD = Belief(offset=0.0, offset_sd=0.25, grid_sd=0.2, square_sd=0.4, across_sd=0.0, wide_sd=0.2, near_sd=0.1)
WITH_PREDICTIONS = Belief(
    offset=0.05, offset_sd=0.1, hole_weights=(0.9, 0.3), hole_weight_sds=(0.2, 0.15),
    grid_sd=0.03, square_sd=0.06, across_sd=0.0, wide_sd=0.05, near_sd=0.08, chance_sd=0.28,
)  # fmt: skip


class Learner:
    """Learns from each outcome of a tour and says which hole is next."""

    def __init__(self, tour: Tour, belief: Belief | None = None) -> None:
        self.tour = tour
        known = np.isfinite(tour.predicted_angstrom)
        usual = np.nanmedian(tour.predicted_angstrom) if known.any() else GOOD_ANGSTROM
        predicted = np.where(known, tour.predicted_angstrom, usual)
        self.belief = belief or (WITH_PREDICTIONS if known.any() else COLD)
        self.merit = merit(tour.seen_angstrom)
        self.rows = [np.flatnonzero(tour.square == s) for s in range(int(tour.square.max()) + 1)]
        self.rows = [rows[np.argsort(tour.patch[rows], kind="stable")] for rows in self.rows]
        pitch = _pitch(tour)
        self.places = tour.xy / pitch + APART * tour.patch[:, None]
        score = merit(predicted)
        around = np.zeros(len(score))
        for rows in self.rows:
            around[rows] = neighbourhood(score[rows], self.places[rows])
        self.features = np.column_stack([score, around])[:, : len(self.belief.hole_weights)]
        self.regions = [self._region(s) for s in range(len(self.rows))]
        self.sites: list[Site] = []

    def _region(self, s: int) -> Region:
        rows = self.rows[s]
        return Region(
            key=f"{s:05d}",
            grid=str(self.tour.tile[rows[0]]),
            place_um=(0.0, 0.0),
            features=np.zeros(0),
            holes=self.features[rows],
            places=self.places[rows],
            merit=self.merit[rows],
        )

    def learn(self) -> None:
        """Take in what was seen since the last time."""
        known = np.isfinite(self.merit)
        self.merit = merit(self.tour.seen_angstrom)
        for s in np.unique(self.tour.square[np.isfinite(self.merit) & ~known]).tolist():
            self.regions[s] = self._region(s)
        posterior = Posterior(self.regions, self.belief)
        self.sites = []
        for region, rows in zip(self.regions, self.rows, strict=True):
            forecast = posterior.forecast(region.key)
            open_ = ~self.tour.visited[rows]
            self.sites.append(Site(region.key, region.grid, forecast.rows(open_), self.tour.patch[rows[open_]]))

    def policy(self, tour: Tour) -> Iterator[int]:
        """Holes to visit, a few at a time."""
        while not tour.visited.all():
            self.learn()
            yield from self.next_holes()

    def next_holes(self) -> list[int]:
        """The holes to visit before anything is thought over again."""
        tour = self.tour
        square = f"{tour.square[tour.here]:05d}"
        here = Here(str(tour.tile[tour.here]), square, int(tour.patch[tour.here]))
        board = Board(self.sites, here, COSTS, tour.left_minutes)
        site = self.sites[int(board.squares(ranked=False)[0].key)]
        group = board.groups(site.key, ranked=False)[0].group
        rows = self.rows[int(site.key)][~tour.visited[self.rows[int(site.key)]]]
        some = 1 + int(tour.visited[self.rows[int(site.key)]].sum()) // 8
        return [int(rows[i]) for i in board.holes(site.key, group)[:some]]


def policy(tour: Tour) -> Iterator[int]:
    """The learning policy with what is usually believed before the first exposure."""
    return Learner(tour).policy(tour)


def merit(ctf_angstrom: Floats) -> Floats:
    """Merit of a CTF resolution, bounded: how bad a bad micrograph is says little about its neighbours."""
    return np.clip(np.log(GOOD_ANGSTROM / ctf_angstrom), -MOST_MERIT, MOST_MERIT)


def _pitch(tour: Tour) -> float:
    gaps = []
    for patch in np.unique(tour.patch)[:40]:
        at = tour.xy[tour.patch == patch]
        if len(at) > 2:
            d = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + np.diag(np.full(len(at), math.inf))
            gaps.append(float(np.median(d.min(axis=1))))
    return max(float(np.median(gaps)), 1e-6) if gaps else 1.0
