"""The planner: where the next good micrographs come at the least cost.

Time has a *price*, the good micrographs per minute that the rest of the session can still get elsewhere: so high that
all options worth taking at that price just fill the time that is left (the Lagrangian of the orienteering problem).
A hole is worth its minute when its chance is above the price; a group when its holes pay for the move there; a square
when its groups do, and the chance that it turns out better than expected counts, for one leaves it where it does
not: a few holes are the stake, the whole square is the prize (Weitzman, Econometrica 47, 1979, 641).

Among the squares worth going to, the one with the highest *index* is next: the price at which it would just be worth
it (Gittins, J. R. Stat. Soc. B 41, 1979, 148, with the cost of going there). The same for the groups of a square.

Chances are integrated by Gauss-Hermite quadrature, so that equal sessions give equal plans.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from agent.policy.learning import Floats, Forecast

NODES, WEIGHTS = (array.astype(np.float64) for array in np.polynomial.hermite_e.hermegauss(7))
WEIGHTS = WEIGHTS / WEIGHTS.sum()
STEPS = 10  # halvings of the price: to 1 in 1,000
PRICES, WAYS = 40, 32  # prices that are tried, and ways that all squares may be
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)
SPARE = 0.9  # the toll stays below the chance of the last hole: moves cost, and chances change
STAKE = 4  # holes after which a square is judged


@dataclass(frozen=True, slots=True)
class Costs:
    """Minutes that going on costs: to a hole of the same group, to another group, square, grid."""

    hole: float = 1.0
    group: float = 2.0
    square: float = 6.0
    grid: float = 8.0


class Site(NamedTuple):
    """One square as the planner sees it: its open holes, group by group.

    Parameters
    ----------
    key, grid
        Its id, and its grid.
    forecast
        Of the open holes, arrays of shape (n,).
    groups
        Number of the group of each hole, shape (n,), not falling.
    scale
        How many holes each one stands for: more than 1 for the stand-in of a square that was not mapped yet.
    extra_minutes
        What must be done there once, such as its map.
    """

    key: str
    grid: str
    forecast: Forecast
    groups: NDArray[np.int64]
    scale: float = 1.0
    extra_minutes: float = 0.0


class Here(NamedTuple):
    """Where the microscope is: grid, square, group (-1: in none)."""

    grid: str = ""
    square: str = ""
    group: int = -1


class Option(NamedTuple):
    """One place that could be next: a square, or a group of one."""

    key: str
    group: int  # -1: the whole square
    worth: float  # good micrographs gained over spending the time elsewhere, at the price of time
    rate: float  # its index: good micrographs per minute, all moves paid for
    minutes: float  # what going there costs
    expected: float  # good micrographs there, as expected now
    p_good: float
    number: int  # open holes


class Board:
    """All options at one moment.

    Parameters
    ----------
    sites
        The squares that may be visited.
    here
        Where the microscope is.
    costs
        What moves cost.
    left_minutes
        Time that is left.
    left_exposures
        Exposures that may still be taken. Where there are fewer than holes, each has a *toll* beside its minutes: the
        chance of the last hole that would still get one.
    changes
        Grids that are options as a whole, and the minutes until each is on the stage, which all its squares share;
        those of other grids that are not among them are options of their own, at ``costs.grid`` each.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        here: Here,
        costs: Costs,
        left_minutes: float,
        left_exposures: float = np.inf,
        changes: Mapping[str, float] | None = None,
    ) -> None:
        self.sites = [site for site in sites if len(site.groups)]
        self.here, self.costs, self.left = here, costs, max(left_minutes, 0.0)
        self.toll = _toll(self.sites, left_exposures)
        known = {site.grid for site in self.sites}
        self._grids = tuple(grid for grid in changes or {} if grid in known and grid != here.grid)
        self._changes = np.array([(changes or {})[grid] for grid in self._grids])
        self._far = np.array([self._grids.index(s.grid) if s.grid in self._grids else -1 for s in self.sites], np.int64)
        self._moves = np.array([self._move(site) for site in self.sites])
        self._squares = _Options.of(
            [site.forecast for site in self.sites],
            [site.groups for site in self.sites],
            np.array([site.scale for site in self.sites]),
            [here.group if site.key == here.square else -1 for site in self.sites],
            costs,
            shared="level",
            toll=self.toll,
        )
        self.price = self._price()

    def _move(self, site: Site) -> float:
        if site.key == self.here.square:
            return 0.0
        shared = site.grid == self.here.grid or site.grid in self._grids
        way = self.costs.square if shared else self.costs.grid
        return max(way - self.costs.group, 0.0) + site.extra_minutes  # the first group costs as much as any other

    def _price(self) -> float:
        """The price of time: what it will be once it is known how each square is, in the mean over ways they may be.

        At the price of one such way, everything that is worth it just fills the time that is left. Were the price
        taken from what is expected of each square, nobody would leave a poor one to look for a better.
        """
        if not self.sites:
            return 0.0
        prices = np.arange(PRICES, 0, -1) / (PRICES * self.costs.hole)
        filled = np.zeros((PRICES, WAYS))
        picks = _ways(len(self.sites))
        for k, price in enumerate(prices.tolist()):
            worth, minutes = self._squares.known(np.full(len(self.sites), price))
            net = worth - price * self._moves[:, None]
            minutes = np.where(net > 0, minutes + self._moves[:, None], 0.0)
            way = np.take_along_axis(minutes, picks, axis=1)
            for n, change in enumerate(
                self._changes.tolist()
            ):  # a grid is worth it when its squares pay for the change
                rows = self._far == n
                gain = np.take_along_axis(np.where(net > 0, net, 0.0)[rows], picks[rows], axis=1).sum(axis=0)
                go = gain > price * change
                way[rows] *= go
                filled[k] += go * change
            filled[k] += way.sum(axis=0)
        full = np.argmax(filled > self.left, axis=0)  # the highest price at which there is more to do than time
        found = np.where((filled > self.left).any(axis=0), prices[full], 0.0)
        return float(found.mean())

    def squares(self, *, ranked: bool = True) -> list[Option]:
        """Every square as an option: the one at hand first while it is worth staying, then by index.

        Among them is each other grid as a whole (its key is the grid's), where what it takes to change is given. With
        ``ranked`` false the others are not put in order where staying is worth it.
        """
        if not self.sites:
            return []
        worth, _ = self._squares.worth(np.full(len(self.sites), self.price), self._moves, self.left)
        staying = any(site.key == self.here.square and worth[i] > 0 for i, site in enumerate(self.sites))
        index = np.zeros(len(worth)) if staying and not ranked else self._squares.indices(self._moves, self.left)
        found = self._whole_grids(ranked=not staying or ranked)
        for i, site in enumerate(self.sites):
            if self._far[i] >= 0:
                continue
            mean = site.forecast.p_good
            expected = float(mean.sum()) * site.scale
            number = round(len(mean) * site.scale)
            gain, at, move = float(worth[i]), float(index[i]), float(self._moves[i])
            found.append(Option(site.key, -1, gain, at, move, expected, float(mean.mean()), number))
        stay = self.here.square
        return sorted(found, key=lambda o: (o.worth <= 0 or o.key != stay, -o.rate, o.key))

    def _whole_grids(self, *, ranked: bool) -> list[Option]:
        """Each other grid with all its squares as one option, the change to it paid for once."""
        if not self._grids:
            return []
        worth, on = self._far_worth(np.full(len(self._grids), self.price))
        low, high = np.zeros(len(self._grids)), np.full(len(self._grids), 1.0 / self.costs.hole)
        for _ in range(STEPS if ranked else 0):
            price = 0.5 * (low + high)
            gain, _ = self._far_worth(price)
            low, high = np.where(gain > 0, price, low), np.where(gain > 0, high, price)
        found = []
        for n, grid in enumerate(self._grids):
            of = [i for i in np.flatnonzero(self._far == n) if on[i]] or np.flatnonzero(self._far == n).tolist()
            counts = np.array([len(self.sites[i].groups) * self.sites[i].scale for i in of])
            means = np.array([float(self.sites[i].forecast.p_good.mean()) for i in of])
            expected = float(counts @ means)
            p_good, number = expected / float(counts.sum()), round(float(counts.sum()))
            net, at, change = float(worth[n]), float(low[n]), float(self._changes[n])
            found.append(Option(grid, -1, net, at, change, expected, p_good, number))
        return found

    def _far_worth(self, price: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """What each other grid is worth at its price, and which squares would be gone to."""
        far = self._far >= 0
        each = np.where(far, price[self._far], self.price)
        left = self.left - np.where(far, self._changes[self._far], 0.0)
        worth, minutes = self._squares.worth(each, self._moves, left)
        on = far & (worth > 0)
        count = len(self._grids)
        gain, took = (np.bincount(self._far[on], values[on], count) for values in (worth, minutes))
        fits = np.minimum(1.0, np.maximum(self.left - self._changes, 1e-6) / np.maximum(took, 1e-6))
        return np.asarray(gain * fits - price * self._changes), on

    def groups(self, key: str, *, ranked: bool = True) -> list[Option]:
        """Every group of one square: the one at hand first while it is worth staying, then by index; see `squares`."""
        site = next(site for site in self.sites if site.key == key)
        here = self.here.group if key == self.here.square else -1
        numbers = np.unique(site.groups)
        parts = [site.forecast.rows(site.groups == number) for number in numbers]
        options = _Options.of(
            parts,
            [np.zeros(len(part.mean), np.int64) for part in parts],
            np.full(len(parts), site.scale),
            [0 if number == here else -1 for number in numbers],
            self.costs,
            shared="wide",
            toll=self.toll,
        )
        moves = np.zeros(len(parts))
        worth, _ = options.worth(np.full(len(parts), self.price), moves, self.left)
        staying = any(number == here and worth[i] > 0 for i, number in enumerate(numbers))
        index = np.zeros(len(worth)) if staying and not ranked else options.indices(moves, self.left)
        found = []
        for i, (number, part) in enumerate(zip(numbers.tolist(), parts, strict=True)):
            mean = part.p_good
            cost = self.costs.hole if number == here else self.costs.group
            gain, at, total = float(worth[i]), float(index[i]), float(mean.sum())
            found.append(Option(key, number, gain, at, cost, total, float(mean.mean()), len(mean)))
        return sorted(found, key=lambda o: (o.worth <= 0 or o.group != here, -o.rate, o.group))

    def holes(self, key: str, group: int) -> NDArray[np.int64]:
        """Rows of the site's open holes in one group that are worth their minute, the best first; at least one."""
        site = next(site for site in self.sites if site.key == key)
        inside = np.flatnonzero(site.groups == group)
        p = site.forecast.p_good[inside]
        order = inside[np.argsort(-p, kind="stable")]
        worth = int((p > self.price * self.costs.hole + self.toll).sum())
        return order[: max(worth, 1)]


class _Options(NamedTuple):
    """Several options as one block of arrays: holes in groups in options, nodes of the quadrature as columns."""

    p: Floats  # (holes, nodes)
    of_hole: NDArray[np.int64]  # option of each hole
    groups: NDArray[np.int64]  # first hole of each group
    of_group: NDArray[np.int64]  # option of each group
    options: NDArray[np.int64]  # first group of each option
    entry: Floats  # (groups,): minutes to go to a group beyond those of its first hole
    scale: Floats  # (options,)
    stake: Floats  # (options, nodes): good micrographs among the holes that are looked at first
    staked: Floats  # (options,): how many these are
    hole: float
    toll: float

    @classmethod
    def of(
        cls,
        forecasts: Sequence[Forecast],
        groups: Sequence[NDArray[np.int64]],
        scale: Floats,
        here: Sequence[int],
        costs: Costs,
        *,
        shared: str,
        toll: float,
    ) -> "_Options":
        """The options with these holes; ``shared`` names the part of the variance that their holes have in common."""
        columns = [_chances(forecast, getattr(forecast, shared)) for forecast in forecasts]
        sizes = np.array([len(column) for column in columns], np.int64)
        p = np.concatenate(columns) if columns else np.zeros((0, len(NODES)))
        of_hole = np.repeat(np.arange(len(columns)), sizes)
        number = np.concatenate(groups) if len(groups) else np.zeros(0, np.int64)
        new = (number[1:] != number[:-1]) | (of_hole[1:] != of_hole[:-1])
        starts = np.flatnonzero(np.r_[True, new]) if len(number) else np.zeros(0, np.int64)
        of_group = of_hole[starts]
        at = np.asarray(here, np.int64)
        entry = np.where(number[starts] == at[of_group], 0.0, costs.group - costs.hole)
        stake, staked = [], []
        for column, size in zip(columns, scale.tolist(), strict=True):
            k = min(len(column), STAKE)
            best = np.argsort(-(column @ WEIGHTS), kind="stable")[:k]
            count = min(STAKE, max(1, round(len(column) * size)))
            stake.append(column[best].mean(axis=0) * count)
            staked.append(float(count))
        options = np.flatnonzero(np.r_[True, of_group[1:] != of_group[:-1]]) if len(of_group) else np.zeros(0, np.int64)
        return cls(
            p, of_hole, starts, of_group, options, entry, scale, np.array(stake), np.array(staked), costs.hole, toll
        )

    def worth(self, price: Floats, moves: Floats, left: Floats | float) -> tuple[Floats, Floats]:
        """What each option is worth at its price, shape (options,), and the minutes that it is expected to take."""
        worth, minutes = self.known(price)
        room = np.maximum(left - moves, 1e-6)[:, None]
        fits = np.minimum(1.0, room / np.maximum(minutes, 1e-6))
        entry = self.entry[self.options]
        look = self.stake - (price * (self.staked * self.hole + entry) + self.staked * self.toll)[:, None]
        stay = (worth > 0) & (worth * fits > look)  # who finds it poor has paid for the look
        value = np.where(stay, worth * fits, look) @ WEIGHTS - price * moves
        time = np.where(stay, minutes * fits, (self.staked * self.hole + entry)[:, None]) @ WEIGHTS + moves
        return np.asarray(value), np.asarray(time)

    def known(self, price: Floats) -> tuple[Floats, Floats]:
        """Worth and minutes of each option if it were known how it is, both of shape (options, nodes)."""
        over = self.p - (price * self.hole + self.toll)[self.of_hole, None]
        taken = over > 0
        scale = self.scale[self.of_group, None]
        gain = np.add.reduceat(np.where(taken, over, 0.0), self.groups, axis=0) * scale
        gain -= (price[self.of_group] * self.entry)[:, None]
        count = np.add.reduceat(taken, self.groups, axis=0, dtype=np.float64) * scale
        good = gain > 0
        worth = np.add.reduceat(np.where(good, gain, 0.0), self.options, axis=0)
        spent = np.where(good, count * self.hole + self.entry[:, None], 0.0)
        return worth, np.add.reduceat(spent, self.options, axis=0)

    def indices(self, moves: Floats, left: float) -> Floats:
        """The price at which each option is just worth it."""
        low, high = np.zeros(len(moves)), np.full(len(moves), 1.0 / self.hole)
        for _ in range(STEPS):
            price = 0.5 * (low + high)
            worth, _ = self.worth(price, moves, left)
            low, high = np.where(worth > 0, price, low), np.where(worth > 0, high, price)
        return low


def _toll(sites: Sequence[Site], exposures: float) -> float:
    """Chance of the last hole that gets an exposure when the best ones get them all; 0 where there are enough."""
    if not sites or not np.isfinite(exposures):
        return 0.0
    p = np.concatenate([site.forecast.p_good for site in sites])
    count = np.concatenate([np.full(len(site.groups), site.scale) for site in sites])
    order = np.argsort(-p, kind="stable")
    last = int(np.searchsorted(np.cumsum(count[order]), max(exposures, 1.0)))
    return SPARE * float(p[order[last]]) if last < len(p) else 0.0


def _ways(count: int) -> NDArray[np.int64]:
    """Ways that all squares may be: a node for each, shape (squares, ways), spread evenly (a Kronecker sequence)."""
    steps = np.sqrt(np.array(_PRIMES[: min(count, len(_PRIMES))], float))
    number, way = np.arange(count)[:, None], np.arange(WAYS)[None, :]
    at = (number * 0.754877666 + (way + 0.5) * steps[number % len(steps)]) % 1.0
    return np.asarray(np.minimum(np.searchsorted(np.cumsum(WEIGHTS), at), len(WEIGHTS) - 1))


def _chances(forecast: Forecast, shared: Floats) -> Floats:
    """Probability of good micrographs, shape (n, nodes), when the part they share takes each of its values."""
    rest = np.sqrt(np.maximum(forecast.variance - shared, 1e-9))
    return np.asarray(ndtr((forecast.mean[:, None] + np.sqrt(shared)[:, None] * NODES) / rest[:, None]))
