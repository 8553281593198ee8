"""SerialEM itself, without its socket: everything that it knows beyond what the microscope is doing."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from drivers.serialem import codes
from simulators.microscope import MicroscopeError, Preset, VirtualMicroscope
from simulators.serialem.autoloader import Autoloader
from simulators.serialem.buffers import Buffers, Matrix, Point, apply, inverse
from simulators.serialem.commands import ScriptError, UserStop
from simulators.serialem.control import Control, Script
from simulators.serialem.holes import HoleFinder
from simulators.serialem.navigator import Navigator

if TYPE_CHECKING:
    from simulators.serialem.files import ImageFile
    from simulators.serialem.montage import MontageSetup

SETS = "VFTRPSM"  # View, Focus, Trial, Record, Preview, Search, Mont-map
CAPTURE_NUMBERS = {"V": 0, "F": 1, "T": 2, "R": 3, "P": 4, "S": 5, "M": 6}
AREAS = "VFTRS"  # low-dose areas 0 to 4
AREA_OF_SET = {"V": "V", "F": "F", "T": "T", "R": "R", "P": "R", "S": "S", "M": "R"}
BUILD_DATES = {"4.0": 20220901, "4.1": 20231101, "4.2": 20250301, "4.3": 20260816}
SLICE_S = 0.02
DRIFT_NM_PER_S, DRIFT_DECAY_S = 1.0, 6.0  # right after a move of the stage, and how it fades


@dataclass(frozen=True, slots=True)
class Calibration:
    """How this site's axes lie to each other, and which magnification stands for which level.

    Parameters
    ----------
    image_shift_scale, image_shift_angle_deg
        Length in µm of one unit of image shift, and the turn from its axes to those of the specimen.
    specimen_angle_deg
        Turn from the axes of the stage to those of the specimen; at 0 they are the same.
    mags
        Level to (index, magnification); only these can be set.
    areas
        Low-dose area to level.
    states
        Imaging states in order: name to (low-dose area or "" for none, level).
    """

    image_shift_scale: float = 0.9
    image_shift_angle_deg: float = 30.0
    specimen_angle_deg: float = 0.0
    mags: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"low": (3, 82), "medium": (17, 2250), "high": (31, 53000)}
    )
    areas: dict[str, str] = field(
        default_factory=lambda: {"V": "medium", "F": "high", "T": "high", "R": "high", "S": "medium"}
    )
    states: dict[str, tuple[str, str]] = field(
        default_factory=lambda: {
            "Atlas": ("", "low"),
            "Search": ("S", "medium"),
            "View": ("V", "medium"),
            "Record": ("R", "high"),
        }
    )
    chip_pixel_um: float = 5.0

    @property
    def shift_to_specimen(self) -> Matrix:
        """µm on the specimen per unit of image shift."""
        a, b, c, d = _turn(self.image_shift_angle_deg)
        k = self.image_shift_scale
        return k * a, k * b, k * c, k * d

    @property
    def stage_to_specimen(self) -> Matrix:
        """Specimen axes from stage axes."""
        return _turn(self.specimen_angle_deg)


def _turn(angle_deg: float) -> Matrix:
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return c, -s, s, c


def linear(matrix: Matrix, point: Point) -> Point:
    """M point."""
    return apply(matrix, (0.0, 0.0), (0.0, 0.0), point)


@dataclass(slots=True)
class CameraSet:
    """Settings of one camera set; exposure None is that of the microscope's preset."""

    binning: float = 1.0
    exposure_s: float | None = None
    drift_s: float = 0.0
    dose_frac: bool = False
    save_frames: bool = False
    align: int = 0
    frame_s: float = 0.1
    continuous: bool = False
    read_mode: int = 1


@dataclass(slots=True)
class Multishot:
    """The dialog of multiple Records; shifts are in image shift units."""

    shots: int = 4
    centre: int = 0  # -1 before, 1 after the shots around it
    radius_um: float = 0.3
    save: int = 0
    where: int = 2  # 1 in the hole, 2 in holes, 3 both
    holes: tuple[int, int] = (3, 3)
    vectors: tuple[Point, Point] | None = None
    custom: list[Point] = field(default_factory=list)

    def need_vectors(self) -> tuple[Point, Point]:
        """The steps of the lattice; `ScriptError` when nobody set them."""
        if self.vectors is None:
            raise ScriptError("Multiple Records: no hole vectors have been set (UseHoleVectorsForMulti)")
        return self.vectors


@dataclass(slots=True)
class Surroundings:
    """Dewars, pumps, gauges, screen: what a session looks at and does not move. Tests set it from outside."""

    dewars_filling: bool = False
    dewars_remaining_s: float = -1.0
    dewar_levels: dict[int, float] = field(default_factory=lambda: {1: 80.0, 2: 75.0})
    pvp_running: bool = False
    gauges: dict[str, tuple[int, float]] = field(
        default_factory=lambda: {"IGPco": (4, 2e-6), "IGPa": (4, 1e-6), "PPm": (4, 1.0), "Pc": (4, 2e-6)}
    )
    screen_down: bool = False
    screen_current_na: float = 3.5
    feg_current_na: float = 180.0
    since_operation_s: dict[str, float] = field(default_factory=dict)


class SerialEM:
    """The program in front of a microscope: buffers, low-dose areas, Navigator, files, variables, properties.

    Parameters
    ----------
    scope
        The microscope.
    version
        Release to play: decides which commands exist, and a few habits.
    folder
        Where files go; Windows paths and relative ones land below it. None is a temporary folder.
    slots
        Autoloader slot to grid id; None puts the grids of ``scope`` into slots 1, 2, ...
    calibration
        Axes and magnifications.
    """

    def __init__(
        self,
        scope: VirtualMicroscope,
        version: str = "4.2",
        *,
        folder: Path | None = None,
        slots: dict[int, str] | None = None,
        calibration: Calibration | None = None,
        busy_wait_s: float = 5.0,
    ) -> None:
        self.scope = scope
        self.version = version
        self.entries = codes.entries(version)
        self.calibration = calibration or Calibration()
        self.control = Control(remembers_stop=self.at_least(4, 1), busy_wait_s=busy_wait_s)
        self.buffers = Buffers()
        self.navigator = Navigator()
        self.autoloader = Autoloader.of(scope, slots)
        self.surroundings = Surroundings()
        self.sets = {letter: CameraSet() for letter in SETS}
        self.persistent: dict[str, str | float] = {}
        self.user_settings: dict[str, float] = {
            "RollBuffers": 1.0,
            "AutofocusEucenTilt": 10.0,
            "DriftProtection": 0.0,
            "ShiftToTiltAxis": 1.0,
        }
        self.properties: dict[str, float] = {
            "EnableExternalPython": 1.0,
            "SocketServerPort": 48888.0,
            "NoScope": 0.0,
            "DummyInstance": 0.0,
            "ImageShiftLimit": scope.settings.image_shift_limit_um,
            "MaximumTiltAngle": 79.0,
            "EucentricityCoarseMinField": 8.0,
        }
        self.level = scope.level
        self.low_dose = False
        self.state_dialog_open = True
        self.area = ""
        self.axis_um = {"F": 6.0, "T": 6.0}
        self.axis_deg = {"F": 0.0, "T": 0.0}
        self.defocus_offsets_um = {"V": -50.0, "S": -50.0}
        self.defocus_um = 0.0
        self.target_defocus_um = -1.0
        self.autofocus = (0.0, 0)
        self.measured_drift_nm_per_s: float | None = None
        self.drift_wait_failed = False
        self.drift_floor_nm_per_s = 0.02  # what is left when the stage has settled; tests raise it
        self.arrived_s = float("-inf")  # simulated time of the last stage move's end
        self.auto_align_limit_um = 0.0  # of the next autoalign; 0 is none
        self.optics: dict[str, float] = {"spot": 5.0, "c2": 45.0, "alpha": 3.0, "slit_in": 0.0, "slit_ev": 20.0}
        self.beam_shift = (0.0, 0.0)
        self.beam_tilt = (0.0, 0.0)
        self.saved_beam_tilt: Point | None = None
        self.apertures_um: dict[int, int] = {1: 70, 2: 100}
        self.parked_apertures_um: dict[int, int] = {}
        self.align_shift: tuple[float, ...] = (0.0,) * 6
        self.files: list[ImageFile] = []
        self.current_file: int | None = None
        self.montage: MontageSetup | None = None
        self.early_return: int | None = None
        self.frame_folder = "frames"
        self.frame_base = "frame"
        self.frame_number = 0
        self.last_frame_file = ""
        self.frame_mdoc: dict[str, str] = {}
        self.hole_finder = HoleFinder()
        self.multishot = Multishot()
        self.journal: list[str] = []  # SerialEM's log window
        self.clock_zero_s = 0.0
        self._given_folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._subfolder = Path()
        self.directory = "C:\\ProgramData\\SerialEM"

    # ---------------------------------------------------------------------------------------------- version, script

    def at_least(self, *release: int) -> bool:
        """Whether this is that release or a later one."""
        return tuple(map(int, self.version.split("."))) >= release

    @property
    def script(self) -> Script:
        """The running script's own state; a blank one while nobody has control."""
        return self.control.script or Script()

    def restore_at_end(self, key: str, target: object, name: str) -> None:
        """Give an attribute of ``target`` its present value back when the script ends."""
        before = getattr(target, name)
        if key not in self.script.restore:
            self.script.restore[key] = lambda: setattr(target, name, before)

    def say(self, line: str) -> None:
        """A line in SerialEM's log."""
        self.journal.append(line)

    # ---------------------------------------------------------------------------------------------- time, failures

    def wait(self, seconds: float) -> None:
        """Let simulated time pass; STOP ends it at once."""
        clock = self.scope.clock
        if clock.speed == float("inf"):
            clock.spend(seconds)
            return
        while seconds > 0:
            if self.control.stopped:
                raise UserStop
            part = min(seconds, SLICE_S * clock.speed)
            clock.spend(part)
            seconds -= part

    def check_stop(self) -> None:
        """Raise `UserStop` when STOP was pressed during this command."""
        if self.control.stopped:
            raise UserStop

    @contextmanager
    def scripted(self) -> Iterator[None]:
        """Turn failures of the microscope into script errors."""
        try:
            yield
        except MicroscopeError as error:
            raise ScriptError(str(error)) from error

    @property
    def drift_nm_per_s(self) -> float:
        """How fast the specimen drifts now: less and less after a move of the stage."""
        since_s = self.scope.clock.elapsed_s - self.arrived_s
        return self.drift_floor_nm_per_s + DRIFT_NM_PER_S * math.exp(-since_s / DRIFT_DECAY_S)

    # ---------------------------------------------------------------------------------------------- optics

    @property
    def preset(self) -> Preset:
        """Optics of the present magnification."""
        return self.scope.settings.presets[self.level]

    def level_of_set(self, letter: str) -> str:
        """Which magnification a camera set uses now."""
        if self.low_dose:
            return self.calibration.areas[AREA_OF_SET[letter]]
        return self.level

    def go_to_area(self, letter: str) -> None:
        """Switch to a low-dose area."""
        self.area = letter
        self.level = self.calibration.areas[letter]
        self.scope.level = self.level

    def level_of_index(self, index: int) -> str:
        """Level of a magnification index; 0 is the present one."""
        if index == 0:
            return self.level
        for level, (number, _) in self.calibration.mags.items():
            if number == index:
                return level
        allowed = ", ".join(str(number) for number, _ in self.calibration.mags.values())
        raise ScriptError(f"Magnification index {index} is not available; there are {allowed}")

    def set_letter(self, text: str) -> str:
        """A camera set from its name: the first letter counts, but ``Mont-map`` and ``M`` are the same."""
        letter = text[:1].upper()
        if letter not in SETS:
            raise ScriptError(f"{text} is not a camera parameter set; there are {', '.join(SETS)}")
        return letter

    def pixel_um(self, level: str) -> float:
        """Side of an unbinned pixel."""
        return self.scope.settings.presets[level].pixel_size_angstrom / 1e4

    # ---------------------------------------------------------------------------------------------- axes

    def camera_to_stage(self, level: str) -> Matrix:
        """µm on the stage per unbinned pixel, y up as SerialEM counts in its camera matrices."""
        preset = self.scope.settings.presets[level]
        angle = math.radians(preset.rotation_deg)
        c, s, px = math.cos(angle), math.sin(angle), self.pixel_um(level)
        return c * px, s * px, s * px, -c * px

    @property
    def image_shift_units(self) -> Point:
        """The image shift in its own units."""
        return self.stage_to_shift(self.scope.image_shift_um)

    def stage_to_shift(self, stage_um: Point) -> Point:
        """Image shift units that move the view by this much on the stage."""
        specimen = linear(self.calibration.stage_to_specimen, stage_um)
        return linear(inverse(self.calibration.shift_to_specimen), specimen)

    def shift_to_stage(self, units: Point) -> Point:
        """How far image shift units move the view on the stage."""
        specimen = linear(self.calibration.shift_to_specimen, units)
        return linear(inverse(self.calibration.stage_to_specimen), specimen)

    def array_variable(self, name: str) -> list[float]:
        """The numbers of an array variable; `ScriptError` where it is not defined."""
        value = self.script.variables.get(name.upper(), self.persistent.get(name.upper()))
        if value is None:
            raise ScriptError(f"The variable {name} is not defined")
        try:
            return [float(part) for part in str(value).split()]
        except ValueError as error:
            raise ScriptError(f"The variable {name} does not hold numbers: {value}") from error

    def shift_limit_um(self) -> float:
        """Largest image shift: the property, within what the deflectors can do."""
        return min(self.properties["ImageShiftLimit"], self.scope.settings.image_shift_limit_um)

    def shift_to(self, stage_x_um: float, stage_y_um: float) -> int:
        """Set the image shift, in stage axes; 1 when it is beyond the limit and nothing was done (4.1 and later)."""
        if math.hypot(stage_x_um, stage_y_um) > self.shift_limit_um():
            if self.at_least(4, 1):
                return 1
            raise ScriptError(f"Image shift beyond the limit of {self.shift_limit_um():g} microns")
        with self.scripted():
            self.scope.shift(stage_x_um, stage_y_um)
        return 0

    # ---------------------------------------------------------------------------------------------- files

    @property
    def folder(self) -> Path:
        """The disk of the microscope PC."""
        if self._given_folder is not None:
            self._given_folder.mkdir(parents=True, exist_ok=True)
            return self._given_folder
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="serialem-")
        return Path(self._temporary.name)

    def path(self, text: str) -> Path:
        r"""Where a file of SerialEM lies here: ``C:\data\a.mrc`` is ``data/a.mrc`` below the simulator's folder."""
        windows = PureWindowsPath(text)
        if windows.drive:
            return self.folder.joinpath(*windows.parts[1:])
        if text.startswith("/"):
            return Path(text)
        return self.folder.joinpath(self._subfolder, *windows.parts)

    def set_directory(self, text: str) -> None:
        """Change the working directory."""
        where = self.path(text)
        where.mkdir(parents=True, exist_ok=True)
        self._subfolder = where
        self.directory = text

    def close(self) -> None:
        """Close files, forget what lasts only as long as SerialEM runs, remove what was temporary."""
        for file in self.files:
            file.close()
        self.files, self.current_file, self.montage = [], None, None
        self.persistent = {}
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
