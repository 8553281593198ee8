"""The append-only record that a session is: SQLite in WAL mode, every commit on disk before it returns.

One row is one event; rows of one `Journal.append` are committed together or not at all. ``key`` makes an event
unique (a frame, a control request), and ``chain`` hashes each row together with the one before, so that a
missing or changed row shows.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import xxhash

from agent.errors import JournalError

FORMAT = 1
FILE_NAME = "journal.sqlite"
SCHEMA = f"""
begin immediate;
create table if not exists meta(name text primary key, value text not null) strict;
create table if not exists journal(
    seq integer primary key,
    utc real not null,
    epoch integer not null,
    kind text not null,
    key text unique,
    body text not null,
    chain text not null
) strict;
create trigger if not exists no_change before update on journal begin select raise(abort, 'append only'); end;
create trigger if not exists no_removal before delete on journal begin select raise(abort, 'append only'); end;
insert or ignore into meta values ('format', '{FORMAT}');
commit;
"""  # noqa: S608 - a number of our own


class Entry(NamedTuple):
    """One journalled event."""

    seq: int
    utc: float
    epoch: int
    kind: str
    key: str | None
    body: str
    chain: str


class Draft(NamedTuple):
    """One event to be journalled."""

    kind: str
    body: str
    key: str | None = None


def link(previous: str, kind: str, key: str | None, body: str) -> str:
    """The chain value of a row, from the row before and its own content."""
    return str(xxhash.xxh3_64_hexdigest("\x00".join((previous, kind, key or "", body)).encode()))


class Journal:
    """The record of one session folder; a writer holds the folder's lock, readers need none.

    Parameters
    ----------
    folder
        The session folder.
    write
        Append to it; else it is only read.
    damaged_too
        Readers only: open a damaged file too, and let `replay` end where the damage begins (``broken`` says why).
        Nothing is put beside the file of a session that has ended: it may be one that nobody can write to.

    Raises
    ------
    JournalError
        If another process writes to this folder, or the file is damaged or of a newer format.
    """

    def __init__(self, folder: Path, *, write: bool = True, damaged_too: bool = False) -> None:
        self.path = folder / FILE_NAME
        self.broken = ""  # with ``damaged_too``: what ended the last `replay` early
        self._damaged_too = damaged_too and not write
        self._lock: int | None = None
        if not write and not self.path.exists():
            raise JournalError(f"{folder}: holds no {FILE_NAME}; is this a session folder?")
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(folder)
        try:
            self._open(write)
        except sqlite3.DatabaseError as error:
            self.close()
            if self._damaged_too and (padded := _padded(self.path)) is not None:
                self._db = padded
                return
            raise JournalError(
                f"{self.path}: {' '.join(str(error).split())}. The file was left as it is; copy the folder aside and"
                " start a new session, or bring the file back from a backup"
            ) from error
        except JournalError:
            self.close()
            raise

    def _open(self, write: bool) -> None:
        self.last_seq, self._chain = 0, ""
        uri = f"{self.path.absolute().as_uri()}?mode={'rwc' if write else 'ro'}"
        if self._damaged_too and not self.path.with_name(f"{FILE_NAME}-wal").exists():
            uri += "&immutable=1"  # nobody writes to it: then SQLite needs no files of its own beside it either
        self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
        if write:
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.executescript(SCHEMA)
        elif not self._db.execute("select name from sqlite_master where name = 'meta'").fetchone():
            raise JournalError(f"{self.path}: is empty: the daemon has just begun, or died as it began")
        row = self._db.execute("select value from meta where name = 'format'").fetchone()
        found = row[0] if row else "no format"
        if not found.isdecimal() or int(found) > FORMAT:
            raise JournalError(f"{self.path}: format {found}; this version reads up to {FORMAT}: update cryonaut")
        if self._damaged_too:
            self._last()
            return
        (verdict,) = self._db.execute("pragma quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"damaged: {verdict}")
        self._last()

    def _last(self) -> None:
        row = self._db.execute("select seq, chain from journal order by seq desc limit 1").fetchone()
        self.last_seq, self._chain = (int(row[0]), str(row[1])) if row else (0, "")

    def append(self, drafts: Sequence[Draft], *, utc: float, epoch: int) -> int:
        """Commit ``drafts`` together and return the number of the last; they are on disk when this returns.

        Raises
        ------
        JournalError
            If the commit failed (full or read-only disk); nothing of it was kept.
        """
        rows, seq, chain = [], self.last_seq, self._chain
        for kind, body, key in drafts:
            seq += 1
            chain = link(chain, kind, key, body)
            rows.append((seq, utc, epoch, kind, key, body, chain))
        try:
            self._db.execute("begin immediate")
            self._db.executemany("insert into journal values (?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("commit")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise JournalError(f"{self.path}: commit failed: {error}") from error
        self.last_seq, self._chain = seq, chain
        return seq

    def find(self, key: str) -> int | None:
        """Number of the event with this key, or None."""
        row = self._db.execute("select seq from journal where key = ?", (key,)).fetchone()
        return int(row[0]) if row else None

    def keys(self, prefix: str) -> set[str]:
        """The keys that begin with ``prefix``."""
        rows = self._db.execute("select key from journal where key >= ? and key < ?", (prefix, prefix + "\U0010ffff"))
        return {str(key) for (key,) in rows}

    def replay(self, after: int = 0, most: int = -1) -> Iterator[Entry]:
        """Yield at most ``most`` entries after number ``after``, oldest first."""
        query = "select * from journal where seq > ? order by seq limit ?"
        if self._damaged_too:
            return self._readable(query, after, most)
        return map(Entry._make, self._db.execute(query, (after, most)))

    def of_kind(self, kind: str) -> Iterator[Entry]:
        """Yield the entries of one kind, oldest first."""
        return map(Entry._make, self._db.execute("select * from journal where kind = ? order by seq", (kind,)))

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last entry."""
        return self.last_seq, self._chain

    def _readable(self, query: str, *values: int) -> Iterator[Entry]:
        self.broken = ""
        try:
            for row in self._db.execute(query, values):
                yield Entry._make(row)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self.broken = " ".join(str(error).split())

    def verify(self) -> int:
        """Number of the last entry up to which the record is whole: numbered without gap, every hash right."""
        chain = ""
        good = 0
        for entry in self.replay():
            chain = link(chain, entry.kind, entry.key, entry.body)
            if entry.seq != good + 1 or entry.chain != chain:
                break
            good = entry.seq
        return good

    def close(self) -> None:
        """Close the file and give the lock back."""
        if hasattr(self, "_db"):
            self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def chain_at(folder: Path, seq: int) -> str:
    """Hash of row ``seq`` as it stands in the file; empty where there is none, or it cannot be read."""
    journal = Journal(folder, write=False, damaged_too=True)
    try:
        return next((entry.chain for entry in journal.replay(after=seq - 1, most=1)), "")
    finally:
        journal.close()


def _padded(path: Path) -> sqlite3.Connection | None:
    """A file that was cut short, in memory and as long as it says it was, so that its first rows can be read."""
    raw = path.read_bytes()
    page_size = {1: 65_536}.get(size := int.from_bytes(raw[16:18], "big"), size)
    claimed = page_size * int.from_bytes(raw[28:32], "big")
    if not raw.startswith(b"SQLite format 3\0") or not len(raw) < claimed <= max(1 << 31, 2 * len(raw)):
        return None
    raw = raw[:18] + b"\1\1" + raw[20:]  # no write-ahead log in memory
    db = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        db.deserialize(raw.ljust(claimed, b"\0"))
        db.execute("select value from meta where name = 'format'").fetchone()
    except sqlite3.DatabaseError:
        db.close()
        return None
    return db


def naming(path: Path, text: str, kinds: Sequence[str], most: int) -> list[Entry]:
    """The last ``most`` entries of these kinds whose body holds ``text``, oldest first; by a reader of its own.

    Looks through the whole journal (about 0.1 s for 100,000 rows) without holding up commits.
    """
    marks = ", ".join("?" * len(kinds))
    query = f"select * from journal where kind in ({marks}) and instr(body, ?) > 0 order by seq desc limit ?"  # noqa: S608
    reader = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    try:
        return [Entry._make(row) for row in reader.execute(query, (*kinds, text, most))][::-1]
    finally:
        reader.close()


def _take_lock(folder: Path) -> int:
    """Lock the folder itself: the kernel frees the lock when the process dies, however it dies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise JournalError(
            f"{folder}: another cryonaut daemon writes to this session; stop it first"
            " (`cryonaut control status` shows it) or start with another session.name"
        ) from error
    return descriptor
