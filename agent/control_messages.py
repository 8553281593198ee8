"""What an operator can say, and what is answered; the command line and the page send the same messages."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agent.messages import Count, Event, Id, Message, Micron, OptionalId, Text

Autonomy = Literal["suggest", "approve", "unattended"]
Mode = Literal["advisor", "pilot"]
Areas = Annotated[tuple[Id, ...], Meta(min_length=1, max_length=10_000)]


class Verb(msgspec.Struct, frozen=True, kw_only=True, tag_field="verb"):
    """Base of everything an operator can ask."""


class Pause(Verb, frozen=True, kw_only=True, tag="pause"):
    """Send nothing more: at once (``now``), or when the item under way has finished."""

    now: bool = False


class Resume(Verb, frozen=True, kw_only=True, tag="resume"):
    """Go on after a pause."""


class Stop(Verb, frozen=True, kw_only=True, tag="stop"):
    """Finish the item or the square under way, park the microscope, end the session."""

    after: Literal["item", "square"] = "item"


class Abort(Verb, frozen=True, kw_only=True, tag="abort"):
    """Cancel the item under way, park the microscope, end the session."""


class EmergencyStop(Verb, frozen=True, kw_only=True, tag="emergency_stop"):
    """Safe state now, whatever runs; only `Clear` leads on."""

    why: Text = ""


class Clear(Verb, frozen=True, kw_only=True, tag="clear"):
    """After a fault or an emergency stop: I have looked, it may go on (the session is paused then)."""


class Skip(Verb, frozen=True, kw_only=True, tag="skip"):
    """Leave a square or hole out; without an id the one under way."""

    area_id: OptionalId = ""


class Accept(Verb, frozen=True, kw_only=True, tag="accept"):
    """These areas are to be visited, whatever a model thinks (also re-adds what was rejected or skipped)."""

    area_ids: Areas


class Reject(Verb, frozen=True, kw_only=True, tag="reject"):
    """These areas are not to be visited, whatever a model thinks."""

    area_ids: Areas


class AddTarget(Verb, frozen=True, kw_only=True, tag="add"):
    """A new square on the current grid, or a new hole when ``square_id`` is given, at a stage position."""

    x_um: Micron
    y_um: Micron
    square_id: OptionalId = ""


class MoveTarget(Verb, frozen=True, kw_only=True, tag="move"):
    """Move a target that was not visited yet."""

    area_id: Id
    x_um: Micron
    y_um: Micron


class Rerank(Verb, frozen=True, kw_only=True, tag="rerank"):
    """Visit an area earlier (positive) or later (negative); 0 gives it back to the policy."""

    area_id: Id
    priority: Annotated[int, Meta(ge=-1000, le=1000)]


class Pin(Verb, frozen=True, kw_only=True, tag="pin"):
    """Visit these areas next, the first one first, whatever a model thinks."""

    area_ids: Areas


class Ban(Verb, frozen=True, kw_only=True, tag="ban"):
    """Never visit these areas, a square with all its holes; where one is under way it is left."""

    area_ids: Areas


class SetBudget(Verb, frozen=True, kw_only=True, tag="budget"):
    """Allow so many exposures in one square; None gives it back to the config."""

    area_id: Id
    exposures: Annotated[int, Meta(ge=0, le=5_000)] | None = None


class Like(Verb, frozen=True, kw_only=True, tag="like"):
    """More places like this square or hole, or fewer; ``forget`` takes it back."""

    area_id: Id
    more: bool = True
    forget: bool = False


class SetThreshold(Verb, frozen=True, kw_only=True, tag="threshold"):
    """Change a threshold from now on."""

    name: Literal["square_score", "hole_score", "squares_per_grid", "exposures_per_square"]
    value: Annotated[float, Meta(ge=0.0, le=100_000.0)]


class SetAutonomy(Verb, frozen=True, kw_only=True, tag="autonomy"):
    """How much the agent may do by itself."""

    level: Autonomy


class SetMode(Verb, frozen=True, kw_only=True, tag="mode"):
    """Who leads: the microscope software (advisor) or the agent (pilot)."""

    mode: Mode


class GoTo(Verb, frozen=True, kw_only=True, tag="goto"):
    """Move to a stage position, or to an area, without exposing it (only while paused)."""

    area_id: OptionalId = ""
    x_um: Micron | None = None
    y_um: Micron | None = None


class Undo(Verb, frozen=True, kw_only=True, tag="undo"):
    """Take the last accept, reject, skip, move or re-rank back."""


class GetStatus(Verb, frozen=True, kw_only=True, tag="status"):
    """Where the session stands."""


class GetEvents(Verb, frozen=True, kw_only=True, tag="events"):
    """Journalled events after number ``after``, at most ``most``; with ``after`` = -1 the last ones."""

    after: Annotated[int, Meta(ge=-1, le=2**53)] = -1
    most: Annotated[int, Meta(ge=1, le=1000)] = 20


class GetAreas(Verb, frozen=True, kw_only=True, tag="areas"):
    """The squares of the current grid, or the holes of ``square_id``."""

    square_id: OptionalId = ""


AnyVerb = (
    Pause | Resume | Stop | Abort | EmergencyStop | Clear | Skip | Accept | Reject | AddTarget | MoveTarget | Rerank
    | Pin | Ban | SetBudget | Like
    | SetThreshold | SetAutonomy | SetMode | GoTo | Undo | GetStatus | GetEvents | GetAreas
)  # fmt: skip
OBSERVER_VERBS = (GetStatus, GetEvents, GetAreas)


class Control(Message, frozen=True, kw_only=True, tag="control"):
    """One request; sent twice with the same id it is carried out once."""

    request_id: Id
    verb: AnyVerb


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Where the session stands, for people and programs."""

    session_id: str
    epoch: int
    phase: str
    why: str
    mode: str
    autonomy: str
    driver: str
    driver_well: bool
    agent_well: bool
    suspensions: dict[str, str]
    grid_id: str
    working_on: str
    counts: dict[str, int]
    thresholds: dict[str, float]
    spent: dict[str, float]
    degraded: str
    last_seq: int
    folder: str
    uptime_s: float


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """One square or hole in a listing."""

    area_id: str
    x_um: float
    y_um: float
    score: float
    label: str
    state: str
    why: str
    by: str
    children: int = 0


class Reply(Message, frozen=True, kw_only=True, tag="reply"):
    """The answer to a `Control`."""

    request_id: str
    ok: bool
    text: str
    status: Status | None = None
    events: tuple[Event, ...] = ()
    areas: tuple[Area, ...] = ()
    seq: Count = 0
