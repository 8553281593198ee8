"""The learner: what exposures turned out like so far says what the others will turn out like, and how surely.

A Gaussian process over the whole session, written as a hierarchy so that one more exposure costs next to nothing::

    merit of a hole = level of its square + weights . features of the hole + waves over the square + chance
    level of a square = offset + weights . features of the square + its grid + waves over the grid + its own

Every term is Gaussian, so the posterior is exact (Rasmussen & Williams 2006, section 2.7 for the explicit linear
part); outcomes that count as good or bad only enter as the merits to be expected of them, in a few rounds. Given the
levels and weights, squares do not know of each other: each sends a *message*, the sufficient statistics of its
exposures, which is computed once and kept for as long as nothing new is seen there; the levels and weights of all
squares together are a small linear system.

*Merit* is ``ln(limit / CTF resolution)`` or something on that scale: a micrograph is good where it is above 0.
Places are in hole pitches, so that one set of reaches fits every foil.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import log_ndtr, ndtr

Floats = NDArray[np.float64]
ROUNDS = 3  # from outcomes to latent merits and back


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed before the first exposure: means and standard deviations, in units of merit.

    Parameters
    ----------
    offset, offset_sd
        Level of a session's squares.
    hole_weights, hole_weight_sds
        One per feature of a hole.
    square_weights, square_weight_sds
        One per feature of a square.
    grid_sd, square_sd
        How much grids, and squares of one grid, differ beyond what features and places tell.
    across_sd, across_reach_um
        Slow waves of the level over a grid.
    wide_sd, wide_reach
        Waves within a square, and their reach in hole pitches.
    near_sd, near_reach
        Likeness of neighbouring holes.
    chance_sd
        How much two micrographs of the same place would differ.
    """

    offset: float = -0.15
    offset_sd: float = 0.35
    hole_weights: tuple[float, ...] = ()
    hole_weight_sds: tuple[float, ...] = ()
    square_weights: tuple[float, ...] = ()
    square_weight_sds: tuple[float, ...] = ()
    grid_sd: float = 0.2
    square_sd: float = 0.3
    across_sd: float = 0.2
    across_reach_um: float = 300.0
    wide_sd: float = 0.2
    wide_reach: float = 8.0
    near_sd: float = 0.1
    near_reach: float = 1.5
    chance_sd: float = 0.36


class Message(NamedTuple):
    """What the exposures of one square say: precision and shift of (hole weights, level), and how to predict there."""

    precision: Floats  # (d + 1, d + 1)
    pull: Floats  # (observed, d + 1): how outcomes shift weights and level
    gain: Floats  # (n, observed): how each hole follows the outcomes
    seen: NDArray[np.int64]  # (observed,): which holes have an outcome
    design: Floats  # (n, d + 1): the rest, linear in weights and level
    wide_var: Floats  # (n,): what is still open about the waves, per hole
    near_var: Floats  # (n,): the same of the likeness of neighbours
    exposures: int


@dataclass(eq=False)
class Region:
    """One square as the learner sees it; never changed after it was made.

    Parameters
    ----------
    key
        Its id.
    grid
        Its grid.
    place_um
        Centre on the grid, (x, y).
    features
        Of the square, shape (q,).
    holes
        Features of its holes, shape (n, d).
    places
        Holes as (x, y) in pitches, shape (n, 2); parts whose relative place is unknown are put far apart.
    merit
        Outcome of each hole, shape (n,), NaN where there is none yet.
    stand_ins
        How many rows at the end are no holes but an operator's word on how such places turn out; never forecast.
    """

    key: str
    grid: str
    place_um: tuple[float, float]
    features: Floats
    holes: Floats
    places: Floats
    merit: Floats
    stand_ins: int = 0
    _messages: dict[Belief, Message] = field(default_factory=dict, repr=False)

    def message(self, belief: Belief) -> Message:
        """What the exposures of this square say under ``belief``."""
        if belief not in self._messages:
            self._messages.clear()
            self._messages[belief] = _message(self, belief)
        return self._messages[belief]


def _message(region: Region, belief: Belief) -> Message:
    design = np.column_stack([region.holes, np.ones(len(region.merit))])
    seen = np.flatnonzero(np.isfinite(region.merit))
    n, wide0, near0 = len(region.merit), belief.wide_sd**2, belief.near_sd**2
    if not len(seen):
        d = design.shape[1]
        nothing = np.zeros((n, 0))
        return Message(
            np.zeros((d, d)), np.zeros((0, d)), nothing, seen, design, np.full(n, wide0), np.full(n, near0), 0
        )
    squared = ((region.places[:, None, :] - region.places[None, seen, :]) ** 2).sum(axis=2)
    wide = wide0 * np.exp(-0.5 * squared / belief.wide_reach**2)
    near = near0 * np.exp(-0.5 * squared / belief.near_reach**2)
    covariance = (wide + near)[seen] + belief.chance_sd**2 * np.eye(len(seen))
    factor = cho_factor(covariance, lower=True)
    H = design[seen]
    pull = cho_solve(factor, H)
    gain = cho_solve(factor, (wide + near).T).T
    left = np.maximum(wide0 + near0 - (gain * (wide + near)).sum(axis=1), 0.0)
    waves = np.minimum(wide0 - (cho_solve(factor, wide.T).T * wide).sum(axis=1), left)
    return Message(
        precision=H.T @ pull,
        pull=pull,
        gain=gain,
        seen=seen,
        design=design - gain @ H,
        wide_var=waves,
        near_var=left - waves,
        exposures=len(seen),
    )


class Forecast(NamedTuple):
    """The holes of one square, each array of shape (n,), in units of merit.

    The variance of a hole's true merit is ``session + level + wide + near``: what is open about offset and weights,
    about this square, the holes around, the next neighbours. One micrograph of it varies by ``chance`` more.
    """

    mean: Floats
    session: Floats
    level: Floats
    wide: Floats
    near: Floats
    chance: float
    wide_reach: float = 8.0  # of the waves, in hole pitches

    @property
    def variance(self) -> Floats:
        """Variance of the merit that a micrograph of each hole will have."""
        return np.asarray(self.place_variance + self.chance)

    @property
    def place_variance(self) -> Floats:
        """Variance of the merit of each place itself."""
        return np.asarray(self.session + self.level + self.wide + self.near)

    def rows(self, rows: NDArray[Any]) -> "Forecast":
        """The forecast of some of the holes."""
        return Forecast(
            self.mean[rows], self.session[rows], self.level[rows], self.wide[rows], self.near[rows],
            self.chance, self.wide_reach,
        )  # fmt: skip

    @property
    def p_good(self) -> Floats:
        """Probability of a good micrograph of each hole."""
        return np.asarray(ndtr(self.mean / np.sqrt(self.variance)))

    def count_interval(self, scale: float = 1.0, level: float = 0.9) -> tuple[float, float]:
        """Shortest interval that holds the number of good micrographs among all holes with probability ``level``.

        What the holes share is integrated over, what each has of its own adds up by chance. They share the level and,
        of the waves, as much as two holes of a square field do in the mean: 1 / (1 + side² / 6 reach²). Where squares
        are all good or all bad, none and all are the likeliest numbers: an interval with equal tails would have to
        hold both, and so nearly everything. Each hole stands for ``scale`` holes.
        """
        side_squared = len(self.mean) * scale  # holes lie a pitch apart
        shared = self.session + self.level + self.wide / (1.0 + side_squared / (6.0 * self.wide_reach**2))
        nodes = np.linspace(-2.8, 2.8, 57)
        weights = np.exp(-0.5 * nodes**2)
        rest = np.sqrt(np.maximum(self.variance - shared, 1e-9))[:, None]
        p = ndtr((self.mean[:, None] + np.sqrt(shared)[:, None] * nodes) / rest)
        mean, luck = p.sum(axis=0) * scale, np.sqrt((p * (1 - p)).sum(axis=0) * scale + 1e-9)
        most = max(round(len(self.mean) * scale), 1)
        up_to = ndtr((np.arange(most)[:, None] + 0.5 - mean) / luck) @ weights / weights.sum()
        up_to = np.concatenate([[0.0], up_to, [1.0]])  # probability of fewer than k
        low = np.arange(most + 1)
        high = np.searchsorted(up_to, np.minimum(up_to[:-1] + level, 1.0 - 1e-12)) - 1
        held = up_to[np.minimum(high + 1, most + 1)] - up_to[low]
        width = np.where(held >= level - 1e-9, high - low, most + 1)
        best = int(np.argmin(width))
        return float(low[best]), float(min(high[best], most))

    def p_interval(self, z: float = 1.645) -> tuple[Floats, Floats]:
        """Lower and upper bound of that probability, given what is still open about the place itself."""
        spread = z * np.sqrt(self.place_variance)
        chance = np.sqrt(self.chance)
        return np.asarray(ndtr((self.mean - spread) / chance)), np.asarray(ndtr((self.mean + spread) / chance))


class Posterior:
    """What is known after some exposures; asked for a square, it gives the forecast of its holes.

    Parameters
    ----------
    regions
        All squares that are known, with and without exposures.
    belief
        What was believed before.
    graded
        Whether outcomes count with their size, or only as good and bad. How good a good micrograph is says little about
        whether a doubtful hole beside it will be good, so forecasts of good micrographs take them as good and bad.
    """

    def __init__(self, regions: Sequence[Region], belief: Belief, *, graded: bool = False) -> None:
        self.belief = belief
        self.regions = {region.key: region for region in regions}
        self._index = {region.key: i for i, region in enumerate(regions)}
        self._count = len(regions)
        d = len(belief.hole_weights)
        self._d = d
        self._apart_var = belief.square_sd**2 + belief.across_sd**2
        level_mean, level_cov = _levels(regions, belief)
        self._messages = [region.message(belief) for region in regions]
        seen = [i for i, message in enumerate(self._messages) if message.exposures]
        size = d + len(seen)
        prior = np.zeros((size, size))
        prior[:d, :d] = np.diag(np.square(belief.hole_weight_sds)) if d else 0.0
        prior[d:, d:] = level_cov[np.ix_(seen, seen)]
        mean = np.concatenate([np.asarray(belief.hole_weights, float), level_mean[seen]])
        precision = np.zeros((size, size))
        ats = [[*range(d), place] for place in range(d, size)]
        for at, i in zip(ats, seen, strict=True):
            precision[np.ix_(at, at)] += self._messages[i].precision
        # (P0^-1 + L)^-1 without the inverse of P0, which may be nearly singular
        inner = np.linalg.solve(np.eye(size) + prior @ precision, prior)
        self._cov = 0.5 * (inner + inner.T)
        outcomes = [regions[i].merit[self._messages[i].seen] for i in seen]
        self._theta = mean
        if graded:
            targets = outcomes
        else:
            plain = [np.column_stack([regions[i].holes, np.ones(len(regions[i].merit))]) for i in seen]
            expected = [
                design[self._messages[i].seen] @ mean[at] for design, i, at in zip(plain, seen, ats, strict=True)
            ]
        for _ in range(1 if graded else ROUNDS):
            if not graded:
                targets = [_latent(e, y, belief.chance_sd) for e, y in zip(expected, outcomes, strict=True)]
            shift = np.zeros(size)
            for at, i, target in zip(ats, seen, targets, strict=True):
                shift[at] += target @ self._messages[i].pull
            self._theta = mean + self._cov @ (shift - precision @ mean)
            expected = [
                self._messages[i].design[self._messages[i].seen] @ self._theta[at]
                + self._messages[i].gain[self._messages[i].seen] @ target
                for at, i, target in zip(ats, seen, targets, strict=True)
            ]
        self._targets = dict(zip(seen, targets, strict=True))
        # levels of squares without exposures follow those with some
        self._follow = np.zeros((self._count, len(seen)))
        rest = level_cov.diagonal().copy()
        self._level_mean = level_mean
        if seen:
            cross = level_cov[:, seen]
            factor = cho_factor(level_cov[np.ix_(seen, seen)] + 1e-10 * np.eye(len(seen)), lower=True)
            self._follow = cho_solve(factor, cross.T).T
            rest = rest - (self._follow * cross).sum(axis=1)
            for place, i in enumerate(seen):
                self._follow[i] = 0.0
                self._follow[i, place] = 1.0
                rest[i] = 0.0
        self._rest = np.maximum(rest, 0.0)
        self._level = level_mean + self._follow @ (self._theta[d:] - level_mean[seen])

    @property
    def weights(self) -> tuple[Floats, Floats]:
        """Hole weights and their standard deviations by now."""
        d = self._d
        return self._theta[:d], np.sqrt(self._cov.diagonal()[:d])

    def level(self, key: str) -> tuple[float, float]:
        """Level of a square and its standard deviation."""
        i = self._index[key]
        row = self._follow[i]
        return float(self._level[i]), float(np.sqrt(row @ self._cov[self._d :, self._d :] @ row + self._rest[i]))

    def forecast(self, key: str) -> Forecast:
        """The holes of one square."""
        i = self._index[key]
        message, d = self._messages[i], self._d
        design = np.column_stack([message.design[:, :d], message.design[:, d:] * self._follow[i]])
        level = message.design[:, d]
        own = message.gain @ self._targets[i] if message.exposures else 0.0
        mean = own + message.design[:, :d] @ self._theta[:d] + level * self._level[i]
        common = ((design @ self._cov) * design).sum(axis=1) + level**2 * self._rest[i]
        common = np.maximum(common, 0.0)
        apart = 1.0 / (self._apart_var + 1e-12)  # what tells this square from others, were offset and weights known
        alone = np.minimum(level**2 / (apart + message.precision[d, d]), common)
        whole = Forecast(mean, common - alone, alone, message.wide_var, message.near_var,
            self.belief.chance_sd**2, self.belief.wide_reach,
        )  # fmt: skip
        extra = self.regions[key].stand_ins
        return whole.rows(np.arange(len(mean) - extra)) if extra else whole


def _latent(expected: Floats, outcome: Floats, chance_sd: float) -> Floats:
    """Merits to be expected where a micrograph of ``expected`` merit turned out good (outcome 0 or more) or bad.

    The mean-field step of probit regression (Albert & Chib, J. Am. Stat. Assoc. 88, 1993, 669, with means for draws).
    """
    side = np.where(outcome >= 0, 1.0, -1.0)
    z = side * expected / chance_sd
    hazard = np.exp(-0.5 * z * z - log_ndtr(z)) / np.sqrt(2 * np.pi)
    return np.asarray(expected + side * chance_sd * hazard)


def neighbourhood(values: Floats, places: Floats, reach: float = 1.5) -> Floats:
    """Mean of ``values``, shape (n,), over the holes around each, without itself: near ones count most.

    A score of one hole is noisy, and ice is not: what the model thought of the holes around is evidence of its own.
    """
    if len(values) < 2:
        return np.array(values, float)
    squared = ((places[:, None, :] - places[None, :, :]) ** 2).sum(axis=2)
    near = np.exp(-0.5 * squared / reach**2)
    np.fill_diagonal(near, 1e-3)  # alone, it is its own neighbourhood
    return np.asarray((near @ values) / near.sum(axis=1))


def _levels(regions: Sequence[Region], belief: Belief) -> tuple[Floats, Floats]:
    """Mean, shape (s,), and covariance, shape (s, s), of the levels of all squares before any exposure."""
    count, q = len(regions), len(belief.square_weights)
    Z = np.array([region.features for region in regions], float).reshape(count, q)
    places = np.array([region.place_um for region in regions], float).reshape(count, 2)
    names = {region.grid: i for i, region in enumerate(regions)}
    grids = np.array([names[region.grid] for region in regions], int)
    same = grids[:, None] == grids[None, :]
    squared = ((places[:, None, :] - places[None, :, :]) ** 2).sum(axis=2)
    covariance = (
        belief.offset_sd**2
        + (Z * np.square(belief.square_weight_sds)) @ Z.T
        + same * belief.grid_sd**2
        + same * belief.across_sd**2 * np.exp(-0.5 * squared / belief.across_reach_um**2)
        + belief.square_sd**2 * np.eye(count)
    )
    return belief.offset + Z @ np.asarray(belief.square_weights, float), covariance
