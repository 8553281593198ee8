"""A microscope that shows what a recorded session saw: the nearest frame, or a plain word that there is none."""

import math
from dataclasses import replace

import numpy as np

from agent import geometry
from agent.errors import BadFileError
from simulators.clock import SimClock
from simulators.faults import FaultPlan
from simulators.microscope import (
    NO_PIXELS,
    Exposure,
    Image,
    MicroscopeError,
    MicroscopeSettings,
    Preset,
    VirtualMicroscope,
)
from simulators.replay.recording import RecordedFrame, Recording
from simulators.specimen import Specimen, SpecimenSettings, View

LEAST_REACH_UM = 0.6  # about the radius of a hole: a micrograph this near shows the same hole


class ReplayedMicroscope(VirtualMicroscope):
    """Stage, optics and faults as those of the virtual microscope; every image comes from a recording.

    An image says where *it* was recorded, so that what is found on it lies where it was found then. It is shown when it
    was recorded within half of its shorter side from where the camera looks, but at least within 0.6 µm. Asked again
    for the same place, the next recording of that place comes, and at last the last one again and again.

    Parameters
    ----------
    recording
        What to show.
    clock, faults
        How fast time runs, what goes wrong.
    """

    def __init__(self, recording: Recording, clock: SimClock | None = None, faults: FaultPlan | None = None) -> None:
        defaults = MicroscopeSettings()
        presets = {level: _preset(recording, level, preset) for level, preset in defaults.presets.items()}
        settings = replace(defaults, presets=presets, stage_error_um=0.0, backlash_um=0.0)
        super().__init__(dict.fromkeys(recording.grids, SpecimenSettings()), settings, clock, faults)
        self.recording = recording
        self._shown: set[str] = set()

    @property
    def specimen(self) -> Specimen:
        """A recording has no known truth: asking for it raises `MicroscopeError`."""
        raise MicroscopeError("never_recorded", "a recorded session has no specimen whose truth is known")

    @property
    def grid_radius_um(self) -> float:
        """Radius that the recorded low-mag frames cover."""
        return self.recording.reach_um(self.grid_id, "low")

    @property
    def voltage_kv(self) -> float:
        """High voltage; recordings do not hold it."""
        return 300.0

    def open_beam_counts(self, view: View) -> float | None:
        """Recordings do not hold it."""
        return None

    def height_um(self, x_um: float, y_um: float) -> float:
        """Height of the stage when the nearest square was recorded."""
        for level in ("medium", "high", "low"):
            if near := self.recording.near(self.grid_id, level, x_um, y_um):
                return near[0][1].header.stage.z_um
        return 0.0

    def look(self, level: str) -> Exposure:
        """The nearest image of that level, however far away; an empty one where there is none."""
        with self._lock:
            view = self._view(self.settings.presets[level], 0.0, 0.0)
            near = self.recording.near(self.grid_id, level, view.x_um, view.y_um)
            if not near:
                return Exposure(np.zeros(view.shape, np.uint16), view, view)
            sight = _sight(near[0][1], view)
            return replace(sight, image=self._pixels(sight))

    def _sight(self, level: str, believed: View) -> Exposure:
        near = self.recording.near(self.grid_id, level, believed.x_um, believed.y_um)
        where = f"({believed.x_um:.2f}, {believed.y_um:.2f}) µm of grid {self.grid_id}"
        if not near:
            text = f"never recorded: this session has no {level}-mag image of grid {self.grid_id}"
            raise MicroscopeError("never_recorded", text)
        away, frame = near[0]
        reach = max(frame.half_um, LEAST_REACH_UM)
        if away > reach:
            nearest = f"the nearest is {away:.2f} µm away, more than {reach:.2f}"
            raise MicroscopeError("never_recorded", f"never recorded: no {level}-mag image at {where}; {nearest}")
        same = [f for distance, f in near if math.isclose(distance, away, abs_tol=1e-3)]
        frame = next((f for f in same if f.header.frame_id not in self._shown), same[-1])
        self._shown.add(frame.header.frame_id)
        return _sight(frame, believed)

    def _pixels(self, sight: Exposure) -> Image:
        try:
            image = self.recording.pixels(sight.file)
        except BadFileError as error:
            raise MicroscopeError("never_recorded", str(error)) from error
        return image.astype(np.int16) if image.dtype == np.int8 else image  # SerialEM has no signed bytes


def _preset(recording: Recording, level: str, otherwise: Preset) -> Preset:
    frame = recording.common(level)
    if frame is None:
        return otherwise
    head = frame.header
    a, _, c, _ = geometry.image_to_stage(head)
    return Preset(
        head.pixel_size_angstrom,
        head.shape,
        head.dose_e_per_a2 or otherwise.dose_e_per_a2,
        head.exposure_s or otherwise.exposure_s,
        rotation_deg=math.degrees(math.atan2(c, a)),
    )


def _sight(frame: RecordedFrame, believed: View) -> Exposure:
    """The frame in place of what the microscope believes to look at."""
    head, (x_um, y_um) = frame.header, frame.centre_um
    view = replace(
        believed,
        x_um=x_um,
        y_um=y_um,
        pixel_size_angstrom=head.pixel_size_angstrom,
        shape=head.shape,
        defocus_um=believed.defocus_um if head.defocus_um is None else head.defocus_um,
    )
    return Exposure(NO_PIXELS, view, view, geometry.image_to_stage(head), frame.file)
