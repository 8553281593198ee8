"""A session's decisions alone, one line of JSON each: equal lines are equal decisions, byte for byte.

What is legitimately new in a replay is left out or named alike:

- session id, epochs, times (``elapsed_s``, ``taken_utc``), names of files, and who the operator was;
- hashes of config and models in each decision: they are compared once, for the whole session;
- starts of the daemon, drivers that come and go, suspensions by link, disk, valves and readings, notices.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import xxhash

from agent.recording.record import Record
from agent.session import events as ev

LEFT_OUT = (
    ev.SessionOpened,
    ev.EpochBegan,
    ev.DriverJoined,
    ev.DriverLeft,
    ev.CommandCancelled,
    ev.SafeOrdered,
    ev.Released,
    ev.DegradedChanged,
    ev.IdleTold,
    ev.Noticed,
    ev.Requested,
)
OUTSIDE = ("link", "disk", "valves", "grid", "reading:")  # causes of suspensions that are no decision of the session
NEW_EACH_TIME = {
    "elapsed_s", "session_id", "epoch", "taken_utc", "file", "config", "fingerprint", "digest", "request_id", "driver",
    "measured_id",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One decision: the event it is, what it is about, and its text for comparing."""

    seq: int
    kind: str
    about: str
    text: str


def decisions(record: Record) -> tuple[Line, ...]:
    """The decisions of a record, in order."""
    return tuple(_lines(record))


def fingerprint(lines: tuple[Line, ...]) -> str:
    """One hash of all decisions."""
    return str(xxhash.xxh3_128_hexdigest("\n".join(line.text for line in lines).encode()))


def provenance(record: Record) -> dict[str, str]:
    """With what a session decided: its configs, and the model and fingerprint of each level."""
    configs = dict.fromkeys(item.event.config for item in record.happened if isinstance(item.event, ev.EpochBegan))
    found = {"config": ", ".join(configs)}
    for item in record.happened:
        if isinstance(item.event, ev.SquaresFound | ev.HolesFound | ev.MicrographJudged):
            level = {"squares_found": "low", "holes_found": "medium"}.get(ev.kind_of(item.event), "high")
            text = f"{item.event.model} {item.event.fingerprint}"
            known = found.get(level, "")
            found[level] = known if text in known else f"{known}, {text}" if known else text
    return found


def _lines(record: Record) -> Iterator[Line]:
    names = {item.event.by for item in record.happened if isinstance(item.event, ev.Requested)}
    whose = re.compile(rf"\bby ({'|'.join(map(re.escape, sorted(names)))})\b") if names else None
    for item in record.happened:
        event = item.event
        if isinstance(event, LEFT_OUT):
            continue
        if isinstance(event, ev.Suspended | ev.Unsuspended) and event.cause.startswith(OUTSIDE):
            continue
        plain = _plain(msgspec.to_builtins(event, str_keys=True), whose)
        text = msgspec.json.encode(plain, order="sorted").decode()
        yield Line(item.seq, ev.kind_of(event), _about(event), text)


def _plain(value: Any, whose: "re.Pattern[str] | None") -> Any:
    if isinstance(value, dict):
        named = {key: _plain(inner, whose) for key, inner in value.items() if key not in NEW_EACH_TIME}
        if named.get("by", "agent") not in ("agent", "microscope"):
            named["by"] = "operator"
        return named
    if isinstance(value, list | tuple):
        return [_plain(inner, whose) for inner in value]
    return whose.sub("by operator", value) if whose is not None and isinstance(value, str) else value


def _about(event: ev.AnyEvent) -> str:
    for name in ("area_id", "square_id", "frame_id", "grid_id"):
        if found := getattr(event, name, ""):
            return str(found)
    area = getattr(event, "area", None)
    return str(area.area_id) if area is not None else ""
