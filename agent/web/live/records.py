"""What the live page is told of squares, holes and frames: small plain records; what is as usual is left out."""

import msgspec

from agent import geometry
from agent.messages import Frame
from agent.session import events as ev
from agent.session.state import Group, Hole, Square

Point = tuple[float, float]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all records."""


class HoleRecord(Record, frozen=True, kw_only=True):
    """One hole; positions on the stage in micrometres, ``good`` the model's forecast, ``quality`` what was measured."""

    id: str
    x: float
    y: float
    r: float
    score: float
    state: str = "found"
    label: str = ""
    why: str = ""
    by: str = "agent"
    word: str = ""
    priority: int = 0
    inferred: bool = False
    group: int | None = None
    dose: float = 0.0
    frame: str = ""
    defocus: float | None = None
    quality: float | None = None
    verdict: str = ""
    ctf: float | None = None
    ice: float | None = None


class GroupRecord(Record, frozen=True, kw_only=True):
    """An image-shift group as it will be shot: stage position, focus spot, holes in their order."""

    n: int
    x: float
    y: float
    fx: float
    fy: float
    holes: tuple[str, ...]
    focused: bool = False


class SquareRecord(Record, frozen=True, kw_only=True):
    """One square, without its holes."""

    id: str
    x: float
    y: float
    size: float
    v: tuple[Point, ...]
    score: float
    state: str = "found"
    label: str = ""
    why: str = ""
    by: str = "agent"
    word: str = ""
    priority: int = 0
    edge: bool = False
    map: str = ""
    lattice: str = ""
    pitch: float | None = None
    holes: int = 0
    exposed: int = 0
    good: int = 0
    groups: tuple[GroupRecord, ...] = ()


class FrameRecord(Record, frozen=True, kw_only=True):
    """Where a frame's pixels lie on the stage: ``centre + m @ (pixel - middle)``; ``key`` names its pictures."""

    id: str
    key: str
    level: str
    grid: str
    area: str
    w: int
    h: int
    m: tuple[float, float, float, float]
    c: Point
    px_a: float
    sized: bool = True  # False: nobody told the pixel size, no length can be shown
    defocus: float | None = None
    dose: float | None = None
    utc: float = 0.0


def hole_record(hole: Hole) -> HoleRecord:
    """A hole for the page."""
    return HoleRecord(
        id=hole.area_id,
        x=round(hole.x_um, 3),
        y=round(hole.y_um, 3),
        r=round(hole.radius_um, 3),
        score=round(hole.score, 3),
        state=hole.state,
        label="" if hole.label == "unknown" else hole.label,
        why=hole.why,
        by=hole.by,
        word=hole.word,
        priority=hole.priority,
        inferred=hole.inferred,
        group=hole.group,
        dose=hole.dose_e_per_a2,
        frame=hole.frame_id,
        defocus=hole.defocus_um,
        quality=None if hole.quality is None else round(hole.quality, 3),
        verdict=hole.quality_label,
        ctf=hole.features.get("ctf_resolution_angstrom"),
        ice=hole.features.get("ice_thickness_nm"),
    )


def group_record(group: Group) -> GroupRecord:
    """A group for the page."""
    return GroupRecord(
        n=group.number,
        x=round(group.x_um, 3),
        y=round(group.y_um, 3),
        fx=round(group.focus_x_um, 3),
        fy=round(group.focus_y_um, 3),
        holes=group.hole_ids,
        focused=group.focused,
    )


def square_record(square: Square, exposed: int, good: int) -> SquareRecord:
    """A square for the page, with two counts of its holes."""
    half = square.size_um / 2
    x, y = square.x_um, square.y_um
    box = ((x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half))
    return SquareRecord(
        id=square.area_id,
        x=round(x, 2),
        y=round(y, 2),
        size=round(square.size_um, 2),
        v=tuple((round(u, 2), round(v, 2)) for u, v in square.vertices_um or box),
        score=round(square.score, 3),
        state=square.state,
        label="" if square.label == "unknown" else square.label,
        why=square.why,
        by=square.by,
        word=square.word,
        priority=square.priority,
        edge=square.touches_edge,
        map=square.map_frame_id,
        lattice=square.lattice,
        pitch=square.pitch_um,
        holes=len(square.holes),
        exposed=exposed,
        good=good,
        groups=tuple(group_record(group) for group in square.groups.values()),
    )


def frame_record(received: ev.FrameReceived) -> FrameRecord:
    """A frame for the page."""
    frame: Frame = received.frame
    return FrameRecord(
        id=frame.frame_id,
        key=key_of(frame),
        level=frame.level,
        grid=received.grid_id,
        area=received.area_id,
        w=frame.shape[1],
        h=frame.shape[0],
        m=geometry.image_to_stage(frame),
        c=geometry.centre_um(frame),
        px_a=frame.pixel_size_angstrom,
        sized=frame.pixel_size_known,
        defocus=frame.defocus_um,
        dose=frame.dose_e_per_a2,
        utc=frame.taken_utc,
    )


def key_of(frame: Frame) -> str:
    """Part of a picture's address that is another one for other pixels: pictures can be kept for ever."""
    return frame.digest[:16]
