"""All policies on one survey: good holes per policy and limit, and how far the learner's chances can be trusted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.evaluation import learner, routes
from agent.evaluation.routes import Policy, Tour
from agent.evaluation.survey import GOOD_ANGSTROM, Survey

BINS = 10


@dataclass(frozen=True, slots=True)
class Score:
    """Good holes that one policy found within one limit: mean over the starts, its standard error, the least."""

    policy: str
    limit_minutes: float
    mean: float
    error: float
    least: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How forecasts made on the way compare with what came.

    Parameters
    ----------
    brier
        Mean squared difference between probability and outcome; ``brier_base`` is that of the share of all good holes,
        which nobody knows on the way, ``brier_so_far`` that of the share among the holes seen so far.
    coverage
        Share of squares whose number of good holes lay in its 90 % interval.
    reliability
        (mean probability, share that was good, number) per tenth of probability.
    """

    forecasts: int
    brier: float
    brier_base: float
    brier_so_far: float
    coverage: float
    squares: int
    reliability: tuple[tuple[float, float, int], ...]


def starts(survey: Survey, count: int, seed: int) -> NDArray[np.int64]:
    """Holes at which the runs begin, drawn with ``seed``."""
    return np.random.default_rng(seed).integers(0, len(survey), count)


def policies(survey: Survey, *, prior: bool, seed: int) -> dict[str, Policy]:
    """The learning policy and what it is compared with, by name; without predictions only what needs none."""
    found: dict[str, Policy] = {"learning": learner.policy}
    if prior:
        predicted = np.nan_to_num(survey.predicted_angstrom, nan=np.inf)
        found["greedy"] = routes.greedy(np.where(predicted <= GOOD_ANGSTROM, 1.0 - 1e-6 * predicted, 1e-6 / predicted))
        found["rank-only"] = routes.by_rank(-predicted)
    found["snowball"] = routes.snowball
    found["random"] = routes.random_hole(seed)
    found["oracle-greedy"] = routes.greedy(survey.good.astype(float))
    return found


def compare(
    survey: Survey, limits: Sequence[float], *, prior: bool, count: int, seed: int, names: Sequence[str] = ()
) -> list[Score]:
    """Every policy from the same starts within every limit."""
    chosen = policies(survey, prior=prior, seed=seed)
    at = starts(survey, count, seed)
    scores = []
    for name, policy in chosen.items():
        if names and name not in names:
            continue
        for limit in limits:
            good = [Tour(survey, int(start), limit, prior=prior).run(policy) for start in at]
            error = float(np.std(good)) / math.sqrt(len(good))
            scores.append(Score(name, limit, float(np.mean(good)), error, min(good)))
    return scores


def calibration(survey: Survey, *, prior: bool, count: int, seed: int, limit: float = 240.0) -> Calibration:
    """Forecasts of squares that are still unseen, and of their holes, after part of a run from each start."""
    p_all: list[NDArray[np.float64]] = []
    good_all: list[NDArray[np.bool_]] = []
    so_far: list[NDArray[np.float64]] = []
    inside = squares = 0
    rng = np.random.default_rng([seed, 1])
    for start in starts(survey, count, seed):
        tour = Tour(survey, int(start), limit, prior=prior)
        for hole in _some_of_each(survey, rng, share=float(rng.uniform(0.3, 0.8))):
            tour.look(hole)
        student = learner.Learner(tour)
        student.learn()
        for site, rows in zip(student.sites, student.rows, strict=True):
            if tour.visited[rows].any():
                continue
            good = survey.good[rows]
            p_all.append(site.forecast.p_good)
            so_far.append((survey.good[tour.visited].mean() - good) ** 2)
            good_all.append(good)
            low, high = site.forecast.count_interval()
            squares += 1
            inside += bool(low <= good.sum() <= high)
    p, good = np.concatenate(p_all), np.concatenate(good_all)
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    table = tuple(
        (round(float(p[bins == b].mean()), 4), round(float(good[bins == b].mean()), 4), int((bins == b).sum()))
        for b in range(BINS)
        if (bins == b).any()
    )
    base = float(((survey.good.mean() - good) ** 2).mean())
    brier, known = float(((p - good) ** 2).mean()), float(np.concatenate(so_far).mean())
    return Calibration(len(p), brier, base, known, inside / max(squares, 1), squares, table)


def _some_of_each(survey: Survey, rng: np.random.Generator, share: float) -> list[int]:
    """A few holes of some of the squares, the other squares being held out."""
    count = int(survey.square.max()) + 1
    chosen = rng.permutation(count)[: max(1, min(count - 1, round(share * count)))]
    found: list[int] = []
    for square in chosen.tolist():
        rows = np.flatnonzero(survey.square == square)
        found += rng.permutation(rows)[: max(5, len(rows) // 6)].tolist()
    return found
