"""Tiles that cover an image: every pixel belongs to exactly one of them."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's own part, [top, bottom) and [left, right), in pixels."""

    top: int
    bottom: int
    left: int
    right: int


def tiles(shape: tuple[int, int], side: int) -> Iterator[Tile]:
    """Tiles of at most ``side`` pixels, row by row, that cover an image of shape (rows, columns) once."""
    rows, columns = shape
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            yield Tile(top, min(top + side, rows), left, min(left + side, columns))


def count(shape: tuple[int, int], side: int) -> int:
    """How many tiles there are."""
    return -(-shape[0] // side) * -(-shape[1] // side)
