"""What moves cost, in minutes: learned from how long this session's own commands took."""

from agent.policy.planning import Costs
from agent.session.state import State

USUAL_S = {
    "expose": 25.0, "focus": 25.0, "map_square": 90.0, "load_grid": 600.0, "acquire_atlas": 900.0, "realign_grid": 60.0,
}  # fmt: skip
FIRM = 2  # commands after which the session's own mean counts as much as the usual value


def seconds(state: State, kind: str) -> float:
    """How long a command of this kind takes here, with everything between it and the next."""
    timing = state.timings.get(kind)
    if timing is None:
        return USUAL_S[kind]
    return (FIRM * USUAL_S[kind] + timing.count * timing.mean_s) / (FIRM + timing.count)


def learned(state: State, *, autofocus: bool) -> Costs:
    """The costs of going on, as this session knows them by now."""
    hole = seconds(state, "expose") / 60.0
    group = hole + (seconds(state, "focus") / 60.0 if autofocus else 0.0)
    square = group + 0.1  # back to a square that has its map: a stage move
    grid = square + (seconds(state, "load_grid") + seconds(state, "acquire_atlas")) / 60.0
    return Costs(hole=hole, group=group, square=square, grid=grid)


def change_minutes(state: State, *, seen: bool) -> float:
    """How long it takes until another grid can be worked on: load it, and take its atlas or find it again."""
    return (seconds(state, "load_grid") + seconds(state, "realign_grid" if seen else "acquire_atlas")) / 60.0


def look_minutes(state: State, *, squares: int, holes: int, autofocus: bool) -> float:
    """How long a first look at a grid takes that was not seen yet."""
    cost = learned(state, autofocus=autofocus)
    square = seconds(state, "map_square") / 60.0 + cost.group + (holes - 1) * cost.hole
    return change_minutes(state, seen=False) + squares * square
