"""The stage and the image shift."""

from __future__ import annotations

import math

from simulators.serialem.buffers import Matrix, inverse, product
from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.program import SerialEM, linear

HEIGHT_LIMIT_UM = 350.0


@command("ReportStageXYZ")
def report_stage_xyz(sem: SerialEM, call: Call) -> Values:
    """Stage x, y, z in µm."""
    return sem.scope.x_um, sem.scope.y_um, sem.scope.z_um


@command("ReportTiltAngle")
def report_tilt_angle(sem: SerialEM, call: Call) -> Values:
    """Tilt in degrees."""
    return sem.scope.tilt_deg


@command("ReportStageBusy")
def report_stage_busy(sem: SerialEM, call: Call) -> Values:
    """0: commands that move return when the stage stands."""
    return 0


def move(sem: SerialEM, x_um: float, y_um: float, z_um: float | None = None) -> None:
    """Move the stage; refuses what is beyond its limits."""
    if not (math.isfinite(x_um) and math.isfinite(y_um)):
        raise ScriptError(f"Stage position {x_um}, {y_um} is not a position")
    if z_um is not None and abs(z_um) > HEIGHT_LIMIT_UM:
        raise ScriptError(f"Stage Z {z_um:g} is outside the limits of {HEIGHT_LIMIT_UM:g} microns")
    with sem.scripted():
        sem.scope.move(x_um, y_um, z_um=z_um)
    sem.arrived_s = sem.scope.clock.elapsed_s
    sem.check_stop()


@command("MoveStageTo")
def move_stage_to(sem: SerialEM, call: Call) -> Values:
    """Go to x, y and perhaps z in µm."""
    move(sem, call.number(1), call.number(2), call.number(3) if call.has(3) else None)
    return None


@command("MoveStage")
def move_stage(sem: SerialEM, call: Call) -> Values:
    """Go dx, dy and perhaps dz µm further."""
    scope = sem.scope
    height = scope.z_um + call.number(3) if call.has(3) else None
    move(sem, scope.x_um + call.number(1), scope.y_um + call.number(2), height)
    return None


@command("TiltTo", "TiltBy")
def tilt(sem: SerialEM, call: Call) -> Values:
    """Tilt to, or by, an angle in degrees."""
    angle = call.number(1) + (sem.scope.tilt_deg if call.info.name == "TiltBy" else 0.0)
    limit = sem.properties["MaximumTiltAngle"]
    if abs(angle) > limit:
        raise ScriptError(f"Tilt {angle:g} is beyond the limit of {limit:g} degrees")
    with sem.scripted():
        sem.scope.move(sem.scope.x_um, sem.scope.y_um, tilt_deg=angle)
    return None


# -------------------------------------------------------------------------------------------------- image shift


@command("ReportImageShift")
def report_image_shift(sem: SerialEM, call: Call) -> Values:
    """Image shift in its units, in unbinned pixels, and the stage move in µm that would replace it."""
    units = sem.image_shift_units
    pixels = linear(inverse(sem.camera_to_stage(sem.level)), sem.scope.image_shift_um)
    return *units, *pixels, *sem.scope.image_shift_um


@command("ReportSpecimenShift")
def report_specimen_shift(sem: SerialEM, call: Call) -> Values:
    """Image shift in µm along the axes of the specimen."""
    return linear(sem.calibration.stage_to_specimen, sem.scope.image_shift_um)


@command("ReportMaxImageShift")
def report_max_image_shift(sem: SerialEM, call: Call) -> Values:
    """Limit of the image shift in µm; no clipping is known."""
    sem.level_of_index(call.integer(1))
    return sem.shift_limit_um(), 0.0


def _to_stage(sem: SerialEM, name: str) -> Matrix:
    """Stage axes from the axes in which a command counts."""
    specimen = inverse(sem.calibration.stage_to_specimen)
    if name in ("SetImageShift", "ImageShiftByUnits"):
        return product(specimen, sem.calibration.shift_to_specimen)
    if name == "ImageShiftByPixels":
        return sem.camera_to_stage(sem.level)
    return (1.0, 0.0, 0.0, 1.0) if name == "ImageShiftByStageDiff" else specimen


@command("SetImageShift", "ImageShiftByUnits", "ImageShiftByPixels", "ImageShiftByMicrons", "ImageShiftByStageDiff")
def image_shift(sem: SerialEM, call: Call) -> Values:
    """Set or change the image shift; 1 is "beyond the limit, not done"."""
    name = call.info.name
    x, y = linear(_to_stage(sem, name), (call.number(1), call.number(2)))
    if name != "SetImageShift":
        x, y = x + sem.scope.image_shift_um[0], y + sem.scope.image_shift_um[1]
    return sem.shift_to(x, y)


@command("ResetImageShift")
def reset_image_shift(sem: SerialEM, call: Call) -> Values:
    """Image shift to 0; the stage moves so that the same place stays in view."""
    x, y = sem.scope.image_shift_um
    sem.shift_to(0.0, 0.0)
    if (x, y) != (0.0, 0.0):
        move(sem, sem.scope.x_um + x, sem.scope.y_um + y)
    return None


# -------------------------------------------------------------------------------------------------- matrices


def _matrix(sem: SerialEM, name: str, level: str) -> Matrix:
    camera, specimen = sem.camera_to_stage(level), sem.calibration.stage_to_specimen
    shift = sem.calibration.shift_to_specimen
    matrices = {
        "CameraToStageMatrix": camera,
        "StageToCameraMatrix": inverse(camera),
        "CameraToSpecimenMatrix": product(specimen, camera),
        "SpecimenToCameraMatrix": inverse(product(specimen, camera)),
        "StageToSpecimenMatrix": specimen,
        "SpecimenToStageMatrix": inverse(specimen),
        "ISToSpecimenMatrix": shift,
        "SpecimenToISMatrix": inverse(shift),
        "ISToStageMatrix": product(inverse(specimen), shift),
        "StageToISMatrix": inverse(product(inverse(specimen), shift)),
        "ISToCameraMatrix": product(inverse(product(specimen, camera)), shift),
        "CameraToISMatrix": inverse(product(inverse(product(specimen, camera)), shift)),
    }
    return matrices[name]


@command(
    "CameraToStageMatrix",
    "StageToCameraMatrix",
    "CameraToSpecimenMatrix",
    "SpecimenToCameraMatrix",
    "StageToSpecimenMatrix",
    "SpecimenToStageMatrix",
    "ISToSpecimenMatrix",
    "SpecimenToISMatrix",
    "ISToStageMatrix",
    "StageToISMatrix",
    "ISToCameraMatrix",
    "CameraToISMatrix",
)
def matrix(sem: SerialEM, call: Call) -> Values:
    """Four values, row major; camera axes are unbinned pixels with y up."""
    return _matrix(sem, call.info.name, sem.level_of_index(call.integer(1)))
