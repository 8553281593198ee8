"""Settings: defaults here, site values in ``config/*.yaml``; a refusal names file, key, value and what is allowed."""

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.control_messages import Autonomy, Mode
from agent.errors import ConfigError
from agent.messages import ErrorKind, Level

Range = tuple[float, float]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", max_length=40)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
S = TypeVar("S", bound="Section")
Then = Literal["skip", "go_on", "suspend", "fault", "next_grid"]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values never change after loading."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GridSettings(Section):
    """One grid to work on."""

    id: Name = "G1"
    slot: int | None = Field(default=None, ge=1, le=100)  # autoloader slot; None: it is on the stage already


class SessionSettings(Section):
    """What this session is."""

    name: Name = "session"
    folder: Path = Path("sessions")
    mode: Mode = "pilot"
    autonomy: Autonomy = "unattended"
    simulated_speed: float = Field(
        default=1.0, gt=0, le=1e6
    )  # of a simulated microscope: how much faster than a real one
    grids: tuple[GridSettings, ...] = Field(default=(GridSettings(),), min_length=1, max_length=24)


class Endpoints(Section):
    """Where the daemon listens; everything off loopback needs keys."""

    drivers: str = "tcp://127.0.0.1:5870"
    control: str = "tcp://127.0.0.1:5871"
    events: str = "tcp://127.0.0.1:5872"
    health: str = "127.0.0.1:5873"  # HTTP: /health/live, /health/ready, /metrics; empty: none


class OtherDaemon(Section):
    """Another daemon of the facility, for the overview page."""

    name: Name
    control: str  # its `endpoints.control`
    key: Path | None = None  # secret file of an observer key of that daemon
    page: str = ""  # address of its page, for the link


class WebSettings(Section):
    """The operator's page."""

    address: str = "127.0.0.1:5874"  # empty: no page
    hosts: tuple[str, ...] = ()  # further names under which browsers reach it, such as a reverse proxy's
    certificate: Path | None = None  # PEM file: HTTPS without a proxy
    private_key: Path | None = None
    others: tuple[OtherDaemon, ...] = ()

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or none")
        return self


class NoticeSettings(Section):
    """Who is told when something stops, and when it goes on."""

    to: Path | None = None  # file, mode 600, with one apprise address a line; none: nobody is told
    after_s: float = Field(default=60.0, ge=0, le=86_400)  # a hold is told when it has lasted for so long


class LinkSettings(Section):
    """Heartbeats and what silence means."""

    heartbeat_s: float = Field(default=1.0, gt=0, le=60)
    lost_after_s: Positive = 10.0  # a driver silent for this long suspends the session
    safe_after_s: Positive = 30.0  # a driver that hears nothing for this long reaches its safe state
    idle_notice_s: Positive = 600.0  # nothing finished for this long is told

    @model_validator(mode="after")
    def _silence_is_longer_than_a_beat(self) -> Self:
        if min(self.lost_after_s, self.safe_after_s) < 2 * self.heartbeat_s:
            raise ValueError("lost_after_s and safe_after_s must be at least twice heartbeat_s")
        return self


class AtlasSettings(Section):
    """How the atlas is taken."""

    radius_um: Positive = 900.0  # frames whose centre lies further out are left out
    field_um: Positive = 600.0  # side of the square field of one low-mag frame
    overlap: float = Field(default=0.1, ge=0, le=0.5)


class RichRule(Section):
    """A square is rich when its micrographs together show ``at_least`` objects of ``what``, such as ``gold 12 nm``."""

    what: Annotated[str, Field(pattern=r"^[a-z]+ .+$", max_length=60)]
    at_least: int = Field(default=10, ge=1, le=1_000_000)
    more_exposures: int = Field(default=10, ge=0, le=5_000)  # holes that are exposed there beyond holes.per_square
    priority: int = Field(default=0, ge=-1_000, le=1_000)  # added to the square's


class SquareSettings(Section):
    """Which squares are visited."""

    min_score: Fraction = 0.35
    per_grid: int = Field(default=12, ge=0, le=2_000)
    find_eucentric: bool = True
    rich: tuple[RichRule, ...] = Field(default=(), max_length=20)  # needs inference.detectors


class HoleSettings(Section):
    """Which holes are exposed, and how they are grouped."""

    min_score: Fraction = 0.35
    per_square: int = Field(default=30, ge=0, le=5_000)
    max_image_shift_um: float = Field(default=8.0, ge=0, le=100)  # 0: every hole by a stage move
    pattern: Literal["free", "square", "hexagonal"] = "free"  # of an image-shift group, on the lattice that was found
    pattern_size: int = Field(default=3, ge=1, le=15)  # holes across; hexagonal: 3 is one ring, 5 are two

    @model_validator(mode="after")
    def _rings_are_whole(self) -> Self:
        if self.pattern == "hexagonal" and self.pattern_size % 2 == 0:
            raise ValueError(f"pattern_size: {self.pattern_size}: a hexagonal pattern is an odd number of holes across")
        return self


class ScreeningSettings(Section):
    """A first look at every grid before time is spent on any: atlas, a few squares, a few micrographs."""

    squares_per_grid: int = Field(default=1, ge=1, le=20)
    holes_per_square: int = Field(default=3, ge=1, le=100)
    hours: Positive | None = None  # from the session's beginning; None: half of budget.hours


class PolicySettings(Section):
    """What counts as good, and how places are chosen."""

    name: Literal["score-order", "learning"] = "score-order"
    prior_file: Path | None = None  # what earlier sessions taught, made by `cryonaut session learned`
    screening: ScreeningSettings | None = None  # several grids: look at each first, and go back to where it pays
    good_ctf_angstrom: float = Field(default=6.0, ge=2, le=20)  # a micrograph is good up to this CTF resolution


class ExposureSettings(Section):
    """How a micrograph is taken."""

    defocus_um: Range = (0.8, 2.0)  # least and most underfocus; the steps between are gone through in turn
    defocus_step_um: Positive = 0.2
    dose_e_per_a2: float = Field(default=40.0, gt=0, le=1_000)
    autofocus: bool = True
    beam_diameter_um: float | None = Field(default=None, gt=0, le=100)  # drawn; focus spots keep it off the holes

    @model_validator(mode="after")
    def _least_before_most(self) -> Self:
        if self.defocus_um[0] > self.defocus_um[1]:
            raise ValueError(f"defocus_um: {list(self.defocus_um)}: the first value must be the smaller one")
        return self


class BudgetSettings(Section):
    """What a session may use; it ends in good order when one is spent."""

    hours: Positive = 72.0
    exposures: int = Field(default=100_000, ge=0)
    exposures_per_grid: int = Field(default=100_000, ge=0)


# What the fields of a command can hold (`agent.messages`): an envelope wider than that would be none.
WIDEST = {"stage_x_um": 5_000.0, "stage_y_um": 5_000.0, "stage_z_um": 5_000.0, "tilt_deg": 90.0, "defocus_um": 1_000.0}


class EnvelopeSettings(Section):
    """The interlocks: a command outside is refused, never clipped."""

    stage_x_um: Range = (-1000.0, 1000.0)
    stage_y_um: Range = (-1000.0, 1000.0)
    stage_z_um: Range = (-300.0, 300.0)
    tilt_deg: Range = (-70.0, 70.0)
    image_shift_um: float = Field(default=15.0, ge=0, le=100)
    defocus_um: Range = (-10.0, 100.0)
    dose_per_area_e_per_a2: Positive = 100.0
    levels: tuple[Level, ...] = ("low", "medium", "high")
    moves_without_frame: int = Field(default=8, ge=1, le=1_000)

    @model_validator(mode="after")
    def _ranges_run_upwards(self) -> Self:
        for key, most in WIDEST.items():
            low, high = getattr(self, key)
            if not low <= high:
                raise ValueError(f"{key}: [{low}, {high}]: the first value must not be above the second")
            if max(-low, high) > most:
                raise ValueError(f"{key}: [{low:g}, {high:g}]: no command can carry more than ±{most:g}")
        return self


class ErrorRow(Section):
    """What happens after an error: tries again, then one of `Then`; many in a row suspend the session."""

    retries: int = Field(default=0, ge=0, le=20)
    then: Then = "skip"
    suspend_after: int | None = Field(default=None, ge=1, le=1_000)


DEFAULT_ON_ERROR: dict[ErrorKind, ErrorRow] = {
    ErrorKind.FRAME_DARK: ErrorRow(retries=1, then="skip", suspend_after=3),
    ErrorKind.FRAME_SATURATED: ErrorRow(retries=1, then="skip", suspend_after=3),
    ErrorKind.FRAME_WRONG: ErrorRow(retries=1, then="skip", suspend_after=3),
    ErrorKind.NO_SQUARES: ErrorRow(then="go_on"),
    ErrorKind.NO_HOLES: ErrorRow(then="skip"),
    ErrorKind.MODEL_FAILED: ErrorRow(then="skip", suspend_after=5),
    ErrorKind.STAGE_TIMEOUT: ErrorRow(retries=1, then="fault"),
    ErrorKind.EUCENTRIC_FAILED: ErrorRow(retries=1, then="skip", suspend_after=5),
    ErrorKind.AUTOFOCUS_FAILED: ErrorRow(retries=1, then="skip", suspend_after=5),
    ErrorKind.REALIGN_FAILED: ErrorRow(retries=1, then="skip", suspend_after=5),
    ErrorKind.DRIFT: ErrorRow(retries=1, then="skip"),
    ErrorKind.CAMERA: ErrorRow(retries=1, then="suspend"),
    ErrorKind.COMMAND_TIMEOUT: ErrorRow(retries=0, then="suspend"),
    ErrorKind.OUTSIDE_ENVELOPE: ErrorRow(then="skip", suspend_after=3),
    ErrorKind.OUTCOME_UNKNOWN: ErrorRow(retries=1, then="skip"),  # exposures are never tried again
    ErrorKind.LOAD_FAILED: ErrorRow(retries=1, then="next_grid"),
    ErrorKind.BEAM_LOST: ErrorRow(then="suspend"),
    ErrorKind.SCRIPT: ErrorRow(retries=1, then="skip", suspend_after=3),
}


class Suspender(Section):
    """Hold the session while a reading of the microscope is out of bounds, until it was back for ``settle_s``."""

    reading: Name
    above: float | None = None  # hold while the reading is above this
    below: float | None = None  # hold while the reading is below this
    settle_s: float = Field(default=30.0, ge=0, le=86_400)

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("give above, below or both")
        return self

    @property
    def cause(self) -> str:
        """The cause under which this holds the session."""
        return f"reading:{self.reading}"


# as in models.runtime, which a driver's light installation does not have
Provider = Literal["tensorrt", "cuda", "cpu"]


class InferenceSettings(Section):
    """The models and the threads they may use."""

    squares: Name = "squares-net"
    holes: Name = "holes-net"
    quality: Name = "quality-ctf"
    detectors: tuple[Literal["gold", "vesicles"], ...] = ()  # run on every high-mag frame beside the quality
    gold_sizes_nm: tuple[Annotated[float, Field(ge=1, le=200)], ...] = ()  # empty: each frame says which sizes it holds
    weights: dict[Name, Path] = Field(default_factory=dict)  # a site's own, by model: path of the manifest
    threads: int = Field(default=1, ge=1, le=64)
    providers: tuple[Provider, ...] = ()
    model_threads: int = Field(default=0, ge=0, le=64)
    timeout_s: Positive = 60.0


class QualitySettings(Section):
    """How micrographs are taken, for the CTF fit and the thickness of the ice; what a frame itself says comes first."""

    voltage_kv: float = Field(default=300.0, ge=20, le=1_500)
    cs_mm: float = Field(default=2.7, ge=0, le=100)
    amplitude_contrast: Fraction = 0.07
    phase_plate: bool = False  # true: a phase shift is fitted, too
    open_beam_counts: Positive | None = None  # mean pixel value of an exposure through an empty hole
    open_beam_counts_medium: Positive | None = None  # the same of a medium-mag frame, for the scores of holes
    counts_per_electron: Positive | None = None  # instead: the camera's counts, for frames that come with their dose
    mean_free_path_nm: Positive | None = None  # None: by voltage, 303 nm at 300 kV
    vitreous: bool = True  # false for replicas and sections: no crystalline ice is looked for


class TimeoutSettings(Section):
    """How long each kind of command may take before its outcome is asked for, in seconds."""

    load_grid: Positive = 900.0
    acquire_atlas: Positive = 3600.0
    map_square: Positive = 300.0
    focus: Positive = 180.0
    expose: Positive = 300.0  # also the move, realignment and drift wait before the first exposure of a group
    goto: Positive = 120.0
    park: Positive = 120.0


class LimitSettings(Section):
    """Bounds on what the daemon holds."""

    frame_mb: int = Field(default=512, ge=1, le=1024)
    frames_waiting: int = Field(default=8, ge=1, le=1_000)
    free_disk_gb: float = Field(default=2.0, ge=0, le=1e6)


class Settings(Section):
    """Everything a site can set."""

    session: SessionSettings = SessionSettings()
    endpoints: Endpoints = Endpoints()
    keys: Path | None = None  # folder made by `cryonaut keys new`; needed off loopback
    web: WebSettings = WebSettings()
    notices: NoticeSettings = NoticeSettings()
    link: LinkSettings = LinkSettings()
    atlas: AtlasSettings = AtlasSettings()
    squares: SquareSettings = SquareSettings()
    holes: HoleSettings = HoleSettings()
    policy: PolicySettings = PolicySettings()
    exposure: ExposureSettings = ExposureSettings()
    budget: BudgetSettings = BudgetSettings()
    interlocks: EnvelopeSettings = EnvelopeSettings()
    on_error: dict[ErrorKind, ErrorRow] = {}
    suspend_when: tuple[Suspender, ...] = ()
    pixel_size_angstrom: dict[Level, Range] = {}  # per level: frames outside are refused as wrong magnification
    inference: InferenceSettings = InferenceSettings()
    quality: QualitySettings = QualitySettings()
    timeouts_s: TimeoutSettings = TimeoutSettings()
    limits: LimitSettings = LimitSettings()

    @model_validator(mode="after")
    def _commands_stay_inside(self) -> Self:
        if self.holes.max_image_shift_um > self.interlocks.image_shift_um:
            raise ValueError(
                f"holes.max_image_shift_um: {self.holes.max_image_shift_um} is above"
                f" interlocks.image_shift_um: {self.interlocks.image_shift_um}"
            )
        if self.exposure.dose_e_per_a2 > self.interlocks.dose_per_area_e_per_a2:
            raise ValueError(
                f"exposure.dose_e_per_a2: {self.exposure.dose_e_per_a2} is above"
                f" interlocks.dose_per_area_e_per_a2: {self.interlocks.dose_per_area_e_per_a2}"
            )
        (least, most), (low, high) = self.exposure.defocus_um, self.interlocks.defocus_um
        if least < low or most > high:
            raise ValueError(
                f"exposure.defocus_um: [{least:g}, {most:g}] is not inside interlocks.defocus_um: [{low:g}, {high:g}]"
            )
        if self.policy.screening is not None:
            self._grids_can_come_back()
        ids = [grid.id for grid in self.session.grids]
        if len(set(ids)) != len(ids):
            raise ValueError(f"session.grids: ids must differ, these are {ids}")
        return self

    def _grids_can_come_back(self) -> None:
        if self.policy.name != "learning":
            raise ValueError(f"policy.screening: needs policy.name: learning; {self.policy.name} weighs no grids")
        if self.session.mode != "pilot":
            raise ValueError("policy.screening: needs session.mode: pilot; an advisor loads no grids")
        bare = [grid.id for grid in self.session.grids if grid.slot is None]
        if bare and len(self.session.grids) > 1:
            raise ValueError(
                f"policy.screening: {', '.join(bare)} could not be loaded again: session.grids has to name its slot"
            )

    def error_row(self, kind: ErrorKind) -> ErrorRow:
        """What the site, or else the default, wants after an error of this kind."""
        return self.on_error.get(kind) or DEFAULT_ON_ERROR[kind]

    def deciding(self) -> dict[str, Any]:
        """All settings that can change a decision, as plain values (not where files, sockets and keys are)."""
        values = self.model_dump(mode="json", exclude={"endpoints", "keys", "web", "notices", "link", "limits"})
        values["session"].pop("folder")
        values["policy"].pop("prior_file")  # what it held is journalled
        return values

    def decision_hash(self) -> str:
        """Hash of all settings that can change a decision."""
        text = json.dumps(self.deciding(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def preset_folder() -> Path:
    """Folder of the presets: ``config/`` of a checkout, or the copy inside an installed package."""
    checkout = Path(__file__).resolve().parent.parent / "config"
    return checkout if checkout.is_dir() else Path(__file__).resolve().parent / "presets"


def load(path: Path | None, changes: Mapping[str, Any] | None = None) -> Settings:
    """Settings of a YAML file (None: the defaults), with ``{"squares.per_grid": 5}``-like ``changes`` on top.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML, or holds a key or value that is not allowed.
    """
    values = {} if path is None else read_yaml(path)
    for dotted, value in (changes or {}).items():
        inner = values
        *parents, last = dotted.split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {dotted}: {parent} is no section")
        inner[last] = value
    return check(Settings, values, str(path or "settings"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises
    ------
    ConfigError
        If the file cannot be read or holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(str(p) for p in preset_folder().glob("*.yaml")))
        raise ConfigError(f"{path}: {error.strerror or error}; presets: {known}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is no YAML: {' '.join(str(error).split())[:300]}") from error
    if values is None:
        return {}
    if isinstance(values, dict):  # a section with nothing under it means its defaults
        values = {key: value for key, value in values.items() if value is not None}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; sections such as 'session:' are expected")
    return values


def check(kind: type[S], values: dict[str, Any], source: str) -> S:
    """``values`` as a section, or one `ConfigError` that lists every wrong key with its value and what is allowed."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaints(error, kind, source))) from error


def _complaints(error: ValidationError, kind: type[BaseModel], source: str) -> Iterator[str]:
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"] if part != "[key]")
        if item["type"] == "extra_forbidden":
            names = _names_beside(kind, item["loc"])
            close = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(names)}"
            yield f"{source}: {where}: there is no such key{hint}"
        else:
            text = item["msg"].removeprefix("Value error, ")
            given = item["input"]
            shown = f" = {given!r}"[:80] if not isinstance(given, dict | BaseModel) else ""
            yield f"{source}: {where or 'settings'}{shown}: {text[0].lower()}{text[1:]}"


def _names_beside(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    here: type[BaseModel] = kind
    for part in location[:-1]:
        field = here.model_fields.get(str(part))
        inner = field.annotation if field else None
        for one in (inner, *get_args(inner)):  # a section, or the sections in a list or mapping
            if isinstance(one, type) and issubclass(one, BaseModel):
                here = one
    return sorted(here.model_fields)
