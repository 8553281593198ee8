"""Is this recording whole? Every row, every frame, and whether they are all that there has to be."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agent.errors import BadFileError
from agent.journal import chain_at
from agent.recording.record import Record

Severity = Literal["damage", "note"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong (``damage``) or worth knowing (``note``)."""

    severity: Severity
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: ``events`` and ``frames`` are usable, of ``all_frames`` that the journal names."""

    events: int
    frames: int
    all_frames: int
    troubles: tuple[Trouble, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged."""
        return all(trouble.severity != "damage" for trouble in self.troubles)


def verify(record: Record, progress: Callable[[int, int], None] = lambda done, total: None) -> Verdict:
    """Check rows, hashes, the manifest's sums and the digest of every frame.

    Parameters
    ----------
    record
        The recording; what could be read of it was read already.
    progress
        Told after each frame how many of how many are done.
    """
    found = [*_journal(record), *_manifest(record)]
    left_out = record.manifest.left_out if record.manifest else {}
    good = 0
    for number, (shot, image) in enumerate(record.images(), 1):
        if not isinstance(image, BadFileError):
            good += 1
        elif shot.frame.level in left_out:
            found.append(Trouble("note", shot.received.file, f"left out: {left_out[shot.frame.level]}"))
        else:
            found.append(Trouble("damage", shot.received.file, _short(image, record)))
        progress(number, len(record.shots))
    return Verdict(record.happened[-1].seq if record.happened else 0, good, len(record.shots), tuple(found))


def _journal(record: Record) -> list[Trouble]:
    found = []
    if record.unreadable:
        found.append(Trouble("damage", "journal", record.unreadable))
    if record.whole_up_to < record.rows:
        first = record.whole_up_to + 1
        found.append(
            Trouble("damage", "journal", f"row {first} is missing or was changed; rows 1 to {first - 1} are as written")
        )
    if not record.happened:
        found.append(Trouble("note", "journal", "holds no event"))
    return found


def _manifest(record: Record) -> list[Trouble]:
    manifest = record.manifest
    if record.odd:
        return [Trouble("damage", "manifest", record.odd)]
    if manifest is None:
        return [
            Trouble("note", "manifest", "there is none: settings and versions are unknown, an end cannot be checked")
        ]
    found = [Trouble("note", "import", text) for text in manifest.odd]
    if manifest.session_id != record.state.session_id:
        found.append(
            Trouble(
                "damage", "manifest", f"is of session {manifest.session_id}, the journal of {record.state.session_id}"
            )
        )
        return found
    if record.rows < manifest.events:
        text = f"ends at row {record.rows}; the manifest knows {manifest.events}: the end was cut off"
        found.append(Trouble("damage", "journal", text))
    elif manifest.events and not record.unreadable and chain_at(record.folder, manifest.events) != manifest.chain:
        found.append(
            Trouble("damage", "journal", f"row {manifest.events} is not the one that the manifest was made of")
        )
    if not manifest.ended:
        found.append(Trouble("note", "manifest", "the daemon still runs, or did not end in good order"))
    unknown = sorted({text for item in record.happened if (text := getattr(item.event, "config", ""))})
    missing = [text for text in unknown if text not in manifest.configs]
    if missing:
        found.append(Trouble("note", "manifest", f"settings of config {', '.join(missing)} are not in it"))
    return found


def _short(error: BadFileError, record: Record) -> str:
    return str(error).replace(f"{record.folder}/", "")[:300]
