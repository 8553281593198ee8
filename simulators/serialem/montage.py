"""Montages: where the pieces lie, and the overview that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.serialem.buffers import ImageBuffer, Matrix, Piece, Point, apply, inverse

MOST_OVERVIEW_PX = 8192


@dataclass(slots=True)
class MontageSetup:
    """A montage that is open.

    Parameters
    ----------
    columns, rows
        Pieces in x and y.
    overlap_px
        Overlap of neighbours in x and y.
    frame_px
        Columns and rows of one piece.
    centre_um
        Where its middle lies; None is where the stage is when it starts.
    outline_um
        A piece that shows nothing inside this outline is left out; empty takes all.
    radius_um
        The same for a disc about the centre; 0 takes all.
    """

    columns: int
    rows: int
    overlap_px: tuple[int, int]
    frame_px: tuple[int, int]
    centre_um: Point | None = None
    outline_um: tuple[Point, ...] = ()
    radius_um: float = 0.0
    letter: str = "M"
    started: bool = False

    @property
    def step_px(self) -> tuple[int, int]:
        """From one piece to the next."""
        return self.frame_px[0] - self.overlap_px[0], self.frame_px[1] - self.overlap_px[1]

    @property
    def size_px(self) -> tuple[int, int]:
        """Columns and rows of the overview."""
        return (
            self.step_px[0] * (self.columns - 1) + self.frame_px[0],
            self.step_px[1] * (self.rows - 1) + self.frame_px[1],
        )

    def corners_px(self) -> list[tuple[int, int]]:
        """Top left corner of each piece in the overview, column by column, every other one from below."""
        places = []
        for column in range(self.columns):
            down = range(self.rows) if column % 2 == 0 else range(self.rows - 1, -1, -1)
            places += [(column * self.step_px[0], row * self.step_px[1]) for row in down]
        return places

    def offset_px(self, corner: tuple[int, int]) -> Point:
        """From the middle of the overview to the middle of a piece."""
        return (
            corner[0] + self.frame_px[0] / 2 - self.size_px[0] / 2,
            corner[1] + self.frame_px[1] / 2 - self.size_px[1] / 2,
        )

    def pieces(self, matrix: Matrix, centre_um: Point) -> list[Piece]:
        """The pieces to take, with the Navigator coordinates of their middles."""
        found = []
        for corner in self.corners_px():
            place = apply(matrix, centre_um, (0.0, 0.0), self.offset_px(corner))
            if self._wanted(matrix, centre_um, place):
                found.append(Piece(float(corner[0]), float(corner[1]), place))
        return found

    def _wanted(self, matrix: Matrix, centre_um: Point, place: Point) -> bool:
        reach = math.hypot(*self.frame_px) / 2 * math.sqrt(abs(matrix[0] * matrix[3] - matrix[1] * matrix[2]))
        if self.radius_um:
            return math.dist(place, centre_um) < self.radius_um + reach
        if self.outline_um:
            back = inverse(matrix)
            points = [apply(back, (0.0, 0.0), place, corner) for corner in self.outline_um]
            half = self.frame_px[0] / 2, self.frame_px[1] / 2
            return (
                min(x for x, _ in points) < half[0]
                and max(x for x, _ in points) > -half[0]
                and min(y for _, y in points) < half[1]
                and max(y for _, y in points) > -half[1]
            )
        return True


def pieces_for(length_px: float, frame_px: int, overlap_px: int) -> int:
    """How many pieces cover a length."""
    return max(1, math.ceil((length_px - overlap_px) / (frame_px - overlap_px)))


class Overview:
    """The picture of a montage while it grows; made smaller by a whole factor when it would be too big."""

    def __init__(self, setup: MontageSetup) -> None:
        columns, rows = setup.size_px
        self.factor = max(1, math.ceil(max(columns, rows) / MOST_OVERVIEW_PX))
        self.pixels: NDArray[Any] = np.zeros((rows // self.factor, columns // self.factor), np.uint16)

    def add(self, piece: Piece, pixels: NDArray[Any]) -> None:
        """Put a piece in; where two overlap the later one shows."""
        small = pixels[:: self.factor, :: self.factor]
        top, left = int(piece.y_px) // self.factor, int(piece.x_px) // self.factor
        rows, columns = self.pixels[top : top + small.shape[0], left : left + small.shape[1]].shape
        self.pixels[top : top + rows, left : left + columns] = small[:rows, :columns]

    def buffer(self, setup: MontageSetup, pieces: list[Piece], last: ImageBuffer, centre_um: Point) -> ImageBuffer:
        """The overview as an image buffer."""
        k = self.factor
        matrix = last.matrix_or_refuse()
        shown = tuple(Piece(p.x_px / k, p.y_px / k, p.centre_um) for p in pieces)
        return ImageBuffer(
            self.pixels,
            set_letter=setup.letter,
            capture_set=last.capture_set,
            binning=last.binning * k,
            exposure_s=last.exposure_s,
            pixel_nm=last.pixel_nm * k,
            dose_e_per_a2=last.dose_e_per_a2,
            mag=last.mag,
            mag_index=last.mag_index,
            centre_um=centre_um,
            matrix=(matrix[0] * k, matrix[1] * k, matrix[2] * k, matrix[3] * k),
            stage_um=(*centre_um, last.stage_um[2]),
            tilt_deg=last.tilt_deg,
            low_dose=last.low_dose,
            taken_s=last.taken_s,
            piece_shape=(setup.frame_px[1] // k, setup.frame_px[0] // k),
            pieces=shown,
        )
