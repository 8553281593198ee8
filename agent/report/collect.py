"""What the page says in words and numbers: headline, counts, the record itself."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.recording.record import Record
from agent.report.troubles import Trouble
from agent.session import events as ev
from agent.session.state import Hole, Square

DONE = "stopped"


@dataclass(frozen=True, slots=True)
class Counts:
    """The figures at the top."""

    squares_found: int
    squares_mapped: int
    holes_found: int
    holes_exposed: int
    micrographs: int
    judged: int
    good: int
    good_per_hour: float | None
    hours: float  # by the clock on the wall
    speed: float  # of a simulated microscope, 1 for a real one: `good_per_hour` is at its clock
    dose_e_per_a2: float


@dataclass(frozen=True, slots=True)
class Headline:
    """The session in two lines; ``mood`` is "well", "warning" or "alarm"."""

    mood: str
    verdict: str
    did: str
    ended: str


def counts(record: Record) -> Counts:
    """The figures of the whole session."""
    squares = [square for grid in record.state.grids.values() for square in grid.squares.values()]
    holes = [hole for square in squares for hole in square.holes.values()]
    good = sum(hole.quality_label == "good" for hole in holes)
    hours = (record.last_utc - record.begun_utc) / 3600
    speed = simulated_speed(record)
    return Counts(
        squares_found=len(squares),
        squares_mapped=sum(bool(square.map_frame_id) for square in squares),
        holes_found=len(holes),
        holes_exposed=sum(hole.visited for hole in holes),
        micrographs=sum(received.frame.level == "high" for received in record.frames.values()),
        judged=sum(bool(hole.quality_label) for hole in holes),
        good=good,
        good_per_hour=good / (hours * speed) if hours > 0 else None,
        hours=hours,
        speed=speed,
        dose_e_per_a2=record.state.dose_e_per_a2,
    )


def last_settings(record: Record) -> dict[str, Any]:
    """The settings that the session ended with, as its manifest has them; empty where it has none."""
    known = record.manifest.configs if record.manifest else {}
    used = [item.event.config for item in record.happened if isinstance(item.event, ev.EpochBegan)]
    return dict(known.get(used[-1], {})) if used else {}


def simulated_speed(record: Record) -> float:
    """How much faster than a real one the microscope of this session ran, as its last settings say."""
    session = last_settings(record).get("session")
    speed = session.get("simulated_speed") if isinstance(session, dict) else None
    return float(speed) if isinstance(speed, int | float) and 0 < speed < 1e9 else 1.0


def headline(record: Record, figures: Counts, troubles: tuple[Trouble, ...], damaged: int, now_utc: float) -> Headline:
    """What was done, how it ended, and whether anything is wrong."""
    state = record.state
    if not record.happened:
        return Headline("warning", "Empty session", "Nothing was recorded yet.", "The journal holds no event.")
    grids = len([grid for grid in state.grids.values() if grid.atlas_frames or grid.squares])
    did = (
        f"{_n(grids, 'grid')} seen, {_n(figures.squares_mapped, 'square')} mapped of {figures.squares_found} found,"
        f" {_n(figures.holes_exposed, 'hole')} exposed of {figures.holes_found} found,"
        f" {figures.good} good {'micrograph' if figures.good == 1 else 'micrographs'}."
    )
    if state.phase == DONE:
        ended = (
            f"Ended in good order: {state.why}." if state.parked else f"Ended: {state.why}; not parked by the agent."
        )
    else:
        held = "; ".join(f"{cause}: {detail}" for cause, detail in state.suspensions.items())
        ended = f"Not ended: {state.phase}" + (f" ({state.why})" if state.why else "")
        ended += f", held by {held}" if held else ""
        ended += f"; last word {span_words(max(now_utc - record.last_utc, 0.0))} before this report."
    alarms = sum(t.count for t in troubles if t.severity == "alarm")
    warnings = sum(t.count for t in troubles if t.severity == "warning")
    wrong = []
    if not record.whole:
        wrong.append("the record is damaged")
    if damaged:
        wrong.append(f"{_n(damaged, 'frame')} cannot be read")
    if state.phase == "fault":
        wrong.append("the session is in fault")
    wrong += [_n(alarms, "alarm")] if alarms else []
    severe = bool(wrong)
    wrong += [_n(warnings, "warning")] if warnings else []
    if state.degraded:
        wrong.append(f"models degraded: {state.degraded}")
    verdict = "; ".join(wrong) if wrong else "nothing is wrong" if state.phase == DONE else "nothing is wrong so far"
    mood = "alarm" if severe else "warning" if wrong else "well"
    return Headline(mood, verdict[0].upper() + verdict[1:], did, ended)


def facts(record: Record) -> list[tuple[str, str]]:
    """The record itself, as pairs of name and value."""
    state = record.state
    opened = [item.event for item in record.happened if isinstance(item.event, ev.SessionOpened)]
    epochs = [item.event for item in record.happened if isinstance(item.event, ev.EpochBegan)]
    drivers = [item.event for item in record.happened if isinstance(item.event, ev.DriverJoined)]
    levels = Counter(received.frame.level for received in record.frames.values())
    rows = [
        ("session id", state.session_id or "–"),
        ("folder", str(record.folder)),
        (
            "journal",
            f"{record.rows} events, whole: numbers without gap, every hash right"
            if record.whole
            else record.unreadable or f"damaged: whole up to event {record.whole_up_to} of {record.rows}",
        ),
        ("frames", ", ".join(f"{levels[level]} {level}-mag" for level in ("low", "medium", "high"))),
        ("daemon", ", ".join(dict.fromkeys(f"cryonaut {e.version}" for e in epochs)) or "–"),
        ("starts of the daemon", f"{len(epochs)}"),
        ("driver", ", ".join(dict.fromkeys(f"{e.driver} ({e.software})" for e in drivers)) or "–"),
        ("mode", f"{state.mode}, {state.autonomy}"),
        ("config", ", then ".join(dict.fromkeys(e.config for e in epochs)) or "–"),
    ]
    models = dict.fromkeys(
        (ev.kind_of(item.event), item.event.model, item.event.fingerprint)
        for item in record.happened
        if isinstance(item.event, ev.SquaresFound | ev.HolesFound | ev.MicrographJudged)
    )
    level_of = {"squares_found": "low", "holes_found": "medium", "micrograph_judged": "high"}
    loaded = [(level, text) for event in opened for level, text in event.models.items()]
    used = [(level_of[kind], f"{model} {fingerprint}") for kind, model, fingerprint in models]
    rows += [(f"model, {level} magnification", text) for level, text in dict.fromkeys([*loaded, *used])]
    before = opened[0].thresholds if opened else {}
    for name, value in state.thresholds.items():
        changed = f" (at first {before[name]:g})" if name in before and before[name] != value else ""
        rows.append((f"threshold {name.replace('_', ' ')}", f"{value:g}{changed}"))
    return rows


def exposed_holes(record: Record) -> list[tuple[Square, Hole]]:
    """Holes with a micrograph, in the order in which these came."""
    place = {frame_id: number for number, frame_id in enumerate(record.frames)}
    found = [
        (square, hole)
        for grid in record.state.grids.values()
        for square in grid.squares.values()
        for hole in square.holes.values()
        if hole.frame_id
    ]
    return sorted(found, key=lambda pair: place.get(pair[1].frame_id, len(place)))


def when(utc: float) -> str:
    """Date and time in UTC."""
    return datetime.fromtimestamp(utc, UTC).strftime("%Y-%m-%d %H:%M:%S") if utc > 0 else "–"


def clock(utc: float) -> str:
    """Time of day in UTC."""
    return datetime.fromtimestamp(utc, UTC).strftime("%H:%M:%S") if utc > 0 else "–"


def span_words(seconds: float) -> str:
    """A length of time in the unit that reads best."""
    if seconds < 0.0995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"


def _n(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
