"""What has happened: the only things that change a session, in the order they were journalled."""

from typing import Any

import msgspec

from agent.control_messages import AnyVerb, Autonomy, Mode
from agent.messages import AnyWork, Command, CommandResult, DetectedObject, ErrorKind, Frame, ScopeState
from agent.session.state import (
    AreaState,
    Decision,
    GridState,
    Group,
    Hole,
    Phase,
    Placement,
    Prior,
    Square,
    Word,
)


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """Base of all events."""


class SessionOpened(Event, frozen=True, kw_only=True, tag="session_opened"):
    """A new session, with what its config said."""

    session_id: str
    name: str
    config: str
    version: str
    mode: Mode
    autonomy: Autonomy
    thresholds: dict[str, float]
    grids: tuple[tuple[str, int | None], ...]
    models: dict[str, str] = {}


class PriorRead(Event, frozen=True, kw_only=True, tag="prior_read"):
    """What earlier sessions taught, as it was when this session began."""

    prior: Prior


class EpochBegan(Event, frozen=True, kw_only=True, tag="epoch_began"):
    """The daemon started (again); commands of older epochs are void."""

    epoch: int
    config: str
    version: str


class DriverJoined(Event, frozen=True, kw_only=True, tag="driver_joined"):
    """A driver said hello and was welcomed."""

    driver: str
    software: str
    can_pilot: bool
    state: ScopeState


class DriverLeft(Event, frozen=True, kw_only=True, tag="driver_left"):
    """The driver is gone: on purpose, silent, or its microscope was taken over."""

    driver: str
    why: str


class Suspended(Event, frozen=True, kw_only=True, tag="suspended"):
    """Something outside holds the session."""

    cause: str
    detail: str


class Unsuspended(Event, frozen=True, kw_only=True, tag="unsuspended"):
    """What held the session is over."""

    cause: str


class PhaseChanged(Event, frozen=True, kw_only=True, tag="phase_changed"):
    """The session goes from one phase to another."""

    phase: Phase
    why: str
    by: str = "agent"
    stop_after: str = ""


class FrameReceived(Event, frozen=True, kw_only=True, tag="frame_received"):
    """A frame is on disk; ``grid_id`` and ``area_id`` say what it shows."""

    frame: Frame  # with its place on the grid
    file: str
    grid_id: str
    area_id: str
    as_taken: Frame | None = None  # as the driver sent it, where the grid lies otherwise by now


class FrameSetAside(Event, frozen=True, kw_only=True, tag="frame_set_aside"):
    """A frame that could not be worked with, and why."""

    frame_id: str
    error: ErrorKind
    why: str


class GridAdded(Event, frozen=True, kw_only=True, tag="grid_added"):
    """A grid that the config did not know."""

    grid_id: str


class GridChanged(Event, frozen=True, kw_only=True, tag="grid_changed"):
    """A grid goes from one state to another."""

    grid_id: str
    state: GridState
    decision: Decision


class GridSteered(Event, frozen=True, kw_only=True, tag="grid_steered"):
    """An operator wants a grid next, or never, or takes that back (empty word)."""

    grid_id: str
    word: Word
    decision: Decision


class GridSighted(Event, frozen=True, kw_only=True, tag="grid_sighted"):
    """A grid that came back was compared with how it lay before; no placement: it was not known again."""

    grid_id: str
    frame_id: str
    like: str
    model: str
    fingerprint: str
    placement: Placement | None
    correlation: float
    decision: Decision
    elapsed_s: float = 0.0


class SquaresFound(Event, frozen=True, kw_only=True, tag="squares_found"):
    """New squares, and known ones that this frame shows better."""

    grid_id: str
    frame_id: str
    model: str
    fingerprint: str
    squares: tuple[Square, ...]
    note: str = ""
    elapsed_s: float = 0.0


class HolesFound(Event, frozen=True, kw_only=True, tag="holes_found"):
    """The holes of one square."""

    square_id: str
    frame_id: str
    model: str
    fingerprint: str
    holes: tuple[Hole, ...]
    lattice: str = ""
    pitch_um: float | None = None
    note: str = ""
    elapsed_s: float = 0.0
    beside: tuple[str, ...] = ()  # holes known before that this frame does not show: they stay


class GroupsPlanned(Event, frozen=True, kw_only=True, tag="groups_planned"):
    """The holes of one square in the groups in which they will be shot."""

    square_id: str
    groups: tuple[Group, ...]
    decision: Decision


class MicrographJudged(Event, frozen=True, kw_only=True, tag="micrograph_judged"):
    """What a micrograph turned out like."""

    area_id: str
    frame_id: str
    model: str
    fingerprint: str
    score: float
    label: str
    features: dict[str, float]
    note: str = ""
    elapsed_s: float = 0.0


class ObjectsDetected(Event, frozen=True, kw_only=True, tag="objects_detected"):
    """What a detector found in a high-mag frame: places in its pixels, and numbers by group."""

    area_id: str
    frame_id: str
    detector: str
    fingerprint: str
    objects: tuple[DetectedObject, ...] = ()
    counts: dict[str, int] = {}
    doubt: str = ""
    note: str = ""
    elapsed_s: float = 0.0


class SquareFavoured(Event, frozen=True, kw_only=True, tag="square_favoured"):
    """A square is rich in what a detector looks for: it gets more exposures and a higher priority."""

    area_id: str
    rule: str
    priority: int
    more_exposures: int
    decision: Decision


class AreaMeasured(Event, frozen=True, kw_only=True, tag="area_measured"):
    """The microscope software's own pipeline measured an exposure of a hole, or said that an area was visited."""

    measured_id: str
    area_id: str
    ctf_resolution_angstrom: float | None = None
    ice_thickness_nm: float | None = None
    quality: float | None = None
    label: str = ""

    def values(self) -> dict[str, float]:
        """What was measured, by the name of the feature."""
        both = {
            "ctf_resolution_angstrom": self.ctf_resolution_angstrom,
            "ice_thickness_nm": self.ice_thickness_nm,
        }
        return {name: value for name, value in both.items() if value is not None}


class PastRecalled(Event, frozen=True, kw_only=True, tag="past_recalled"):
    """A square of an earlier session, to be learned from; its grid is visited by nobody."""

    past_id: str
    grid_id: str
    square: Square
    decision: Decision


class OrderGiven(Event, frozen=True, kw_only=True, tag="order_given"):
    """A driver asked in which order the squares left are to be visited, and was told this."""

    driver: str
    order: tuple[str, ...]  # area ids, best first
    decision: Decision


class AreaChanged(Event, frozen=True, kw_only=True, tag="area_changed"):
    """A square or hole goes from one state to another."""

    area_id: str
    state: AreaState
    decision: Decision


class AreaPlaced(Event, frozen=True, kw_only=True, tag="area_placed"):
    """A square or hole as an operator wants it: added, moved, accepted, rejected, re-ranked, or undone."""

    area: Square | Hole
    request: str
    decision: Decision


class Remembered(Event, frozen=True, kw_only=True, tag="remembered"):
    """How areas were before an override, for `Undo`."""

    what: str
    before: tuple[Square | Hole, ...]


class UndoneOnce(Event, frozen=True, kw_only=True, tag="undone"):
    """The last remembered override was taken back."""

    by: str


class Requested(Event, frozen=True, kw_only=True, tag="requested"):
    """An operator's request, as it came; what it changed follows."""

    request_id: str
    by: str
    verb: AnyVerb


class SettingChanged(Event, frozen=True, kw_only=True, tag="setting_changed"):
    """A threshold, the autonomy or the mode was changed."""

    name: str
    before: str
    after: str
    by: str


class CommandIssued(Event, frozen=True, kw_only=True, tag="command_issued"):
    """A command that is to be carried out; it leaves once this is on disk."""

    command: Command  # as it is sent
    area_id: str
    decision: Decision
    on_grid: AnyWork | None = None  # the same with places on the grid, where that lies otherwise by now


class CommandCancelled(Event, frozen=True, kw_only=True, tag="command_cancelled"):
    """The driver is asked to drop a command."""

    command_id: str
    why: str


class CommandEnded(Event, frozen=True, kw_only=True, tag="command_ended"):
    """How a command ended."""

    result: CommandResult
    area_id: str


class ErrorCounted(Event, frozen=True, kw_only=True, tag="error_counted"):
    """A piece of work failed; what the policy makes of it follows."""

    error: ErrorKind
    area_id: str
    why: str
    will: str


class ErrorsForgiven(Event, frozen=True, kw_only=True, tag="errors_forgiven"):
    """A success, or an operator's word, ends the counts of errors in a row."""

    errors: tuple[str, ...]


class SafeOrdered(Event, frozen=True, kw_only=True, tag="safe_ordered"):
    """The driver is told to reach its safe state."""

    why: str


class Released(Event, frozen=True, kw_only=True, tag="released"):
    """The driver may take commands again."""


class DegradedChanged(Event, frozen=True, kw_only=True, tag="degraded_changed"):
    """A model was replaced by its fallback, or is back (empty text)."""

    text: str


class IdleTold(Event, frozen=True, kw_only=True, tag="idle_told"):
    """Nothing was finished for a while, and somebody was told."""

    text: str


class Noticed(Event, frozen=True, kw_only=True, tag="noticed"):
    """Something an operator should know."""

    severity: str  # "info", "warning" or "alarm"
    text: str


AnyEvent = (
    SessionOpened | PriorRead
    | EpochBegan | DriverJoined | DriverLeft | Suspended | Unsuspended | PhaseChanged | FrameReceived
    | FrameSetAside | GridAdded | GridChanged | GridSteered | GridSighted
    | SquaresFound | HolesFound | GroupsPlanned | MicrographJudged | ObjectsDetected | SquareFavoured
    | AreaMeasured | PastRecalled | OrderGiven | AreaChanged | AreaPlaced
    | Remembered | UndoneOnce | Requested | SettingChanged | CommandIssued | CommandCancelled | CommandEnded
    | ErrorCounted | ErrorsForgiven | SafeOrdered | Released | DegradedChanged | IdleTold | Noticed
)  # fmt: skip

_decoder: "msgspec.json.Decoder[Any]" = msgspec.json.Decoder(AnyEvent)


def decode_event(body: str | bytes) -> AnyEvent:
    """The event in a journal row.

    Raises
    ------
    ValueError
        If the row is of no kind that this version knows, or is damaged.
    """
    event: AnyEvent = _decoder.decode(body)
    return event


def encode_event(event: AnyEvent) -> str:
    """The event as it stands in the journal: one line of JSON."""
    return msgspec.json.encode(event).decode()


def kind_of(event: AnyEvent) -> str:
    """Name of the event's kind, as the journal's column shows it."""
    return str(event.__struct_config__.tag)
