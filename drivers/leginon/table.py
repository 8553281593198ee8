"""The two CSV tables that Leginon reads, without what would trip its reader.

Its reader repeats the row before where a cell of an integer column is empty, and fails later on an empty score: so
every cell is filled, but for CTF and ice of holes that were not visited.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from agent.messages import HoleSeen, SquareSeen
from drivers.leginon.register_rows import Hole, Square

SQUARE_COLUMNS = (
    "square_id", "tile_id", "grid_id", "center_x", "center_y",
    "vert_1_x", "vert_1_y", "vert_2_x", "vert_2_y", "vert_3_x", "vert_3_y", "vert_4_x", "vert_4_y",
    "brightness", "area", "prior_score", "visited",
)  # fmt: skip
HOLE_COLUMNS = (
    "hole_id", "mm_img_id", "square_id", "grid_id", "center_x", "center_y", "radius", "prior_score", "visited",
    "ctf", "ice_thickness", "ctf_pred", "ice_pred", "ctf_var", "ice_var",
)  # fmt: skip
MOST_OF_PITCH = 0.75  # sqrt(area) against the pitch: Leginon merges squares nearer than that
CODED = 1000  # Leginon keeps int(1000 * score)
USUAL = {"ctf_pred": 6.0, "ctf_var": 9.0, "ice_pred": 40.0, "ice_var": 800.0}  # where nothing is known at all
WORKING_SIDE = 1440  # Leginon finds holes on the image binned by 1, 2, 4 or 8 to at most this


def squares_csv(squares: Sequence[Square], seen: Mapping[str, SquareSeen], order: Sequence[str] | None = None) -> str:
    """The square table; with an ``order`` of area ids only these, in that order, with ``GP_probs``."""
    limits = area_limits(squares)
    if order is not None:
        by_area = {square.area_id: square for square in squares}
        squares = [by_area[area_id] for area_id in order if area_id in by_area]
        probs = gp_probs([seen[square.area_id] for square in squares])
    rows = []
    for number, square in enumerate(squares):
        now = seen.get(square.area_id)
        row: dict[str, Any] = {
            "square_id": square.square_id,
            "tile_id": square.tile_id,
            "grid_id": square.grid_id,
            "center_x": _inside(square.x, square.columns),
            "center_y": _inside(square.y, square.rows),
            "brightness": _number(square.brightness, 3),
            "area": _number(min(square.area, limits.get(square.grid_id, math.inf)), 1),
            "prior_score": _score(now, square.score),
            "visited": square.visited or (now is not None and now.visited),
        }
        for corner, (x, y) in enumerate(four_corners(square.vertices, square.x, square.y), 1):
            row[f"vert_{corner}_x"], row[f"vert_{corner}_y"] = _number(x, 2), _number(y, 2)
        if order is not None:
            row["GP_probs"] = probs[number]
        rows.append(row)
    return _text((*SQUARE_COLUMNS, "GP_probs") if order is not None else SQUARE_COLUMNS, rows)


def holes_csv(holes: Sequence[Hole], seen: Mapping[str, HoleSeen], *, shrunk: bool, learned: bool) -> str:
    """The hole table; ``shrunk``: pixels of the image as Leginon bins it, ``learned``: with ``GP_probs``."""
    rows = []
    for hole in holes:
        now = seen.get(hole.area_id)
        factor = binning(hole.rows, hole.columns) if shrunk else 1
        x, y = shrink(_inside(hole.x, hole.columns), factor), shrink(_inside(hole.y, hole.rows), factor)
        row: dict[str, Any] = {
            "hole_id": hole.hole_id,
            "mm_img_id": hole.mm_img_id,
            "square_id": hole.square_id,
            "grid_id": hole.grid_id,
            "center_x": _number(x, 3),
            "center_y": _number(y, 3),
            "radius": _number(hole.radius / factor, 3),
            "prior_score": _score(now, hole.score),
            "visited": hole.visited or (now is not None and now.visited),
            "ctf": "" if now is None or now.measured_ctf_angstrom is None else now.measured_ctf_angstrom,
            "ice_thickness": "" if now is None or now.measured_ice_nm is None else now.measured_ice_nm,
        }
        told = {
            "ctf_pred": now.ctf_angstrom if now else None,
            "ctf_var": now.ctf_var if now else None,
            "ice_pred": now.ice_nm if now else None,
            "ice_var": now.ice_var if now else None,
        }
        row |= {name: _number(USUAL[name] if value is None else value, 4) for name, value in told.items()}
        if learned:
            row["GP_probs"] = _score(now, now.p_good if now and now.p_good is not None else hole.score)
        rows.append(row)
    return _text((*HOLE_COLUMNS, "GP_probs") if learned else HOLE_COLUMNS, rows)


def gp_probs(squares: Sequence[SquareSeen]) -> list[float]:
    """Scores of at most 1 that keep the order given, also as the integers ``int(1000 * score)`` that Leginon makes.

    In proportion to the good micrographs expected of each, as far as the order lets them.
    """
    count = len(squares)
    if count > CODED:  # there are not that many thousandths: the order alone
        return [round(1.0 - number / count, 6) for number in range(count)]
    expected = [max(0.0, s.expected_good if s.expected_good is not None else s.score) for s in squares]
    most = max(expected, default=0.0) or 1.0
    coded: list[int] = []
    for number, good in enumerate(expected):
        wanted = int(CODED * good / most)
        highest = coded[-1] - 1 if coded else CODED
        coded.append(max(count - 1 - number, min(wanted, highest)))
    # a hair above the thousandth: 1000 * 0.029 is 28.99 in floating point
    return [min(1.0, round((code + 0.2) / CODED, 4)) for code in coded]


def area_limits(squares: Iterable[Square]) -> dict[int, float]:
    """Largest area in pixels² that may be told, by grid id.

    Leginon merges squares nearer to each other than sqrt(area); were that as large as the pitch, it would merge without
    end and run out of memory.
    """
    tiles: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for square in squares:
        tiles.setdefault((square.grid_id, square.tile_id), []).append((square.x, square.y))
    gaps: dict[int, list[float]] = {}
    for (grid_id, _), points in tiles.items():
        if len(points) > 1:
            gaps.setdefault(grid_id, []).extend(nearest_gaps(points))
    return {grid_id: (MOST_OF_PITCH * float(np.median(found))) ** 2 for grid_id, found in gaps.items()}


def nearest_gaps(points: Sequence[tuple[float, float]]) -> list[float]:
    """Distance of each point to the nearest other one."""
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(points).query(points, k=2)
    return [float(gap) for gap in distances[:, 1]]


def four_corners(vertices: Sequence[tuple[float, float]], x: float, y: float) -> list[tuple[float, float]]:
    """Four corners in ring order of a polygon of any number: the ones that span most of it."""
    points = [(float(u), float(v)) for u, v in vertices] or [(x, y)]
    while len(points) > 4:  # leave out the corner that costs least area
        costs = [_triangle(points[i - 1], points[i], points[(i + 1) % len(points)]) for i in range(len(points))]
        points.pop(costs.index(min(costs)))
    return points + [points[-1]] * (4 - len(points))


def _triangle(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])) / 2


def binning(rows: int, columns: int) -> int:
    """By what Leginon bins an image before it uses holes: 1, 2, 4 or 8."""
    factor = 1
    while factor < 8 and max(rows, columns) / factor > WORKING_SIDE:
        factor *= 2
    return factor


def shrink(place: float, factor: int) -> float:
    """A pixel coordinate on the image binned by ``factor``; the centre of the first pixel is 0 on both."""
    return (place + 0.5) / factor - 0.5


def _score(now: SquareSeen | HoleSeen | None, score: float) -> float:
    """A person's word, else the model's score; 0 where it is below the threshold that was set for the session."""
    if now is not None and now.word == "accepted":
        return 1.0
    if now is not None and not now.wanted:
        return 0.0
    return _number(min(max(score, 0.0), 1.0), 4)


def _inside(place: float, side: int) -> float:
    return _number(min(max(place, 0.0), side - 1.0), 3)


def _number(value: float, digits: int) -> float:
    return round(float(value), digits) if math.isfinite(value) else 0.0


def _text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("", *columns))
    for number, row in enumerate(rows):
        writer.writerow((number, *(row[name] for name in columns)))
    return out.getvalue()
