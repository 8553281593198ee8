"""A session folder as it was recorded: events in order, the state they fold to, frames, and how whole all of it is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from agent import frames as store
from agent.errors import BadFileError
from agent.journal import Journal, link
from agent.messages import Frame
from agent.recording.manifest import Manifest, read_manifest
from agent.session import EMPTY, State, advance
from agent.session import events as ev


@dataclass(frozen=True, slots=True)
class Happened:
    """One event: its number in the journal, when it was written (seconds since 1970), and what it says."""

    seq: int
    utc: float
    event: ev.AnyEvent


@dataclass(frozen=True, slots=True)
class Shot:
    """One recorded frame: when it came, and what the journal says of it; pixels by `Record.pixels`."""

    seq: int
    utc: float
    received: ev.FrameReceived

    @property
    def frame(self) -> Frame:
        """Its header as it came over the wire."""
        return self.received.frame


@dataclass(frozen=True)
class Record:
    """What a session folder holds; nothing in it is ever changed.

    Parameters
    ----------
    folder
        The session folder.
    happened
        Every event before the first damage, in order.
    state
        What they fold to.
    rows
        Number of the last row that could be read at all.
    whole_up_to
        Number of the last row up to which numbers run without gap and every hash is right.
    unreadable
        At which row reading ended early, and why; empty for a good record.
    frames
        Frame id to what the journal says of it, in the order in which they came.
    manifest
        Versions, settings and sums beside the journal; None where there is none, as after a crash of an older daemon.
    odd
        What is wrong with the manifest file itself; empty when nothing is.
    """

    folder: Path
    happened: tuple[Happened, ...]
    state: State
    rows: int
    whole_up_to: int
    unreadable: str = ""
    frames: dict[str, ev.FrameReceived] = field(default_factory=dict)
    manifest: Manifest | None = None
    odd: str = ""

    @property
    def begun_utc(self) -> float:
        """When the first event was written; 0 for an empty journal."""
        return self.happened[0].utc if self.happened else 0.0

    @property
    def last_utc(self) -> float:
        """When the last event was written; 0 for an empty journal."""
        return self.happened[-1].utc if self.happened else 0.0

    @property
    def whole(self) -> bool:
        """Whether every row is there and unchanged."""
        return self.whole_up_to >= self.rows and not self.unreadable

    def header(self, frame_id: str) -> Frame | None:
        """Header of a frame that the journal knows."""
        received = self.frames.get(frame_id)
        return received.frame if received else None

    @cached_property
    def shots(self) -> tuple[Shot, ...]:
        """The frames in the order in which they came."""
        return tuple(
            Shot(item.seq, item.utc, item.event) for item in self.happened if isinstance(item.event, ev.FrameReceived)
        )

    def pixels(self, frame_id: str) -> NDArray[Any]:
        """Pixels of a frame, shape (rows, columns), checked against the digest in the journal.

        Raises
        ------
        BadFileError
            If the journal does not know the frame, or its file is missing, damaged, outside the session folder, or not
            what the journal says.
        """
        received = self.frames.get(frame_id)
        if received is None:
            raise BadFileError(f"{self.folder}: no frame {frame_id} in this record")
        return pixels(self.folder, received)

    def images(self) -> Iterator[tuple[Shot, NDArray[Any] | BadFileError]]:
        """Each frame with its pixels, or with what is wrong with them; one at a time in memory."""
        for shot in self.shots:
            try:
                yield shot, self.pixels(shot.frame.frame_id)
            except BadFileError as error:
                yield shot, error

    def until(self, seq: int) -> "Record":
        """The record as it stood after event ``seq``."""
        happened = tuple(item for item in self.happened if item.seq <= seq)
        state = EMPTY
        for item in happened:
            state = advance(state, item.event, seq=item.seq, utc=item.utc)
        known = {item.event.frame.frame_id for item in happened if isinstance(item.event, ev.FrameReceived)}
        frames = {frame_id: received for frame_id, received in self.frames.items() if frame_id in known}
        return Record(self.folder, happened, state, min(self.rows, seq), min(self.whole_up_to, seq), frames=frames)


def pixels(folder: Path, received: ev.FrameReceived) -> NDArray[Any]:
    """Pixels of a frame of the session in ``folder``, shape (rows, columns), checked against what the journal says.

    Raises
    ------
    BadFileError
        If its file is missing, damaged, outside the session folder, or not what the journal says.
    """
    frame = received.frame
    if not (folder / received.file).resolve().is_relative_to(folder.resolve()):
        raise BadFileError(f"frame {frame.frame_id}: its file lies outside the session folder and was not opened")
    image = store.load(folder, received.file, frame.digest)
    if image.shape != frame.shape:
        raise BadFileError(f"frame {frame.frame_id}: shape {image.shape}, but its header says {frame.shape}")
    return image


def read(folder: Path) -> Record:
    """The record in ``folder``; also while a daemon writes to it, and up to the first row that cannot be read.

    Raises
    ------
    JournalError
        If the folder holds no journal, or it is of a newer format, or not even its first page can be read.
    """
    folder = Path(folder)
    journal = Journal(folder, write=False, damaged_too=True)
    try:
        happened: list[Happened] = []
        frames: dict[str, ev.FrameReceived] = {}
        state: State = EMPTY
        unreadable = ""
        rows = good = 0
        chain = ""
        for entry in journal.replay():
            rows = entry.seq
            chain = link(chain, entry.kind, entry.key, entry.body)
            if entry.seq == good + 1 and entry.chain == chain:
                good = entry.seq
            if unreadable:
                continue
            try:
                event = ev.decode_event(entry.body)
                state = advance(state, event, seq=entry.seq, utc=entry.utc)
            except (ValueError, KeyError) as error:
                said = " ".join(str(error).split())[:200]
                unreadable = f"row {entry.seq} ({entry.kind}) cannot be read: {said}; what follows is left out"
                continue
            happened.append(Happened(entry.seq, entry.utc, event))
            if isinstance(event, ev.FrameReceived):
                frames[event.frame.frame_id] = event
        if journal.broken:
            unreadable = unreadable or f"after row {rows} the file is damaged: {journal.broken}; what follows is lost"
        manifest, odd = read_manifest(folder)
        return Record(folder, tuple(happened), state, rows, good, unreadable, frames, manifest, odd)
    finally:
        journal.close()
