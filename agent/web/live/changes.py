"""What is different between two states: found by identity, as records are never changed in place."""

from typing import NamedTuple

from agent.session.state import Hole, Square, State


class Changes(NamedTuple):
    """Squares and holes that are new or other than before, and ids of holes that are gone."""

    squares: list[Square]
    holes: list[Hole]
    gone: list[str]


def between(before: State, after: State) -> Changes:
    """The changes from one state to a later one."""
    squares: list[Square] = []
    holes: list[Hole] = []
    gone: list[str] = []
    for grid_id, grid in after.grids.items():
        old_grid = before.grids.get(grid_id)
        if old_grid is grid:
            continue
        old_squares = old_grid.squares if old_grid is not None else {}
        for area_id, square in grid.squares.items():
            old = old_squares.get(area_id)
            if old is square:
                continue
            squares.append(square)
            old_holes = old.holes if old is not None else {}
            if old_holes is square.holes:
                continue
            holes += [hole for hole_id, hole in square.holes.items() if old_holes.get(hole_id) is not hole]
            gone += [hole_id for hole_id in old_holes if hole_id not in square.holes]
    return Changes(squares, holes, gone)
