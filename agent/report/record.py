"""A session folder as it was recorded: the events, the state they fold to, and how whole the record is."""

from dataclasses import dataclass, field
from pathlib import Path

from agent.journal import Journal
from agent.messages import Frame
from agent.session import EMPTY, State, advance
from agent.session import events as ev


@dataclass(frozen=True, slots=True)
class Happened:
    """One event: its number in the journal, when it was written (seconds since 1970), and what it says."""

    seq: int
    utc: float
    event: ev.AnyEvent


@dataclass(frozen=True, slots=True)
class Record:
    """What a journal holds; ``unreadable`` says at which row reading ended early, and is empty for a good one."""

    folder: Path
    happened: tuple[Happened, ...]
    state: State
    rows: int
    whole_up_to: int
    unreadable: str = ""
    frames: dict[str, ev.FrameReceived] = field(default_factory=dict)

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


def read(folder: Path) -> Record:
    """The record in ``folder``; also while a daemon writes to it, and up to the first row that cannot be read.

    Raises
    ------
    JournalError
        If the folder holds no journal, or SQLite cannot open it.
    """
    journal = Journal(folder, write=False)
    try:
        happened: list[Happened] = []
        frames: dict[str, ev.FrameReceived] = {}
        state: State = EMPTY
        unreadable = ""
        rows = 0
        for entry in journal.replay():
            rows = entry.seq
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
        return Record(folder, tuple(happened), state, rows, journal.verify(), unreadable, frames)
    finally:
        journal.close()
