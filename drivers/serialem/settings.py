"""What a site sets for the SerialEM driver: ``config/serialem.yaml``, checked before anything is touched."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agent.errors import ConfigError
from agent.messages import Level
from agent.settings import EnvelopeSettings, Name, Positive, Section, check, read_yaml
from drivers.serialem.limits import CommandClass

Mode = Literal["pilot", "advisor"]
Shot = Literal["View", "Search", "Record", "Preview", "Trial", "Focus"]
Area = Literal["V", "F", "T", "R", "S"]
Buffer = Annotated[str, Field(pattern=r"^[A-T]$")]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class DaemonSettings(Section):
    """The daemon, and this driver's side of it."""

    endpoint: str = "tcp://127.0.0.1:5870"  # endpoints.drivers of the daemon
    key: Path | None = None  # CURVE key of this driver, made by `cryonaut keys new`; needed off loopback
    server_key: Path | None = None  # public key of the daemon
    ledger: Path = Path("serialem-driver.sqlite")  # what was done, so that nothing is done twice


class ConnectionSettings(Section):
    """Where SerialEM listens."""

    host: str = "127.0.0.1"
    port: int = Field(default=48888, ge=1, le=65_535)
    connect_s: Positive = 5.0
    retry_s: Positive = 2.0  # between two tries to reach a SerialEM that is away
    limits_s: dict[CommandClass, Positive] = Field(default_factory=dict)  # by class; the others keep their defaults


class PresetSettings(Section):
    """How SerialEM takes an image of one level: an imaging state of the site, a low-dose area, or a magnification."""

    shot: Shot = "Record"
    state: str = ""  # name of an imaging state; outranks what follows
    low_dose: bool = True
    area: Area | Literal[""] = ""
    mag: float | None = Field(default=None, gt=0)
    mag_index: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if self.area and not self.low_dose:
            raise ValueError(f"area {self.area}: low-dose areas need low_dose: true")
        if self.mag is not None and self.mag_index is not None:
            raise ValueError("give mag or mag_index, not both")
        return self


LOW = PresetSettings(shot="Record", low_dose=False)
MEDIUM = PresetSettings(shot="Search", area="S")
HIGH = PresetSettings(shot="Record", area="R")


class PresetsSettings(Section):
    """The three levels."""

    low: PresetSettings = LOW
    medium: PresetSettings = MEDIUM
    high: PresetSettings = HIGH

    def of(self, level: Level) -> PresetSettings:
        """The preset of a level."""
        found: PresetSettings = getattr(self, level)
        return found


class AtlasSettings(Section):
    """How the atlas is taken."""

    method: Literal["montage", "frames"] = "frames"
    folder: str = ""  # on SerialEM's PC, for the montage files; empty: SerialEM's present folder
    overlap: float = Field(default=0.0, ge=0, le=0.5)  # 0: as the last montage was set up
    overview: Buffer = "B"  # buffer with the assembled montage


class StageSettings(Section):
    """Moves of the stage."""

    tolerance_um: Positive = 2.0  # a move that ends farther away than this has not arrived
    backlash_um: float = Field(default=0.0, ge=0, le=100)  # above 0: every move ends with one of this length to +x, +y
    eucentricity: Literal[-1, 1, 2, 3, 6] = 3  # SerialEM's Eucentricity: 1 rough, 2 fine, 3 both, 6 refine and realign


class RealignSettings(Section):
    """The image back onto the holes after the stage went to a group of them; SerialEM does the geometry."""

    steps: tuple[Literal["map", "template", "hole"], ...] = ()  # in this order; none: the stage's own accuracy
    required: bool = True  # a failure goes to the error policy (realign_failed); false: on with the stage's accuracy
    max_shift_um: Positive = 2.0  # a realignment farther than this has failed
    map_folder: str = ""  # on SerialEM's PC, for the maps of squares that `map` needs
    template: Buffer = "P"  # buffer with the site's image of what the middle should look like, for `template`
    hole_diameter_um: float | None = Field(default=None, gt=0.05, le=100)  # for `hole` (SerialEM 4.2 and later)

    @model_validator(mode="after")
    def _knows_its_hole(self) -> Self:
        if "hole" in self.steps and self.hole_diameter_um is None:
            raise ValueError("steps: hole needs hole_diameter_um, the diameter of the foil's holes in µm")
        return self


class FocusSettings(Section):
    """Autofocus and drift."""

    axis_um: float | None = Field(default=None, gt=-19, lt=19)  # SetAxisPosition F; None leaves the site's own
    drift_angstrom_per_s: float = Field(default=2.0, ge=0, le=1_000)  # exposures wait for this rate; 0: no drift wait
    drift_wait_s: Seconds = 60.0


class ExposureSettings(Section):
    """Exposures."""

    beam_tilt: bool = False  # compensate beam tilt with image shift (needs SerialEM's coma-vs-IS calibration)
    settling: float | None = Field(default=None, ge=0, le=100)  # factor of the image shift's settling time
    record_dose_e_per_a2: float | None = Field(default=None, gt=0)  # of Record, where SerialEM does not know it
    shots_in_hole: int = Field(
        default=1, ge=1, le=19
    )  # above 1: MultipleRecords, one in the middle, the others around it
    shot_radius_um: float = Field(default=0.5, gt=0, le=10)  # of that ring; the shots must not overlap
    keep_in: Buffer = "Q"  # buffer in which frames of the advisor wait for their answer


class SafetySettings(Section):
    """The safe state, and what is read before exposures and while waiting."""

    valves: Literal["close", "leave"] = "close"  # what the safe state does with the column valves
    blank_when_waiting: bool = True  # blank the beam before control is given back to wait
    gauges: dict[str, Name] = Field(
        default_factory=dict
    )  # SerialEM's name of a vacuum gauge -> name of the reading, Pa
    nitrogen: bool = True  # read whether dewars are being filled, and wait meanwhile
    pump: bool = True  # read whether the pre-vacuum pump runs, and wait meanwhile
    manage: bool = False  # ManageDewarsAndPumps before exposures: SerialEM does what its dialog says
    wait_s: Seconds = 60.0  # wait so long for dewars and pump, then say so and let the session plan again
    look_again_s: Positive = 5.0  # between two looks while it waits
    every_s: Positive = 30.0  # between two looks while the driver waits for work
    release_s: Positive = 3.0  # without work for so long, control goes back to SerialEM
    abandon_s: Positive = 120.0  # the safe state waits so long for a command that is under way
    baseline: int = Field(default=20, ge=1, le=1_000)  # micrographs whose mean counts are the reference of the beam


class GridSettings(Section):
    """The autoloader."""

    on_stage: str = ""  # id of the grid that is on the stage at the start, where the driver did not load it itself
    on_stage_slot: int = Field(default=0, ge=0, le=100)  # home slot of that grid; 0: not known
    slots: int = Field(default=12, ge=0, le=100)  # slots whose inventory is watched; 0: no autoloader
    close_valves: bool = True  # before a grid is exchanged


LEVELS_NM: dict[Level, tuple[float, float]] = {"low": (60.0, 5_000.0), "medium": (1.0, 60.0), "high": (0.01, 1.0)}


class AdvisorSettings(Section):
    """How an advisor works beside an operator."""

    poll_s: Positive = 3.0  # each look takes control for a moment
    when: Literal["every_image", "asked"] = "every_image"  # asked: only after a script set persistent cryonaut_ask
    after_stop_s: Positive = 60.0  # after STOP in SerialEM the advisor stays away for so long
    levels_nm: dict[Level, tuple[float, float]] = Field(default_factory=lambda: dict(LEVELS_NM))  # pixel sizes
    acquire_above: float = Field(default=0.5, ge=0, le=1)  # Acquire is switched on from this score
    least_score: float = Field(default=0.05, ge=0, le=1)  # below, no point is made
    most_points: int = Field(default=400, ge=1, le=5_000)
    grid_id: str = ""
    nav_folder: Path | None = (
        None  # seen by SerialEM and this driver alike; SerialEM 4.0 gets its points as files there
    )


class SerialEMSettings(Section):
    """Everything in ``config/serialem.yaml``."""

    name: Name = "serialem"
    mode: Mode = "pilot"
    daemon: DaemonSettings = DaemonSettings()
    serialem: ConnectionSettings = ConnectionSettings()
    presets: PresetsSettings = PresetsSettings()
    atlas: AtlasSettings = AtlasSettings()
    stage: StageSettings = StageSettings()
    realign: RealignSettings = RealignSettings()
    focus: FocusSettings = FocusSettings()
    exposure: ExposureSettings = ExposureSettings()
    safety: SafetySettings = SafetySettings()
    grids: GridSettings = GridSettings()
    advisor: AdvisorSettings = AdvisorSettings()
    interlocks: EnvelopeSettings = EnvelopeSettings()

    @model_validator(mode="after")
    def _multiple_records_are_records(self) -> Self:
        if self.exposure.shots_in_hole > 1 and self.presets.high.shot != "Record":
            shot = self.presets.high.shot
            raise ValueError(f"exposure.shots_in_hole above 1 takes Records; presets.high.shot is {shot}")
        return self


def load(path: Path, **changes: object) -> SerialEMSettings:
    """Settings of a YAML file; ``changes`` that are not None replace top-level keys.

    Raises
    ------
    ConfigError
        If the file is missing or holds something that is not allowed.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file; start from config/serialem.yaml of Cryonaut")
    values = read_yaml(path)
    values |= {key: value for key, value in changes.items() if value is not None}
    return check(SerialEMSettings, values, str(path))
