"""What a driver gets back for a frame: built from the session's state, so that a frame sent again gets the same."""

from collections.abc import Collection
from typing import TypeVar

from agent import geometry
from agent.messages import DetectedObject, Detections, Frame, Target, Targets
from agent.session import events as ev
from agent.session.state import Hole, Square, State

Area = TypeVar("Area", Square, Hole)


def targets_for(state: State, frame: Frame, grid_id: str, area_id: str, note: str = "", model: str = "") -> Targets:
    """Every square (low) or hole (medium) that ``frame`` shows, best first, in pixels of that frame."""
    found: list[Target] = []
    if frame.level == "low":
        grid = state.grids.get(grid_id)
        for square, (x, y) in _placed(frame, grid.squares.values() if grid else ()):
            if _inside(frame, x, y):
                corners = tuple(geometry.stage_to_pixels(frame, square.vertices_um))
                found.append(_target(square, x, y, vertices=corners))
    elif frame.level == "medium":
        shown = state.square(area_id)
        scale = geometry.micron_per_pixel(frame)
        for hole, (x, y) in _placed(frame, shown.holes.values() if shown else ()):
            if frame.nominal and not _inside(frame, x, y):  # it lies on another frame of the square
                continue
            found.append(_target(hole, x, y, radius_px=hole.radius_um / scale))
    found.sort(key=lambda target: (-target.score, target.area_id))
    return Targets(
        frame_id=frame.frame_id,
        level=frame.level,
        targets=tuple(found),
        model=model,
        note=note,
        degraded=bool(state.degraded),
    )


def _placed(frame: Frame, areas: Collection[Area]) -> "zip[tuple[Area, geometry.Point]]":
    """Each area with the pixel (x, y) of its centre."""
    return zip(areas, geometry.stage_to_pixels(frame, ((a.x_um, a.y_um) for a in areas)), strict=True)


def _inside(frame: Frame, x: float, y: float) -> bool:
    rows, columns = frame.shape
    return -0.5 <= x < columns - 0.5 and -0.5 <= y < rows - 0.5


def _target(
    area: Square | Hole,
    x: float,
    y: float,
    *,
    vertices: tuple[tuple[float, float], ...] = (),
    radius_px: float | None = None,
) -> Target:
    return Target(
        area_id=area.area_id,
        x=x,
        y=y,
        x_um=area.x_um,
        y_um=area.y_um,
        score=area.score,
        label=area.label,
        state=area.state,
        vertices=vertices,
        radius_px=radius_px,
        group=area.group if isinstance(area, Hole) else None,
        why=area.why,
    )


def detections_for(event: ev.AnyEvent) -> Detections | None:
    """What watchers are told of a finding, or None for events that hold none."""
    match event:
        case ev.SquaresFound():
            objects = tuple(DetectedObject(x=s.x_um, y=s.y_um, group="square", score=s.score) for s in event.squares)
            return Detections(frame_id=event.frame_id, detector=event.model, objects=objects, note=event.note)
        case ev.HolesFound():
            objects = tuple(DetectedObject(x=h.x_um, y=h.y_um, group="hole", score=h.score) for h in event.holes)
            return Detections(
                frame_id=event.frame_id,
                area_id=event.square_id,
                detector=event.model,
                objects=objects,
                note=event.note,
            )
        case ev.MicrographJudged():
            return Detections(
                frame_id=event.frame_id,
                area_id=event.area_id,
                detector=event.model,
                values={"score": event.score, **event.features},
                label=event.label,
                note=event.note,
            )
        case ev.ObjectsDetected():
            return Detections(
                frame_id=event.frame_id,
                area_id=event.area_id,
                detector=event.detector,
                objects=event.objects,
                values={group: float(count) for group, count in event.counts.items()},
                label="doubtful" if event.doubt else "",
                note=event.doubt or event.note,
            )
        case _:
            return None
