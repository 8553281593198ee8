"""The learner: what exposures turned out like so far says what the others will turn out like, and how surely.

A Gaussian process over the whole session, written as a hierarchy so that one more exposure costs next to nothing::

    merit of a hole = level of its square + weights . features of the hole + waves over the square + chance
    level of a square = offset + weights . features of the square + its grid + waves over the grid + its own

Every term is Gaussian, so the posterior is exact (Rasmussen & Williams 2006, section 2.7 for the explicit linear
part). Given the levels and weights, squares do not know of each other: each sends a *message*, the sufficient
statistics of its exposures, which is computed once and kept for as long as nothing new is seen there; the levels and
weights of all squares together are a small linear system.

*Merit* is ``ln(limit / CTF resolution)`` or something on that scale: a micrograph is good where it is above 0.
Places are in hole pitches, so that one set of reaches fits every foil.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr

Floats = NDArray[np.float64]


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
    shift: Floats  # (d + 1,)
    gain: Floats  # (n, observed): how each hole follows the residuals
    own: Floats  # (n,): its part of the prediction that no weight or level changes
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
    """

    key: str
    grid: str
    place_um: tuple[float, float]
    features: Floats
    holes: Floats
    places: Floats
    merit: Floats
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
            np.zeros((d, d)), np.zeros(d), nothing, np.zeros(n), design, np.full(n, wide0), np.full(n, near0), 0
        )
    squared = ((region.places[:, None, :] - region.places[None, seen, :]) ** 2).sum(axis=2)
    wide = wide0 * np.exp(-0.5 * squared / belief.wide_reach**2)
    near = near0 * np.exp(-0.5 * squared / belief.near_reach**2)
    covariance = (wide + near)[seen] + belief.chance_sd**2 * np.eye(len(seen))
    factor = cho_factor(covariance, lower=True)
    H, y = design[seen], region.merit[seen]
    solved = cho_solve(factor, np.column_stack([H, y]))
    gain = cho_solve(factor, (wide + near).T).T
    left = np.maximum(wide0 + near0 - (gain * (wide + near)).sum(axis=1), 0.0)
    waves = np.minimum(wide0 - (cho_solve(factor, wide.T).T * wide).sum(axis=1), left)
    return Message(
        precision=H.T @ solved[:, :-1],
        shift=H.T @ solved[:, -1],
        gain=gain,
        own=gain @ y,
        design=design - gain @ H,
        wide_var=waves,
        near_var=left - waves,
        exposures=len(seen),
    )


class Forecast(NamedTuple):
    """The holes of one square, each array of shape (n,), in units of merit.

    The variance of a hole's true merit is ``common + wide + near`` (its parts are shared by the square, by the holes
    around, by the next neighbours); one micrograph of it varies by ``chance`` more.
    """

    mean: Floats
    common: Floats
    wide: Floats
    near: Floats
    chance: float

    @property
    def variance(self) -> Floats:
        """Variance of the merit that a micrograph of each hole will have."""
        return np.asarray(self.common + self.wide + self.near + self.chance)

    @property
    def p_good(self) -> Floats:
        """Probability of a good micrograph of each hole."""
        return np.asarray(ndtr(self.mean / np.sqrt(self.variance)))

    def p_interval(self, z: float = 1.645) -> tuple[Floats, Floats]:
        """Lower and upper bound of that probability, given what is still open about the place itself."""
        spread = z * np.sqrt(self.common + self.wide + self.near)
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
    """

    def __init__(self, regions: Sequence[Region], belief: Belief) -> None:
        self.belief = belief
        self.regions = {region.key: region for region in regions}
        self._index = {region.key: i for i, region in enumerate(regions)}
        self._count = len(regions)
        d = len(belief.hole_weights)
        self._d = d
        level_mean, level_cov = _levels(regions, belief)
        self._messages = [region.message(belief) for region in regions]
        seen = [i for i, message in enumerate(self._messages) if message.exposures]
        size = d + len(seen)
        prior = np.zeros((size, size))
        prior[:d, :d] = np.diag(np.square(belief.hole_weight_sds)) if d else 0.0
        prior[d:, d:] = level_cov[np.ix_(seen, seen)]
        mean = np.concatenate([np.asarray(belief.hole_weights, float), level_mean[seen]])
        precision = np.zeros((size, size))
        shift = np.zeros(size)
        for place, i in enumerate(seen, d):
            at = [*range(d), place]
            precision[np.ix_(at, at)] += self._messages[i].precision
            shift[at] += self._messages[i].shift
        # (P0^-1 + L)^-1 without the inverse of P0, which may be nearly singular
        inner = np.linalg.solve(np.eye(size) + prior @ precision, prior)
        self._cov = 0.5 * (inner + inner.T)
        self._theta = mean + self._cov @ (shift - precision @ mean)
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
        mean = message.own + message.design[:, :d] @ self._theta[:d] + level * self._level[i]
        common = np.einsum("ij,jk,ik->i", design, self._cov, design, optimize=True) + level**2 * self._rest[i]
        return Forecast(mean, np.maximum(common, 0.0), message.wide_var, message.near_var, self.belief.chance_sd**2)


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
