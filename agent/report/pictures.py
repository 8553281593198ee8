"""Frames as small pictures inside the page: atlas, medium-mag views, thumbnails, power spectra."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent import geometry, thon
from agent.drawing import stretch
from agent.errors import BadFileError
from agent.messages import Frame
from agent.recording.record import pixels
from agent.session import events as ev
from models.quality.spectrum import spectrum as transformed

Grey = NDArray[np.uint8]  # (rows, columns)
Plain = NDArray[np.float32]  # (rows, columns)

ATLAS_PX = 1500
_SPECTRUM_PX = 1536  # of the middle of a micrograph: enough for a picture of its rings, and quick


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for the page: ``uri`` holds the image itself; ``note`` says why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The atlas and its place on the stage: pixel = (stage - origin) / scale, x right, y down."""

    picture: Picture
    x_um: float
    y_um: float
    um_per_px: float
    notes: tuple[str, ...] = ()

    def at(self, x_um: float, y_um: float) -> tuple[float, float]:
        """Pixel (x, y) of a stage position."""
        return (x_um - self.x_um) / self.um_per_px, (y_um - self.y_um) / self.um_per_px


def load(folder: Path, received: ev.FrameReceived) -> Plain:
    """Pixels of a frame as float32, NaN and infinity replaced by the median.

    Raises
    ------
    BadFileError
        If the file is missing, damaged, outside the session folder, or not what the journal says.
    """
    image = pixels(folder, received)
    plain = np.asarray(image, np.float32)
    finite = np.isfinite(plain)
    return (
        plain if finite.all() else np.where(finite, plain, np.float32(np.median(plain[finite]) if finite.any() else 0))
    )


def shrunk(image: Plain, side_px: int) -> Plain:
    """``image`` with its longer side at most ``side_px``, each pixel the mean of those it stands for."""
    factor = side_px / max(image.shape)
    if factor >= 1:
        return image
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def jpeg(grey: Grey, quality: int) -> Picture:
    """``grey`` as a JPEG inside a data URI."""
    done, raw = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        return Picture(note="the picture could not be encoded")
    return Picture("data:image/jpeg;base64," + base64.b64encode(raw.tobytes()).decode(), grey.shape[1], grey.shape[0])


def colour_jpeg(picture: NDArray[Any], quality: int) -> Picture:
    """``picture`` (rows, columns, red green blue) as a JPEG inside a data URI."""
    return jpeg(np.ascontiguousarray(picture[..., ::-1], np.uint8), quality)


def view(image: Plain, side_px: int, quality: int = 72) -> Picture:
    """``image`` contrast-stretched, with its longer side at most ``side_px``."""
    return jpeg(stretch(shrunk(image, side_px)), quality)


def thon_rings(
    image: Plain, pixel_size_angstrom: float, features: Mapping[str, float], side_px: int = 160
) -> tuple[Picture, float]:
    """`spectrum` as a picture for the page, and the spacing at its edge in Å."""
    drawn, edge = spectrum(image, pixel_size_angstrom, features, side_px)
    return (Picture(note="too small for a power spectrum") if drawn is None else colour_jpeg(drawn, 78)), edge


def spectrum(
    image: Plain, pixel_size_angstrom: float, features: Mapping[str, float], side_px: int
) -> tuple[NDArray[Any] | None, float]:
    """Power spectrum, its right half the fitted CTF where one was found; and the spacing at its edge in Å.

    Shape (side, side, red green blue); None for an image that is too small for one.
    """
    rows, columns = image.shape
    if min(rows, columns) < 32:
        return None, 0.0
    top, left = max(0, (rows - _SPECTRUM_PX) // 2), max(0, (columns - _SPECTRUM_PX) // 2)
    middle = image[top : top + _SPECTRUM_PX, left : left + _SPECTRUM_PX]
    power = transformed(np.ascontiguousarray(middle), pixel_size_angstrom)
    fit = thon.fit_of(features)
    reach = thon.reach_of(power, fit[2] if fit else None)
    return thon.half_and_half(power, side_px, fit, reach), 1 / reach


@dataclass(frozen=True, slots=True)
class Sheet:
    """Where a mosaic lies on the stage: corner of its first pixel, scale, and size in pixels."""

    x_um: float
    y_um: float
    um_per_px: float
    columns: int
    rows: int


def sheet(frames: Sequence[ev.FrameReceived], side_px: int = ATLAS_PX) -> Sheet | None:
    """The smallest sheet that holds all frames which can be placed; None where there is none."""
    placed = [received.frame for received in frames if not is_flat(received.frame)]
    corners = np.array([corner for frame in placed for corner in _corners(frame)]).reshape(-1, 2)
    if corners.size == 0:
        return None
    low, high = corners.min(axis=0), corners.max(axis=0)
    finest = min(geometry.micron_per_pixel(frame) for frame in placed)
    um_per_px = max(float((high - low).max()) / side_px, finest, 1e-6)
    columns, rows = (max(1, int(n)) for n in np.ceil((high - low) / um_per_px))
    return Sheet(float(low[0]), float(low[1]), um_per_px, columns, rows)


def assemble(folder: Path, frames: Sequence[ev.FrameReceived], on: Sheet) -> tuple[Grey | None, list[str]]:
    """The frames on their sheet, brought to one brightness where they overlap, and why some are missing."""
    notes: list[str] = []
    low, size = np.array([on.x_um, on.y_um]), (on.columns, on.rows)
    total, weight = np.zeros((on.rows, on.columns), np.float32), np.zeros((on.rows, on.columns), np.float32)
    for received in frames:
        if is_flat(received.frame):
            notes.append(f"frame {received.frame.frame_id}: its image-to-stage matrix is flat")
            continue
        try:
            tile, share = _placed(load(folder, received), received.frame, low, on.um_per_px, size)
        except BadFileError as error:
            notes.append(str(error))
            continue
        common = (share > 0) & (weight > 0)
        if common.sum() > 50:
            here, there = float(tile[common].mean()), float((total[common] / weight[common]).mean())
            tile = tile * min(max(there / here, 0.5), 2.0) if here > 0 and there > 0 else tile
        total += tile * share
        weight += share
    if not weight.any():
        return None, notes
    seen = weight > 0
    image = np.full(total.shape, np.float32("nan"))
    image[seen] = total[seen] / weight[seen]
    return stretch(image), notes


def mosaic(folder: Path, frames: Sequence[ev.FrameReceived], side_px: int = ATLAS_PX) -> Mosaic:
    """The low-mag frames of one grid at their stage positions, as one picture for the report."""
    on = sheet(frames, side_px)
    if on is None:
        notes = tuple(f"frame {r.frame.frame_id}: its image-to-stage matrix is flat" for r in frames)
        return Mosaic(Picture(note="no low-mag frame that can be shown was taken"), 0.0, 0.0, 1.0, notes)
    grey, wrong = assemble(folder, frames, on)
    picture = Picture(note="no low-mag frame can be read") if grey is None else jpeg(grey, 74)
    return Mosaic(picture, on.x_um, on.y_um, on.um_per_px, tuple(wrong))


def is_flat(frame: Frame) -> bool:
    """Whether the frame's matrix maps the image to a line or a point, so that nothing can be placed by it."""
    return geometry.micron_per_pixel(frame) <= 1e-3 * max(abs(v) for v in geometry.image_to_stage(frame))


def _corners(frame: Frame) -> list[tuple[float, float]]:
    rows, columns = frame.shape
    return [geometry.pixel_to_stage(frame, x, y) for x in (-0.5, columns - 0.5) for y in (-0.5, rows - 0.5)]


def _placed(
    image: Plain, frame: Frame, low: NDArray[np.float64], um_per_px: float, size: tuple[int, int]
) -> tuple[Plain, Plain]:
    """A tile on the canvas of (columns, rows) = ``size``, and its weight there: 1 inside, falling to the edges."""
    factor = max(1, min(int(um_per_px / geometry.micron_per_pixel(frame)), *image.shape))
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    small = cv2.resize(image[: rows * factor, : columns * factor], (columns, rows), interpolation=cv2.INTER_AREA)
    places = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])  # of the shrunk tile; their pixels in the frame follow
    inside = (places + 0.5) * factor - 0.5
    stage = np.array([geometry.pixel_to_stage(frame, x, y) for x, y in inside])
    canvas = (stage - low) / um_per_px - 0.5  # the canvas begins at the corner of its first pixel
    matrix = np.column_stack([canvas[1] - canvas[0], canvas[2] - canvas[0], canvas[0]])
    y, x = np.mgrid[0:rows, 0:columns]
    edge = np.minimum(np.minimum(x, columns - 1 - x), np.minimum(y, rows - 1 - y)) + 1.0
    share = np.minimum(edge / max(1.0, 0.04 * min(rows, columns)), 1.0).astype(np.float32)
    tile = cv2.warpAffine(small, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(share, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(tile, np.float32), np.asarray(weight, np.float32)
