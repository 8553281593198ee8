"""What comes next, for how long, and who leads: read off a state, decided nowhere here."""

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from agent.policy import selection
from agent.session.state import OPEN_STATES, Grid, Hole, Square, State
from agent.settings import Settings

MOST_QUEUED = 12
MIN_EXPOSURES = 5  # below, no forecast is given


class Next(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of the queue."""

    id: str
    what: str
    why: str
    now: bool = False


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What another threshold would change: areas that would be visited, and areas that would not."""

    more: tuple[str, ...]
    less: tuple[str, ...]
    text: str


class Plans:
    """How many holes of each square are still to be exposed; counted anew only for squares that changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Square, dict[str, float], int]] = {}

    def of(self, state: State, settings: Settings, square: Square) -> int:
        """The count of one square."""
        known = self._known.get(square.area_id)
        if known is None or known[0] is not square or known[1] is not state.thresholds:
            known = (square, state.thresholds, len(_planned(state, settings, square)))
            self._known[square.area_id] = known
        return known[2]


def wanted_squares(state: State, settings: Settings, grid: Grid) -> list[Square]:
    """Squares still to be visited, the next one first, by the policy that decides it."""
    return selection.rank_squares(
        grid,
        min_score=state.thresholds.get("square_score", 0.0),
        per_grid=int(state.thresholds.get("squares_per_grid", 0)),
        autonomy=state.autonomy,
        envelope=settings.interlocks,
    )


def wanted_holes(state: State, settings: Settings, square: Square) -> list[Hole]:
    """Holes of a square that may be exposed, best first, by the policy that decides it."""
    score = state.thresholds.get("hole_score", 0.0)
    return selection.candidates(square, min_score=score, envelope=settings.interlocks)


def queue(state: State, settings: Settings) -> list[Next]:
    """What runs now and what follows, with the reasons."""
    rows: list[Next] = []
    for entry in state.outstanding.values():
        work = entry.command.work.__struct_config__.tag
        rows.append(
            Next(
                id=entry.area_id or state.grid_id,
                what=str(work).replace("_", " "),
                why=entry.command.command_id,
                now=True,
            )
        )
    grid = state.grid
    if grid is None:
        return rows
    for square in grid.squares.values():
        if square.state != "mapped" or square.word == "rejected":
            continue
        for group in square.groups.values():
            left = [i for i in group.hole_ids if (h := square.holes.get(i)) is not None and h.state in OPEN_STATES]
            if left:
                why = f"{len(left)} holes by image shift" + (", focused" if group.focused else ", focus first")
                rows.append(Next(id=square.area_id, what=f"group {group.number}", why=why))
    following = wanted_squares(state, settings, grid)[: max(0, MOST_QUEUED - len(rows))]
    # the learning policy weighs all of them anew at each step: what it will take is not known before
    what = "may be next" if settings.policy.name == "learning" else "map square"
    rows += [Next(id=square.area_id, what=what, why=why_square(square)) for square in following]
    return rows[:MOST_QUEUED]


def shots(settings: Settings) -> dict[str, Any]:
    """How groups are shot, so that they are drawn so: reach of the image shift, beam, whether each is focused."""
    beam_um, focus = settings.exposure.beam_diameter_um, settings.exposure.autofocus
    return {"shift_um": settings.holes.max_image_shift_um, "beam_um": beam_um, "focus": focus}


def why_square(square: Square) -> str:
    """Why a square stands where it stands."""
    if square.word == "accepted":
        return f"accepted by {square.by}"
    if square.priority:
        return f"priority {square.priority:+d} by {square.by}"
    return f"score {square.score:.2f}" + (f", {square.why}" if square.why else "")


def preview(state: State, settings: Settings, name: str, value: float) -> Preview:
    """What would be visited with another threshold and is not now, and the other way round.

    Raises
    ------
    KeyError
        If there is no such threshold.
    """
    if name not in state.thresholds:
        raise KeyError(name)
    other = replace(state, thresholds={**state.thresholds, name: value})
    grid = state.grid
    if grid is None:
        return Preview(more=(), less=(), text="no grid yet")
    if name in ("square_score", "squares_per_grid"):
        now = [s.area_id for s in wanted_squares(state, settings, grid)]
        then = [s.area_id for s in wanted_squares(other, settings, grid)]
        kind = "squares"
    else:
        now, then, kind = [], [], "holes"
        for square in grid.squares.values():
            if square.holes and square.state in ("mapped", "busy"):
                now += _planned(state, settings, square)
                then += _planned(other, settings, square)
    more = tuple(i for i in then if i not in set(now))
    less = tuple(i for i in now if i not in set(then))
    where = "" if kind == "squares" else " in the squares under way; squares to come follow the new value, too"
    text = f"{len(then)} instead of {len(now)} {kind}{where}: {len(more)} more, {len(less)} fewer"
    return Preview(more=more, less=less, text=text)


def _planned(state: State, settings: Settings, square: Square) -> list[str]:
    done = sum(1 for h in square.holes.values() if h.visited)
    most = max(0, int(state.thresholds.get("exposures_per_square", 0)) - done)
    wanted = wanted_holes(state, settings, square)
    accepted = [h.area_id for h in wanted if h.word == "accepted"]
    return accepted + [h.area_id for h in wanted if h.word != "accepted"][:most]


def forecast(
    state: State, settings: Settings, exposed_utc: Sequence[float], utc: float, plans: Plans | None = None
) -> dict[str, Any]:
    """Budget and, when enough was exposed to tell, how much is left and about when it ends.

    The pace is the median time between exposures of late, squares and focus included by the mean over the same time.
    """
    found: dict[str, Any] = {"spent_h": round(state.spent_s / 3600, 3), "budget_h": settings.budget.hours}
    grid = state.grid
    if grid is None:
        return found
    plans = plans or Plans()
    left = sum(plans.of(state, settings, s) for s in grid.squares.values() if s.state == "mapped" and s.holes)
    per_square = state.thresholds.get("exposures_per_square", 0)
    left += int(len(wanted_squares(state, settings, grid)) * per_square)
    left = min(left, max(0, settings.budget.exposures - state.exposures))
    found["left"] = left
    recent = list(exposed_utc)[-60:]
    if len(recent) >= MIN_EXPOSURES and left:
        pace = (recent[-1] - recent[0]) / (len(recent) - 1)
        gaps = [b - a for a, b in itertools.pairwise(recent)]
        usual = statistics.median(gaps)
        found["per_hour"] = round(3600 / pace, 1) if pace > 0 else None
        found["shot_s"] = round(usual, 2)
        found["ends_utc"] = round(utc + min(left * pace, max(0.0, settings.budget.hours * 3600 - state.spent_s)), 1)
    return found


def leader(state: State) -> str:
    """Who holds control, in words."""
    if state.phase == "fault":
        return "nobody: fault"
    if state.phase == "stopped":
        return "nobody: ended"
    if state.phase == "paused":
        return f"you: {state.why}"
    if not state.driver:
        return "nobody: no driver"
    if state.mode == "advisor":
        return "the microscope software; Cryonaut advises"
    return {"suggest": "you; Cryonaut suggests", "approve": "Cryonaut, with your approval"}.get(
        state.autonomy, "Cryonaut"
    )
