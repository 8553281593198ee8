"""Every message that crosses a socket; one schema serves the wire, the journal and the recorded session.

Units stand in the names; every number is bounded, and the bounds also refuse NaN. Image coordinates are
``(x, y)`` pixels, x right, y down, the centre of the first pixel is ``(0, 0)``; shapes are ``(rows, columns)``.
The stage position of a frame is that of its centre, pixel ``((columns - 1) / 2, (rows - 1) / 2)``.

Unknown fields are ignored, so that a newer peer can talk to an older one; unknown kinds are refused by name
(`agent.wire.decode`). Adding a field needs a default; changing the meaning of one needs a new `PROTOCOL`.
"""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

PROTOCOL = 1
OLDEST_PROTOCOL = 1

Id = Annotated[str, Meta(min_length=1, max_length=96, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\-]*\Z")]
OptionalId = Annotated[str, Meta(max_length=96, pattern=r"^([A-Za-z0-9][A-Za-z0-9_.:\-]*)?\Z")]
Text = Annotated[str, Meta(max_length=2000)]
Micron = Annotated[float, Meta(ge=-5_000.0, le=5_000.0)]
ShiftMicron = Annotated[float, Meta(ge=-100.0, le=100.0)]
Tilt = Annotated[float, Meta(ge=-90.0, le=90.0)]
Defocus = Annotated[float, Meta(ge=-1_000.0, le=1_000.0)]
Dose = Annotated[float, Meta(ge=0.0, le=100_000.0)]
Second = Annotated[float, Meta(ge=0.0, le=1e9)]
Utc = Annotated[float, Meta(ge=0.0, le=1e11)]  # seconds since 1970-01-01 UTC
Angstrom = Annotated[float, Meta(gt=0.0, le=1_000_000.0)]
Matrix = Annotated[float, Meta(ge=-1_000.0, le=1_000.0)]
Reading = Annotated[float, Meta(ge=-1e15, le=1e15)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Epoch = Annotated[int, Meta(ge=0, le=2**31)]
Side = Annotated[int, Meta(ge=1, le=65_536)]
Score = Annotated[float, Meta(ge=0.0, le=1.0)]
Kilovolt = Annotated[float, Meta(ge=20.0, le=1_500.0)]
Counts = Annotated[float, Meta(gt=0.0, le=1e12)]
Millimetre = Annotated[float, Meta(ge=0.0, le=100.0)]

Level = Literal["low", "medium", "high"]
DType = Literal["|u1", "|i1", "<u2", "<i2", "<f4"]
LEVELS: tuple[Level, ...] = ("low", "medium", "high")


class ErrorKind(StrEnum):
    """What can go wrong with a piece of work; each kind has a row in the error policy (``on_error`` in the config)."""

    FRAME_DARK = "frame_dark"
    FRAME_SATURATED = "frame_saturated"
    FRAME_WRONG = "frame_wrong"  # wrong magnification, wrong pixel size
    NO_SQUARES = "no_squares"
    NO_HOLES = "no_holes"
    MODEL_FAILED = "model_failed"
    STAGE_TIMEOUT = "stage_timeout"
    EUCENTRIC_FAILED = "eucentric_failed"
    AUTOFOCUS_FAILED = "autofocus_failed"
    REALIGN_FAILED = "realign_failed"  # the image could not be brought back onto the holes
    DRIFT = "drift"
    CAMERA = "camera"
    COMMAND_TIMEOUT = "command_timeout"
    OUTSIDE_ENVELOPE = "outside_envelope"
    OUTCOME_UNKNOWN = "outcome_unknown"
    LOAD_FAILED = "load_failed"
    BEAM_LOST = "beam_lost"
    SCRIPT = "script"  # the microscope software reported an error of its own


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of all messages; the field ``kind`` names the type on the wire."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage position."""

    x_um: Micron = 0.0
    y_um: Micron = 0.0
    z_um: Micron = 0.0
    tilt_deg: Tilt = 0.0


class ScopeState(msgspec.Struct, frozen=True, kw_only=True):
    """What the microscope says of itself; ``readings`` feed the suspenders (``beam_current``, ``vacuum_pa`` …)."""

    stage: Stage = Stage()
    grid_id: OptionalId = ""
    level: OptionalId = ""
    valves_open: bool = True
    beam_blanked: bool = False
    busy: bool = False
    in_safe_state: bool = False
    readings: Annotated[dict[str, Reading], Meta(max_length=64)] = {}


# ---------------------------------------------------------------------------------------------- work


class Work(msgspec.Struct, frozen=True, kw_only=True, tag_field="work"):
    """Base of what a command asks for."""


class LoadGrid(Work, frozen=True, kw_only=True, tag="load_grid"):
    """Put a grid of the autoloader on the stage."""

    grid_id: Id
    slot: Annotated[int, Meta(ge=1, le=100)]


class AcquireAtlas(Work, frozen=True, kw_only=True, tag="acquire_atlas"):
    """Take low-mag frames at ``positions_um``, (x, y) on the stage, in this order."""

    grid_id: Id
    positions_um: Annotated[tuple[tuple[Micron, Micron], ...], Meta(min_length=1, max_length=2_000)]


class MapSquare(Work, frozen=True, kw_only=True, tag="map_square"):
    """Go to a square, find eucentric height, take one medium-mag frame."""

    area_id: Id
    x_um: Micron
    y_um: Micron
    find_eucentric: bool = True


class Focus(Work, frozen=True, kw_only=True, tag="focus"):
    """Autofocus at a spot off the holes; ``defocus_um`` is the target, positive is underfocus."""

    area_id: Id
    x_um: Micron
    y_um: Micron
    defocus_um: Defocus


class Expose(Work, frozen=True, kw_only=True, tag="expose"):
    """Take one micrograph of a hole with the stage at (x, y) and the beam moved by the image shift."""

    area_id: Id
    x_um: Micron
    y_um: Micron
    image_shift_x_um: ShiftMicron = 0.0
    image_shift_y_um: ShiftMicron = 0.0
    defocus_um: Defocus = 1.0
    dose_e_per_a2: Dose = 40.0


class Goto(Work, frozen=True, kw_only=True, tag="goto"):
    """Go to a place without exposing it."""

    x_um: Micron
    y_um: Micron
    z_um: Micron | None = None
    tilt_deg: Tilt | None = None


class Park(Work, frozen=True, kw_only=True, tag="park"):
    """Reach the safe state: beam blanked, tilt 0, valves as the driver's own config says."""

    why: Text = ""


AnyWork = LoadGrid | AcquireAtlas | MapSquare | Focus | Expose | Goto | Park

# ---------------------------------------------------------------------------------------------- driver -> daemon

ResultStatus = Literal["done", "failed", "refused", "cancelled", "unknown"]


class CommandResult(Message, frozen=True, kw_only=True, tag="command_result"):
    """How a command ended. ``unknown`` means: begun, and nobody can say whether it was finished."""

    command_id: Id
    session_id: Id
    status: ResultStatus
    error: ErrorKind | None = None
    message: Text = ""
    stage: Stage = Stage()
    defocus_um: Defocus | None = None
    dose_e_per_a2: Dose | None = None  # given to the area; None: the dose that was asked for
    elapsed_s: Second = 0.0


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """First word of a driver, and again after every silence: who it is, and what became of its commands."""

    protocol: Annotated[int, Meta(ge=0, le=10_000)]
    driver: Id
    software: Text = ""
    can_pilot: bool = False
    session_id: OptionalId = ""  # of the last Welcome; empty when it never had one
    epoch: Epoch = 0
    running: OptionalId = ""  # the command under way
    results: Annotated[tuple[CommandResult, ...], Meta(max_length=10_000)] = ()  # not yet acknowledged
    state: ScopeState = ScopeState()


class Frame(Message, frozen=True, kw_only=True, tag="frame"):
    """One camera frame; its pixels, C order, are the next part of the same multipart message."""

    frame_id: Id
    session_id: Id
    level: Level
    pixel_size_angstrom: Angstrom
    shape: tuple[Side, Side]  # (rows, columns)
    dtype: DType
    digest: Annotated[str, Meta(min_length=32, max_length=32, pattern=r"^[0-9a-f]{32}\Z")]  # XXH3-128 of the bytes
    stage: Stage = Stage()
    image_shift_um: tuple[ShiftMicron, ShiftMicron] = (0.0, 0.0)
    # micrometres per pixel, row major: stage = centre + M @ (pixel - centre pixel); None: pixel size, no rotation
    image_to_stage: tuple[Matrix, Matrix, Matrix, Matrix] | None = None
    defocus_um: Defocus | None = None
    dose_e_per_a2: Dose | None = None
    exposure_s: Second | None = None
    voltage_kv: Kilovolt | None = None
    cs_mm: Millimetre | None = None
    open_beam_counts: Counts | None = None  # mean pixel value that this exposure gives through an empty hole
    grid_id: OptionalId = ""
    area_id: OptionalId = ""  # the square or hole that was asked for
    command_id: OptionalId = ""
    taken_utc: Utc = 0.0
    nominal: bool = False  # its position is a layout of the driver's: frames lie beside each other, no distance counts
    pixel_size_known: bool = True  # False: assumed, and models are not told
    foreign_ids: Annotated[dict[str, Count], Meta(max_length=16)] = {}  # what the microscope software calls it


class Measured(Message, frozen=True, kw_only=True, tag="measured"):
    """What the microscope software's own pipeline measured at an exposure of a hole, or that an area was visited.

    One hole may be measured several times (several shots): the means count. An area without values was visited.
    """

    measured_id: Id  # sent twice with the same id it counts once
    session_id: Id
    area_id: Id
    ctf_resolution_angstrom: Annotated[float, Meta(gt=0.0, le=1_000.0)] | None = None
    ice_thickness_nm: Annotated[float, Meta(ge=-1_000.0, le=10_000.0)] | None = None


class PastHole(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A hole of an earlier session, and what was measured there."""

    x_um: Micron
    y_um: Micron
    radius_um: Micron
    score: Score
    ctf_resolution_angstrom: Annotated[float, Meta(gt=0.0, le=1_000.0)] | None = None
    ice_thickness_nm: Annotated[float, Meta(ge=-1_000.0, le=10_000.0)] | None = None
    features: Annotated[dict[str, Reading], Meta(max_length=64)] = {}


class PastSquare(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A square of an earlier session."""

    x_um: Micron
    y_um: Micron
    size_um: Micron
    score: Score
    holes: Annotated[tuple[PastHole, ...], Meta(max_length=5_000)] = ()
    features: Annotated[dict[str, Reading], Meta(max_length=64)] = {}


class Past(Message, frozen=True, kw_only=True, tag="past"):
    """A square of an earlier session, to be learned from: it joins a grid that nobody visits.

    `Look` names that grid in ``learn_from``.
    """

    past_id: Id  # sent twice with the same id it counts once
    session_id: Id
    grid_id: Id
    why: Text = ""
    square: PastSquare


class Look(Message, frozen=True, kw_only=True, tag="look"):
    """Show me the session as it is now: the squares of these grids, and the holes of these squares.

    What is expected of them comes with holes and with an order only: it takes a moment to work out.

    Parameters
    ----------
    grid_ids
        Grids whose squares are wanted.
    square_ids
        Squares whose holes are wanted.
    learn_from
        Further grids whose measurements count for what is expected of these.
    order
        Say in which order the squares left are to be visited; it is journalled before it is told.
    """

    request_id: Id
    grid_ids: Annotated[tuple[Id, ...], Meta(max_length=1_000)] = ()
    square_ids: Annotated[tuple[Id, ...], Meta(max_length=5_000)] = ()
    learn_from: Annotated[tuple[Id, ...], Meta(max_length=1_000)] = ()
    order: bool = False


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """I am well; ``progress`` counts finished pieces of work and is never fed from a timer."""

    progress: Count
    working_on: OptionalId = ""
    state: ScopeState | None = None
    epoch: Epoch = 0


class Goodbye(Message, frozen=True, kw_only=True, tag="goodbye"):
    """The driver leaves on purpose; ``why`` is shown to the operator."""

    why: Text = ""


class Taken(Message, frozen=True, kw_only=True, tag="taken"):
    """A person took the microscope over at its own console (STOP pressed, software busy): the agent lets go."""

    why: Text = ""


# ---------------------------------------------------------------------------------------------- daemon -> driver


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """The daemon's answer to Hello; commands of an older epoch than this one must be refused."""

    protocol: int
    session_id: Id
    epoch: Epoch
    heartbeat_s: Second
    safe_after_s: Second  # without a word from the daemon for this long the driver reaches its safe state
    finished: tuple[Id, ...] = ()  # results that are safe: the driver may forget them


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """Not taken, and why; ``retry`` says whether sending the same again can help."""

    reason: Text
    retry: bool = False
    about: OptionalId = ""


class Accepted(Message, frozen=True, kw_only=True, tag="accepted"):
    """The frame or result is on disk: the sender may forget it."""

    about: Id
    seq: Count


class Command(Message, frozen=True, kw_only=True, tag="command"):
    """Do this once; asked twice, it is done once and answered twice."""

    command_id: Id
    session_id: Id
    epoch: Epoch
    timeout_s: Annotated[float, Meta(gt=0.0, le=86_400.0)]
    work: AnyWork


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Drop this command: unstarted work is not begun, running work ends as soon as it safely can."""

    command_id: Id
    epoch: Epoch
    why: Text = ""


class Safe(Message, frozen=True, kw_only=True, tag="safe"):
    """Reach the safe state now and take no command before a new Welcome or `Release`."""

    why: Text
    epoch: Epoch


class Release(Message, frozen=True, kw_only=True, tag="release"):
    """Go on taking commands after `Safe`."""

    epoch: Epoch


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One place to look at, in the pixels of the frame it answers and on the stage."""

    area_id: Id
    x: float
    y: float
    x_um: float
    y_um: float
    score: float
    label: str = "unknown"
    state: str = "found"
    vertices: tuple[tuple[float, float], ...] = ()
    radius_px: float | None = None
    group: int | None = None
    why: str = ""


class Targets(Message, frozen=True, kw_only=True, tag="targets"):
    """The answer to a frame: what was found on it, best first, and what is odd."""

    frame_id: Id
    level: Level
    targets: tuple[Target, ...]
    model: str = ""
    note: str = ""
    degraded: bool = False


class SquareSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One square as the session has it now."""

    area_id: str
    x_um: float = 0.0
    y_um: float = 0.0
    size_um: float = 0.0
    score: float
    state: str
    word: str = ""  # what an operator said: accepted, rejected
    priority: int = 0
    visited: bool = False  # one of its holes was exposed or measured, or it was said to be visited
    wanted: bool = True  # not rejected, and its score is not below the session's threshold
    expected_good: float | None = None  # good micrographs to be had there, and the standard deviation of that
    sigma: float | None = None
    features: dict[str, float] = {}


class HoleSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One hole as the session has it now, with what is expected of it."""

    area_id: str
    x_um: float = 0.0
    y_um: float = 0.0
    radius_um: float = 0.0
    score: float
    state: str
    word: str = ""
    priority: int = 0
    visited: bool = False
    wanted: bool = True
    p_good: float | None = None
    ctf_angstrom: float | None = None  # expected, and its variance
    ctf_var: float | None = None
    ice_nm: float | None = None
    ice_var: float | None = None
    measured_ctf_angstrom: float | None = None
    measured_ice_nm: float | None = None
    features: dict[str, float] = {}


class View(Message, frozen=True, kw_only=True, tag="view"):
    """The answer to `Look`; ``order`` holds the squares not visited yet, best first."""

    request_id: Id
    seq: Count
    phase: str
    why: str = ""
    squares: tuple[SquareSeen, ...] = ()
    holes: tuple[HoleSeen, ...] = ()
    order: tuple[str, ...] = ()


class DetectedObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object that a detector found in a high-mag frame."""

    x: float
    y: float
    diameter_nm: float | None = None
    group: str = ""
    score: float = 1.0


class Detections(Message, frozen=True, kw_only=True, tag="detections"):
    """What a detector (quality, gold, vesicles …) found in a high-mag frame."""

    frame_id: Id
    area_id: OptionalId = ""
    detector: str
    objects: tuple[DetectedObject, ...] = ()
    values: dict[str, float] = {}
    label: str = ""
    note: str = ""


class Event(Message, frozen=True, kw_only=True, tag="event"):
    """One journalled event in words, for whoever watches."""

    seq: Count
    utc: Utc
    name: str
    text: str
    area_id: str = ""
    by: str = "agent"


FromDriver = Hello | Frame | CommandResult | Heartbeat | Goodbye | Taken | Measured | Past | Look
ToDriver = Welcome | Refused | Accepted | Command | Cancel | Safe | Release | Targets | View | Heartbeat
Published = Event | Detections | Targets | Heartbeat
