"""Who decided what, and why: the agent's choices and what operators asked for."""

from dataclasses import dataclass
from typing import Any

import msgspec

from agent.recording.record import Record
from agent.session import events as ev
from agent.session.state import Decision
from agent.words import text_of, who

MOST_DECISIONS = 4_000


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of the decision table."""

    seq: int
    utc: float
    what: str
    why: str
    by: str
    model: str
    config: str
    score: float | None
    runner_up: str


@dataclass(frozen=True, slots=True)
class Said:
    """Something that an operator asked for or changed."""

    utc: float
    by: str
    text: str


def choices(record: Record) -> tuple[Choice, ...]:
    """Every decision that the journal holds, oldest first; bare changes of state are left out."""
    rows = []
    for item in record.happened:
        decision: Decision | None = getattr(item.event, "decision", None)
        if decision is None:
            continue
        match item.event:
            case ev.CommandIssued(command=command, area_id=area):
                what = f"{str(command.work.__struct_config__.tag).replace('_', ' ')} {area}".strip()
            case ev.AreaChanged(area_id=area, state=state):
                if state == "busy" or decision.why == state:
                    continue  # the command that follows says the same
                what = f"{area} {state}"
            case ev.GridChanged(grid_id=grid, state=state):
                what = f"grid {grid} {state}"
            case ev.GridSighted(grid_id=grid) | ev.GridSteered(grid_id=grid):
                what = f"grid {grid}"
            case ev.GroupsPlanned(square_id=area):
                what = f"{area} groups"
            case ev.AreaPlaced(area=place):
                what = f"{place.area_id} {place.state}"
            case _:
                continue
        model = f"{decision.model} {decision.fingerprint[:8]}".strip()
        rows.append(
            Choice(
                item.seq, item.utc, what, decision.why, decision.by, model, decision.config, decision.score,
                decision.runner_up,
            )
        )  # fmt: skip
    return tuple(rows)


def operators(record: Record) -> tuple[Said, ...]:
    """What people asked for and changed."""
    rows = []
    for item in record.happened:
        match item.event:
            case ev.Requested(verb=verb, by=by):
                asked: dict[str, Any] = {k: v for k, v in msgspec.to_builtins(verb).items() if k != "verb" and v}
                given = ", ".join(f"{k} {', '.join(v) if isinstance(v, list) else v}" for k, v in asked.items())
                rows.append(Said(item.utc, by, text_of(item.event) + (f" ({given})" if given else "")))
            case ev.SettingChanged() | ev.UndoneOnce():
                rows.append(Said(item.utc, who(item.event), text_of(item.event)))
            case ev.AreaPlaced() | ev.PhaseChanged() if who(item.event) != "agent":
                rows.append(Said(item.utc, who(item.event), text_of(item.event)))
            case _:
                pass
    return tuple(rows)
