"""What is drawn on the atlas and on the medium-mag views: shapes in pixels of the picture below them."""

from dataclasses import dataclass

from agent import geometry
from agent.drawing import length_words, round_length_um, score_colour
from agent.errors import BadFileError
from agent.messages import Frame
from agent.recording.record import Record
from agent.report.collect import last_settings
from agent.report.pictures import Mosaic, Picture, is_flat, load, mosaic, view
from agent.session.state import Grid, Group, Hole, Square


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale bar."""

    words: str
    length: float


@dataclass(frozen=True, slots=True)
class SquareShape:
    """A square on the atlas."""

    points: str
    x: float
    y: float
    colour: str
    kind: str  # "visited", "left out" or "open"
    label: str
    link: str
    title: str


@dataclass(frozen=True, slots=True)
class HoleShape:
    """A hole on its square's view; ``kind`` says how it is drawn, see `kind_of`."""

    x: float
    y: float
    r: float
    colour: str
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class GroupShape:
    """An image-shift group: stage position, focus spot, how far shift reaches, its holes in the order of the shots."""

    number: int
    x: float
    y: float
    focus_x: float
    focus_y: float
    focused: bool
    spokes: tuple[tuple[float, float], ...]
    steps: tuple[tuple[float, float, int], ...]  # where the number of each shot stands, and the number
    reach: float  # radius that image shift reaches; 0: not known
    beam: float  # radius of the beam; 0: not known


@dataclass(frozen=True, slots=True)
class GridView:
    """One grid of the report."""

    grid: Grid
    picture: Picture
    squares: tuple[SquareShape, ...]
    scale: Scale | None
    notes: tuple[str, ...]
    visited: int
    frames: int
    laid_out: bool  # without positions: tiles lie side by side


@dataclass(frozen=True, slots=True)
class SquareView:
    """One mapped square of the report; ``width`` and ``height`` are those of the drawing's coordinates."""

    square: Square
    picture: Picture
    width: float
    height: float
    unit: float  # thickness of a thin line
    holes: tuple[HoleShape, ...]
    groups: tuple[GroupShape, ...]
    scale: Scale | None
    exposed: int
    good: int


def grid_view(record: Record, grid: Grid) -> GridView:
    """The atlas of a grid with its squares."""
    frames = [record.frames[f] for f in grid.atlas_frames if f in record.frames]
    atlas = mosaic(record.folder, frames)
    shapes = [_square(square, atlas) for square in grid.squares.values()] if atlas.picture.uri else []
    shapes.sort(key=lambda shape: shape.kind == "visited")  # drawn last, on top
    sized = all(received.frame.pixel_size_known for received in frames)
    scale = _scale(atlas.um_per_px, atlas.picture.width) if atlas.picture.uri and sized else None
    laid_out = any(received.frame.nominal for received in frames)
    visited = sum(bool(square.map_frame_id) for square in grid.squares.values())
    return GridView(grid, atlas.picture, tuple(shapes), scale, atlas.notes, visited, len(grid.atlas_frames), laid_out)


def _square(square: Square, atlas: Mosaic) -> SquareShape:
    half = square.size_um / 2
    box = ((-half, -half), (half, -half), (half, half), (-half, half))
    corners = square.vertices_um or tuple((square.x_um + dx, square.y_um + dy) for dx, dy in box)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (atlas.at(*corner) for corner in corners))
    x, y = atlas.at(square.x_um, square.y_um)
    visited = bool(square.map_frame_id)
    left_out = square.state in ("skipped", "rejected") or square.word == "rejected"
    kind = "visited" if visited else "left out" if left_out else "open"
    title = f"{square.area_id}: score {square.score:.2f}, {square.label}, {square.state}"
    title += f"\nat {square.x_um:.1f}, {square.y_um:.1f} µm" + (f"\n{square.why}" if square.why else "")
    link = square.area_id if visited else ""
    return SquareShape(points, x, y, css(square.score), kind, short(square.area_id), link, title)


@dataclass(frozen=True, slots=True)
class Shots:
    """How groups were shot, as the last settings of the session say; 0 where that is not known."""

    reach_um: float = 0.0
    beam_um: float = 0.0

    @classmethod
    def of(cls, record: Record) -> "Shots":
        """As the manifest of the recording says."""
        settings = last_settings(record)
        reach = settings.get("holes", {}).get("max_image_shift_um") or 0.0
        beam = settings.get("exposure", {}).get("beam_diameter_um") or 0.0
        return cls(*(float(v) if isinstance(v, int | float) and 0 < v <= 100 else 0.0 for v in (reach, beam)))


def square_view(record: Record, square: Square, side_px: int) -> SquareView:
    """The medium-mag frame of a square with its holes and groups."""
    received = record.frames.get(square.map_frame_id)
    if received is None:
        picture = Picture(note=f"frame {square.map_frame_id} is not in the journal")
        return _square_view(square, picture, None, Shots())
    try:
        picture = view(load(record.folder, received), side_px)
    except BadFileError as error:
        picture = Picture(note=str(error))
    return _square_view(square, picture, received.frame, Shots.of(record))


def _square_view(square: Square, picture: Picture, frame: Frame | None, shots: Shots) -> SquareView:
    taken = [hole for hole in square.holes.values() if hole.visited]
    good = sum(hole.quality_label == "good" for hole in taken)
    if frame is None or is_flat(frame):
        return SquareView(square, picture, 0, 0, 1, (), (), None, len(taken), good)
    scale = 1 / geometry.micron_per_pixel(frame)
    rows, columns = frame.shape
    unit = max(rows, columns) / 900
    order = {"open": 0, "inferred": 0, "left out": 0}
    here = [h for h in square.holes.values() if not frame.nominal or h.map_frame_id in ("", frame.frame_id)]
    holes = sorted((_hole(hole, frame, scale) for hole in here), key=lambda h: order.get(h.kind, 1))
    groups = tuple(_group(group, square, frame, shots) for group in square.groups.values())
    bar = _scale(1 / scale, columns) if frame.pixel_size_known else None
    return SquareView(square, picture, columns, rows, unit, tuple(holes), groups, bar, len(taken), good)


def _on(frame: Frame, x_um: float, y_um: float) -> tuple[float, float]:
    """Place on the drawing, whose corner is that of the first pixel."""
    x, y = geometry.stage_to_pixel(frame, x_um, y_um)
    return round(x + 0.5, 1), round(y + 0.5, 1)


def _hole(hole: Hole, frame: Frame, scale: float) -> HoleShape:
    x, y = _on(frame, hole.x_um, hole.y_um)
    title = f"{hole.area_id}: score {hole.score:.2f}, {hole.label}, {hole.state}"
    if hole.quality is not None:
        title += f"\nmicrograph {hole.quality_label}, {hole.quality:.2f}"
    title += f"\n{hole.why}" if hole.why and hole.state not in ("found",) else ""
    return HoleShape(x, y, round(hole.radius_um * scale, 1), css(hole.score), kind_of(hole), title)


def kind_of(hole: Hole) -> str:
    """How a hole is drawn: good, bad, exposed, left out, planned, inferred or open."""
    if hole.quality_label:
        return "good" if hole.quality_label == "good" else "bad"
    if hole.visited:
        return "exposed"
    if hole.state in ("skipped", "rejected") or hole.word == "rejected":
        return "left out"
    if hole.group is not None:
        return "planned"
    return "inferred" if hole.inferred else "open"


def _group(group: Group, square: Square, frame: Frame, shots: Shots) -> GroupShape:
    members = [square.holes[h] for h in group.hole_ids if h in square.holes]
    scale = 1 / geometry.micron_per_pixel(frame)
    beside = [(_on(frame, h.x_um, h.y_um), 0.78 * h.radius_um * scale) for h in members]
    steps = tuple((round(x - d, 1), round(y - d, 1), n) for n, ((x, y), d) in enumerate(beside, 1))
    spokes = tuple(_on(frame, hole.x_um, hole.y_um) for hole in members)
    x, y = _on(frame, group.x_um, group.y_um)
    focus_x, focus_y = _on(frame, group.focus_x_um, group.focus_y_um)
    return GroupShape(
        group.number,
        x,
        y,
        focus_x,
        focus_y,
        group.focused,
        spokes,
        steps,
        shots.reach_um * scale,
        shots.beam_um * scale / 2,
    )


def _scale(um_per_px: float, width: float) -> Scale | None:
    if not (um_per_px > 0 and width > 0):
        return None
    length = round_length_um(0.2 * width * um_per_px)
    return Scale(length_words(length), length / um_per_px)


def css(score: float) -> str:
    """Colour of a score as a style sheet says it."""
    return "#{:02x}{:02x}{:02x}".format(*score_colour(score))


def short(area_id: str) -> str:
    """Last part of an id, as the pictures show it: ``S012`` of ``G1-S012``."""
    return area_id.rsplit("-", 1)[-1]
