"""Image buffers: copies, what is known of an image, and the way from its pixels to the stage."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.serialem.buffers import ImageBuffer, Point, inverse, product
from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.files import mdoc_values
from simulators.serialem.program import SerialEM, linear


@command("Copy")
def copy(sem: SerialEM, call: Call) -> Values:
    """Copy a buffer into another; a copy to A rolls the others."""
    image = sem.buffers.get(call.text(1))
    sem.buffers.put(call.text(2), replace(image, pixels=image.pixels.copy()))
    return None


@command("Show")
def show(sem: SerialEM, call: Call) -> Values:
    """Show a buffer: only checks that it holds an image."""
    sem.buffers.get(call.text(1))
    return None


@command("ReportCurrentBuffer")
def report_current_buffer(sem: SerialEM, call: Call) -> Values:
    """The buffer in view is always A."""
    return "A", int(0 in sem.buffers.images)


@command("ImageProperties")
def image_properties(sem: SerialEM, call: Call) -> Values:
    """Columns, rows, binning, exposure s, pixel nm, capture set; sets the variable imageTickTime."""
    image = sem.buffers.get(call.text(1, "A"))
    sem.script.variables["IMAGETICKTIME"] = image.taken_s
    rows, columns = image.pixels.shape[:2]
    return columns, rows, image.binning, image.exposure_s, image.pixel_nm, image.capture_set


@command("ImageConditions")
def image_conditions(sem: SerialEM, call: Call) -> Values:
    """Dose in e/Å² and magnification."""
    image = sem.buffers.get(call.text(1, "A"))
    return image.dose_e_per_a2, image.mag


@command("ImageLowDoseSet")
def image_low_dose_set(sem: SerialEM, call: Call) -> Values:
    """Capture set, and 1 for low dose."""
    image = sem.buffers.get(call.text(1, "A"))
    return image.capture_set, int(image.low_dose)


@command("ReportMetadataValues")
def report_metadata_values(sem: SerialEM, call: Call) -> Values:
    """The words of a key as it would stand in the .mdoc."""
    values = mdoc_values(sem.buffers.get(call.text(1)))
    if call.text(2) not in values:
        raise ScriptError(f"There is no value for {call.text(2)} with the image in {call.text(1)}")
    return values[call.text(2)].split()[:6]


@command("ReportMeanCounts")
def report_mean_counts(sem: SerialEM, call: Call) -> Values:
    """Mean counts; per second with 1; mean, standard deviation, minimum, maximum with 2."""
    image = sem.buffers.get(call.text(1, "A"))
    mean = float(image.pixels.mean())
    if call.integer(2) == 1:
        if image.exposure_s <= 0:
            raise ScriptError(f"The exposure time of the image in {call.text(1, 'A')} is not known")
        return mean / image.exposure_s
    if call.integer(2) == 2:
        return mean, float(image.pixels.std()), float(image.pixels.min()), float(image.pixels.max())
    return mean


@command("SubareaMean")
def subarea_mean(sem: SerialEM, call: Call) -> Values:
    """Mean of columns x0 to x1 and rows y0 to y1 of A."""
    x0, x1, y0, y1 = (call.integer(place) for place in (1, 2, 3, 4))
    part = sem.buffers.get("A").pixels[max(0, y0) : y1 + 1, max(0, x0) : x1 + 1]
    if not part.size:
        raise ScriptError(f"The area {x0} {x1} {y0} {y1} is not inside the image")
    return float(part.mean())


@command("CropCenterToSize")
def crop_center_to_size(sem: SerialEM, call: Call) -> Values:
    """The middle of an image, into A."""
    image = sem.buffers.get(call.text(1))
    rows, columns = image.pixels.shape[:2]
    width, height = min(columns, call.integer(2)), min(rows, call.integer(3))
    if width < 1 or height < 1:
        raise ScriptError(f"Size {call.integer(2)} x {call.integer(3)} is no size")
    left, top = (columns - width) // 2, (rows - height) // 2
    pixels = np.ascontiguousarray(image.pixels[top : top + height, left : left + width])
    centre = image.centre_um
    if image.matrix is not None:
        centre = image.to_stage(left + width / 2, top + height / 2)
    sem.buffers.put("A", replace(image, pixels=pixels, capture_set=-1, pieces=(), centre_um=centre))
    return None


@command("ReduceImage")
def reduce_image(sem: SerialEM, call: Call) -> Values:
    """An image made smaller by a factor, into A."""
    image, factor = sem.buffers.get(call.text(1)), call.number(2)
    if factor < 1:
        raise ScriptError(f"Reduction by {factor:g}: a factor of 1 or more was expected")
    rows, columns = image.pixels.shape[:2]
    shape = max(1, int(columns / factor)), max(1, int(rows / factor))
    pixels = np.asarray(cv2.resize(image.pixels, shape, interpolation=cv2.INTER_AREA))
    matrix = None if image.matrix is None else product(image.matrix, (factor, 0.0, 0.0, factor))
    sem.buffers.put(
        "A",
        replace(
            image,
            pixels=pixels,
            capture_set=-1,
            binning=image.binning * factor,
            pixel_nm=image.pixel_nm * factor,
            matrix=matrix,
            pieces=(),
        ),
    )
    return None


@command("FFT")
def fft(sem: SerialEM, call: Call) -> Values:
    """Power spectrum of an image, into the FFT buffer A."""
    image = sem.buffers.get(call.text(1))
    side = min(image.pixels.shape[:2]) // max(1, call.integer(2, 1))
    square = cv2.resize(image.pixels.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    power = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(square - square.mean()))))
    scaled = np.clip(255 * power / max(1e-6, float(power.max())), 0, 255).astype(np.uint8)
    sem.buffers.ffts[0] = ImageBuffer(scaled)
    return None


# -------------------------------------------------------------------------------------------------- geometry


def _offset(sem: SerialEM, kind: int) -> Point:
    """What to take from Navigator coordinates: with 1 the stage position that is wanted at the present image shift."""
    return sem.scope.image_shift_um if kind else (0.0, 0.0)


@command("BufImageToStageMatrix", "StageToBufImageMatrix")
def buffer_matrix(sem: SerialEM, call: Call) -> Values:
    """M11 M12 M21 M22 dx dy of stage = M pixel + d, or of its inverse.

    With 1 SerialEM 4.1 and later takes the image shift's x from both dx and dy, a slip that this follows.
    """
    image = sem.buffers.get(call.text(1))
    matrix, kind = image.matrix_or_refuse(), call.integer(2)
    dx, dy = _offset(sem, kind)
    origin = image.to_stage(0.0, 0.0)
    d = (origin[0] - dx, origin[1] - (dx if sem.at_least(4, 1) else dy))
    if call.info.name == "BufImageToStageMatrix":
        return *matrix, *d
    back = inverse(matrix)
    return *back, *linear(back, (-d[0], -d[1]))


@command("BufImagePosToStagePos")
def buffer_position_to_stage(sem: SerialEM, call: Call) -> Values:
    """x, y µm; the piece, or -1 when this is no montage; the point in the piece."""
    image = sem.buffers.get(call.text(1))
    (x, y), piece, inside = image.point(call.number(3), call.number(4))
    dx, dy = _offset(sem, call.integer(2))
    return x - dx, y - dy, piece, *inside


@command("StagePosToBufImagePos")
def stage_to_buffer_position(sem: SerialEM, call: Call) -> Values:
    """Image point of a stage position."""
    image = sem.buffers.get(call.text(1))
    dx, dy = _offset(sem, call.integer(2))
    return image.to_image(call.number(3) + dx, call.number(4) + dy)


@command("ImageMarkerPosition")
def image_marker_position(sem: SerialEM, call: Call) -> Values:
    """The marker point of an image: nobody clicked, so it is the middle."""
    return sem.buffers.get(call.text(1, "A")).middle_px


# -------------------------------------------------------------------------------------------------- alignment


def _flat(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    plain = pixels.astype(np.float32)
    flat: NDArray[np.float32] = (plain - plain.mean()) / np.float32(max(1e-6, float(plain.std())))
    return flat


def _middle(pixels: NDArray[np.generic], rows: int, columns: int) -> NDArray[np.generic]:
    """The middle of an image: SerialEM trims the larger one of two."""
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    return pixels[top : top + rows, left : left + columns]


@command("AlignTo")
def align_to(sem: SerialEM, call: Call) -> Values:
    """Find the shift of A against a buffer; unless 1, move it away by image shift."""
    image, reference = sem.buffers.get("A"), sem.buffers.get(call.text(1))
    rows, columns = (min(a, b) for a, b in zip(image.pixels.shape[:2], reference.pixels.shape[:2], strict=True))
    window = cv2.createHanningWindow((columns, rows), cv2.CV_32F)
    one, other = (_flat(_middle(each.pixels, rows, columns)) for each in (reference, image))
    (x, y), _ = cv2.phaseCorrelate(one, other, window)
    shift = linear(image.matrix_or_refuse(), (x, y))
    limit, sem.auto_align_limit_um = sem.auto_align_limit_um, 0.0
    if limit and math.hypot(*shift) > limit:
        raise ScriptError(f"Autoalign: no peak within {limit:g} microns")
    nm = tuple(1000 * value for value in linear(sem.calibration.stage_to_specimen, shift))
    sem.align_shift = (x * image.binning, -y * image.binning, *nm, *nm)
    if not call.integer(2):
        now = sem.scope.image_shift_um
        if sem.shift_to(now[0] + shift[0], now[1] + shift[1]):
            raise ScriptError("Autoalign: the image shift needed is beyond the limit")
    return None


@command("LimitNextAutoAlign")
def limit_next_auto_align(sem: SerialEM, call: Call) -> Values:
    """The next autoalign looks no farther than this, in µm."""
    sem.auto_align_limit_um = call.number(1)
    return None


@command("ReportAlignShift")
def report_align_shift(sem: SerialEM, call: Call) -> Values:
    """Shift of the last alignment: unbinned pixels (y up), nm along both shift axes, nm on the specimen."""
    return sem.align_shift


@command("ClearAlignment")
def clear_alignment(sem: SerialEM, call: Call) -> Values:
    """Forget the last alignment."""
    sem.align_shift = (0.0,) * 6
    return None


@command("AlignBetweenMags")
def align_between_mags(sem: SerialEM, call: Call) -> Values:
    """Align A to a buffer of another magnification: here by what both say of their places. Scale and rotation."""
    image, reference = sem.buffers.get("A"), sem.buffers.get(call.text(1))
    centre = reference.to_stage(call.number(2), call.number(3))
    dx, dy = centre[0] - image.centre_um[0], centre[1] - image.centre_um[1]
    now = sem.scope.image_shift_um
    if (dx**2 + dy**2) ** 0.5 > call.number(4) or sem.shift_to(now[0] + dx, now[1] + dy):
        raise ScriptError("Aligning between magnifications needs more image shift than is allowed")
    return 1.0, 0.0
