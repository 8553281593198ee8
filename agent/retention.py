"""Old session folders: which may go, and how they go; nothing that is in use or is no session is ever touched."""

import contextlib
import fcntl
import os
import shutil
import sqlite3
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from agent.journal import FILE_NAME
from agent.messages import LEVELS
from agent.recording.manifest import read_manifest, write_manifest

DAY_S = 86_400.0


class OldSession(NamedTuple):
    """A session folder with the time of its last event (seconds since 1970) and what it holds on disk."""

    folder: Path
    last_utc: float
    size_bytes: int


def old_sessions(root: Path, *, days: float, now_utc: float) -> list[OldSession]:
    """The sessions below ``root`` whose last event is older than ``days``, the oldest first.

    Left out are folders without a journal, links, sessions that a daemon has open, and journals that cannot be read.
    """
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.is_symlink() or not (folder / FILE_NAME).is_file() or in_use(folder):
            continue
        last = last_event_utc(folder / FILE_NAME)
        if last is not None and now_utc - last > days * DAY_S:
            found.append(OldSession(folder, last, size_of(folder)))
    return sorted(found, key=lambda session: session.last_utc)


def in_use(folder: Path) -> bool:
    """Whether a daemon holds the folder's lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def last_event_utc(journal: Path) -> float | None:
    """Time of the last event, or None where the journal cannot be read."""
    with contextlib.suppress(sqlite3.Error):
        reader = sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
        try:
            row = reader.execute("select utc from journal order by seq desc limit 1").fetchone()
            return float(row[0]) if row else None
        finally:
            reader.close()
    return None


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; links count as themselves."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def prune(session: OldSession, *, keep_record: bool) -> int:
    """Delete the session, or with ``keep_record`` its pixels only; bytes that became free.

    Raises
    ------
    OSError
        If something cannot be deleted.
    """
    target = session.folder / "frames" if keep_record else session.folder
    if not target.is_dir() or target.is_symlink():
        return 0
    freed = size_of(target)
    shutil.rmtree(target)
    manifest, _ = read_manifest(session.folder)
    if keep_record and manifest is not None:  # so that what is gone on purpose is no damage (`session verify`)
        write_manifest(session.folder, replace(manifest, left_out=dict.fromkeys(LEVELS, "pruned")))
    return freed
