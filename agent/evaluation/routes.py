"""Routes over a recorded survey: simple rules, and the learning policy, in the environment of CryoRL.

Going to another hole takes 1 minute in the same patch, 2 in the same square, 6 in the same tile, 8 elsewhere (Fan et
al., "CryoRL: reinforcement learning enables efficient cryo-EM data collection", 2022). A policy sees the outcome of a
hole when it gets there, never before.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from agent.evaluation.survey import Survey
from agent.policy.planning import Costs

COSTS = Costs(hole=1.0, group=2.0, square=6.0, grid=8.0)
Policy = Callable[["Tour"], Iterator[int]]


class Tour:
    """One run: where it is, what it has seen, and how much time is left.

    Parameters
    ----------
    survey
        What is there.
    start
        Hole at which the run begins; it counts as visited.
    limit_minutes
        The run ends before the move that would pass this time.
    prior
        Whether predictions may be looked at.
    """

    def __init__(self, survey: Survey, start: int, limit_minutes: float, *, prior: bool) -> None:
        self._survey = survey
        self.tile, self.square, self.patch, self.xy = survey.tile, survey.square, survey.patch, survey.xy
        self.predicted_angstrom = survey.predicted_angstrom if prior else np.full(len(survey), np.nan)
        self.here = start
        self.limit_minutes = limit_minutes
        self.minutes = 0.0
        self.visited = np.zeros(len(survey), bool)
        self.seen_angstrom = np.full(len(survey), np.nan)
        self.look(start)
        self.good = 0

    def look(self, hole: int) -> None:
        """See the outcome of a hole, which counts as visited from then on."""
        self.visited[hole] = True
        self.seen_angstrom[hole] = self._survey.ctf_angstrom[hole]

    @property
    def left_minutes(self) -> float:
        """Time that is left."""
        return self.limit_minutes - self.minutes

    def costs(self) -> NDArray[np.float64]:
        """Minutes from here to each hole, shape (n,)."""
        same_tile, same_square = self.tile == self.tile[self.here], self.square == self.square[self.here]
        same_patch = self.patch == self.patch[self.here]
        far = np.where(same_tile, COSTS.square, COSTS.grid)
        return np.where(same_patch, COSTS.hole, np.where(same_square, COSTS.group, far))

    def run(self, policy: Policy) -> int:
        """Good holes that ``policy`` finds in time."""
        for hole in policy(self):
            cost = float(self.costs()[hole])
            if self.minutes + cost > self.limit_minutes:
                break
            if self.visited[hole]:
                raise ValueError(f"hole {hole} was visited already")
            self.minutes += cost
            self.here = hole
            self.look(hole)
            self.good += bool(self._survey.good[hole])
        return self.good


def random_hole(seed: int) -> Policy:
    """Any hole next."""

    def policy(tour: Tour) -> Iterator[int]:
        order = np.random.default_rng([seed, tour.here]).permutation(len(tour.visited))
        yield from (int(hole) for hole in order if not tour.visited[hole])

    return policy


def snowball(tour: Tour) -> Iterator[int]:
    """The cheapest hole next, the nearest of those in the same image."""
    while not tour.visited.all():
        cost = tour.costs()
        near = np.hypot(*(tour.xy - tour.xy[tour.here]).T)
        rank = np.where(tour.visited, np.inf, cost * 1e6 + np.where(tour.patch == tour.patch[tour.here], near, 0.0))
        yield int(np.argmin(rank))


def by_rank(worth: NDArray[np.float64]) -> Policy:
    """The holes in the order of ``worth``, whatever the moves cost."""

    def policy(tour: Tour) -> Iterator[int]:
        yield from (int(hole) for hole in np.argsort(-worth, kind="stable") if not tour.visited[hole])

    return policy


def greedy(worth: NDArray[np.float64]) -> Policy:
    """The most of ``worth`` per minute next."""

    def policy(tour: Tour) -> Iterator[int]:
        while not tour.visited.all():
            yield int(np.argmax(np.where(tour.visited, -np.inf, worth / tour.costs())))

    return policy
