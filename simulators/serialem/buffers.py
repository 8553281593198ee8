"""Image buffers A to T: A is the newest, older ones roll along; and what SerialEM knows of each image.

Arrays hold the top row first. Image coordinates here are SerialEM's: (0, 0) is the top left *corner* of the first
pixel, x right, y down, so that the centre of an image is (columns / 2, rows / 2). Cryonaut counts from the centre of
the first pixel: its (x, y) is SerialEM's (x + 0.5, y + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.serialem.protocol import BUFFERS, MalformedError, buffer_index
from simulators.serialem.commands import ScriptError

Matrix = tuple[float, float, float, float]
Point = tuple[float, float]
ROLLING = 8  # A to H roll; the rest stays until it is overwritten


@dataclass(frozen=True, slots=True)
class Piece:
    """One frame of a montage: where it lies in the overview and where it was taken."""

    x_px: float
    y_px: float
    centre_um: Point


@dataclass(frozen=True, slots=True)
class ImageBuffer:
    """An image and its scope information.

    Parameters
    ----------
    pixels
        Shape (rows, columns), top row first.
    set_letter
        Camera set that took it; empty for anything else.
    capture_set
        SerialEM's number for that set; -1 is read from a file or processed.
    pixel_nm
        Pixel size; 0 is unknown.
    centre_um
        Navigator coordinates of the image's centre: stage position plus image shift.
    matrix
        Row major, µm per pixel with y down: stage = centre + M (pixel - (columns / 2, rows / 2)).
    stage_um, tilt_deg
        Stage x, y, z and tilt when it was taken.
    image_shift_um
        Image shift in stage axes.
    defocus_um
        As SerialEM has it: negative is underfocus.
    misplaced_um
        From what `centre_um` says to where the image really is, which nobody knows.
    true_defocus_um
        What a fit of the image would find, in the same sense; None where no exposure was made.
    """

    pixels: NDArray[Any]
    set_letter: str = ""
    capture_set: int = -1
    binning: float = 1.0
    exposure_s: float = 0.0
    pixel_nm: float = 0.0
    dose_e_per_a2: float = 0.0
    mag: int = 0
    mag_index: int = 0
    centre_um: Point = (0.0, 0.0)
    matrix: Matrix | None = None
    stage_um: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tilt_deg: float = 0.0
    image_shift_um: Point = (0.0, 0.0)
    defocus_um: float = 0.0
    misplaced_um: Point = (0.0, 0.0)
    true_defocus_um: float | None = None
    low_dose: bool = False
    taken_s: float = 0.0
    frame_file: str = ""
    file: str = ""
    section: int = 0
    piece_shape: tuple[int, int] = (0, 0)  # (rows, columns)
    pieces: tuple[Piece, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def middle_px(self) -> Point:
        """Centre of the image."""
        return self.pixels.shape[1] / 2, self.pixels.shape[0] / 2

    def matrix_or_refuse(self) -> Matrix:
        """The matrix to the stage; `ScriptError` when nobody knows it."""
        if self.matrix is None:
            raise ScriptError("The image has no stage position and magnification from which to get stage coordinates")
        return self.matrix

    def to_stage(self, x_px: float, y_px: float) -> Point:
        """Navigator coordinates of an image point, ignoring the pieces of a montage."""
        return apply(self.matrix_or_refuse(), self.centre_um, self.middle_px, (x_px, y_px))

    def to_image(self, x_um: float, y_um: float) -> Point:
        """Image point of Navigator coordinates."""
        return apply(inverse(self.matrix_or_refuse()), self.middle_px, self.centre_um, (x_um, y_um))

    def piece_at(self, x_px: float, y_px: float) -> tuple[int, float, float]:
        """Number of the piece whose centre is nearest, and the point in it; -1 when this is no montage."""
        if not self.pieces:
            return -1, 0.0, 0.0
        rows, columns = self.piece_shape
        away = [
            max(abs(x_px - p.x_px - columns / 2) / columns, abs(y_px - p.y_px - rows / 2) / rows) for p in self.pieces
        ]
        number = int(np.argmin(away))
        return number, x_px - self.pieces[number].x_px, y_px - self.pieces[number].y_px

    def point(self, x_px: float, y_px: float) -> tuple[Point, int, Point]:
        """Navigator coordinates of a point by way of its piece, the piece's number, the point in the piece."""
        number, x, y = self.piece_at(x_px, y_px)
        if number < 0:
            return self.to_stage(x_px, y_px), -1, (0.0, 0.0)
        rows, columns = self.piece_shape
        where = apply(self.matrix_or_refuse(), self.pieces[number].centre_um, (columns / 2, rows / 2), (x, y))
        return where, number, (x, y)


def apply(matrix: Matrix, origin: Point, about: Point, point: Point) -> Point:
    """Origin + M (point - about)."""
    a, b, c, d = matrix
    x, y = point[0] - about[0], point[1] - about[1]
    return origin[0] + a * x + b * y, origin[1] + c * x + d * y


def inverse(matrix: Matrix) -> Matrix:
    """The inverse of a matrix."""
    a, b, c, d = matrix
    det = a * d - b * c
    return d / det, -b / det, -c / det, a / det


def product(first: Matrix, second: Matrix) -> Matrix:
    """First after second."""
    a, b, c, d = first
    e, f, g, h = second
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


class Buffers:
    """All buffers by number, and their FFTs."""

    def __init__(self) -> None:
        self.images: dict[int, ImageBuffer] = {}
        self.ffts: dict[int, ImageBuffer] = {}

    @staticmethod
    def number(letter: str) -> int:
        """Number of a buffer; `ScriptError` when there is none of that name."""
        try:
            number, fft = buffer_index(letter)
        except MalformedError as error:
            raise ScriptError(str(error)) from error
        if fft:
            raise ScriptError(f"Buffer {letter} is an FFT; an image buffer A to {BUFFERS[-1]} was expected")
        return number

    def get(self, letter: str) -> ImageBuffer:
        """The image of a buffer; `ScriptError` when it is empty."""
        if letter.isdigit():
            raise ScriptError(f"Buffer {letter}: a letter A to {BUFFERS[-1]} was expected")
        number = self.number(letter)
        if number not in self.images:
            raise ScriptError(f"There is no image in buffer {letter.upper()}")
        return self.images[number]

    def put(self, letter_or_number: str | int, image: ImageBuffer) -> None:
        """Put an image into a buffer; into A the older ones roll first."""
        number = letter_or_number if isinstance(letter_or_number, int) else self.number(letter_or_number)
        if number == 0:
            for place in range(ROLLING - 1, 0, -1):
                if place - 1 in self.images:
                    self.images[place] = self.images[place - 1]
                else:
                    self.images.pop(place, None)
        self.images[number] = image

    def put_array(self, pixels: NDArray[Any], to: int, base: int, more_binning: float, capture: int) -> None:
        """An image from a client, with the scope information of buffer ``base``."""
        source = self.images.get(base)
        if source is None:
            self.put(to, ImageBuffer(pixels, capture_set=capture))
            return
        matrix = None if source.matrix is None else product(source.matrix, (more_binning, 0.0, 0.0, more_binning))
        self.put(
            to,
            replace(
                source,
                pixels=pixels,
                set_letter="",
                capture_set=capture,
                binning=source.binning * more_binning,
                pixel_nm=source.pixel_nm * more_binning,
                matrix=matrix,
                pieces=(),
            ),
        )
