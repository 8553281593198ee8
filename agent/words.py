"""Events in words: one line each, for the log, the watchers and the report."""

from agent.session import events as ev
from agent.session.state import Hole, Square


def severity_of(event: ev.AnyEvent) -> str:
    """``info``, ``warning`` or ``alarm``."""
    match event:
        case ev.Noticed(severity=severity):
            return severity
        case ev.Suspended() | ev.ErrorCounted() | ev.FrameSetAside():
            return "warning"
        case ev.SafeOrdered():
            return "alarm"
        case _:
            return "info"


def area_of(event: ev.AnyEvent) -> str:
    """Id of the area that the event is about, or an empty text."""
    match event:
        case ev.AreaPlaced(area=area):
            return area.area_id
        case ev.HolesFound(square_id=square_id) | ev.GroupsPlanned(square_id=square_id):
            return square_id
        case _:
            return str(getattr(event, "area_id", "") or getattr(event, "grid_id", ""))


def who(event: ev.AnyEvent) -> str:
    """Who did it."""
    decision = getattr(event, "decision", None)
    return str(getattr(event, "by", "") or getattr(decision, "by", "") or "agent")


def text_of(event: ev.AnyEvent) -> str:
    """What happened, in one line."""
    match event:
        case ev.SessionOpened():
            return f"session {event.name} opened: {event.mode}, {event.autonomy}, config {event.config}"
        case ev.PriorRead(prior=prior):
            return f"begins with what {prior.sessions} earlier sessions taught ({prior.exposures} exposures)"
        case ev.EpochBegan():
            return f"daemon {event.version} started, epoch {event.epoch}"
        case ev.DriverJoined():
            return f"driver {event.driver} joined ({event.software})"
        case ev.DriverLeft():
            return f"driver {event.driver} left: {event.why}"
        case ev.Suspended():
            return f"suspended by {event.cause}: {event.detail}"
        case ev.Unsuspended():
            return f"no longer suspended by {event.cause}"
        case ev.PhaseChanged():
            return f"{event.phase}: {event.why}"
        case ev.FrameReceived(frame=frame):
            return f"{frame.level}-mag frame {frame.frame_id} ({frame.shape[0]} x {frame.shape[1]})"
        case ev.FrameSetAside():
            return f"frame {event.frame_id} set aside ({event.error}): {event.why}"
        case ev.GridAdded():
            return f"grid {event.grid_id} added"
        case ev.GridChanged():
            return f"grid {event.grid_id} {event.state}: {event.decision.why}"
        case ev.GridSteered():
            return f"grid {event.grid_id}: {event.decision.why}"
        case ev.GridSighted():
            return f"grid {event.grid_id} {event.decision.why}"
        case ev.SquaresFound():
            return f"{len(event.squares)} new squares on {event.frame_id}{_note(event.note)}"
        case ev.HolesFound():
            lattice = f", {event.lattice} lattice" if event.lattice else ""
            return f"{len(event.holes)} holes in {event.square_id}{lattice}{_note(event.note)}"
        case ev.GroupsPlanned():
            return f"{event.square_id}: {event.decision.why}"
        case ev.MicrographJudged():
            return f"micrograph of {event.area_id}: {event.label}, score {event.score:.2f}{_note(event.note)}"
        case ev.ObjectsDetected():
            counts = ", ".join(f"{n} {group}" for group, n in event.counts.items()) or "none"
            return f"{event.detector} in {event.area_id or event.frame_id}: {counts}{_note(event.doubt or event.note)}"
        case ev.SquareFavoured():
            return f"{event.area_id} gets {event.more_exposures} more exposures: {event.decision.why}"
        case ev.AreaMeasured():
            values = ", ".join(f"{name} {value:g}" for name, value in event.values().items())
            return f"{event.area_id} {event.label or 'visited'}: {values or 'nothing measured'}"
        case ev.PastRecalled(square=square):
            return f"{square.area_id} recalled, {len(square.holes)} holes: {event.decision.why}"
        case ev.OrderGiven(order=order):
            first = ", ".join(order[:3])
            return (
                f"order of {len(order)} squares given to {event.driver}: {first or 'none left'}; {event.decision.why}"
            )
        case ev.AreaChanged():
            return f"{event.area_id} {event.state}: {event.decision.why}"
        case ev.AreaPlaced(area=area):
            kind = "square" if isinstance(area, Square) else "hole" if isinstance(area, Hole) else "area"
            return f"{kind} {area.area_id} {area.state}: {event.decision.why}"
        case ev.CommandIssued(command=command):
            words = (command.command_id, str(command.work.__struct_config__.tag), event.area_id)
            return f"{' '.join(filter(None, words))}: {event.decision.why}"
        case ev.CommandCancelled():
            return f"{event.command_id} cancelled: {event.why}"
        case ev.CommandEnded(result=result):
            said = f": {result.message}" if result.message else ""
            return f"{result.command_id} {result.status} after {result.elapsed_s:.1f} s{said}"
        case ev.ErrorCounted():
            return f"{event.error} at {event.area_id or 'session'}: {event.why}; will {event.will}"
        case ev.SettingChanged():
            return f"{event.name}: {event.before} -> {event.after}"
        case ev.Requested(verb=verb):
            return f"asked for {verb.__struct_config__.tag}"
        case ev.SafeOrdered():
            return f"driver told to reach its safe state: {event.why}"
        case ev.DegradedChanged():
            return f"degraded: {event.text}" if event.text else "models are well again"
        case ev.Noticed() | ev.IdleTold():
            return event.text
        case _:
            return ev.kind_of(event).replace("_", " ")


def _note(note: str) -> str:
    return f" ({note})" if note else ""
