"""What an import found, whatever program it comes from, and how it becomes a session folder."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent import __version__, wire
from agent.errors import BadFileError, CryonautError
from agent.frames import FrameStore
from agent.ids import new_id
from agent.journal import Draft, Journal
from agent.messages import Frame, Level, ScopeState, Stage
from agent.recording.manifest import FrameSum, Manifest, versions, write_manifest
from agent.session import events as ev
from agent.session.state import AreaState, Hole, Square, hole_id, square_id
from agent.settings import SessionSettings, Settings

Image = NDArray[Any]
MOST_ODD = 1000


@dataclass
class FoundHole:
    """A hole; positions on the stage in micrometres."""

    key: str
    x_um: float
    y_um: float
    radius_um: float = 0.6
    score: float = 0.5
    label: str = "unknown"
    selected: bool | None = None
    exposed: bool = False
    features: dict[str, float] = field(default_factory=dict)


@dataclass
class FoundSquare:
    """A square, with its holes."""

    key: str
    x_um: float
    y_um: float
    size_um: float = 50.0
    vertices_um: tuple[tuple[float, float], ...] = ()
    score: float = 0.5
    label: str = "unknown"
    selected: bool | None = None
    features: dict[str, float] = field(default_factory=dict)
    holes: list[FoundHole] = field(default_factory=list)


@dataclass
class FoundFrame:
    """An image: ``read`` gives its pixels, top row first; ``square`` and ``hole`` are keys of what it shows."""

    name: str
    level: Level
    read: Callable[[], Image]
    pixel_size_angstrom: float
    stage: Stage
    native_columns: int | None = None  # columns of the camera image that ``pixel_size_angstrom`` belongs to
    image_to_stage: tuple[float, float, float, float] | None = None  # µm per pixel of the camera image
    image_shift_um: tuple[float, float] = (0.0, 0.0)
    defocus_um: float | None = None
    dose_e_per_a2: float | None = None
    exposure_s: float | None = None
    taken_utc: float = 0.0
    square: str = ""
    hole: str = ""


@dataclass
class Found:
    """A whole import; ``odd`` lists what was missing or strange, in words."""

    name: str
    software: str
    source: str
    grid_id: str = "G1"
    squares: dict[str, FoundSquare] = field(default_factory=dict)
    frames: list[FoundFrame] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """List something odd, once."""
        if text not in self.odd and len(self.odd) < MOST_ODD:
            self.odd.append(text)

    def square_at(self, x_um: float, y_um: float) -> FoundSquare | None:
        """The square that holds a point: the nearest one whose centre is within 0.75 of its size."""
        near = [(np.hypot(s.x_um - x_um, s.y_um - y_um), key) for key, s in self.squares.items()]
        gap, key = min(near, default=(np.inf, ""))
        return self.squares[key] if near and gap <= 0.75 * self.squares[key].size_um else None


def write(found: Found, out: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Write an import as a session folder.

    Parameters
    ----------
    found
        What was found; further oddities are added to its list.
    out
        A folder that does not exist yet, or is empty.
    progress
        Told after each image how many of how many are done.

    Raises
    ------
    CryonautError
        If the folder is not empty, or nothing at all was found.
    OSError
        If the disk is full or cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise CryonautError(f"{out}: is not empty; an import needs a folder of its own")
    if not found.squares and not found.frames:
        why = f": {found.odd[0]}" if found.odd else ""
        raise CryonautError(f"{found.source}: no square, hole or image of a session was found in it{why}")
    session_id, name = new_id(), re.sub(r"[^A-Za-z0-9_.\-]+", "-", found.name)[:40].strip("-.") or "import"
    settings = Settings(session=SessionSettings(name=name, mode="advisor", autonomy="suggest"))
    store = FrameStore(out)
    journal = Journal(out)
    try:
        writer = _Writer(found, journal, store, session_id, settings)
        writer.open()
        writer.areas()
        for number, frame in enumerate(sorted(found.frames, key=lambda f: (f.taken_utc, f.name)), 1):
            writer.frame(frame)
            progress(number, len(found.frames))
        seq, chain = journal.head
    finally:
        journal.close()
    write_manifest(
        out,
        Manifest(
            session_id=session_id,
            name=name,
            ended=True,
            events=seq,
            chain=chain,
            configs={settings.decision_hash(): settings.deciding()},
            versions=versions(),
            frames=tuple(writer.sums),
            source=f"imported from {found.software}: {found.source}",
            odd=tuple(found.odd),
        ),
    )
    return out


class _Writer:
    """Writes the events of one import."""

    def __init__(self, found: Found, journal: Journal, store: FrameStore, session_id: str, settings: Settings) -> None:
        self.found = found
        self.journal = journal
        self.store = store
        self.session_id = session_id
        self.settings = settings
        self.sums: list[FrameSum] = []
        self.utc = min((f.taken_utc for f in found.frames if f.taken_utc > 0), default=time.time())
        self.square_ids: dict[str, str] = {}
        self.hole_ids: dict[str, str] = {}
        self._names: set[str] = set()

    def _add(self, *events: ev.AnyEvent, key: str | None = None) -> None:
        drafts = [Draft(ev.kind_of(event), ev.encode_event(event), key) for event in events]
        for draft in drafts:
            ev.decode_event(draft.body)  # what no reader could read is not written
        self.journal.append(drafts, utc=self.utc, epoch=1)

    def open(self) -> None:
        """The session, its one start and its driver: the program it comes from."""
        config, session = self.settings.decision_hash(), self.settings.session
        self._add(
            ev.SessionOpened(
                session_id=self.session_id,
                name=session.name,
                config=config,
                version=__version__,
                mode="advisor",
                autonomy="suggest",
                thresholds={
                    "square_score": self.settings.squares.min_score,
                    "hole_score": self.settings.holes.min_score,
                    "squares_per_grid": float(self.settings.squares.per_grid),
                    "exposures_per_square": float(self.settings.holes.per_square),
                },
                grids=((self.found.grid_id, None),),
            )
        )
        self._add(ev.EpochBegan(epoch=1, config=config, version=__version__))
        state = ScopeState(grid_id=self.found.grid_id)
        self._add(ev.DriverJoined(driver="import", software=self.found.software[:2000], can_pilot=False, state=state))

    def areas(self) -> None:
        """Every square and hole."""
        grid_id, model = self.found.grid_id, self.found.software.split(" ")[0] or "import"
        squares = []
        for number, (key, square) in enumerate(self.found.squares.items(), 1):
            self.square_ids[key] = square_id(grid_id, number)
            mapped = bool(square.holes)
            state: AreaState = "mapped" if mapped else "found"
            squares.append(
                Square(
                    area_id=self.square_ids[key],
                    x_um=square.x_um,
                    y_um=square.y_um,
                    size_um=square.size_um,
                    vertices_um=square.vertices_um,
                    score=min(max(square.score, 0.0), 1.0),
                    label=square.label,
                    state=state,
                    why=_why(key, square.selected),
                    by=model,
                    features=square.features,
                )
            )
        if squares:
            self._add(
                ev.SquaresFound(grid_id=grid_id, frame_id="", model=model, fingerprint="", squares=tuple(squares))
            )
        for key, square in self.found.squares.items():
            holes = []
            for number, hole in enumerate(square.holes, 1):
                name = hole_id(self.square_ids[key], number)
                self.hole_ids[hole.key] = name
                holes.append(
                    Hole(
                        area_id=name,
                        x_um=hole.x_um,
                        y_um=hole.y_um,
                        radius_um=hole.radius_um,
                        score=min(max(hole.score, 0.0), 1.0),
                        label=hole.label,
                        state="exposed" if hole.exposed else "found",
                        why=_why(hole.key, hole.selected),
                        by=model,
                        features=hole.features,
                    )
                )
            if holes:
                found = ev.HolesFound(
                    square_id=self.square_ids[key], frame_id="", model=model, fingerprint="", holes=tuple(holes)
                )
                self._add(found)

    def frame(self, found: FoundFrame) -> None:
        """One image; one that cannot be read is listed and left out."""
        try:
            image, dtype = wire.plain_pixels(np.asarray(found.read()))
            if image.ndim != 2 or min(image.shape) < 1:
                raise BadFileError(f"{found.name}: shape {image.shape}; (rows, columns) were expected")
        except (BadFileError, OSError, ValueError, MemoryError) as error:
            self.found.note(f"image {found.name} was left out: {' '.join(str(error).split())[:300]}")
            return
        binned = found.native_columns / image.shape[1] if found.native_columns else 1.0
        matrix = None
        if found.image_to_stage is not None:
            a, b, c, d = found.image_to_stage
            matrix = (a * binned, b * binned, c * binned, d * binned)
        area_id = self.hole_ids.get(found.hole) or self.square_ids.get(found.square, "")
        if found.level == "low" or (found.level == "high" and not self.hole_ids.get(found.hole)):
            area_id = ""
        try:
            header = Frame(
                frame_id=self._name(found.name),
                session_id=self.session_id,
                level=found.level,
                pixel_size_angstrom=found.pixel_size_angstrom * binned,
                shape=(int(image.shape[0]), int(image.shape[1])),
                dtype=dtype,  # type: ignore[arg-type]
                digest=wire.digest(image),
                stage=found.stage,
                image_shift_um=found.image_shift_um,
                image_to_stage=matrix,
                defocus_um=found.defocus_um,
                dose_e_per_a2=found.dose_e_per_a2,
                exposure_s=found.exposure_s,
                grid_id=self.found.grid_id,
                area_id=area_id,
                taken_utc=max(found.taken_utc, 0.0),
            )
            header = wire.decode(wire.encode(header), wire.FROM_DRIVER)
        except CryonautError as error:
            self.found.note(f"image {found.name} was left out: {error}")
            return
        self.utc = max(self.utc, found.taken_utc)
        file = self.store.save(header, image)
        self.sums.append(FrameSum(file=file, bytes=(self.store.folder / file).stat().st_size, digest=header.digest))
        received = ev.FrameReceived(frame=header, file=file, grid_id=self.found.grid_id, area_id=area_id)
        self._add(received, key=f"frame:{header.frame_id}")

    def _name(self, name: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9_.\-]+", "-", name)[:80].lstrip("-_.") or "frame"
        chosen, number = plain, 1
        while chosen in self._names:
            number += 1
            chosen = f"{plain}-{number}"
        self._names.add(chosen)
        return chosen


def _why(key: str, selected: bool | None) -> str:
    said = "" if selected is None else ", chosen there" if selected else ", not chosen there"
    return f"{key}{said}"[:200]


def as_float(text: str | None) -> float | None:
    """The finite number in ``text``, or None."""
    try:
        value = float(text) if text is not None else float("nan")
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def stage_within(stage: Stage) -> bool:
    """Whether a stage position is one that a session can hold."""
    return max(abs(stage.x_um), abs(stage.y_um), abs(stage.z_um)) <= 5_000.0 and abs(stage.tilt_deg) <= 90.0
