"""What a session knows: frozen records, folded from the journal and never changed in place.

Area ids name their parents and read well in messages: grid ``G1``, square ``G1-S012``, hole ``G1-S012-H034``.
"""

from typing import Any, Literal

import msgspec

from agent.control_messages import Autonomy, Mode
from agent.messages import AnyWork, Command, Goto, Level, Park

Phase = Literal["idle", "collecting", "pausing", "paused", "stopping", "stopped", "fault"]
# realigning: it is back on the stage, and is looked for; screened: looked at, and perhaps gone back to
GridState = Literal["waiting", "loading", "loaded", "mapping", "realigning", "screening", "screened", "done", "skipped"]
AreaState = Literal["found", "queued", "busy", "mapped", "exposed", "done", "skipped", "rejected", "unknown"]
Word = Literal["", "accepted", "rejected"]  # what an operator said; it outranks every model

OPEN_STATES: tuple[AreaState, ...] = ("found", "queued")

# The only moves between phases. A person reaches every phase they need from every other; `stopped` is the end.
PHASE_MOVES: dict[Phase, tuple[Phase, ...]] = {
    "idle": ("collecting", "pausing", "paused", "stopping", "stopped", "fault"),
    "collecting": ("pausing", "paused", "stopping", "stopped", "fault", "idle"),
    "pausing": ("paused", "collecting", "stopping", "stopped", "fault"),
    "paused": ("collecting", "idle", "stopping", "stopped", "fault"),
    "stopping": ("stopping", "stopped", "fault", "pausing", "paused"),  # to itself: another word about when
    "fault": ("paused", "stopped"),
    "stopped": (),
}


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something was chosen: who, what for, by which model and settings, seen on which frame."""

    why: str
    by: str = "agent"
    model: str = ""
    fingerprint: str = ""
    config: str = ""
    frame_id: str = ""
    score: float | None = None
    runner_up: str = ""


class Hole(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="area", tag="hole"):
    """One hole of the foil; positions are on the stage, in micrometres."""

    area_id: str
    x_um: float
    y_um: float
    radius_um: float
    score: float
    label: str = "unknown"
    state: AreaState = "found"
    why: str = ""
    by: str = "agent"
    word: Word = ""
    priority: int = 0
    inferred: bool = False
    group: int | None = None
    dose_e_per_a2: float = 0.0
    frame_id: str = ""
    defocus_um: float | None = None
    quality: float | None = None
    quality_label: str = ""
    like: int = 0  # an operator wants more (1) or less (-1) like this
    features: dict[str, float] = {}  # as found; once its micrograph is judged, what was measured there
    looks: dict[str, float] = {}  # what the medium-mag frame had shown, kept when ``features`` was measured anew
    map_frame_id: str = ""  # the medium-mag frame it was found on
    measurements: int = 0  # how often the microscope software told what it measured there
    detected: dict[str, int] = {}  # "<detector> <group>": objects on its micrograph
    shots: dict[str, int] = {}  # of how many shots a measured feature is the mean

    @property
    def seen_before(self) -> dict[str, float]:
        """Features on the medium-mag frame: what is known of the hole before an exposure."""
        return self.features if self.quality is None and not self.measurements else self.looks

    @property
    def must_stay(self) -> bool:
        """Whether no new finding may replace it: an operator spoke of it, or it was exposed."""
        visited = self.dose_e_per_a2 > 0 or self.measurements > 0 or self.state == "busy"
        return visited or bool(self.word or self.priority or self.frame_id)

    def mean_with(self, name: str, value: float) -> float:
        """What the measured feature ``name`` is with one more shot: the mean of all shots of the hole."""
        known = self.shots.get(name, 0)
        return round((self.features.get(name, 0.0) * known + value) / (known + 1), 4)

    @property
    def visited(self) -> bool:
        """Whether it was exposed or measured, as far as the agent knows."""
        return bool(self.frame_id) or self.dose_e_per_a2 > 0 or self.measurements > 0


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Holes that share one stage position and are reached by image shift, with their focus spot."""

    number: int
    x_um: float
    y_um: float
    focus_x_um: float
    focus_y_um: float
    hole_ids: tuple[str, ...]
    focused: bool = False


class Square(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="area", tag="square"):
    """One mesh opening."""

    area_id: str
    x_um: float
    y_um: float
    size_um: float
    vertices_um: tuple[tuple[float, float], ...] = ()
    score: float
    label: str = "unknown"
    state: AreaState = "found"
    why: str = ""
    by: str = "agent"
    word: Word = ""
    priority: int = 0
    touches_edge: bool = False
    frame_id: str = ""  # the low-mag frame it was found on
    map_frame_id: str = ""  # its newest medium-mag frame
    map_load: int = 0  # `Grid.loads` when that was taken
    visited: bool = False  # one of its holes was exposed or measured, or the microscope software says so
    features: dict[str, float] = {}
    holes: dict[str, Hole] = {}
    budget: int | None = None  # exposures that an operator allows here; None: as everywhere
    like: int = 0  # an operator wants more (1) or less (-1) like this
    more_exposures: int = 0  # beyond the usual number: it is rich in what a detector looks for
    favoured: tuple[str, ...] = ()  # the rules that said so
    holes_ever: int = 0  # the highest hole number that was ever given: ids are not used again
    groups: dict[int, Group] = {}
    lattice: str = ""
    pitch_um: float | None = None

    @property
    def all_detected(self) -> dict[str, int]:
        """Objects such as ``gold 12 nm`` on all of its micrographs together."""
        found: dict[str, int] = {}
        for hole in self.holes.values():
            for what, number in hole.detected.items():
                found[what] = found.get(what, 0) + number
        return found


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """How a grid lies that was taken out and came back: stage = ``matrix`` @ (place on the grid) + (x, y).

    Places on the grid are those of the stage when it was there for the first time; ``matrix`` is row major.
    """

    matrix: tuple[float, float, float, float]
    x_um: float
    y_um: float

    def stage_um(self, x_um: float, y_um: float) -> tuple[float, float]:
        """Where the stage has to be for this place on the grid."""
        dx_um, dy_um = self.turned(x_um, y_um)
        return dx_um + self.x_um, dy_um + self.y_um

    def turned(self, x_um: float, y_um: float) -> tuple[float, float]:
        """A way on the grid as a way of the stage."""
        a, b, c, d = self.matrix
        return a * x_um + b * y_um, c * x_um + d * y_um


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The low-mag frame by which a grid is known again: where it was taken, and its pixels on the stage."""

    frame_id: str
    x_um: float
    y_um: float
    image_to_stage: tuple[float, float, float, float]


class Grid(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One grid; its places are those of the stage when it was there for the first time, see `Placement`."""

    grid_id: str
    slot: int | None = None
    state: GridState = "waiting"
    why: str = ""
    atlas_frames: tuple[str, ...] = ()
    squares: dict[str, Square] = {}
    word: Word = ""  # an operator wants it next, or never
    loads: int = 0  # how often it came onto the stage
    looked_at: bool = False  # it was seen, and set aside for another
    anchor: Anchor | None = None
    placement: Placement | None = None  # None: as the stage says

    @property
    def tries(self) -> tuple[int, int]:
        """Exposures of it that were judged, and how many of them are good."""
        judged = [h.quality_label for s in self.squares.values() for h in s.holes.values() if h.quality_label]
        return len(judged), judged.count("good")

    def must_map(self, square: Square) -> bool:
        """Whether the square's map is of before the grid was taken out: its holes have to be found again."""
        return self.loads > 1 and square.map_load != self.loads


class PendingFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A frame whose analysis is still due."""

    frame_id: str
    level: Level
    file: str
    grid_id: str
    area_id: str
    seq: int
    like: str = ""  # frame of the same place before the grid was taken out: it is compared with that


class Outstanding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command without a result yet."""

    command: Command
    area_id: str
    issued_utc: float
    issued_s: float = 0.0  # `State.spent_s` then
    cancelled: bool = False
    frames: tuple[str, ...] = ()
    on_grid: AnyWork | None = None

    @property
    def work(self) -> AnyWork:
        """What it asks for, with places on the grid."""
        return self.on_grid or self.command.work


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long commands of one kind take, from their issue to their end: a mean that forgets slowly."""

    count: int
    mean_s: float


class UndoStep(msgspec.Struct, frozen=True, kw_only=True):
    """How the areas of one override were before it."""

    what: str
    before: tuple[Square | Hole, ...]


class Prior(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier sessions taught: weights as (mean, standard deviation) by feature, timings, and its source."""

    offset: tuple[float, float]
    hole_weights: dict[str, tuple[float, float]] = {}
    square_weights: dict[str, tuple[float, float]] = {}
    timings: dict[str, Timing] = {}
    sessions: int = 1
    exposures: int = 0
    source: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A whole session."""

    session_id: str = ""
    name: str = ""
    epoch: int = 0
    config: str = ""
    seq: int = 0  # of the last event folded in
    started_utc: float = 0.0
    utc: float = 0.0
    spent_s: float = 0.0  # of the session, by the driver's own clock: the same when its messages are replayed
    clock_began_utc: float | None = None  # what the driver's clock showed when ``spent_s`` was 0
    phase: Phase = "idle"
    why: str = ""
    mode: Mode = "pilot"
    autonomy: Autonomy = "unattended"
    thresholds: dict[str, float] = {}
    suspensions: dict[str, str] = {}
    degraded: str = ""
    driver: str = ""
    can_pilot: bool = False
    grids: dict[str, Grid] = {}
    past: dict[str, Grid] = {}  # of earlier sessions, to be learned from where a driver asks for it; visited by nobody
    grid_id: str = ""
    on_stage: str = ""  # the grid that was brought there last; empty while it is exchanged
    outstanding: dict[str, Outstanding] = {}
    pending: dict[str, PendingFrame] = {}
    commands_issued: int = 0
    commands_ended: int = 0
    commands_since_frame: int = 0
    frames: int = 0
    exposures: int = 0
    dose_e_per_a2: float = 0.0
    attempts: dict[str, int] = {}  # "<kind> <area>": failures so far
    in_a_row: dict[str, int] = {}  # "<kind>": failures without a success between
    stop_after: str = ""
    parked: bool = False
    progress_utc: float = 0.0  # when something was last finished
    idle_told: bool = False
    undo: tuple[UndoStep, ...] = ()
    here: str = ""  # the square or hole that the last command was for
    timings: dict[str, Timing] = {}  # by kind of command
    prior: Prior | None = None  # what earlier sessions of the project taught

    @property
    def grid(self) -> Grid | None:
        """The grid on the stage."""
        return self.grids.get(self.grid_id)

    @property
    def may_command(self) -> bool:
        """Whether the agent may send something new to the microscope."""
        return (
            self.phase in ("collecting", "stopping")
            and not self.suspensions
            and self.mode == "pilot"
            and self.can_pilot
            and bool(self.driver)
        )

    def may_send(self, work: AnyWork) -> bool:
        """Whether this command may leave now: parking and an operator's own moves also while paused."""
        if isinstance(work, Park):
            return self.can_pilot and self.phase in ("stopping", "collecting")
        if isinstance(work, Goto):
            return self.can_pilot and (self.phase in ("paused", "idle") or self.may_command)
        return self.may_command

    def square(self, area_id: str) -> Square | None:
        """The square with this id, or the square of the hole with this id."""
        grid = self.grids.get(grid_of(area_id))
        return grid.squares.get(square_of(area_id)) if grid else None

    def hole(self, area_id: str) -> Hole | None:
        """The hole with this id."""
        square = self.square(area_id)
        return square.holes.get(area_id) if square else None

    def area(self, area_id: str) -> Square | Hole | None:
        """The square or hole with this id."""
        return self.hole(area_id) if is_hole(area_id) else self.square(area_id)


def square_id(grid_id: str, number: int) -> str:
    """Id of the ``number``-th square of a grid."""
    return f"{grid_id}-S{number:03d}"


def hole_id(square: str, number: int) -> str:
    """Id of the ``number``-th hole of a square."""
    return f"{square}-H{number:03d}"


def grid_of(area_id: str) -> str:
    """Grid part of an area id."""
    head = square_of(area_id)
    return head.rsplit("-S", 1)[0] if "-S" in head else head


def square_of(area_id: str) -> str:
    """Square part of an area id."""
    return area_id.rsplit("-H", 1)[0] if is_hole(area_id) else area_id


def is_hole(area_id: str) -> bool:
    """Whether the id is that of a hole."""
    head, _, tail = area_id.rpartition("-H")
    return tail.isdigit() and "-S" in head


def number_of(area_id: str) -> int:
    """Number of a hole within its square."""
    return int(area_id.rpartition("-H")[2])


def summary(state: State) -> dict[str, Any]:
    """The outcome of a session without times, epochs and counters: equal for equal ends, however it got there."""
    keep = (
        "session_id",
        "phase",
        "mode",
        "autonomy",
        "thresholds",
        "grids",
        "grid_id",
        "exposures",
        "parked",
    )
    plain = msgspec.to_builtins(state, str_keys=True)
    return {name: plain[name] for name in keep} | {"dose_e_per_a2": round(state.dose_e_per_a2, 6)}
