"""Taking images: View, Record and the others, focus, eucentric height, drift, and the frames on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from simulators.microscope import Exposure, MicroscopeError
from simulators.serialem.buffers import ImageBuffer
from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.program import AREA_OF_SET, CAPTURE_NUMBERS, SerialEM
from simulators.specimen import View

DARK_PART = 0.001


def take(sem: SerialEM, letter: str) -> ImageBuffer:
    """One image with a camera set.

    Closed valves and a retracted grid are no errors: the camera shows what arrives. After a STOP the exposure has
    happened, but there is no image.
    """
    level, settings, scope = sem.level_of_set(letter), sem.sets[letter], sem.scope
    preset = scope.settings.presets[level]
    if sem.low_dose:
        sem.go_to_area(AREA_OF_SET[letter])
    sem.surroundings.screen_down = False
    exposure = preset.exposure_s if settings.exposure_s is None else settings.exposure_s
    dose = preset.dose_e_per_a2 * exposure / preset.exposure_s
    defocus = -sem.defocus_um if level == "high" else 0.0
    taken = _expose(sem, level, defocus, dose)
    sem.check_stop()
    view, binning = taken.believed, int(settings.binning)
    a, b, c, d = taken.image_to_stage
    index, mag = sem.calibration.mags[level]
    return ImageBuffer(
        binned(taken.image, binning),
        set_letter=letter,
        capture_set=CAPTURE_NUMBERS[letter],
        binning=float(binning),
        exposure_s=exposure,
        pixel_nm=view.pixel_size_angstrom / 10 * binning,
        dose_e_per_a2=dose,
        mag=mag,
        mag_index=index,
        centre_um=(view.x_um, view.y_um),
        matrix=(a * binning, b * binning, c * binning, d * binning),
        stage_um=(scope.x_um, scope.y_um, scope.z_um),
        tilt_deg=scope.tilt_deg,
        image_shift_um=scope.image_shift_um,
        defocus_um=sem.defocus_um,
        misplaced_um=(taken.true.x_um - view.x_um, taken.true.y_um - view.y_um),
        true_defocus_um=-taken.true.defocus_um if level == "high" and taken.lit else None,
        low_dose=sem.low_dose,
        taken_s=scope.clock.elapsed_s,
    )


def _expose(sem: SerialEM, level: str, defocus_um: float, dose: float) -> Exposure:
    """What the camera sees; dark behind closed valves, bright and empty where there is no grid."""
    scope = sem.scope
    preset = scope.settings.presets[level]
    if not sem.autoloader.stage_grid:
        sem.wait(preset.exposure_s)
        view = _believed(sem, level, dose)
        counts = dose * preset.pixel_size_angstrom**2
        return Exposure(np.full(preset.shape, min(30000.0, counts), np.uint16), view, view, lit=False)
    try:
        return scope.acquire(level, defocus_um=defocus_um, dose_e_per_a2=dose)
    except MicroscopeError as error:
        if error.kind != "valves_closed":
            raise ScriptError(str(error)) from error
        sem.wait(preset.exposure_s)
        view = _believed(sem, level, 0.0)
        rng = np.random.default_rng((scope.settings.seed, 7, len(sem.journal)))
        return Exposure((rng.random(preset.shape) < DARK_PART).astype(np.uint16), view, view, lit=False)


def _believed(sem: SerialEM, level: str, dose: float) -> View:
    scope, preset = sem.scope, sem.scope.settings.presets[level]
    x, y = scope.image_shift_um
    return View(
        scope.x_um + x,
        scope.y_um + y,
        preset.pixel_size_angstrom,
        preset.shape,
        preset.rotation_deg,
        scope.tilt_deg,
        dose_e_per_a2=dose,
    )


def binned(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    """Pixels summed in squares; whole numbers within 16 bits."""
    if factor == 1:
        return pixels
    rows, columns = pixels.shape[0] // factor * factor, pixels.shape[1] // factor * factor
    parts = pixels[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    if pixels.dtype.kind == "f":
        return np.asarray(parts.sum(axis=(1, 3)), np.float32)
    most = np.iinfo(np.int16 if pixels.dtype.kind == "i" else np.uint16)
    return np.asarray(np.clip(parts.sum(axis=(1, 3), dtype=np.int64), most.min, most.max), most.dtype)


def shoot(sem: SerialEM, letter: str) -> None:
    """Take an image into A, and its frames onto disk where the set saves them."""
    image = take(sem, letter)
    settings, early = sem.sets[letter], sem.early_return
    sem.early_return = None
    if settings.dose_frac and settings.save_frames:
        image = replace(image, frame_file=save_frames(sem, image))
    if early != 0:
        sem.buffers.put("A", image)


def save_frames(sem: SerialEM, image: ImageBuffer) -> str:
    """Write the frames, here their sum, and return the path as SerialEM tells it."""
    sem.frame_number += 1
    separator = "\\" if "\\" in sem.frame_folder or ":" in sem.frame_folder else "/"
    name = f"{sem.frame_base}_{sem.frame_number:04d}.tif"
    full = f"{sem.frame_folder.rstrip(separator)}{separator}{name}"
    path = sem.path(full)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image.pixels[::-1])
    if sem.frame_mdoc:
        lines = [f"{key} = {value}" for key, value in sem.frame_mdoc.items()]
        path.with_name(f"{name}.mdoc").write_text("[FrameSet = 0]\n" + "\n".join(lines) + "\n", "utf-8")
        sem.frame_mdoc = {}
    sem.last_frame_file = full
    return full


def _shots() -> None:
    names = {"V": "View", "F": "Focus", "T": "Trial", "R": "Record", "P": "Preview", "S": "Search"}
    for letter, name in names.items():
        short = {"P": "L", "S": ""}.get(letter, letter)

        def handler(sem: SerialEM, call: Call, letter: str = letter) -> Values:
            shoot(sem, letter)
            return None

        command(*(name, short) if short else (name,))(handler)


_shots()


@command("EarlyReturnNextShot")
def early_return_next_shot(sem: SerialEM, call: Call) -> Values:
    """The next shot returns after so many frames; with 0 no image comes to A."""
    sem.early_return = call.integer(1)
    return None


@command("SetFolderForFrames")
def set_folder_for_frames(sem: SerialEM, call: Call) -> Values:
    """Where frames go."""
    sem.frame_folder = call.text(1)
    return None


@command("SetFrameBaseName")
def set_frame_base_name(sem: SerialEM, call: Call) -> Values:
    """What their names start with, until the script ends unless kept."""
    if not call.integer(1):
        sem.restore_at_end("frame base", sem, "frame_base")
    if call.has(4):
        sem.frame_base = call.text(4)
    return None


@command("ReportLastFrameFile")
def report_last_frame_file(sem: SerialEM, call: Call) -> Values:
    """Full path, folder, file; SerialEM 4.0 says the full path only."""
    if not sem.last_frame_file:
        raise ScriptError("No frame file has been saved yet")
    if not sem.at_least(4, 1):
        return sem.last_frame_file
    cut = max(sem.last_frame_file.rfind("\\"), sem.last_frame_file.rfind("/")) + 1
    return sem.last_frame_file, sem.last_frame_file[:cut], sem.last_frame_file[cut:]


@command("ReportFrameSavingPath")
def report_frame_saving_path(sem: SerialEM, call: Call) -> Values:
    """The folder of frames."""
    return sem.frame_folder


@command("ReportFrameBaseName")
def report_frame_base_name(sem: SerialEM, call: Call) -> Values:
    """1 and the base name."""
    return 1, sem.frame_base


@command("AddToNextFrameStackMdoc", "StartNextFrameStackMdoc")
def frame_mdoc(sem: SerialEM, call: Call) -> Values:
    """A line for the .mdoc of the next frames."""
    if call.info.name == "StartNextFrameStackMdoc":
        sem.frame_mdoc = {}
    sem.frame_mdoc[call.text(1)] = call.text(2)
    return None


# -------------------------------------------------------------------------------------------------- tasks


def _lit(sem: SerialEM) -> bool:
    """Whether a task would see anything."""
    return sem.scope.valves_open and sem.scope.beam_current > 0 and bool(sem.autoloader.stage_grid)


@command("AutoFocus", "G")
def autofocus(sem: SerialEM, call: Call) -> Values:
    """Measure the defocus and, unless -1, go to the target; a failure is told by ReportAutoFocus only."""
    measured = sem.defocus_um
    if not _lit(sem):
        sem.wait(sem.scope.settings.autofocus_s)
        sem.say("Autofocus: the images are dark")
        sem.autofocus = (0.0, 1)
        return None
    try:
        if call.integer(1) == -1:
            sem.wait(sem.scope.settings.autofocus_s)
        else:
            sem.scope.autofocus()
            sem.defocus_um = sem.target_defocus_um
        sem.autofocus = (measured, 0)
    except MicroscopeError as error:
        sem.say(str(error))
        sem.autofocus = (0.0, 1)
    sem.check_stop()
    return None


@command("ReportAutoFocus")
def report_autofocus(sem: SerialEM, call: Call) -> Values:
    """Measured defocus in µm; 0, or why it failed."""
    return sem.autofocus


@command("CtfFind")
def ctf_find(sem: SerialEM, call: Call) -> Values:
    """Defocus µm, astigmatism µm, angle, phase shift, score, resolution of the fit in Å: from what is known of it."""
    image = sem.buffers.get(call.text(1))
    low, high = sorted((call.number(2), call.number(3)))
    if image.true_defocus_um is None or image.pixels.mean() < DARK_PART:
        raise ScriptError("CtfFind: no power spectrum with rings in this image")
    sem.wait(2.0)
    found = image.true_defocus_um
    inside = low <= found <= high
    return min(max(found, low), high), 0.02, 35.0, 0.0, 0.2 if inside else 0.02, 4.0 if inside else 40.0


@command("ReportFocusDrift")
def report_focus_drift(sem: SerialEM, call: Call) -> Values:
    """Drift x, y in nm/s."""
    return 0.6 * sem.drift_nm_per_s, -0.8 * sem.drift_nm_per_s


@command("DriftWaitTask")
def drift_wait_task(sem: SerialEM, call: Call) -> Values:
    """Look every few seconds until the drift is low; too high after the longest wait is an error with a fifth of 1."""
    unit = call.text(2, "A")[:1].lower()
    if unit not in ("a", "n"):
        raise ScriptError(f"DriftWaitTask: the unit {call.text(2)} is neither A nor nm")
    if not _lit(sem):
        raise ScriptError("DriftWaitTask: the images are dark")
    sem.drift_wait_failed = False
    rate = call.number(1, 1.0) * (0.1 if unit == "a" else 1.0)
    longest, interval = call.number(3, 60.0), call.number(4, 5.0)
    waited = 0.0
    while True:
        sem.wait(interval)
        waited += interval
        sem.measured_drift_nm_per_s = sem.drift_nm_per_s
        if sem.measured_drift_nm_per_s <= rate:
            return None
        if waited + interval > longest:
            break
    sem.drift_wait_failed = True
    if call.integer(5) > 0:
        raise ScriptError(f"Drift is still {10 * sem.measured_drift_nm_per_s:.2f} A/s after {waited:.0f} s")
    return None


@command("GetWaitTaskDrift")
def get_wait_task_drift(sem: SerialEM, call: Call) -> Values:
    """The drift in nm/s that the last DriftWaitTask measured, and 1 when that was still too much."""
    if sem.measured_drift_nm_per_s is None:
        raise ScriptError("There is no drift from a wait for drift")
    return sem.measured_drift_nm_per_s, int(sem.drift_wait_failed)


@command("Eucentricity")
def eucentricity(sem: SerialEM, call: Call) -> Values:
    """Bring the specimen to eucentric height."""
    if not _lit(sem):
        raise ScriptError("Eucentricity: the images are dark")
    with sem.scripted():
        sem.scope.find_eucentric()
    sem.check_stop()
    return None


@command("AutoCenterBeam")
def auto_center_beam(sem: SerialEM, call: Call) -> Values:
    """Centre the beam."""
    sem.beam_shift = (0.0, 0.0)
    sem.wait(5.0)
    return None


# -------------------------------------------------------------------------------------------------- at the start


def fill_buffers(sem: SerialEM) -> None:
    """What an operator left: an overview in A, one image of each type in M to P; S stays empty."""
    if sem.buffers.images:
        return
    preset, seen = sem.scope.settings.presets["low"], sem.scope.look("low")
    view = seen.believed
    index, mag = sem.calibration.mags["low"]
    image = ImageBuffer(
        seen.image,
        set_letter="M",
        capture_set=CAPTURE_NUMBERS["M"],
        exposure_s=preset.exposure_s,
        pixel_nm=view.pixel_size_angstrom / 10,
        dose_e_per_a2=preset.dose_e_per_a2,
        mag=mag,
        mag_index=index,
        centre_um=(view.x_um, view.y_um),
        matrix=seen.image_to_stage,
        stage_um=(sem.scope.x_um, sem.scope.y_um, sem.scope.z_um),
        image_shift_um=sem.scope.image_shift_um,
    )
    sem.buffers.put("A", image)
    x = np.arange(96, dtype=np.float32)[None] + 100 * np.arange(64, dtype=np.float32)[:, None]
    for letter, dtype in zip("MNOP", ("u1", "<i2", "<f4", "<u2"), strict=True):
        sem.buffers.put(letter, ImageBuffer((x % 251).astype(dtype)))
