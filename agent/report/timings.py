"""Where the time went: a table by step and a timeline."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from agent.recording.record import Record
from agent.session import events as ev

LANES = ("load grid", "atlas", "map square", "focus", "expose", "other moves", "inference", "suspended")
LANE_OF = {
    "load_grid": "load grid",
    "acquire_atlas": "atlas",
    "map_square": "map square",
    "focus": "focus",
    "expose": "expose",
    "goto": "other moves",
    "park": "other moves",
}
INFERENCE = {"squares_found": "squares (low)", "holes_found": "holes (medium)", "micrograph_judged": "quality (high)"}


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table; times in seconds, ``share`` of the session's time from 0 to 1."""

    kind: str
    name: str
    count: int
    median_s: float
    longest_s: float
    total_s: float
    share: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the timeline; ``begin`` and ``width`` as fractions of the session's time."""

    lane: int
    begin: float
    width: float
    failed: bool


@dataclass(frozen=True, slots=True)
class Timings:
    """Table, timeline and the time that both refer to."""

    steps: tuple[Step, ...]
    lanes: tuple[str, ...]
    bars: tuple[Bar, ...]
    session_s: float


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time: from ``begin`` to ``end`` in seconds since 1970, ``work_s`` of it by its own clock."""

    kind: str
    name: str
    lane: str
    begin: float
    end: float
    work_s: float
    failed: bool = False


def timings(record: Record) -> Timings:
    """Table and timeline of a session."""
    spans = list(_spans(record))
    begun, last = record.begun_utc, record.last_utc
    session_s = max(last - begun, 0.0)
    groups: dict[tuple[str, str], list[float]] = {}
    for span in spans:
        groups.setdefault((span.kind, span.name), []).append(span.work_s)
    steps = [
        Step(kind, name, len(t), median(t), max(t), sum(t), min(sum(t) / session_s, 1.0) if session_s > 0 else 0.0)
        for (kind, name), t in groups.items()
    ]
    steps.sort(key=lambda step: (step.kind, -step.total_s))
    lanes = tuple(lane for lane in LANES if any(span.lane == lane for span in spans))
    bars = tuple(_bars(spans, lanes, begun, session_s)) if session_s > 0 else ()
    return Timings(tuple(steps), lanes, bars, session_s)


def _spans(record: Record) -> Iterator[Span]:
    issued: dict[str, tuple[float, str]] = {}
    held: dict[str, float] = {}
    for item in record.happened:
        match item.event:
            case ev.CommandIssued(command=command):
                issued[command.command_id] = (item.utc, str(command.work.__struct_config__.tag))
            case ev.CommandEnded(result=result) if result.command_id in issued:
                begin, work = issued.pop(result.command_id)
                failed = result.status not in ("done", "cancelled")
                lane = LANE_OF.get(work, "other moves")
                yield Span("microscope", work.replace("_", " "), lane, begin, item.utc, result.elapsed_s, failed)
            case ev.SquaresFound() | ev.HolesFound() | ev.MicrographJudged() as event:
                name = INFERENCE[ev.kind_of(event)]
                yield Span("inference", name, "inference", item.utc - event.elapsed_s, item.utc, event.elapsed_s)
            case ev.Suspended(cause=cause):
                held.setdefault(cause, item.utc)
            case ev.Unsuspended(cause=cause) if cause in held:
                begin = held.pop(cause)
                yield Span("suspended", f"by {cause}", "suspended", begin, item.utc, item.utc - begin)
            case _:
                pass
    for cause, begin in held.items():
        yield Span("suspended", f"by {cause}", "suspended", begin, record.last_utc, record.last_utc - begin)


def _bars(spans: Iterable[Span], lanes: tuple[str, ...], begun: float, session_s: float) -> Iterator[Bar]:
    """Bars that can be told apart: those of one lane that would touch are drawn as one."""
    finest = 1 / 1500
    by_lane: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    for span in spans:
        begin = min(max((span.begin - begun) / session_s, 0.0), 1.0)
        end = min(max((span.end - begun) / session_s, begin + finest), 1.0)
        by_lane.setdefault((lanes.index(span.lane), span.failed), []).append((begin, end))
    for (lane, failed), pieces in sorted(by_lane.items()):
        joined: list[tuple[float, float]] = []
        for begin, end in sorted(pieces):
            if joined and begin - joined[-1][1] < finest:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((begin, end))
        for begin, end in joined:
            yield Bar(lane, begin, end - begin, failed)
