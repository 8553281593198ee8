"""Where images lie that come without a position: side by side on a stage of the driver's own, never on each other.

Leginon tells neither stage position nor pixel size. So that session, page and report can show its images like any
others, each tile gets a place on a spiral about the centre, and each hole image a place within its square.
"""

import math
from typing import NamedTuple

TILE_FIELD_UM = 500.0  # what an atlas tile shows, about, where nobody says it
LARGEST_FIELD_UM = 1_400.0  # 25 tiles of this field find room, and cover any grid; larger ones are drawn smaller
SQUARE_FIELD_UM = 50.0  # what a hole image of a square shows that nobody knows
GAP = 1.05
LIMIT_UM = 4_900.0  # positions have to stay within the bounds of the wire


class Place(NamedTuple):
    """Where the centre of an image lies, and how large its pixels are there."""

    x_um: float
    y_um: float
    um_per_pixel: float


class NoRoomError(ValueError):
    """More images than fit beside each other."""


def spiral(number: int) -> tuple[int, int]:
    """Column and row of the ``number``-th cell, from 0, on a square spiral about (0, 0)."""
    if number == 0:
        return 0, 0
    ring = (math.isqrt(number) + 1) // 2
    side, step = divmod(number - (2 * ring - 1) ** 2, 2 * ring)
    along = step - ring + 1
    return ((ring, along), (-along, ring), (-ring, -along), (along, -ring))[side]


def tile_pitch_um(pixel_size_angstrom: float | None, longest_px: int) -> float:
    """Distance of neighbouring places on a grid, from its first tile."""
    field = TILE_FIELD_UM if pixel_size_angstrom is None else pixel_size_angstrom * 1e-4 * longest_px
    return GAP * min(max(field, TILE_FIELD_UM), LARGEST_FIELD_UM)


def tile_place(number: int, pitch_um: float, pixel_size_angstrom: float | None, longest_px: int) -> Place:
    """Place of the ``number``-th tile of a grid.

    Raises
    ------
    NoRoomError
        If no more tiles fit.
    """
    column, row = spiral(number)
    field_um = pitch_um / GAP
    if max(abs(column), abs(row)) * pitch_um + pitch_um / 2 > LIMIT_UM:
        raise NoRoomError(f"tile number {number + 1} of this grid: no more than {number} find room beside each other")
    scale = field_um / longest_px
    if pixel_size_angstrom is not None:
        scale = min(scale, pixel_size_angstrom * 1e-4)
    return Place(column * pitch_um, row * pitch_um, scale)


def image_place(
    number: int, square_um: tuple[float, float, float], pixel_size_angstrom: float | None, longest_px: int
) -> Place:
    """Place of the ``number``-th hole image of a square, given as centre (x, y) and side.

    Nine images of unknown scale fill the square; where the pixel size is known they are as large as they are.
    """
    x_um, y_um, side_um = square_um
    field_um = side_um / 3 / GAP if pixel_size_angstrom is None else pixel_size_angstrom * 1e-4 * longest_px
    column, row = spiral(number)
    x_um, y_um = x_um + column * field_um * GAP, y_um + row * field_um * GAP
    if max(abs(x_um), abs(y_um)) > LIMIT_UM:
        raise NoRoomError(f"hole image number {number + 1} of this square: no more than {number} find room")
    return Place(x_um, y_um, field_um / longest_px)
