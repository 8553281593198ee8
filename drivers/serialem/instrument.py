"""The steps that a session is made of, in SerialEM's commands: go there, take that, focus; own limits checked first.

SerialEM does the geometry, the backlash, the realignment and the focusing; here they are asked for, it is read back
whether they happened, and what went wrong becomes one of the session's own kinds of errors.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from agent import interlock
from agent.messages import ErrorKind, Level, Stage
from agent.settings import EnvelopeSettings
from drivers.base import CancelledWork, Shot, WorkError
from drivers.serialem import geometry
from drivers.serialem.client import SerialEMClient
from drivers.serialem.drift import DriftWait
from drivers.serialem.errors import BadReplyError, MissingCommandError, NoAnswerError, ScriptError
from drivers.serialem.settings import PresetSettings, SerialEMSettings

log = structlog.get_logger("serialem")
NO_STATE_DIALOG = -1
STATE_PROBLEMS = {
    NO_STATE_DIALOG: "SerialEM's dialog of imaging states is not open",
    1: "no imaging state has that name",
    2: "more than one imaging state has that name",
    3: "its number is out of range",
    4: "a map's state is set",
    5: "its camera is missing",
    6: "it does not fit the present low-dose mode",
}
SETTLE_S = 0.2
SAME_UM = 1e-3
MOST_SHIFT_UM = 100.0  # what a frame's header can hold


@contextmanager
def failing_as(kind: ErrorKind, dose_e_per_a2: float | None = 0.0) -> Iterator[None]:
    """Turn SerialEM's errors in the block into a `WorkError` of this kind."""
    try:
        yield
    except NoAnswerError as error:
        late = kind if kind is ErrorKind.STAGE_TIMEOUT else ErrorKind.COMMAND_TIMEOUT
        raise WorkError(late, str(error), dose_e_per_a2) from error
    except (ScriptError, MissingCommandError, BadReplyError) as error:
        raise WorkError(kind, str(error), dose_e_per_a2) from error


class Instrument:
    """One microscope behind SerialEM.

    Parameters
    ----------
    client
        The connection.
    settings
        The site's presets and ways.
    """

    def __init__(self, client: SerialEMClient, settings: SerialEMSettings) -> None:
        self.client = client
        self.settings = settings
        self.drift = DriftWait(client, settings.focus)
        self.stage = Stage()
        self.level: Level | str = ""
        self.blanked: bool | None = None  # None: not known
        self.holding = False  # in the safe state: no beam before the next command
        self.valves_closed = False  # by us
        self.record_dose_e_per_a2 = settings.exposure.record_dose_e_per_a2
        self._preset: PresetSettings | None = None
        self._generation = -1
        self._shift_um: tuple[float, float] | None = None  # image shift since the last reset; None: not known
        self._left_um = (0.0, 0.0)  # image shift that SerialEM's realignment left, and from which ours starts
        self._defocus_um: float | None = None  # underfocus, as left by the last autofocus or change
        self._voltage_kv: float | None = 0.0  # 0: not asked yet; None: SerialEM cannot say
        self._told: set[str] = set()  # commands whose absence was told
        self._checked: set[str] = set()  # levels whose geometry was compared with SerialEM's points

    @property
    def envelope(self) -> EnvelopeSettings:
        """The limits of the driver's own file."""
        return self.settings.interlocks

    def perhaps(self, name: str, *arguments: "float | str | None") -> Any:
        """What a command reports that not every SerialEM or microscope has; None where it fails."""
        try:
            return self.client.call(name, *arguments)
        except (ScriptError, MissingCommandError) as error:
            if name not in self._told:
                log.info("command.not_possible", error=str(error))
            self._told.add(name)
            return None

    # ------------------------------------------------------------------------------------------ stage

    def read_stage(self) -> Stage:
        """Where the stage is."""
        x, y, z = self.client.report("ReportStageXYZ", least=3)[:3]
        tilt = self.client.report("ReportTiltAngle")[0]
        self.stage = Stage(x_um=x, y_um=y, z_um=z, tilt_deg=tilt)
        return self.stage

    def move(self, x_um: float, y_um: float, z_um: float | None = None, tilt_deg: float | None = None) -> None:
        """Bring the stage to a position in micrometres and degrees; refused outside the limits, tried twice.

        Raises
        ------
        WorkError
            If the position is outside our own limits, or the stage does not get there.
        """
        for problem in interlock.stage_problems(x_um, y_um, z_um, tilt_deg, self.envelope):
            raise WorkError(ErrorKind.OUTSIDE_ENVELOPE, f"driver's own limits: {problem}", 0.0)
        if tilt_deg is not None:
            with failing_as(ErrorKind.STAGE_TIMEOUT):
                self.client.call("TiltTo", tilt_deg)
        with failing_as(ErrorKind.STAGE_TIMEOUT):
            try:
                self._approach(x_um, y_um, z_um)
            except ScriptError as error:
                log.warning("stage.error", error=str(error), then="reading where it is")
            if self._away_um(x_um, y_um) > self.settings.stage.tolerance_um:
                self._approach(x_um, y_um, z_um)
            away = self._away_um(x_um, y_um)
        if away > self.settings.stage.tolerance_um:
            raise WorkError(
                ErrorKind.STAGE_TIMEOUT,
                f"the stage is at ({self.stage.x_um:.1f}, {self.stage.y_um:.1f}) µm, {away:.1f} µm from"
                f" ({x_um:.1f}, {y_um:.1f}) µm where it was sent twice (stage.tolerance_um)",
                0.0,
            )

    def _approach(self, x_um: float, y_um: float, z_um: float | None) -> None:
        more = () if z_um is None else (z_um,)
        back = self.settings.stage.backlash_um
        before = (x_um - back, y_um - back)
        if back and not next(interlock.stage_problems(*before, z_um, None, self.envelope), ""):
            self.client.call("MoveStageTo", *before, *more)
        self.client.call("MoveStageTo", x_um, y_um, *more)

    def _away_um(self, x_um: float, y_um: float) -> float:
        """How far the resting stage is from where it should be."""
        for _ in range(50):
            if not self.client.number("ReportStageBusy"):
                break
            time.sleep(SETTLE_S)
        here = self.read_stage()
        return math.hypot(here.x_um - x_um, here.y_um - y_um)

    def find_eucentric(self) -> None:
        """Bring the specimen to eucentric height, inside our own limits of z."""
        self._preset = None  # it changes the magnification as it likes
        with failing_as(ErrorKind.EUCENTRIC_FAILED):
            self.client.call("Eucentricity", self.settings.stage.eucentricity)
            z_um = self.read_stage().z_um
        self._defocus_um = None
        low, high = self.envelope.stage_z_um
        if not low <= z_um <= high:
            raise WorkError(
                ErrorKind.EUCENTRIC_FAILED,
                f"eucentric height {z_um:.1f} µm is outside {low:g}…{high:g} µm (interlocks.stage_z_um)",
                0.0,
            )

    # ------------------------------------------------------------------------------------------ beam and image shift

    def clear_shift(self) -> None:
        """Take back the image shift; the stage must be moved afterwards, as SerialEM moves it to compensate."""
        if self._shift_um != (0.0, 0.0) or self._left_um != (0.0, 0.0):  # also where it is not known
            with failing_as(ErrorKind.SCRIPT):
                self.client.call("ResetImageShift")
        self._shift_um = self._left_um = (0.0, 0.0)

    def realigned(self) -> None:
        """SerialEM realigned by image shift: ours starts from there, and its limit counts from zero."""
        self._preset = None
        with failing_as(ErrorKind.SCRIPT):
            shift = self.client.report("ReportImageShift", least=6)
        self._shift_um, self._left_um = (0.0, 0.0), (shift[4], shift[5])

    @property
    def left_um(self) -> tuple[float, float]:
        """Image shift that the last realignment left, in micrometres along the stage's axes."""
        return self._left_um

    def shift_to(self, x_um: float, y_um: float, around_um: float = 0.0) -> None:
        """Shift the image by this much, in micrometres along the stage's axes, from where the stage brought it.

        ``around_um`` is how much farther SerialEM will go from there by itself: the limit counts that, too.
        """
        total = math.hypot(x_um + self._left_um[0], y_um + self._left_um[1]) + around_um
        if total > self.envelope.image_shift_um:
            limit = self.envelope.image_shift_um
            text = f"driver's own limits: image shift {total:.2f} µm is above {limit:g} µm (interlocks.image_shift_um)"
            raise WorkError(ErrorKind.OUTSIDE_ENVELOPE, text, 0.0)
        before = self._shift_um or (0.0, 0.0)
        dx, dy = x_um - before[0], y_um - before[1]
        if math.hypot(dx, dy) < SAME_UM:
            return
        ways = self.settings.exposure
        more: tuple[float | None, ...] = (ways.settling, 1) if ways.beam_tilt else (ways.settling,)
        with failing_as(ErrorKind.SCRIPT):
            beyond = self.client.call("ImageShiftByStageDiff", dx, dy, *(more if more != (None,) else ()))
        if beyond == 1:
            text = f"SerialEM: an image shift by ({dx:.2f}, {dy:.2f}) µm is beyond its limit; nothing was shifted"
            raise WorkError(ErrorKind.OUTSIDE_ENVELOPE, text, 0.0)
        self._shift_um = (x_um, y_um)

    def unblank(self) -> None:
        """Let the beam through, where we blanked it or do not know."""
        if self.holding:
            raise CancelledWork
        if self.blanked is not False:
            with failing_as(ErrorKind.SCRIPT):
                self.client.call("SetBeamBlank", 0)
            self.blanked = False

    def blank(self) -> None:
        """Blank the beam."""
        self.client.call("SetBeamBlank", 1)
        self.blanked = True

    # ------------------------------------------------------------------------------------------ presets and images

    def go_to(self, level: Level) -> PresetSettings:
        """Bring optics and camera to a level's preset."""
        preset = self.settings.presets.of(level)
        if self._preset == preset and self._generation == self.client.generation:
            return preset
        self._preset = None
        with failing_as(ErrorKind.SCRIPT):
            if preset.state:
                code = int(self.client.number("GoToImagingState", preset.state))
                if code == NO_STATE_DIALOG and self.client.has("OpenImagingStateDialog"):
                    self.client.call("OpenImagingStateDialog")
                    code = int(self.client.number("GoToImagingState", preset.state))
                if code:
                    why = STATE_PROBLEMS.get(code, f"code {code}")
                    text = f"imaging state {preset.state} of level {level}: {why} (presets.{level}.state)"
                    raise WorkError(ErrorKind.SCRIPT, text, 0.0)
            else:
                self.client.call("SetLowDoseMode", int(preset.low_dose))
                if preset.area:
                    self.client.call("GoToLowDoseArea", preset.area)
                if preset.mag_index is not None:
                    self.client.call("SetMagIndex", preset.mag_index)
                elif preset.mag is not None:
                    self.client.call("SetMag", preset.mag)
        self._preset, self._generation, self.level = preset, self.client.generation, level
        return preset

    def take(self, level: Level) -> Shot:
        """Take one image that may be taken again if need be: no exposure."""
        preset = self.go_to(level)
        self.unblank()
        with failing_as(ErrorKind.CAMERA, None):
            self.client.call(preset.shot)
            return self.read("A", level)

    def read(self, buffer: str, level: Level, *, montage: bool = False) -> Shot:
        """The image in a buffer, with its place on the stage, its scale and what SerialEM knows of its exposure."""
        about = self.client.report("ImageProperties", buffer, least=5)
        image = self.client.buffer_image(buffer)
        if image is None or image.ndim != 2:
            raise BadReplyError(f"buffer {buffer} holds no image of grey values")
        shape = (image.shape[0], image.shape[1])
        stage = self.read_stage()
        if montage:
            transform = geometry.of_montage(self.client, buffer, shape)
        else:
            transform = geometry.of_buffer(self.client, buffer, shape, check=level not in self._checked)
            self._checked.add(level)
        a, b, c, d = transform.matrix
        shift = (transform.centre_um[0] - stage.x_um, transform.centre_um[1] - stage.y_um)
        if max(map(abs, shift)) > MOST_SHIFT_UM:  # such as the overview of a montage: its centre is its place
            stage = Stage(x_um=transform.centre_um[0], y_um=transform.centre_um[1], z_um=stage.z_um)
            shift = (0.0, 0.0)
        dose = self.dose_of(buffer)
        return Shot(
            image,
            level=level,
            pixel_size_angstrom=about[4] * 10.0 or math.sqrt(abs(a * d - b * c)) * 1e4,
            stage=stage,
            image_shift_um=shift,
            image_to_stage=transform.matrix,
            defocus_um=self._defocus_um if level == "high" else None,
            dose_e_per_a2=dose,
            exposure_s=about[3] if about[3] >= 0 else None,
            voltage_kv=self.voltage_kv() if level == "high" else None,
        )

    def voltage_kv(self) -> float | None:
        """High voltage in kV, where SerialEM can say it; asked once."""
        if self._voltage_kv == 0.0:
            value = self.perhaps("ReportHighVoltage")
            value = value[0] if isinstance(value, tuple) and value else value
            sane = isinstance(value, int | float) and 20 <= value <= 1500
            self._voltage_kv = float(value) if sane else None
        return self._voltage_kv

    def dose_of(self, buffer: str) -> float | None:
        """Dose of a buffer's image in electrons per square angstrom, where SerialEM knows it."""
        values = self.perhaps("ImageConditions", buffer)
        dose = values[0] if isinstance(values, tuple) and values else values
        return float(dose) if isinstance(dose, int | float) and dose > 0 else None

    def expose(self, preset: PresetSettings) -> None:
        """Take the micrograph, or several of one hole around its middle, which comes last and so into A.

        In all releases the ninth argument of `MultipleRecords` at 1 means shots inside of one hole.
        """
        ways = self.settings.exposure
        if ways.shots_in_hole == 1:
            self.client.call(preset.shot)
            return
        around, tilt = ways.shots_in_hole - 1, 1 if ways.beam_tilt else None
        self.client.call("MultipleRecords", around, 1, ways.shot_radius_um, None, 0, None, None, tilt, 1)

    @contextmanager
    def own_file(self) -> Iterator[None]:
        """Close the file that the block opens, and make the site's own current again."""
        before = self.perhaps("ReportFileNumber")
        try:
            yield
        finally:
            if self.client.in_control:
                if self.perhaps("ReportFileNumber") != before:
                    self.perhaps("CloseFile")
                if isinstance(before, int | float) and before > 0 and self.perhaps("ReportFileNumber") != before:
                    self.perhaps("SwitchToFile", int(before))

    # ------------------------------------------------------------------------------------------ focus

    def autofocus(self, defocus_um: float) -> None:
        """Focus here so that images have this underfocus, in micrometres."""
        self._preset = None  # it goes to the focus area
        with failing_as(ErrorKind.AUTOFOCUS_FAILED):
            if self.settings.focus.axis_um is not None:
                self.client.call("SetAxisPosition", "F", self.settings.focus.axis_um)
            self.client.call("SetTargetDefocus", -defocus_um)  # SerialEM: underfocus is negative
            self.client.call("AutoFocus")
            measured, failure = (*self.client.report("ReportAutoFocus"), 0.0)[:2]
        if failure:
            text = f"autofocus: SerialEM's failure code {failure:g}, measured {measured:.2f} µm"
            raise WorkError(ErrorKind.AUTOFOCUS_FAILED, text, 0.0)
        self._defocus_um = defocus_um

    def defocus_to(self, defocus_um: float) -> None:
        """Set the underfocus, starting from what the last autofocus left."""
        with failing_as(ErrorKind.SCRIPT):
            if self._defocus_um is None:
                self.client.call("SetDefocus", -defocus_um)
            elif abs(defocus_um - self._defocus_um) > SAME_UM:
                self.client.call("ChangeFocus", self._defocus_um - defocus_um)
        self._defocus_um = defocus_um

    def wait_for_drift(self) -> None:
        """Let SerialEM wait until the specimen is still, where the site wants that."""
        if self.drift.wanted:
            self._preset = None  # it takes its own images
            self.drift.wait()

    def forget(self) -> None:
        """Somebody else had the microscope: preset and image shift have to be set anew."""
        self._preset, self._shift_um = None, None
        self._checked.clear()
