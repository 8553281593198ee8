"""Which squares and holes are worth a visit, and in which order."""

from typing import NamedTuple

from agent.control_messages import Autonomy
from agent.interlock import reachable
from agent.session.state import OPEN_STATES, Grid, Hole, Square, State
from agent.settings import EnvelopeSettings, Settings

VISITED = ("busy", "mapped", "done", "exposed")


def _order(area: Square | Hole) -> tuple[bool, int, float, str]:
    return (area.word != "accepted", -area.priority, -area.score, area.area_id)


def visited(grid: Grid) -> int:
    """Squares of ``grid`` that the agent has visited by itself."""
    return sum(1 for s in grid.squares.values() if s.word != "accepted" and s.state in VISITED)


def rank_squares(
    grid: Grid, *, min_score: float, per_grid: int, autonomy: Autonomy, envelope: EnvelopeSettings
) -> list[Square]:
    """Squares still to be visited, the next one first.

    What an operator accepted comes first and does not count against ``per_grid``; with autonomy ``approve``
    nothing else is visited. Squares cut by the frame's edge, out of reach, or below ``min_score`` are left out.
    """
    wanted = []
    own = visited(grid)
    for square in grid.squares.values():
        if square.state not in OPEN_STATES or square.word == "rejected":
            continue
        if reachable(square.x_um, square.y_um, envelope):
            continue
        if square.word != "accepted" and (autonomy == "approve" or square.score < min_score or square.touches_edge):
            continue
        wanted.append(square)
    wanted.sort(key=_order)
    accepted = [square for square in wanted if square.word == "accepted"]
    rest = [square for square in wanted if square.word != "accepted"]
    return accepted + rest[: max(0, per_grid - own)]


def candidates(square: Square, *, min_score: float, envelope: EnvelopeSettings) -> list[Hole]:
    """Holes of ``square`` that may be exposed, best first; an operator's word is above the score.

    A hole that was exposed is never among them: the agent exposes no place twice by itself.
    """
    found = [
        hole
        for hole in square.holes.values()
        if hole.state in OPEN_STATES
        and hole.dose_e_per_a2 == 0
        and not hole.frame_id
        and hole.word != "rejected"
        and (hole.word == "accepted" or hole.score >= min_score)
        and not reachable(hole.x_um, hole.y_um, envelope)
    ]
    return sorted(found, key=_order)


def wanted(state: State, settings: Settings, square: Square) -> dict[str, Hole]:
    """Holes of ``square`` that may be exposed, best score first."""
    score = state.thresholds["hole_score"]
    return {h.area_id: h for h in candidates(square, min_score=score, envelope=settings.interlocks)}


def quota(state: State, settings: Settings, square: Square) -> int:
    """How many more holes the square's budget allows, beside those that an operator accepted."""
    shot = sum(1 for h in square.holes.values() if h.word != "accepted" and (h.dose_e_per_a2 > 0 or h.frame_id))
    usual = int(state.thresholds["exposures_per_square"])
    budget = usual if square.budget is None else square.budget
    free = sum(1 for hole in wanted(state, settings, square).values() if hole.word != "accepted")
    return min(free, max(0, budget + square.more_exposures - shot))


class Offer(NamedTuple):
    """What one grid still has to offer.

    Parameters
    ----------
    grid
        The grid.
    mapped
        Squares with holes that may be exposed: the square, those holes, and how many more of them its budget allows.
    unmapped
        Squares that may be mapped, what an operator wants first.
    """

    grid: Grid
    mapped: tuple[tuple[Square, dict[str, Hole], int], ...] = ()
    unmapped: tuple[Square, ...] = ()


def offer(state: State, settings: Settings, grid: Grid) -> Offer:
    """What ``grid`` still has to offer; nothing of one that was not seen yet."""
    mapped = []
    for square in grid.squares.values():
        if square.state != "mapped" or square.word == "rejected":
            continue
        holes, more = wanted(state, settings, square), quota(state, settings, square)
        if more or any(hole.word == "accepted" for hole in holes.values()):
            mapped.append((square, holes, more))
    unmapped = rank_squares(
        grid,
        min_score=state.thresholds["square_score"],
        per_grid=len(grid.squares) if visited(grid) < state.thresholds["squares_per_grid"] else 0,
        autonomy=state.autonomy,
        envelope=settings.interlocks,
    )
    return Offer(grid, tuple(mapped), tuple(unmapped))


def defocus_steps(lowest_um: float, highest_um: float, step_um: float) -> list[float]:
    """Defocus values from lowest to highest, which exposures go through in turn."""
    count = int((highest_um - lowest_um) / step_um + 1e-6) + 1
    return [round(lowest_um + i * step_um, 4) for i in range(count)]
