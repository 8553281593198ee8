"""What the register keeps: tiles, squares, hole images, holes and reports as rows, and how they are read."""

import json
from typing import Any, NamedTuple


class Tile(NamedTuple):
    """One pushed tile; ``state`` is ``waiting`` (on its way to the daemon), ``found`` or ``failed``."""

    tile: int
    run: int
    grid: str
    grid_id: int
    tile_id: int
    frame_id: str
    place: int
    pitch_um: float
    rows: int
    columns: int
    state: str
    note: str


class Square(NamedTuple):
    """One square; x, y, vertices in pixels of its tile, ``area`` in pixels²."""

    square_id: int
    area_id: str
    run: int
    grid_id: int
    tile_id: int
    columns: int
    rows: int
    x: float
    y: float
    vertices: tuple[tuple[float, float], ...]
    brightness: float
    area: float
    score: float
    visited: bool


class NewSquare(NamedTuple):
    """What a tile's answer says of one square."""

    area_id: str
    x: float
    y: float
    vertices: tuple[tuple[float, float], ...]
    brightness: float
    area: float
    score: float
    x_um: float
    y_um: float
    side_um: float


class HoleImage(NamedTuple):
    """One pushed hole image and where it lies."""

    image: int
    run: int
    grid: str
    square_id: int
    mm_img_id: int
    frame_id: str
    place: int
    rows: int
    columns: int


class Hole(NamedTuple):
    """One hole; x, y, radius in pixels of its image."""

    hole_id: int
    area_id: str
    run: int
    mm_img_id: int
    square_id: int
    grid_id: int
    rows: int
    columns: int
    x: float
    y: float
    radius: float
    score: float
    visited: bool


class NewHole(NamedTuple):
    """What an image's answer says of one hole."""

    area_id: str
    x: float
    y: float
    radius: float
    score: float


class Visit(NamedTuple):
    """One report of an exposure that the daemon was not told yet."""

    visit: int
    area_id: str
    ctf: float | None
    ice: float | None


class Parent(NamedTuple):
    """The square that a hole image shows: its area (empty where nobody knows it), centre and side."""

    run: int
    grid: str
    area_id: str
    x_um: float
    y_um: float
    side_um: float


SQUARES = """
SELECT s.square_id, s.area_id, t.run, g.grid_id, t.tile_id, t.columns, t.rows, s.x, s.y, s.vertices, s.brightness,
       s.area, s.score, s.visited
FROM squares s JOIN tiles t USING (tile) JOIN grids g ON g.name = t.grid
"""
HOLES = """
SELECT h.hole_id, h.area_id, i.run, i.mm_img_id, i.square_id, g.grid_id, i.rows, i.columns, h.x, h.y, h.radius, h.score,
       h.visited
FROM holes h JOIN images i USING (image) JOIN grids g ON g.name = i.grid
"""
TILES = """
SELECT t.tile, t.run, t.grid, g.grid_id, t.tile_id, t.frame_id, t.place, g.pitch_um, t.rows, t.columns, t.state, t.note
FROM tiles t JOIN grids g ON g.name = t.grid
"""


def square_of(row: Any) -> Square:
    """A row of `SQUARES`."""
    values = list(row)
    values[9] = tuple((float(x), float(y)) for x, y in json.loads(values[9]))
    values[13] = bool(values[13])
    return Square(*values)
