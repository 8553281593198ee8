"""Which grid, square or hole a frame shows, and how what was found on it joins what is known."""

import math
from collections.abc import Sequence

from msgspec.structs import replace

from agent import geometry
from agent.messages import Frame
from agent.session import events as ev
from agent.session.state import (
    Decision,
    Grid,
    Hole,
    Square,
    State,
    grid_of,
    hole_id,
    is_hole,
    number_of,
    square_id,
)
from agent.session.turn import Turn
from models.detections import HoleFinding, SquareFinding

DOUBT_UM = 2.0  # how far places may be off on a grid that was known again by a low-mag frame


def place_frame(turn: Turn, frame: Frame) -> tuple[str, str]:
    """Ids (grid, area) of what ``frame`` shows; what nobody announced is made known on the spot.

    A frame of a command belongs to the area of the command. Frames that the microscope software took by itself
    belong to the area they name, else to the nearest one, else a new square or hole is put there.
    """
    state = turn.state
    entry = state.outstanding.get(frame.command_id)
    area_id = entry.area_id if entry else frame.area_id
    known = state.area(area_id) if area_id else None
    asked = getattr(entry.command.work, "grid_id", "") if entry else ""
    grid_id = grid_of(area_id) if known else asked or frame.grid_id or state.grid_id or next(iter(state.grids), "G1")
    if grid_id not in state.grids:
        turn.emit(ev.GridAdded(grid_id=grid_id))
    if turn.state.grid_id != grid_id:
        turn.grid(grid_id, "screening" if state.mode == "advisor" else "loaded", "a frame of it came")
    if frame.level == "low":
        return grid_id, ""
    wants_hole = frame.level == "high"
    if known is not None and is_hole(area_id) == wants_hole:
        return grid_id, area_id
    square = _square_at(turn, grid_id, frame, area_id)
    return grid_id, _hole_at(turn, square, frame) if wants_hole else square.area_id


def _square_at(turn: Turn, grid_id: str, frame: Frame, area_id: str) -> Square:
    here = geometry.centre_um(frame)
    grid = turn.state.grids[grid_id]
    named = turn.state.square(area_id) if area_id else None
    near = named or nearest_square(grid, here)
    if near is not None and (named or geometry.distance((near.x_um, near.y_um), here) < 0.75 * near.size_um):
        return near
    side = max(frame.shape) * geometry.micron_per_pixel(frame)
    square = Square(
        area_id=square_id(grid_id, len(grid.squares) + 1),
        x_um=here[0],
        y_um=here[1],
        size_um=max(side, 40.0) if frame.level == "medium" else 50.0,
        score=0.5,
        why="a frame was taken here",
    )
    _place(turn, square, "frame of an unknown square")
    return square


def _hole_at(turn: Turn, square: Square, frame: Frame) -> str:
    here = geometry.centre_um(frame)
    holes = [(geometry.distance((h.x_um, h.y_um), here), h.area_id, h) for h in square.holes.values()]
    gap, area_id, hole = min(holes, default=(math.inf, "", None))
    if hole is not None and gap < 2.0 * max(hole.radius_um, 0.2):
        return area_id
    new = Hole(
        area_id=hole_id(square.area_id, next_hole_number(square)),
        x_um=here[0],
        y_um=here[1],
        radius_um=0.6,
        score=0.5,
        why="a frame was taken here",
    )
    _place(turn, new, "frame of an unknown hole")
    return new.area_id


def _place(turn: Turn, area: Square | Hole, request: str) -> None:
    turn.emit(ev.AreaPlaced(area=area, request=request, decision=Decision(why=area.why)))


def nearest_square(grid: Grid, point: geometry.Point) -> Square | None:
    """The square whose centre is nearest to ``point`` (x, y) in micrometres."""
    return min(
        grid.squares.values(),
        key=lambda s: (geometry.distance((s.x_um, s.y_um), point), s.area_id),
        default=None,
    )


def near_squares(grid: Grid, points: Sequence[geometry.Point]) -> Grid:
    """``grid`` with only those squares that can be the nearest one to any of ``points``.

    The nearest square of a point is at most twice its distance from the points' middle further from there than the
    middle's own nearest square.
    """
    if not points or len(grid.squares) < 3:
        return grid
    middle = (sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points))
    reach = max(geometry.distance(middle, point) for point in points)
    away = {s.area_id: geometry.distance((s.x_um, s.y_um), middle) for s in grid.squares.values()}
    most = min(away.values()) + 2 * reach + 1e-6
    return replace(grid, squares={name: s for name, s in grid.squares.items() if away[s.area_id] <= most})


def next_hole_number(square: Square) -> int:
    """A hole number that was never used in this square."""
    return max([square.holes_ever, *map(number_of, square.holes)]) + 1


def merge_squares(state: State, grid: Grid, frame: Frame, finding: SquareFinding) -> tuple[Square, ...]:
    """Squares of a low-mag frame as records: new ones, and known ones that this frame shows better.

    Two sightings are one square when their centres are closer than half its size. A whole sighting replaces one cut by
    a frame's edge; nothing replaces what an operator placed or the microscope has visited.
    """
    scale = geometry.micron_per_pixel(frame)
    records: list[Square] = []
    number = len(grid.squares)
    taken: set[str] = set()
    for found in finding.squares:
        x_um, y_um = geometry.pixel_to_stage(frame, found.x, found.y)
        size_um = math.sqrt(max(found.area_px, 1.0)) * scale
        corners = geometry.pixels_to_stage(frame, found.vertices)
        sighting = Square(
            area_id=square_id(grid.grid_id, number + 1),
            x_um=round(x_um, 4),
            y_um=round(y_um, 4),
            size_um=round(size_um, 4),
            vertices_um=tuple((round(u, 3), round(v, 3)) for u, v in corners),
            score=round(float(found.score), 4),
            label=found.label,
            why=_reasons(found.features),
            touches_edge=found.touches_edge,
            frame_id=frame.frame_id,
            features={k: round(float(v), 4) for k, v in found.features.items()},
        )
        # frames without positions are laid out beside each other: nothing on one can be a sighting of another
        known = None if frame.nominal else nearest_square(grid, (x_um, y_um))
        if known is not None:
            gap = geometry.distance((known.x_um, known.y_um), (x_um, y_um))
            if gap < 0.5 * max(known.size_um, size_um):
                better = known.touches_edge and not found.touches_edge
                fuller = known.touches_edge == found.touches_edge and size_um > 1.05 * known.size_um
                free = not known.word and known.state == "found" and known.area_id not in taken and not known.holes
                if free and (better or fuller):
                    records.append(replace(sighting, area_id=known.area_id, priority=known.priority))
                    taken.add(known.area_id)
                continue
        number += 1
        records.append(sighting)
    return tuple(records)


def merge_holes(
    grid: Grid, square: Square, frame: Frame, finding: HoleFinding
) -> tuple[tuple[Hole, ...], tuple[str, ...]]:
    """Holes of a medium-mag frame as records of ``square``, and the ids of its earlier holes that lie beside the frame.

    Holes nearer to another square's centre are left to it. A hole that an operator placed or that was exposed keeps its
    record, as do those that the frame does not show; a sighting of one is not counted again.
    """
    scale = geometry.micron_per_pixel(frame)
    beside = _beside(frame, [hole for hole in square.holes.values() if not hole.must_stay])
    kept = [hole for hole in square.holes.values() if hole.must_stay or hole.area_id in beside]
    number = next_hole_number(square) - 1
    holes: list[Hole] = []
    points = geometry.pixels_to_stage(frame, ((found.x, found.y) for found in finding.holes))
    theirs = set() if frame.nominal else _of_others(grid, square, points)
    for found, (x_um, y_um) in zip(finding.holes, points, strict=True):
        radius_um = found.radius_px * scale
        if any(geometry.distance((h.x_um, h.y_um), (x_um, y_um)) < _room(grid, frame, h, radius_um) for h in kept):
            continue
        if (x_um, y_um) in theirs:
            continue
        number += 1
        holes.append(
            Hole(
                area_id=hole_id(square.area_id, number),
                x_um=round(x_um, 4),
                y_um=round(y_um, 4),
                radius_um=round(radius_um, 4),
                score=round(float(found.score), 4),
                label=found.label,
                inferred=found.inferred,
                why=_reasons_of_hole(found.features),
                features={k: round(float(v), 4) for k, v in found.features.items()},
                map_frame_id=frame.frame_id,
            )
        )
    return tuple(holes), beside


def _room(grid: Grid, frame: Frame, hole: Hole, radius_um: float) -> float:
    """How near to a kept hole nothing new is found: wider about one exposed before the grid was taken out."""
    doubt = DOUBT_UM if grid.loads > 1 and hole.visited and hole.map_frame_id != frame.frame_id else 0.0
    return max(radius_um, hole.radius_um) + doubt


def _of_others(grid: Grid, square: Square, points: Sequence[geometry.Point]) -> set[geometry.Point]:
    """Those of ``points`` whose nearest square is another one than ``square``, and a whole one.

    Nearer to its centre than half the way from there to the next one, no other square can be the nearest.
    """
    grid = near_squares(grid, points)
    centre = (square.x_um, square.y_um)
    ways = (geometry.distance(centre, (s.x_um, s.y_um)) for s in grid.squares.values() if s.area_id != square.area_id)
    clear = min(ways, default=math.inf) / 2 - 1e-6
    unsure = [(point, nearest_square(grid, point)) for point in points if geometry.distance(centre, point) >= clear]
    return {p for p, owner in unsure if owner and owner.area_id != square.area_id and not owner.touches_edge}


def _beside(frame: Frame, holes: Sequence[Hole]) -> tuple[str, ...]:
    """Ids of those of ``holes`` of which ``frame`` shows no part."""
    rows, columns = frame.shape
    scale = geometry.micron_per_pixel(frame)
    places = geometry.stage_to_pixels(frame, ((hole.x_um, hole.y_um) for hole in holes))
    margins = [hole.radius_um / scale for hole in holes]
    return tuple(
        hole.area_id
        for hole, (x, y), margin in zip(holes, places, margins, strict=True)
        if not (-margin <= x <= columns - 1 + margin and -margin <= y <= rows - 1 + margin)
    )


def _reasons(features: dict[str, float]) -> str:
    """The three largest features in words."""
    largest = sorted([(-abs(value), name) for name, value in features.items()])[:3]
    return ", ".join([f"{name} {features[name]:+.2f}" for _, name in largest])


def _reasons_of_hole(features: dict[str, float]) -> str:
    """What the score of a hole was made of: what it lets through, where the open beam is known, else greys."""
    if (share := features.get("transmission")) is None:
        return _reasons(features)
    rest = {name: value for name, value in features.items() if name != "transmission"}
    return f"lets {share:.0%} of the beam through, {_reasons(rest)}"
