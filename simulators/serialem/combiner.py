"""Points on a lattice gathered into patterns of a few columns and rows, each with the places that it skips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulators.serialem.buffers import Point

Place = tuple[int, int]  # (column, row) on the lattice
NEAR = 0.3  # of a lattice step: farther from every lattice place is a point of its own


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern.

    Parameters
    ----------
    centre_um
        Where the stage goes: the middle of all places, skipped ones too.
    members
        Numbers of the points that it holds.
    skipped
        (column, row) in the pattern, from 0, of places without a point.
    """

    centre_um: Point
    members: tuple[int, ...]
    skipped: tuple[Place, ...]


def offsets(first: Point, second: Point, columns: int, rows: int) -> dict[Place, Point]:
    """From the middle of a pattern to each of its places."""
    return {
        (i, j): (
            (i - (columns - 1) / 2) * first[0] + (j - (rows - 1) / 2) * second[0],
            (i - (columns - 1) / 2) * first[1] + (j - (rows - 1) / 2) * second[1],
        )
        for j in range(rows)
        for i in range(columns)
    }


def combine(points_um: Sequence[Point], first: Point, second: Point, columns: int, rows: int) -> list[Pattern]:
    """Few patterns that hold every point once; the fullest comes first.

    Parameters
    ----------
    points_um
        The points.
    first, second
        Steps of the lattice.
    columns, rows
        Size of the pattern.
    """
    lattice = np.array([first, second]).T
    points = np.array(points_um, dtype=float)
    steps = np.linalg.solve(lattice, (points - points[0]).T).T
    whole = np.rint(steps).astype(int)
    off = np.abs(steps - whole).max(axis=1)
    left: dict[Place, int] = {}
    alone: list[int] = []
    for number, place in enumerate(map(tuple, whole.tolist())):
        if off[number] > NEAR or place in left:
            alone.append(number)
        else:
            left[place] = number
    found: list[Pattern] = []
    while left:
        corner = max(_corners(left, columns, rows), key=lambda at: (_count(left, at, columns, rows), -at[1], -at[0]))
        places = {(i, j): (corner[0] + i, corner[1] + j) for j in range(rows) for i in range(columns)}
        members = {inner: left.pop(outer) for inner, outer in places.items() if outer in left}
        move = offsets(first, second, columns, rows)
        centre = np.mean([points[number] - move[inner] for inner, number in members.items()], axis=0)
        skipped = tuple(inner for inner in places if inner not in members)
        found.append(Pattern((float(centre[0]), float(centre[1])), tuple(members.values()), skipped))
    move = offsets(first, second, columns, rows)
    for number in alone:
        middle = (columns // 2, rows // 2)
        centre = points[number] - move[middle]
        others = tuple(place for place in move if place != middle)
        found.append(Pattern((float(centre[0]), float(centre[1])), (number,), others))
    return found


def _corners(left: dict[Place, int], columns: int, rows: int) -> set[Place]:
    return {(i - di, j - dj) for i, j in left for di in range(columns) for dj in range(rows)}


def _count(left: dict[Place, int], corner: Place, columns: int, rows: int) -> int:
    return sum((corner[0] + i, corner[1] + j) in left for j in range(rows) for i in range(columns))
