"""The virtual microscope: a stage with error and backlash, three magnifications, counted dose, faults on demand.

It looks at a `Specimen` and knows nothing of the agent. Deterministic: the same calls in the same order give the same
pixels, however fast the clock runs.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simulators.clock import SimClock
from simulators.faults import FaultKind, FaultPlan
from simulators.specimen import Specimen, SpecimenSettings, View, detector
from simulators.specimen.view import Matrix, image_to_stage

Image = NDArray[Any]  # shape (rows, columns)
Trouble = FaultKind | Literal["never_recorded"]
NO_PIXELS: Image = np.zeros((1, 1), np.uint16)


class MicroscopeError(Exception):
    """The microscope reports a failure; ``kind`` says which."""

    def __init__(self, kind: FaultKind | Literal["never_recorded"], message: str, dose_e_per_a2: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.dose_e_per_a2 = dose_e_per_a2


@dataclass(frozen=True, slots=True)
class Preset:
    """Optics and camera of one magnification."""

    pixel_size_angstrom: float
    shape: tuple[int, int]  # (rows, columns)
    dose_e_per_a2: float
    exposure_s: float
    rotation_deg: float = 0.0  # camera against stage axes


@dataclass(frozen=True, slots=True)
class Exposure:
    """One image, the view as the microscope believes it to be, and the view as it really was."""

    image: Image
    believed: View
    true: View
    measured: Matrix | None = None  # from pixels to the stage, where that is known otherwise than from the view
    file: str = ""  # of a recorded image
    lit: bool = True  # whether the beam reached the camera through a specimen

    @property
    def image_to_stage(self) -> Matrix:
        """Matrix M, row major, in µm per pixel: stage = centre + M @ (pixel - image centre)."""
        return self.measured or image_to_stage(self.believed)


@dataclass(frozen=True, slots=True)
class MicroscopeSettings:
    """How good and how fast this microscope is."""

    seed: int = 0
    presets: dict[str, Preset] = field(
        default_factory=lambda: {
            "low": Preset(6000.0, (1024, 1024), 1.5e-5, 1.0, rotation_deg=3.0),
            "medium": Preset(1000.0, (1024, 1024), 6e-4, 1.5, rotation_deg=1.0),
            "high": Preset(2.4, (1024, 1024), 40.0, 3.0),
        }
    )
    stage_error_um: float = 0.08  # rms of a move that approaches from the usual side
    backlash_um: float = 0.8  # offset of a move that does not
    stage_limit_um: float = 1000.0
    image_shift_limit_um: float = 20.0
    speed_um_per_s: float = 100.0
    settle_s: float = 2.0
    eucentric_s: float = 15.0
    autofocus_s: float = 8.0
    load_s: float = 180.0
    reload_shift_um: float = 12.0  # rms of each axis, of a grid that was taken out and comes back
    reload_turn_deg: float = 0.4  # rms


class VirtualMicroscope:
    """One microscope with the grids of its autoloader; thread-safe, one action at a time.

    Parameters
    ----------
    grids
        Grid id to specimen; the first is on the stage at the start.
    settings, clock, faults
        How it behaves, how fast time runs, what goes wrong.
    """

    def __init__(
        self,
        grids: Mapping[str, SpecimenSettings],
        settings: MicroscopeSettings | None = None,
        clock: SimClock | None = None,
        faults: FaultPlan | None = None,
    ) -> None:
        self.settings = settings or MicroscopeSettings()
        self.clock = clock or SimClock()
        self.faults = faults or FaultPlan()
        self._grids = grids
        self._specimens: dict[str, Specimen] = {}
        self.grid_id = next(iter(grids))
        self.x_um = self.y_um = self.z_um = self.tilt_deg = 0.0
        self.image_shift_um = (0.0, 0.0)
        self.level = "low"
        self.beam_current = 1.0
        self.beam_blanked = False
        self.valves_open = True
        self.ledger: list[tuple[str, float, float, float]] = []  # (grid, x_um, y_um, e/Å²) of every high-mag exposure
        self.times_s: dict[str, float] = {}
        self.loads: dict[str, int] = {self.grid_id: 1}  # how often each grid came onto the stage
        self._error_um = (0.0, 0.0)
        self._moves = 0
        self._shots = 0
        self._focus_height_um = 0.0  # height above eucentric at which the objective is in focus
        self._lock = threading.RLock()

    @property
    def specimen(self) -> Specimen:
        """The grid on the stage, with its truth."""
        if self.grid_id not in self._specimens:
            self._specimens[self.grid_id] = Specimen(self._grids[self.grid_id])
        return self._specimens[self.grid_id]

    @property
    def grids(self) -> tuple[str, ...]:
        """Ids of the grids that can be loaded."""
        return tuple(self._grids)

    @property
    def grid_radius_um(self) -> float:
        """Radius of the part of the grid on the stage that has squares."""
        return self.specimen.settings.grid_radius_um

    @property
    def voltage_kv(self) -> float:
        """High voltage."""
        return self.specimen.settings.voltage_kv

    @property
    def misplaced_um(self) -> tuple[float, float]:
        """How far the camera looks from where the stage says it does: what only an alignment can find out."""
        return self._error_um

    @property
    def lies(self) -> tuple[float, float, float]:
        """How the grid lies by now: turned by so many degrees, then shifted (x, y) in µm; as it came for the first."""
        times = self.loads.get(self.grid_id, 1)
        if times < 2:
            return (0.0, 0.0, 0.0)
        rng = np.random.default_rng((self.settings.seed, 4, times, list(self._grids).index(self.grid_id)))
        turn, x_um, y_um = rng.normal(0.0, 1.0, 3)
        return (
            float(turn) * self.settings.reload_turn_deg,
            float(x_um) * self.settings.reload_shift_um,
            float(y_um) * self.settings.reload_shift_um,
        )

    def open_beam_counts(self, view: View) -> float | None:
        """Mean counts of this exposure without a specimen: what a site measures once through an empty hole."""
        gain = detector.camera_gain(view.dose_e_per_a2, view.pixel_size_angstrom)
        return gain * view.dose_e_per_a2 * view.pixel_size_angstrom**2 or None

    # ------------------------------------------------------------------------------------------ stage

    def load_grid(self, grid_id: str) -> None:
        """Exchange the grid; raises `MicroscopeError` when the autoloader fails."""
        with self._lock:
            self._spend("load", self.settings.load_s)
            if "load_fails" in self.faults.due("load"):
                raise MicroscopeError("load_fails", f"autoloader: grid {grid_id} could not be picked up")
            if grid_id not in self._grids:
                raise MicroscopeError("load_fails", f"autoloader: there is no grid {grid_id}")
            self.loads[grid_id] = self.loads.get(grid_id, 0) + 1
            self.grid_id = grid_id
            self.x_um = self.y_um = 0.0

    def move(self, x_um: float, y_um: float, *, z_um: float | None = None, tilt_deg: float | None = None) -> None:
        """Go to a stage position; raises `MicroscopeError` when it never arrives or is beyond the limit."""
        with self._lock:
            limit = self.settings.stage_limit_um
            if not (abs(x_um) <= limit and abs(y_um) <= limit):
                raise MicroscopeError("stuck_stage", f"stage limit ±{limit:g} µm reached before ({x_um:g}, {y_um:g})")
            same = (
                abs(x_um - self.x_um) < 1e-6
                and abs(y_um - self.y_um) < 1e-6
                and (tilt_deg is None or tilt_deg == self.tilt_deg)
            )
            if same and z_um is None:
                return
            distance = math.hypot(x_um - self.x_um, y_um - self.y_um)
            if "stuck_stage" in self.faults.due("move"):
                self._spend("move", 30.0)
                raise MicroscopeError(
                    "stuck_stage",
                    f"stage stopped at ({self.x_um:.1f}, {self.y_um:.1f}) µm on its way to ({x_um:.1f}, {y_um:.1f}) µm",
                )
            self._spend("move", distance / self.settings.speed_um_per_s + self.settings.settle_s)
            self._moves += 1
            rng = np.random.default_rng((self.settings.seed, 1, self._moves))
            error = rng.normal(0.0, self.settings.stage_error_um, 2)
            self._error_um = (float(error[0]), float(error[1]))
            self.x_um, self.y_um = x_um, y_um
            if z_um is not None:
                self.z_um = z_um
            if tilt_deg is not None:
                self.tilt_deg = tilt_deg

    def move_with_backlash_correction(self, x_um: float, y_um: float) -> None:
        """Go there from the lower left, as every careful adapter does; costs a second, short move."""
        with self._lock:
            if abs(x_um - self.x_um) < 1e-6 and abs(y_um - self.y_um) < 1e-6:
                return
            if x_um < self.x_um or y_um < self.y_um:
                self._spend("move", 2 * self.settings.backlash_um / self.settings.speed_um_per_s + 0.5)
            self.move(x_um, y_um)

    def shift(self, x_um: float, y_um: float) -> None:
        """Move the beam and the image instead of the stage."""
        with self._lock:
            if math.hypot(x_um, y_um) > self.settings.image_shift_limit_um:
                raise MicroscopeError("stuck_stage", f"image shift ({x_um:g}, {y_um:g}) µm is beyond the deflectors")
            if (x_um, y_um) != self.image_shift_um:
                self._spend("shift", 0.3)
            self.image_shift_um = (x_um, y_um)

    def height_um(self, x_um: float, y_um: float) -> float:
        """Where the specimen really is: a bent, slightly tilted foil."""
        return 12.0 + 0.004 * x_um - 0.003 * y_um + 2.0 * math.sin(x_um / 310.0) * math.cos(y_um / 270.0)

    def find_eucentric(self) -> float:
        """Bring the specimen to eucentric height and return it in micrometres."""
        with self._lock:
            self._spend("eucentric", self.settings.eucentric_s)
            if "eucentric_fails" in self.faults.due("eucentric"):
                raise MicroscopeError("eucentric_fails", "eucentric height: the image pairs do not match")
            self.z_um = round(self.height_um(self.x_um, self.y_um), 3)
            self._focus_height_um = 0.0
            return self.z_um

    def autofocus(self) -> None:
        """Measure and correct the focus here."""
        with self._lock:
            self._spend("focus", self.settings.autofocus_s)
            if "autofocus_fails" in self.faults.due("focus"):
                raise MicroscopeError("autofocus_fails", "autofocus: the measured defocus does not converge")
            rng = np.random.default_rng((self.settings.seed, 2, self._moves))
            here = self.height_um(self.x_um, self.y_um) - self.z_um
            self._focus_height_um = here + float(rng.normal(0.0, 0.03))

    # ------------------------------------------------------------------------------------------ camera

    def acquire(self, level: str, *, defocus_um: float = 0.0, dose_e_per_a2: float | None = None) -> Exposure:
        """Take one image at ``level``.

        Raises
        ------
        MicroscopeError
            If the camera fails, or the column valves are closed.
        """
        with self._lock:
            preset = self.settings.presets[level]
            due = self.faults.due(level)  # type: ignore[arg-type]
            self.level = level
            if "camera_error" in due:
                raise MicroscopeError("camera_error", "camera: no image within 30 s")
            if "valves_closed" in due:
                self.valves_open = False
            if "beam_lost" in due:
                self.beam_current = 0.0
            if not self.valves_open:
                raise MicroscopeError("valves_closed", "the column valves are closed")
            self.beam_blanked = False
            self._spend(level, preset.exposure_s)
            self._shots += 1
            dose = preset.dose_e_per_a2 if dose_e_per_a2 is None else dose_e_per_a2
            sight = self._sight(level, self._view(preset, defocus_um, dose))
            return replace(sight, image=self._expose(sight, level, dose, due))

    def look(self, level: str) -> Exposure:
        """What an image at ``level`` shows here, without time, dose, error or failure."""
        with self._lock:
            view = self._view(self.settings.presets[level], 0.0, self.settings.presets[level].dose_e_per_a2)
            return Exposure(self.specimen.render(view), view, view)

    def _view(self, preset: Preset, defocus_um: float, dose: float) -> View:
        return View(
            x_um=self.x_um + self.image_shift_um[0],
            y_um=self.y_um + self.image_shift_um[1],
            pixel_size_angstrom=preset.pixel_size_angstrom,
            shape=preset.shape,
            rotation_deg=preset.rotation_deg,
            tilt_deg=self.tilt_deg,
            defocus_um=defocus_um,
            dose_e_per_a2=dose,
            frame_seed=self._shots,
        )

    def _sight(self, level: str, believed: View) -> Exposure:
        """Where the camera looks, still without pixels."""
        return Exposure(NO_PIXELS, believed, self._true_view(believed))

    def _pixels(self, sight: Exposure) -> Image:
        return self.specimen.render(sight.true)

    def _expose(self, sight: Exposure, level: str, dose: float, due: set[FaultKind]) -> Image:
        truth = sight.true
        if "dark_frame" in due or self.beam_current == 0.0:
            rng = np.random.default_rng((self.settings.seed, 3, self._shots))
            return (rng.random(truth.shape) < 0.001).astype(np.uint16)
        if level == "high":
            self.ledger.append((self.grid_id, truth.x_um, truth.y_um, dose))
        if "saturated_frame" in due:
            return np.full(truth.shape, np.iinfo(np.uint16).max, np.uint16)
        return self._pixels(sight)

    def _true_view(self, believed: View) -> View:
        """What the camera really sees: stage error, focus error and the height of the specimen included."""
        height = self.height_um(self.x_um, self.y_um) - self.z_um
        turn_deg, shift_x_um, shift_y_um = self.lies
        turn = math.radians(-turn_deg)
        x_um = believed.x_um + self._error_um[0] - shift_x_um
        y_um = believed.y_um + self._error_um[1] - shift_y_um
        return replace(
            believed,
            x_um=math.cos(turn) * x_um - math.sin(turn) * y_um,
            y_um=math.sin(turn) * x_um + math.cos(turn) * y_um,
            rotation_deg=believed.rotation_deg - turn_deg,
            defocus_um=believed.defocus_um + height - self._focus_height_um,
        )

    def make_safe(self) -> None:
        """Blank the beam, tilt back, drop the image shift."""
        with self._lock:
            self.beam_blanked = True
            self.tilt_deg = 0.0
            self.image_shift_um = (0.0, 0.0)

    def _spend(self, what: str, seconds: float) -> None:
        self.times_s[what] = self.times_s.get(what, 0.0) + seconds
        self.clock.spend(seconds)
