"""Which squares and holes are worth a visit, and in which order."""

from agent.control_messages import Autonomy
from agent.interlock import reachable
from agent.session.state import OPEN_STATES, Grid, Hole, Square
from agent.settings import EnvelopeSettings

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


def defocus_steps(lowest_um: float, highest_um: float, step_um: float) -> list[float]:
    """Defocus values from lowest to highest, which exposures go through in turn."""
    count = int((highest_um - lowest_um) / step_um + 1e-6) + 1
    return [round(lowest_um + i * step_um, 4) for i in range(count)]
