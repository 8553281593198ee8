"""What went wrong in a session, and what the policy did about it."""

from dataclasses import dataclass

from agent.recording.record import Happened, Record
from agent.session import events as ev
from agent.words import area_of, severity_of, text_of


@dataclass(frozen=True, slots=True)
class Trouble:
    """Warnings of one kind, with what the policy did about them."""

    severity: str
    what: str
    count: int
    first_utc: float
    last_utc: float
    where: tuple[str, ...]
    why: str
    did: str


def troubles(record: Record) -> tuple[Trouble, ...]:
    """Warnings and alarms, those of one kind together, the gravest first."""
    noticed = {item.event.text for item in record.happened if isinstance(item.event, ev.Noticed)}
    groups: dict[tuple[str, str, str], list[tuple[Happened, str, str]]] = {}
    for item in record.happened:
        event, severity = item.event, severity_of(item.event)
        if severity == "info":
            continue
        match event:
            case ev.Suspended() if f"suspended ({event.cause}): {event.detail}" in noticed:
                continue  # said by the notice, with its own severity
            case ev.FrameSetAside():
                continue  # the error that it counts as follows
            case ev.ErrorCounted():
                key = (severity, str(event.error).replace("_", " "), event.will)
                entry = (item, event.area_id or "session", event.why)
            case ev.Noticed():
                head, _, rest = event.text.partition(": ")
                did = "held the session" if head.startswith("suspended (") else ""
                key = (severity, head if rest else event.text, did)
                entry = (item, "", rest)
            case ev.SafeOrdered(why=why):
                key = (severity, "safe state", "told the driver to reach its safe state")
                entry = (item, "", why)
            case _:
                key = (severity, text_of(event), "held the session" if isinstance(event, ev.Suspended) else "")
                entry = (item, area_of(event), "")
        groups.setdefault(key, []).append(entry)
    rows = [
        Trouble(
            severity=severity,
            what=what,
            count=len(entries),
            first_utc=entries[0][0].utc,
            last_utc=entries[-1][0].utc,
            where=tuple(dict.fromkeys(where for _, where, _ in entries if where)),
            why=entries[-1][2],
            did=did,
        )
        for (severity, what, did), entries in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.severity != "alarm", row.first_utc)))
