"""Optics and low dose: magnification, areas, imaging states, focus, beam, apertures, filter."""

from __future__ import annotations

from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.program import AREAS, SerialEM


@command("ReportMag")
def report_mag(sem: SerialEM, call: Call) -> Values:
    """Magnification, 1 for low-mag mode, 0 for TEM."""
    return sem.calibration.mags[sem.level][1], int(sem.level == "low"), 0


@command("ReportMagIndex")
def report_mag_index(sem: SerialEM, call: Call) -> Values:
    """Index, 1 for low-mag mode."""
    return sem.calibration.mags[sem.level][0], int(sem.level == "low")


def _set_level(sem: SerialEM, level: str) -> None:
    sem.level = sem.scope.level = level


@command("SetMag")
def set_mag(sem: SerialEM, call: Call) -> Values:
    """The magnification of the list nearest to this one, if it is within 10 %."""
    wanted = call.number(1)
    level, (_, mag) = min(sem.calibration.mags.items(), key=lambda item: abs(item[1][1] - wanted))
    if abs(mag - wanted) > 0.1 * mag:
        allowed = ", ".join(str(mag) for _, mag in sem.calibration.mags.values())
        raise ScriptError(f"Magnification {wanted:g} is not near one in the list; there are {allowed}")
    _set_level(sem, level)
    return None


@command("SetMagIndex")
def set_mag_index(sem: SerialEM, call: Call) -> Values:
    """A magnification by its index."""
    if call.integer(1) == 0:
        raise ScriptError("Magnification index 0 is not available")
    _set_level(sem, sem.level_of_index(call.integer(1)))
    return None


@command("ReportCurrentPixelSize")
def report_current_pixel_size(sem: SerialEM, call: Call) -> Values:
    """Pixel size in nm of a camera set."""
    letter = sem.set_letter(call.text(1))
    return 1000 * sem.pixel_um(sem.level_of_set(letter)) * sem.sets[letter].binning


@command("CameraProperties")
def camera_properties(sem: SerialEM, call: Call) -> Values:
    """Size x, size y, rotation and flip, chip pixel µm, pixel nm at the magnification, camera number."""
    level = sem.level_of_index(call.integer(2))
    rows, columns = sem.scope.settings.presets[level].shape
    return columns, rows, 0, sem.calibration.chip_pixel_um, 1000 * sem.pixel_um(level), 1


@command("ReportHighVoltage")
def report_high_voltage(sem: SerialEM, call: Call) -> Values:
    """KV."""
    return sem.scope.voltage_kv


# -------------------------------------------------------------------------------------------------- low dose, states


@command("SetLowDoseMode")
def set_low_dose_mode(sem: SerialEM, call: Call) -> Values:
    """Switch low dose; the previous state."""
    before = sem.low_dose
    sem.low_dose = call.integer(1) != 0
    if not sem.low_dose:
        sem.area = ""
    return int(before)


@command("ReportLowDose")
def report_low_dose(sem: SerialEM, call: Call) -> Values:
    """1 for on; the area, or -1."""
    return int(sem.low_dose), AREAS.index(sem.area) if sem.low_dose and sem.area else -1


def _area(text: str) -> str:
    letter = text[:1].upper()
    if letter not in AREAS:
        raise ScriptError(f"{text} is not a low dose area; there are {', '.join(AREAS)}")
    return letter


@command("GoToLowDoseArea")
def go_to_low_dose_area(sem: SerialEM, call: Call) -> Values:
    """Switch to an area; nothing happens while the screen is down."""
    letter = _area(call.text(1))
    if not sem.low_dose:
        raise ScriptError("You cannot go to a Low Dose area when Low Dose mode is off")
    if not sem.surroundings.screen_down:
        sem.go_to_area(letter)
        sem.wait(1.0)
    return None


@command("GetLowDoseAreaParams")
def get_low_dose_area_params(sem: SerialEM, call: Call) -> Values:
    """Magnification index, spot, C2 and so on of an area, into a variable."""
    letter = _area(call.text(1))
    index = sem.calibration.mags[sem.calibration.areas[letter]][0]
    values = (index, 1, sem.optics["spot"], sem.optics["c2"], 0.0, 0.0, sem.optics["slit_in"], sem.optics["slit_ev"])
    sem.script.variables[call.text(2).upper()] = "\n".join(f"{value:g}" for value in values)
    return None


@command("ReportLDDefocusOffset")
def report_ld_defocus_offset(sem: SerialEM, call: Call) -> Values:
    """Defocus offset of View or Search in µm."""
    letter = _area(call.text(1))
    if letter not in sem.defocus_offsets_um:
        raise ScriptError("There are defocus offsets for View and Search only")
    return sem.defocus_offsets_um[letter]


@command("ReportAxisPosition")
def report_axis_position(sem: SerialEM, call: Call) -> Values:
    """Focus or Trial area: µm from Record, angle, camera offset in pixels."""
    letter = _axis(call.text(1))
    return sem.axis_um[letter], sem.axis_deg[letter], 0, 0


@command("SetAxisPosition")
def set_axis_position(sem: SerialEM, call: Call) -> Values:
    """Place the Focus or Trial area."""
    letter, distance = _axis(call.text(1)), call.number(2)
    if abs(distance) >= 19:
        raise ScriptError(f"Axis distance {distance:g} is too large; it must be below 19 microns")
    sem.axis_um[letter] = distance
    sem.axis_deg[letter] = call.number(3, sem.axis_deg[letter])
    return None


def _axis(text: str) -> str:
    letter = text[:1].upper()
    if letter not in ("F", "T"):
        raise ScriptError(f"{text}: only Focus and Trial have an axis position")
    return letter


def _state(sem: SerialEM, text: str) -> tuple[int, str] | int:
    """Number and name of an imaging state, or what is wrong: 1 no match, 2 ambiguous, 3 out of range."""
    names = list(sem.calibration.states)
    if text.lstrip("-").isdigit():
        number = int(text)
        return (number, names[number - 1]) if 1 <= number <= len(names) else 3
    found = [name for name in names if name.lower().startswith(text.lower())]
    if not text or not found:
        return 1
    return (names.index(found[0]) + 1, found[0]) if len(found) == 1 else 2


@command("GoToImagingState")
def go_to_imaging_state(sem: SerialEM, call: Call) -> Values:
    """0, or why not: -1 the dialog of states is not open, 1 no match, 2 ambiguous, 3 out of range."""
    if not sem.state_dialog_open:
        return -1
    found = _state(sem, call.text(1))
    if isinstance(found, int):
        return found
    area, level = sem.calibration.states[found[1]]
    sem.low_dose = bool(area)
    if area:
        sem.go_to_area(area)
    else:
        sem.area = ""
        _set_level(sem, level)
    sem.wait(2.0)
    return 0


@command("OpenImagingStateDialog")
def open_imaging_state_dialog(sem: SerialEM, call: Call) -> Values:
    """Open the dialog of imaging states, without which there are none."""
    sem.state_dialog_open = True
    return None


@command("ImagingStateProperties")
def imaging_state_properties(sem: SerialEM, call: Call) -> Values:
    """0, number, type, camera, magnification index, name."""
    found = _state(sem, call.text(1))
    if isinstance(found, int):
        return found
    number, name = found
    area, level = sem.calibration.states[name]
    return 0, number, AREAS.index(area) if area else -2, 1, sem.calibration.mags[level][0], name


# -------------------------------------------------------------------------------------------------- focus


@command("ReportDefocus")
def report_defocus(sem: SerialEM, call: Call) -> Values:
    """Defocus in µm; negative is underfocus."""
    return sem.defocus_um


@command("SetDefocus", "ChangeFocus")
def set_defocus(sem: SerialEM, call: Call) -> Values:
    """Set, or change, the defocus in µm."""
    sem.defocus_um = call.number(1) + (sem.defocus_um if call.info.name == "ChangeFocus" else 0.0)
    return None


@command("ReportTargetDefocus")
def report_target_defocus(sem: SerialEM, call: Call) -> Values:
    """Where autofocus goes."""
    return sem.target_defocus_um


@command("SetTargetDefocus")
def set_target_defocus(sem: SerialEM, call: Call) -> Values:
    """Where autofocus goes, in µm; negative is underfocus."""
    if not -200.0 <= call.number(1) <= 50.0:
        raise ScriptError(f"Target defocus {call.number(1):g} is out of range; -200 to 50 microns are allowed")
    sem.target_defocus_um = call.number(1)
    return None


# -------------------------------------------------------------------------------------------------- beam, filter


def _value(key: str, *names: str) -> None:
    """A report and a setter of one number of the optics."""
    for name in names:

        @command(name)
        def either(sem: SerialEM, call: Call) -> Values:
            if call.info.name.startswith("Report"):
                return sem.optics[key]
            sem.optics[key] = call.number(1, 1.0)
            return None


_value("spot", "ReportSpotSize", "SetSpotSize")
_value("alpha", "ReportAlpha")
_value("slit_in", "SetSlitIn")
_value("slit_ev", "SetSlitWidth")


@command("ReportPercentC2")
def report_percent_c2(sem: SerialEM, call: Call) -> Values:
    """C2 in %, intensity 0 to 1."""
    return sem.optics["c2"], sem.optics["c2"] / 100


@command("SetPercentC2")
def set_percent_c2(sem: SerialEM, call: Call) -> Values:
    """C2 in %."""
    if not 0 <= call.number(1) <= 100:
        raise ScriptError(f"C2 {call.number(1):g} % is out of range; 0 to 100 are allowed")
    sem.optics["c2"] = call.number(1)
    return None


@command("ReportIlluminatedArea")
def report_illuminated_area(sem: SerialEM, call: Call) -> Values:
    """Illuminated area; times 100 it is µm."""
    return 0.02


@command("ReportProbeMode")
def report_probe_mode(sem: SerialEM, call: Call) -> Values:
    """1: microprobe."""
    return 1


@command("ReportBeamShift")
def report_beam_shift(sem: SerialEM, call: Call) -> Values:
    """Beam shift x, y."""
    return sem.beam_shift


@command("SetBeamShift")
def set_beam_shift(sem: SerialEM, call: Call) -> Values:
    """Beam shift x, y."""
    sem.beam_shift = call.number(1), call.number(2)
    return None


@command("ReportBeamTilt")
def report_beam_tilt(sem: SerialEM, call: Call) -> Values:
    """Beam tilt x, y."""
    return sem.beam_tilt


@command("SetBeamTilt")
def set_beam_tilt(sem: SerialEM, call: Call) -> Values:
    """Beam tilt x, y."""
    sem.beam_tilt = call.number(1), call.number(2)
    return None


@command("AdjustBeamTiltforIS")
def adjust_beam_tilt_for_is(sem: SerialEM, call: Call) -> Values:
    """Compensate coma of the image shift; undone at the end of the script."""
    sem.restore_at_end("beam tilt", sem, "beam_tilt")
    x, y = sem.scope.image_shift_um
    sem.beam_tilt = 0.02 * x, 0.02 * y
    return None


@command("SaveBeamTilt")
def save_beam_tilt(sem: SerialEM, call: Call) -> Values:
    """Remember the beam tilt."""
    sem.saved_beam_tilt = sem.beam_tilt
    return None


@command("RestoreBeamTilt")
def restore_beam_tilt(sem: SerialEM, call: Call) -> Values:
    """Go back to the remembered beam tilt."""
    if sem.saved_beam_tilt is None:
        raise ScriptError("There is no saved beam tilt to restore")
    sem.beam_tilt, sem.saved_beam_tilt = sem.saved_beam_tilt, None
    return None


@command("ReportEnergyFilter")
def report_energy_filter(sem: SerialEM, call: Call) -> Values:
    """Slit width eV, energy loss eV, 1 when the slit is in."""
    return sem.optics["slit_ev"], 0.0, sem.optics["slit_in"]


@command("RefineZLP")
def refine_zlp(sem: SerialEM, call: Call) -> Values:
    """Centre the slit; only if the last time is longer ago than the interval in minutes."""
    now, last = sem.scope.clock.elapsed_s, sem.surroundings.since_operation_s.get("ZLP")
    if last is None or not call.has(1) or now - last > 60 * call.number(1):
        sem.wait(20.0)
        sem.surroundings.since_operation_s["ZLP"] = sem.scope.clock.elapsed_s
    return None


@command("SetBeamBlank")
def set_beam_blank(sem: SerialEM, call: Call) -> Values:
    """Blank or unblank the beam."""
    sem.scope.beam_blanked = call.integer(1) != 0
    return None


@command("NormalizeLenses", "NormalizeAllLenses")
def normalize_lenses(sem: SerialEM, call: Call) -> Values:
    """Takes a moment."""
    sem.wait(3.0)
    return None


@command("ReportApertureSize")
def report_aperture_size(sem: SerialEM, call: Call) -> Values:
    """µm; 0 is retracted."""
    return _aperture(sem, call.integer(1))


def _aperture(sem: SerialEM, number: int) -> int:
    if number not in sem.apertures_um:
        raise ScriptError(f"There is no aperture {number} under control; there are {list(sem.apertures_um)}")
    return sem.apertures_um[number]


@command("SetApertureSize")
def set_aperture_size(sem: SerialEM, call: Call) -> Values:
    """An aperture of that size in µm; 0 retracts it."""
    _aperture(sem, call.integer(1))
    sem.apertures_um[call.integer(1)] = call.integer(2)
    sem.wait(5.0)
    return None


@command("RemoveAperture", "ReInsertAperture")
def move_aperture(sem: SerialEM, call: Call) -> Values:
    """Retract an aperture, or put it back as it was."""
    number = call.integer(1)
    size = _aperture(sem, number)
    if call.info.name == "RemoveAperture":
        if size:
            sem.parked_apertures_um[number] = size
        sem.apertures_um[number] = 0
    elif number in sem.parked_apertures_um:
        sem.apertures_um[number] = sem.parked_apertures_um.pop(number)
    else:
        raise ScriptError(f"Aperture {number} was not removed by a script")
    sem.wait(5.0)
    return None


# -------------------------------------------------------------------------------------------------- camera sets


@command("ReportExposure")
def report_exposure(sem: SerialEM, call: Call) -> Values:
    """Exposure s, drift settling s."""
    letter = sem.set_letter(call.text(1))
    preset = sem.scope.settings.presets[sem.level_of_set(letter)]
    settings = sem.sets[letter]
    return preset.exposure_s if settings.exposure_s is None else settings.exposure_s, settings.drift_s


@command("SetExposure")
def set_exposure(sem: SerialEM, call: Call) -> Values:
    """Exposure s and drift settling s, until the script ends."""
    letter = sem.set_letter(call.text(1))
    if call.number(2) <= 0:
        raise ScriptError(f"Exposure {call.number(2):g} s must be above 0")
    _restored(sem, letter, "exposure_s", "drift_s")
    sem.sets[letter].exposure_s = call.number(2)
    sem.sets[letter].drift_s = call.number(3, sem.sets[letter].drift_s)
    return None


@command("ReportBinning")
def report_binning(sem: SerialEM, call: Call) -> Values:
    """Binning of a set."""
    return sem.sets[sem.set_letter(call.text(1))].binning


@command("SetBinning")
def set_binning(sem: SerialEM, call: Call) -> Values:
    """Binning of a set, until the script ends."""
    letter = sem.set_letter(call.text(1))
    if call.number(2) not in (1, 2, 4, 8):
        raise ScriptError(f"Binning {call.number(2):g} is not available; there are 1, 2, 4, 8")
    _restored(sem, letter, "binning")
    sem.sets[letter].binning = call.number(2)
    return None


@command("ReportReadMode")
def report_read_mode(sem: SerialEM, call: Call) -> Values:
    """Read mode: 1 is counting."""
    return sem.sets[sem.set_letter(call.text(1))].read_mode


@command("SetContinuous")
def set_continuous(sem: SerialEM, call: Call) -> Values:
    """Continuous mode of a set."""
    letter = sem.set_letter(call.text(1))
    _restored(sem, letter, "continuous")
    sem.sets[letter].continuous = call.integer(2) != 0
    return None


@command("SetDoseFracParams")
def set_dose_frac_params(sem: SerialEM, call: Call) -> Values:
    """Dose fractionation, saving of frames, alignment."""
    letter = sem.set_letter(call.text(1))
    _restored(sem, letter, "dose_frac", "save_frames", "align")
    settings = sem.sets[letter]
    settings.dose_frac = call.integer(2) != 0
    settings.save_frames = call.integer(3, int(settings.save_frames)) != 0
    settings.align = call.integer(4, settings.align)
    return None


@command("SetFrameTime")
def set_frame_time(sem: SerialEM, call: Call) -> Values:
    """Frame time; the time really set."""
    letter = sem.set_letter(call.text(1))
    _restored(sem, letter, "frame_s")
    sem.sets[letter].frame_s = max(0.01, round(call.number(2), 3))
    return sem.sets[letter].frame_s


@command("KeepCameraSetChanges")
def keep_camera_set_changes(sem: SerialEM, call: Call) -> Values:
    """What was changed in the set, or in all, stays after the script."""
    wanted = sem.set_letter(call.text(1)) if call.has(1) else ""
    for key in [key for key in sem.script.restore if key.startswith(f"set {wanted}")]:
        del sem.script.restore[key]
    return None


@command("SelectCamera")
def select_camera(sem: SerialEM, call: Call) -> Values:
    """Only camera 1 is there."""
    if call.integer(1) != 1:
        raise ScriptError(f"Camera {call.integer(1)} is not available; there is 1")
    return None


def _restored(sem: SerialEM, letter: str, *names: str) -> None:
    for name in names:
        sem.restore_at_end(f"set {letter} {name}", sem.sets[letter], name)
