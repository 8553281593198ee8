"""What came into a recorded session from outside, in the order in which it was taken: the score that a replay plays."""

from dataclasses import dataclass
from typing import Literal

from agent.control_messages import AnyVerb
from agent.messages import CommandResult, Frame, Measured
from agent.recording.record import Happened, Record
from agent.session import events as ev

CueKind = Literal["frame", "finding", "result", "request", "taken", "measured", "look"]


@dataclass(frozen=True, slots=True)
class Cue:
    """One thing from outside: its kind, when it came, and what it is about.

    ``about`` is the id of the frame, command, request or measurement; ``what`` holds the message itself, for a finding
    nothing: the model of the replay says its own.
    """

    seq: int
    utc: float
    kind: CueKind
    about: str
    what: Frame | CommandResult | Measured | AnyVerb | tuple[str, ...] | str | None = None


def cues(record: Record) -> tuple[Cue, ...]:
    """The cues of a record, in order.

    What is no cue comes by itself in a replay too (what the session decides), or belongs to the machines of that night
    and not to its decisions: starts of the daemon, drivers that come and go, suspensions by link, disk and readings.
    """
    found: list[Cue] = []
    for before, item in zip((None, *record.happened), record.happened, strict=False):
        cue = _cue(before, item)
        if cue is not None:
            found.append(cue)
    return tuple(found)


def _cue(before: Happened | None, item: Happened) -> Cue | None:
    seq, utc = item.seq, item.utc
    match item.event:
        case ev.FrameReceived(frame=frame, as_taken=as_taken):
            return Cue(seq, utc, "frame", frame.frame_id, as_taken or frame)
        case ev.GridSighted(frame_id=name):
            return Cue(seq, utc, "finding", name)
        case ev.SquaresFound(frame_id=name) | ev.HolesFound(frame_id=name) | ev.MicrographJudged(frame_id=name):
            return Cue(seq, utc, "finding", name)
        case ev.FrameSetAside(frame_id=name):
            at_once = before is not None and isinstance(before.event, ev.FrameReceived) and before.utc == utc
            return None if at_once else Cue(seq, utc, "finding", name)
        case ev.CommandEnded(result=result):
            # what the daemon's own interlock refused never reached a driver
            own = result.status == "refused" and not result.message.startswith("driver's own limits")
            return None if own else Cue(seq, utc, "result", result.command_id, result)
        case ev.Requested(request_id=request_id, verb=verb):
            return Cue(seq, utc, "request", request_id, verb)
        case ev.PhaseChanged(by="microscope", why=why):
            return Cue(seq, utc, "taken", "", why.removeprefix("taken over at the microscope: "))
        case ev.AreaMeasured() as seen:
            message = Measured(
                measured_id=seen.measured_id,
                session_id=f"event-{seq}",  # the event does not hold it; a replay puts its own there
                area_id=seen.area_id,
                ctf_resolution_angstrom=seen.ctf_resolution_angstrom,
                ice_thickness_nm=seen.ice_thickness_nm,
            )
            return Cue(seq, utc, "measured", seen.measured_id, message)
        case ev.OrderGiven(order=order):
            return Cue(seq, utc, "look", f"look-{seq}", order)
    return None
