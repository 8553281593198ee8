"""In which order the grids of a cassette are gone to: a first look at each where that is wanted, then where it pays."""

from agent.policy import costs
from agent.session.state import Grid, State
from agent.settings import Settings

SHARE = 0.5  # of the session's hours that a screening pass may take where nothing else is said


def usable(state: State) -> list[Grid]:
    """Grids that an operator did not rule out and that were not given up."""
    return [grid for grid in state.grids.values() if grid.word != "rejected" and grid.state != "skipped"]


def pinned(state: State) -> Grid | None:
    """The grid that an operator wants next, while there is something to be done on it."""
    open_ = ("waiting", "loading", "loaded", "mapping", "realigning", "screening", "screened")
    return next((grid for grid in state.grids.values() if grid.word == "accepted" and grid.state in open_), None)


def pass_minutes(settings: Settings) -> float:
    """Minutes from the session's beginning by which its screening pass has to be over; 0 where there is none."""
    look = settings.policy.screening
    if look is None:
        return 0.0
    return 60.0 * (SHARE * settings.budget.hours if look.hours is None else look.hours)


def is_look(state: State, settings: Settings, grid: Grid) -> bool:
    """Whether ``grid`` is only looked at for now."""
    if settings.policy.screening is None or state.autonomy != "unattended" or len(usable(state)) < 2:
        return False
    return not grid.looked_at and grid.word != "accepted" and state.spent_s / 60.0 < pass_minutes(settings)


def next_look(state: State, settings: Settings) -> tuple[Grid, str] | None:
    """The next grid of the screening pass and why; None where the pass is over, or its time too short for one more."""
    look = settings.policy.screening
    grids = usable(state)
    waiting = [grid for grid in grids if grid.state == "waiting"]
    if look is None or not waiting or len(grids) < 2 or state.autonomy != "unattended":
        return None
    took = costs.look_minutes(
        state, squares=look.squares_per_grid, holes=look.holes_per_square, autofocus=settings.exposure.autofocus
    )
    if state.spent_s / 60.0 + took > pass_minutes(settings):
        return None
    seen = sum(1 for grid in grids if grid.looked_at)
    return waiting[0], f"screening pass, grid {seen + 1} of {seen + len(waiting)}: about {took:.0f} min"


def seen_words(grid: Grid) -> str:
    """What a look at ``grid`` showed."""
    judged, good = grid.tries
    if not judged:
        return f"screening {grid.grid_id}: nothing could be exposed"
    return f"screening {grid.grid_id}: {good} of {judged} micrographs good"
