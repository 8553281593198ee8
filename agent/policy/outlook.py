"""The outlook of a session: for every square and hole, how probably it gives a good micrograph, and why."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from agent.policy import thickness
from agent.policy.evidence import AROUND, Evidence, gather
from agent.policy.learning import Forecast, Posterior
from agent.session.state import OPEN_STATES, Hole, Square, State
from agent.settings import Settings

Z90 = 1.6449  # 90 % of a normal distribution lies within this many standard deviations
USUAL_ICE_LOG_VAR = 0.5  # where nothing was measured yet


class HoleOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of one hole.

    Parameters
    ----------
    p_good
        Probability of a good micrograph; after an exposure, of another one at the same place.
    low, high
        Interval that holds this probability with 90 %.
    ctf_angstrom, ctf_var
        Expected CTF resolution, and variance in Å².
    ice_nm, ice_var
        Ice thickness, and variance in nm²: measured there, or expected from what was measured elsewhere.
    ice_low, ice_high
        Interval that holds it with 90 %.
    reasons
        What the expectation comes from, the largest part first.
    """

    p_good: float
    low: float
    high: float
    ctf_angstrom: float
    ctf_var: float
    ice_nm: float
    ice_var: float
    ice_low: float
    ice_high: float
    reasons: tuple[str, ...] = ()


class SquareOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of one square.

    Parameters
    ----------
    expected_good, sigma
        Good micrographs that its open holes would give, and the standard deviation of that number.
    p_good
        Mean probability over its open holes.
    rank
        Place among the squares not visited yet, from 1; 0 where it was.
    """

    expected_good: float
    sigma: float
    p_good: float
    rank: int


class Outlook(NamedTuple):
    """Everything expected of a session, by area id; ``square_order`` holds the squares not visited yet, best first."""

    holes: dict[str, HoleOutlook]
    squares: dict[str, SquareOutlook]
    square_order: tuple[str, ...]


def outlook(state: State, settings: Settings) -> Outlook:
    """The outlook of ``state``: a pure function, the same for the live night and its replay."""
    limit = settings.policy.good_ctf_angstrom
    evidence = gather(state, limit)
    posterior = Posterior(evidence.regions, evidence.belief)
    graded = Posterior(evidence.regions, evidence.belief, graded=True)
    ice = thickness.expected(state, evidence)
    holes: dict[str, HoleOutlook] = {}
    squares: dict[str, SquareOutlook] = {}
    for region in evidence.regions:
        square = state.square(region.key)
        if square is None:
            continue
        forecast = posterior.forecast(region.key)
        if square.holes:
            reasons = reasons_of(evidence, posterior, region.key)
            frozen = None if ice is None else ice.forecast(region.key)
            _holes(holes, square, forecast, graded.forecast(region.key), reasons, limit, frozen)
        squares[region.key] = _square(square, forecast, evidence)
    unvisited = [s for grid in state.grids.values() for s in grid.squares.values() if s.state in OPEN_STATES]
    unvisited = [s for s in unvisited if not s.map_frame_id]
    order = tuple(s.area_id for s in sorted(unvisited, key=lambda s: (-squares[s.area_id].expected_good, s.area_id)))
    for rank, area_id in enumerate(order, 1):
        squares[area_id] = msgspec.structs.replace(squares[area_id], rank=rank)
    return Outlook(holes, squares, order)


def _holes(
    found: dict[str, HoleOutlook],
    square: Square,
    forecast: Forecast,
    graded: Forecast,
    reasons: list[tuple[str, ...]],
    limit: float,
    ice: Forecast | None,
) -> None:
    low, high = forecast.p_interval(Z90)
    p_good, variance = forecast.p_good, graded.variance
    for i, hole in enumerate(square.holes.values()):
        ctf = limit * math.exp(-float(graded.mean[i]))
        nm, log_var = _ice(hole, ice, i)
        found[hole.area_id] = HoleOutlook(
            p_good=round(float(p_good[i]), 4),
            low=round(float(low[i]), 4),
            high=round(float(high[i]), 4),
            ctf_angstrom=round(ctf, 3),
            ctf_var=round(ctf**2 * float(variance[i]), 4),
            ice_nm=round(nm, 2),
            ice_var=round(nm**2 * log_var, 3),
            ice_low=round(nm * math.exp(-Z90 * math.sqrt(log_var)), 2),
            ice_high=round(nm * math.exp(Z90 * math.sqrt(log_var)), 2),
            reasons=reasons[i],
        )


def _ice(hole: Hole, ice: Forecast | None, row: int) -> tuple[float, float]:
    """Thickness of one hole in nm, and the variance of its logarithm."""
    if (measured := thickness.measured_nm(hole)) is not None:
        return measured, 0.1**2
    if ice is None:
        return thickness.USUAL_NM, USUAL_ICE_LOG_VAR
    return thickness.USUAL_NM * math.exp(float(ice.mean[row])), float(ice.variance[row])


def reasons_of(
    evidence: Evidence, posterior: Posterior, key: str, rows: Sequence[int] | None = None
) -> list[tuple[str, ...]]:
    """For each hole of a square, or for some rows: the largest parts that its expected merit is made of, in words."""
    region = posterior.regions[key]
    forecast = posterior.forecast(key)
    level, _ = posterior.level(key)
    weights, _ = posterior.weights
    parts = region.holes[: len(forecast.mean)] * weights
    around = forecast.mean - level - parts.sum(axis=1)
    names = ("score", AROUND, *evidence.looks)
    found = []
    for i in range(len(forecast.mean)) if rows is None else rows:
        own = {f"square {level:+.2f}": level, f"exposures around {around[i]:+.2f}": float(around[i])}
        own |= {f"{name} {parts[i, k]:+.2f}": float(parts[i, k]) for k, name in enumerate(names)}
        largest = sorted(own, key=lambda name: (-abs(own[name]), name))[:3]
        found.append(tuple(name for name in largest if abs(own[name]) >= 0.005))
    return found


def _square(square: Square, forecast: Forecast, evidence: Evidence) -> SquareOutlook:
    if square.holes:
        states = [hole.state in OPEN_STATES and not hole.frame_id for hole in square.holes.values()]
        open_ = np.array(states, bool)
        count = float(open_.sum())
        p = forecast.p_good[open_]
        expected = float(p.sum())
        mean = expected / count if count else 0.0
    else:
        open_ = np.ones(1, bool)
        count = max(1.0, evidence.holes_per_um2 * square.size_um**2)
        mean = float(forecast.p_good[0])
        expected = count * mean
    if not count:
        return SquareOutlook(expected_good=0.0, sigma=0.0, p_good=0.0, rank=0)
    # the part that all holes share, seen through the slope of the probability, and the luck of each
    spread = np.sqrt(forecast.variance[open_])
    slope = np.exp(-0.5 * (forecast.mean[open_] / spread) ** 2) / (math.sqrt(2 * math.pi) * spread)
    shared = count * float(np.mean(slope * np.sqrt((forecast.session + forecast.level)[open_])))
    sigma = math.sqrt(shared**2 + count * mean * (1.0 - mean))
    return SquareOutlook(expected_good=round(expected, 3), sigma=round(sigma, 3), p_good=round(mean, 4), rank=0)
