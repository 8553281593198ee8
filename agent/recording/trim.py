"""A smaller copy of a recording: its beginning, without the pixels of some levels, with its pixels packed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import tifffile
from msgspec.structs import replace

from agent.errors import BadFileError, CryonautError
from agent.frames import FrameStore
from agent.journal import Draft, Journal
from agent.messages import Level
from agent.recording.manifest import FrameSum, Manifest, write_manifest
from agent.recording.record import Record


def trim(
    record: Record,
    out: Path,
    *,
    until: int | None = None,
    without: Sequence[Level] = (),
    pack: bool = False,
) -> Path:
    """Write a copy of ``record`` into the new folder ``out``.

    The rows of the copy are those of the original, hashes included, so that both can be compared row by row.

    Parameters
    ----------
    record
        What to copy; of a damaged one everything before the damage is.
    out
        A folder that does not exist yet, or is empty.
    until
        Number of the last event to keep; by default all.
    without
        Levels whose pixels are left out; the journal still knows the frames.
    pack
        Compress the pixels without loss (zlib).

    Raises
    ------
    CryonautError
        If the folder is not empty.
    OSError
        If the disk is full or cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise CryonautError(f"{out}: is not empty; a copy needs a folder of its own")
    last = min(record.whole_up_to, until if until is not None else record.whole_up_to)
    copy_rows(record.folder, out, last)
    FrameStore(out)
    kept = [
        _copied(record, shot.frame.frame_id, shot.received.file, out, pack=pack)
        for shot in record.shots
        if shot.seq <= last and shot.frame.level not in without
    ]
    journal = Journal(out, write=False)
    seq, chain = journal.head
    journal.close()
    whole = record.manifest or Manifest(session_id=record.state.session_id, name=record.state.name)
    made = replace(
        whole,
        ended=True,
        events=seq,
        chain=chain,
        frames=tuple(found for found in kept if found is not None),
        left_out={**whole.left_out, **{str(level): "trimmed" for level in without}},
        source=f"trimmed from {record.folder.name}, {record.rows} events",
    )
    write_manifest(out, made)
    return out


def copy_rows(folder: Path, out: Path, last: int) -> None:
    """Copy the journal's rows 1 to ``last`` into the new session folder ``out``, as they are."""
    source, copy = Journal(folder, write=False, damaged_too=True), Journal(out)
    try:
        rows: list[Draft] = []
        at = (0.0, 0)
        for entry in source.replay(most=last):
            if rows and at != (entry.utc, entry.epoch):
                copy.append(rows, utc=at[0], epoch=at[1])
                rows = []
            at = (entry.utc, entry.epoch)
            rows.append(Draft(entry.kind, entry.body, entry.key))
        if rows:
            copy.append(rows, utc=at[0], epoch=at[1])
    finally:
        source.close()
        copy.close()


def _copied(record: Record, frame_id: str, file: str, out: Path, *, pack: bool) -> FrameSum | None:
    """Copy one frame; one that cannot be read is left out, and `verify` will say so."""
    target = out / file
    if not target.resolve().is_relative_to(out.resolve()):
        return None
    try:
        image = record.pixels(frame_id)
    except BadFileError:
        return None
    frame = record.frames[frame_id].frame
    if pack:
        header = msgspec.json.encode(frame).decode("ascii", "backslashreplace")
        predictor = None if image.dtype.kind == "f" else 2
        tifffile.imwrite(
            target,
            image,
            photometric="minisblack",
            metadata=None,
            description=header,
            compression="zlib",
            predictor=predictor,
        )
    else:
        shutil.copyfile(record.folder / file, target)
    return FrameSum(file=file, bytes=target.stat().st_size, digest=frame.digest)
