"""The learning policy in a live session: the learner and the planner over the squares of the grid on the stage."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agent.policy import costs as prices
from agent.policy.evidence import Evidence, gather
from agent.policy.learning import Forecast, Posterior
from agent.policy.outlook import reasons_of
from agent.policy.planning import Board, Costs, Here, Option, Site
from agent.policy.selection import Offer
from agent.session.state import OPEN_STATES, Grid, Hole, Square, State, is_hole, square_of
from agent.settings import Settings

LEAST_CHANCE = 0.02  # below, an exposure is a waste of dose even where time is left
SURE = 3.0  # merit of what an operator accepted, as the planner sees it
UNKNOWN_GRID_SD = 0.4  # how much a grid that was not seen yet may differ from what is known
USUAL_HOLES, GROUP_HOLES = 50.0, 6.0  # in a square, and in a group, of a grid that was not seen yet


class Choice(NamedTuple):
    """What is next, and why.

    Parameters
    ----------
    square_id
        Square to go to, or to stay at; empty: nothing on this grid is worth its time.
    group
        Group of holes in it; -1 where the square has to be mapped first.
    hole_ids
        Holes of that group in the order in which they are worth it.
    p_good, low, high
        Chance of a good micrograph there, and its 90 % interval.
    why, runner_up
        In words.
    grid_id
        Another grid that time is better spent on, where ``square_id`` is empty; empty: none is.
    """

    square_id: str
    group: int = -1
    hole_ids: tuple[str, ...] = ()
    p_good: float = 0.0
    low: float = 0.0
    high: float = 0.0
    why: str = ""
    runner_up: str = ""
    grid_id: str = ""


class View(NamedTuple):
    """What is expected at this moment; made once and asked often."""

    evidence: Evidence
    posterior: Posterior


def view(state: State, settings: Settings) -> View:
    """What is expected of every square and hole of the session."""
    evidence = gather(state, settings.policy.good_ctf_angstrom)
    return View(evidence, Posterior(evidence.regions, evidence.belief))


def chances(seen: View, square: Square) -> dict[str, float]:
    """Probability of a good micrograph of each hole of a mapped square."""
    p = seen.posterior.forecast(square.area_id).p_good
    return dict(zip(square.holes, p.tolist(), strict=False))


def choose(state: State, settings: Settings, here: Offer, elsewhere: Sequence[Offer] = ()) -> Choice:
    """The next square and group, or another grid.

    Parameters
    ----------
    here
        What the grid on the stage has to offer.
    elsewhere
        What other grids have to offer; nothing but the grid itself where it was not seen yet.
    """
    seen = view(state, settings)
    cost = prices.learned(state, autofocus=settings.exposure.autofocus)
    left = left_minutes(state, settings)
    sites, ids = _sites(seen, state, here, cost)
    changes = {}
    for offer in elsewhere:
        grid = offer.grid
        unseen = grid.state == "waiting"
        sites += (
            [_unseen_grid(seen, state, grid, cost, left)] if unseen else _sites(seen, state, offer, cost, away=True)[0]
        )
        changes[grid.grid_id] = prices.change_minutes(state, seen=not unseen)
    board = Board(sites, _here(state), cost, left, settings.budget.exposures - state.exposures, changes)
    options = board.squares()
    on_grid = [option for option in options if option.key not in changes]
    wanted = [option for option in on_grid if option.p_good >= LEAST_CHANCE or _is_wanted(state, option.key)]
    ordered = any(_is_wanted(state, option.key) for option in wanted)
    grids = [option for option in options if option.key in changes and option.p_good >= LEAST_CHANCE]
    best = f"the best here is {_short(on_grid[0])}" if on_grid else "no hole or square is left here"
    if grids and not ordered and (not wanted or options[0].key in changes):
        return Choice("", why=f"{best}; {_whole_grid(state, grids[0])}", grid_id=grids[0].key)
    if not wanted:
        return Choice("", why=best)
    wanted.sort(key=lambda option: not _is_wanted(state, option.key))
    first = wanted[0]
    other = next((option for option in options if option.key != first.key), None)
    if first.key not in ids or here.grid.must_map(here.grid.squares[first.key]):
        choice = _to_map(seen, state, first, other, board)
    else:
        choice = _to_shoot(seen, state, settings, first, other, board, ids[first.key])
    left_behind = _left_behind(state, choice, board, on_grid)
    return choice._replace(why=f"{left_behind}{choice.why}")


def _sites(
    seen: View, state: State, offer: Offer, cost: Costs, *, away: bool = False
) -> tuple[list[Site], dict[str, list[str]]]:
    """Squares of a grid as the planner sees them, and for mapped ones the ids of its rows."""
    sites, ids = [], {}
    again = prices.seconds(state, "map_square") / 60.0
    for square, holes, quota in offer.mapped:
        site, order = _mapped(seen, square, holes, quota, cost)
        if order:
            extra = again if away or offer.grid.must_map(square) else 0.0  # after a change its holes are found anew
            sites.append(site._replace(extra_minutes=extra))
            ids[square.area_id] = order
    per_square = int(state.thresholds["exposures_per_square"])
    sites += [_unmapped(seen, state, square, per_square) for square in offer.unmapped]
    return sites, ids


def _whole_grid(state: State, option: Option) -> str:
    grid = state.grids[option.key]
    known = "was not seen yet" if grid.state == "waiting" else "{1} of {0} good so far".format(*grid.tries)
    return (
        f"{option.key} ({known}) promises {option.rate:.2f} good/min: {option.p_good:.2f} of about {option.number}"
        f" good, {option.minutes:.0f} min to change"
    )


def _left_behind(state: State, choice: Choice, board: Board, options: Sequence[Option]) -> str:
    """Why the square or group at hand is left although something of it is still open; empty where it is not left."""
    here = board.here
    square = state.square(here.square) if here.square else None
    if square is None or not choice.square_id:
        return ""
    price = f"time is worth {board.price:.2f}"
    if choice.square_id != square.area_id:
        rest = next((option for option in options if option.key == square.area_id), None)
        if rest is None:
            return ""
        return (
            f"leaves {square.area_id} ({_tries(square)}): {rest.number} holes left, {rest.p_good:.2f} each, {price}; "
        )
    if here.group in (-1, choice.group) or here.group not in square.groups:
        return ""
    rest = next((o for o in board.groups(square.area_id, ranked=False) if o.group == here.group), None)
    if rest is None:
        return ""
    ids = square.groups[here.group].hole_ids
    open_ = f"{rest.number} holes left, {rest.p_good:.2f} each"
    return f"leaves group {here.group} ({_tries(square, ids)}): {open_}, {price}; "


def _tries(square: Square, ids: Sequence[str] | None = None) -> str:
    holes = (square.holes[i] for i in (square.holes if ids is None else ids) if i in square.holes)
    judged = [hole.quality_label for hole in holes if hole.quality_label]
    return f"{judged.count('good')} of {len(judged)} good"


def left_minutes(state: State, settings: Settings) -> float:
    """Time that is left of the session's hours, as the driver tells it: no clock of this machine counts."""
    return max(0.0, settings.budget.hours * 60.0 - state.spent_s / 60.0)


def _is_wanted(state: State, key: str) -> bool:
    square = state.square(key)
    if square is None:
        return False
    if square.word == "accepted" and not square.map_frame_id:
        return True
    return any(h.word == "accepted" and h.state in OPEN_STATES and not h.visited for h in square.holes.values())


def _most_wanted(square: Square, order: list[str], hole_ids: tuple[str, ...]) -> int:
    """Priority of what an operator wants most in a group; -1 where nothing was accepted there."""
    wanted = (square.holes[i].priority for i in hole_ids if i in order and square.holes[i].word == "accepted")
    return max(wanted, default=-1)


def _here(state: State) -> Here:
    square = state.square(state.here) if state.here else None
    if square is None:
        return Here(state.grid_id)
    hole = state.hole(state.here) if is_hole(state.here) else None
    if hole is None:  # focused there last: the group whose focus was found and of which nothing was shot yet
        ready = (
            n
            for n, g in square.groups.items()
            if g.focused and all(square.holes[i].state in OPEN_STATES for i in g.hole_ids if i in square.holes)
        )
        return Here(state.grid_id, square.area_id, next(ready, -1))
    group = hole.group if hole.group is not None else -1
    return Here(state.grid_id, square_of(state.here), group)


def _within(square: Square, holes: dict[str, Hole], p: dict[str, float], quota: int, cost: Costs) -> set[str]:
    """The ``quota`` holes that pay best: group by group, as each costs a move and a focus."""
    if quota >= len(holes):
        return set(holes)
    best: list[tuple[int, float, int, list[str]]] = []
    for group in square.groups.values():
        ids = sorted((i for i in group.hole_ids if i in holes), key=lambda i: (-holes[i].priority, -p[i], i))
        if ids:
            some = ids[: max(quota, 1)]
            entry = 0.0 if group.focused else cost.group - cost.hole
            rate = sum(p[i] for i in some) / (entry + len(some) * cost.hole)
            best.append((-holes[ids[0]].priority, -rate, group.number, ids))
    return set([i for *_, ids in sorted(best) for i in ids][: max(quota, 0)])


def _mapped(seen: View, square: Square, holes: dict[str, Hole], quota: int, cost: Costs) -> tuple[Site, list[str]]:
    index = {area_id: i for i, area_id in enumerate(square.holes)}
    forecast = seen.posterior.forecast(square.area_id)
    mean = forecast.mean.copy()
    for area_id, hole in holes.items():
        if hole.word == "accepted":
            mean[index[area_id]] = SURE + 0.01 * hole.priority
    forecast = forecast._replace(mean=mean)
    free = {i for i in holes if holes[i].word != "accepted"}
    p = {i: float(forecast.p_good[index[i]]) for i in free}
    taken = _within(square, {i: holes[i] for i in free}, p, quota, cost) | (holes.keys() - free)
    order = [(group.number, i) for group in square.groups.values() for i in group.hole_ids if i in taken]
    order.sort(key=lambda item: item[0])
    rows = np.array([index[i] for _, i in order], np.int64)
    site = Site(
        square.area_id,
        square.area_id.rsplit("-S", 1)[0],
        forecast.rows(rows),
        np.array([g for g, _ in order], np.int64),
    )
    return site, [i for _, i in order]


def _unmapped(seen: View, state: State, square: Square, per_square: int) -> Site:
    forecast = seen.posterior.forecast(square.area_id).rows(np.zeros(1, np.int64))
    if square.word == "accepted" or square.priority:
        forecast = forecast._replace(
            mean=forecast.mean + (SURE if square.word == "accepted" else 0.3 * square.priority)
        )
    expected = seen.evidence.holes_per_um2 * square.size_um**2
    budget = per_square if square.budget is None else square.budget
    scale = max(1.0, min(expected, float(budget + square.more_exposures)))
    grid = square.area_id.rsplit("-S", 1)[0]
    return Site(
        square.area_id, grid, forecast, np.zeros(1, np.int64), scale, prices.seconds(state, "map_square") / 60.0
    )


def _unseen_grid(seen: View, state: State, grid: Grid, cost: Costs, left: float) -> Site:
    """A grid that was not seen yet: as the session's others on average, and so many squares as there is time for."""
    levels = [seen.posterior.level(key) for key in list(seen.posterior.regions)[:200]]
    mean = float(np.mean([level for level, _ in levels])) if levels else seen.evidence.belief.offset
    one = np.ones(1)
    forecast = Forecast(
        mean * one, 0.05 * one, UNKNOWN_GRID_SD**2 * one, 0 * one, 0 * one, seen.evidence.belief.chance_sd**2
    )
    known = [len(square.holes) for other in state.grids.values() for square in other.squares.values() if square.holes]
    usual = float(np.mean(known)) if known else USUAL_HOLES
    each = max(1.0, min(usual, state.thresholds["exposures_per_square"]))
    square = prices.seconds(state, "map_square") / 60.0
    most = left / (square + each * cost.hole + each / GROUP_HOLES * (cost.group - cost.hole))
    count = max(1.0, min(most, state.thresholds["squares_per_grid"]))
    moves = count * (square + each / GROUP_HOLES * (cost.group - cost.hole))
    return Site(f"?{grid.grid_id}", grid.grid_id, forecast, np.zeros(1, np.int64), max(1.0, count * each), moves)


def _short(option: Option) -> str:
    return f"{option.key} ({option.p_good:.2f}, {option.rate:.2f}/min)"


def _to_map(seen: View, state: State, first: Option, other: Option | None, board: Board) -> Choice:
    forecast = seen.posterior.forecast(first.key)
    low, high = forecast.p_interval()
    square = state.square(first.key)
    reasons = reasons_of(seen.evidence, seen.posterior, first.key, [0])
    why = (
        f"{forecast.p_good[0]:.2f} of its micrographs good ({low[0]:.2f}–{high[0]:.2f}), about {first.expected:.0f}"
        f" to be had, {first.minutes:.1f} min to get there, {first.rate:.2f} good/min (time: {board.price:.2f}):"
        f" {', '.join(reasons[0]) or 'nothing known yet'}"
    )
    if square is not None and square.word == "accepted":
        why = f"accepted by {square.by}; {why}"
    return Choice(
        first.key,
        -1,
        (),
        round(float(forecast.p_good[0]), 4),
        float(low[0]),
        float(high[0]),
        why,
        _short(other) if other else "",
    )


def _to_shoot(
    seen: View, state: State, settings: Settings, first: Option, other: Option | None, board: Board, order: list[str]
) -> Choice:
    square = state.square(first.key)
    assert square is not None  # noqa: S101 - it is among the mapped ones
    groups = board.groups(first.key)
    accepted = {
        n
        for n, g in square.groups.items()
        if any(square.holes[i].word == "accepted" and i in order for i in g.hole_ids)
    }
    groups.sort(key=lambda option: option.group not in accepted)
    group = groups[0]
    worth = (order[row] for row in np.sort(board.holes(first.key, group.group)))
    wanted = (square.holes[i] for i in worth)  # as the group is drawn, but what an operator wants comes first
    holes = tuple(h.area_id for h in sorted(wanted, key=lambda h: (h.word != "accepted", -h.priority)))
    index = list(square.holes).index(holes[0])
    forecast = seen.posterior.forecast(first.key)
    low, high = forecast.p_interval()
    reasons = reasons_of(seen.evidence, seen.posterior, first.key, [index])[0]
    rest = f"; then {square.area_id} group {groups[1].group} ({groups[1].p_good:.2f})" if len(groups) > 1 else ""
    why = (
        f"good with {forecast.p_good[index]:.2f} ({low[index]:.2f}–{high[index]:.2f}), {group.minutes:.1f} min,"
        f" time is worth {board.price:.2f} good/min: {', '.join(reasons) or 'nothing known yet'}"
    )
    runner = holes[1] if len(holes) > 1 else ""
    if runner:
        p = float(forecast.p_good[list(square.holes).index(runner)])
        shown = f"{runner} ({p:.2f})"
    else:
        shown = _short(other) if other else ""
    return Choice(
        first.key,
        group.group,
        holes,
        round(float(forecast.p_good[index]), 4),
        round(float(low[index]), 4),
        round(float(high[index]), 4),
        why,
        shown + (rest if not runner else ""),
    )
