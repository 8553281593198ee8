"""What is different between two sessions on the same specimen: which targets, and why."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from agent.messages import Expose, MapSquare
from agent.recording.decisions import decisions, fingerprint, provenance
from agent.recording.record import Record
from agent.session import events as ev
from agent.session.state import Grid, Hole, Square, State

Kind = Literal["visited only then", "visited only now", "found only then", "found only now", "judged otherwise"]
KINDS: tuple[Kind, ...] = (
    "visited only then", "visited only now", "found only then", "found only now", "judged otherwise",
)  # fmt: skip
SAME_SCORE = 0.005
A = TypeVar("A", Square, Hole)


@dataclass(frozen=True, slots=True)
class Change:
    """One target that is not what it was. Empty ids mean: not there. ``x_um, y_um`` is its place on the stage."""

    kind: Kind
    level: Literal["square", "hole"]
    then_id: str
    now_id: str
    grid_id: str
    x_um: float
    y_um: float
    size_um: float
    then_score: float | None
    now_score: float | None
    then: str
    now: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Both sessions side by side; ``changes`` with the weightiest first."""

    same_decisions: bool
    fingerprints: tuple[str, str]
    decisions: tuple[int, int]
    provenance: tuple[dict[str, str], dict[str, str]]
    counts: tuple[dict[str, float], dict[str, float]]
    settings: tuple[tuple[str, str, str], ...]  # key, then, now: of settings that both manifests know
    first: tuple[str, str]
    changes: tuple[Change, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def compare(then: Record, now: Record) -> Difference:
    """The difference of two records; areas are the same where they lie at the same place of the same grid."""
    lines = decisions(then), decisions(now)
    first = next(
        ((a.text, b.text) for a, b in zip(*lines, strict=False) if a.text != b.text),
        ("", "") if len(lines[0]) == len(lines[1]) else _rest(lines[0], lines[1]),
    )
    changes = []
    why = _chosen_because(then), _chosen_because(now)
    for grid_id in dict.fromkeys((*then.state.grids, *now.state.grids)):
        grids = then.state.grids.get(grid_id), now.state.grids.get(grid_id)
        changes += _grid_changes(grids, (then.state, now.state), why)
    weight = {kind: number for number, kind in enumerate(KINDS)}
    changes.sort(key=lambda c: (weight[c.kind], c.level != "square", -abs((c.now_score or 0) - (c.then_score or 0))))
    return Difference(
        same_decisions=first == ("", ""),
        fingerprints=(fingerprint(lines[0]), fingerprint(lines[1])),
        decisions=(len(lines[0]), len(lines[1])),
        provenance=(provenance(then), provenance(now)),
        counts=(counts(then.state), counts(now.state)),
        settings=tuple(_settings(then, now)),
        first=first,
        changes=tuple(changes),
    )


def _rest(then: tuple[Any, ...], now: tuple[Any, ...]) -> tuple[str, str]:
    at = min(len(then), len(now))
    return (then[at].text if len(then) > at else "", now[at].text if len(now) > at else "")


def _settings(then: Record, now: Record) -> list[tuple[str, str, str]]:
    """Settings that differ, by their dotted names."""
    both = [_flat(_last_config(record)) for record in (then, now)]
    if not all(both):
        return []
    names = dict.fromkeys((*both[0], *both[1]))
    rows = [(name, *(json.dumps(values.get(name)) for values in both)) for name in names]
    return [(name, a, b) for name, a, b in rows if a != b]


def _last_config(record: Record) -> dict[str, Any]:
    used = [item.event.config for item in record.happened if isinstance(item.event, ev.EpochBegan)]
    configs = record.manifest.configs if record.manifest else {}
    return configs.get(used[-1], {}) if used else {}


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) and value else {f"{before}{name}": value}
    return found


def counts(state: State) -> dict[str, float]:
    """Figures of a session."""
    squares = [square for grid in state.grids.values() for square in grid.squares.values()]
    holes = [hole for square in squares for hole in square.holes.values()]
    return {
        "squares found": len(squares),
        "squares mapped": sum(bool(square.map_frame_id) for square in squares),
        "holes found": len(holes),
        "holes exposed": sum(visited(hole) for hole in holes),
        "micrographs judged": sum(hole.quality is not None for hole in holes),
        "good micrographs": sum(hole.quality_label == "good" for hole in holes),
    }


def visited(area: Square | Hole) -> bool:
    """Whether the microscope was there."""
    if isinstance(area, Square):
        return bool(area.map_frame_id)
    return bool(area.frame_id) or area.dose_e_per_a2 > 0


def _chosen_because(record: Record) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in record.happened:
        if isinstance(item.event, ev.CommandIssued) and isinstance(item.event.command.work, MapSquare | Expose):
            found.setdefault(item.event.area_id, item.event.decision.why)
    return found


def _grid_changes(
    grids: tuple[Grid | None, Grid | None], states: tuple[State, State], why: tuple[dict[str, str], dict[str, str]]
) -> list[Change]:
    then, now = (list(grid.squares.values()) if grid else [] for grid in grids)
    found = []
    for old, new in pairs(then, now):
        found += _change(old, new, states, why)
        holes_then = list(old.holes.values()) if old else []
        holes_now = list(new.holes.values()) if new else []
        both_mapped = old is not None and new is not None and bool(old.map_frame_id) and bool(new.map_frame_id)
        for hole_then, hole_now in pairs(holes_then, holes_now):
            either = hole_then or hole_now
            if both_mapped or (either is not None and visited(either)):  # else the square itself says it
                found += _change(hole_then, hole_now, states, why)
    return found


def pairs(then: list[A], now: list[A]) -> list[tuple[A | None, A | None]]:
    """Each area of then with the one of now at the same place, nearest first, each used once; then the single ones."""
    if not then or not now:
        return [(area, None) for area in then] + [(None, area) for area in now]
    gaps = np.hypot(
        np.subtract.outer([a.x_um for a in then], [a.x_um for a in now]),
        np.subtract.outer([a.y_um for a in then], [a.y_um for a in now]),
    )
    reach = np.array([_reach(area) for area in then])[:, None]
    rows, columns = np.nonzero(gaps <= reach)
    order = np.lexsort((columns, rows, gaps[rows, columns]))
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in partner and column not in taken:
            partner[row] = column
            taken.add(column)
    found: list[tuple[A | None, A | None]] = [
        (area, now[partner[number]] if number in partner else None) for number, area in enumerate(then)
    ]
    return found + [(None, area) for number, area in enumerate(now) if number not in taken]


def _reach(area: Square | Hole) -> float:
    return 0.5 * area.size_um if isinstance(area, Square) else max(area.radius_um, 0.2)


def _change(
    old: Square | Hole | None,
    new: Square | Hole | None,
    states: tuple[State, State],
    why: tuple[dict[str, str], dict[str, str]],
) -> list[Change]:
    kind = _kind(old, new)
    either = old or new
    if kind is None or either is None:
        return []
    return [
        Change(
            kind=kind,
            level="square" if isinstance(either, Square) else "hole",
            then_id=old.area_id if old else "",
            now_id=new.area_id if new else "",
            grid_id=either.area_id.split("-S")[0],
            x_um=either.x_um,
            y_um=either.y_um,
            size_um=either.size_um if isinstance(either, Square) else 2 * either.radius_um,
            then_score=old.score if old else None,
            now_score=new.score if new else None,
            then=_reason(old, new, states[0], why[0]),
            now=_reason(new, old, states[1], why[1]),
        )
    ]


def _kind(old: Square | Hole | None, new: Square | Hole | None) -> Kind | None:
    was, is_ = old is not None and visited(old), new is not None and visited(new)
    if was and not is_:
        return "visited only then"
    if is_ and not was:
        return "visited only now"
    if new is None:
        return "found only then"
    if old is None:
        return "found only now"
    judged = isinstance(old, Hole) and isinstance(new, Hole) and old.quality_label != new.quality_label
    if judged or old.label != new.label or abs(old.score - new.score) > SAME_SCORE:
        return "judged otherwise"
    return None


def _reason(area: Square | Hole | None, other: Square | Hole | None, state: State, why: dict[str, str]) -> str:
    """Why a target was visited in this session, or why not."""
    if area is None:
        square = state.square(other.area_id) if isinstance(other, Hole) else None
        mapped = square is None or bool(square.map_frame_id)
        return "not found" if mapped else "its square was not mapped"
    said = f"{area.label}, score {area.score:.2f}"
    if isinstance(area, Hole) and area.quality_label:
        said += f", micrograph {area.quality_label} ({area.quality or 0:.2f})"
    if visited(area):
        return f"visited ({why.get(area.area_id, 'by the microscope software')}); {said}"
    if area.word:
        return f"{area.word} by {area.by}; {said}"
    if area.state in ("skipped", "rejected"):
        return f"{area.state}: {area.why}; {said}"
    name = "square_score" if isinstance(area, Square) else "hole_score"
    least = state.thresholds.get(name, 0.0)
    if area.score < least:
        return f"below {name} {least:g}; {said}"
    return f"behind others that were enough; {said}"
