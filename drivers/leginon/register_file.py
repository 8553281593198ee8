"""The file of a register: one process holds it, every change is a transaction that is on disk when it ends."""

import fcntl
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.errors import BadFileError

SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT, begun_utc REAL NOT NULL, current INTEGER NOT NULL,
    historical INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS grids (
    name TEXT PRIMARY KEY, run INTEGER NOT NULL, session TEXT NOT NULL, grid_id INTEGER NOT NULL,
    pitch_um REAL NOT NULL, places INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS tiles (
    tile INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, grid TEXT NOT NULL, tile_id INTEGER NOT NULL,
    frame_id TEXT NOT NULL UNIQUE, place INTEGER NOT NULL, rows INTEGER NOT NULL, columns INTEGER NOT NULL,
    state TEXT NOT NULL, note TEXT NOT NULL DEFAULT '', UNIQUE (run, tile_id)) STRICT;
CREATE TABLE IF NOT EXISTS squares (
    square_id INTEGER PRIMARY KEY AUTOINCREMENT, tile INTEGER NOT NULL, area_id TEXT NOT NULL UNIQUE,
    x REAL NOT NULL, y REAL NOT NULL, vertices TEXT NOT NULL, brightness REAL NOT NULL, area REAL NOT NULL,
    score REAL NOT NULL, x_um REAL NOT NULL, y_um REAL NOT NULL, side_um REAL NOT NULL,
    visited INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS strangers (
    run INTEGER NOT NULL, square_id INTEGER NOT NULL, area_id TEXT NOT NULL, PRIMARY KEY (run, square_id)) STRICT;
CREATE TABLE IF NOT EXISTS images (
    image INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, grid TEXT NOT NULL, square_id INTEGER NOT NULL,
    mm_img_id INTEGER NOT NULL, frame_id TEXT NOT NULL UNIQUE, place INTEGER NOT NULL,
    rows INTEGER NOT NULL, columns INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS holes (
    hole_id INTEGER PRIMARY KEY AUTOINCREMENT, image INTEGER NOT NULL, area_id TEXT NOT NULL UNIQUE,
    x REAL NOT NULL, y REAL NOT NULL, radius REAL NOT NULL, score REAL NOT NULL,
    visited INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS visits (
    visit INTEGER PRIMARY KEY AUTOINCREMENT, area_id TEXT NOT NULL, ctf REAL, ice REAL, told INTEGER NOT NULL,
    utc REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS pasts (
    name TEXT NOT NULL, session TEXT NOT NULL, historical INTEGER NOT NULL, PRIMARY KEY (name, session)) STRICT;
CREATE INDEX IF NOT EXISTS squares_of_tile ON squares (tile);
CREATE INDEX IF NOT EXISTS holes_of_image ON holes (image);
CREATE INDEX IF NOT EXISTS visits_untold ON visits (told);
"""
VERSION = "1"


class RegisterFile:
    """One register file, for one process, and small values under names; what is kept in it, `Register` knows.

    Raises
    ------
    BadFileError
        If the file is no register, of a newer version, or in use.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._held = path.with_suffix(".lock").open("a")  # dies with its process
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._held.close()
            raise BadFileError(f"{path}: another Leginon driver uses it; give each its own daemon.folder") from error
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(SCHEMA)
            version = self._about("version")
            if version not in ("", VERSION):
                raise BadFileError(
                    f"{path}: register of version {version}; this driver knows {VERSION}: update cryonaut"
                )
            with self._change():
                self._db.execute("INSERT OR IGNORE INTO about VALUES ('version', ?)", (VERSION,))
                self._db.execute("INSERT OR IGNORE INTO about VALUES ('name', ?)", (f"R{uuid.uuid4().hex[:12]}",))
                self._begin()
        except BadFileError:
            self.close()
            raise
        except sqlite3.DatabaseError as error:
            self.close()
            raise BadFileError(f"{path}: no register of this driver: {error}") from error

    def _begin(self) -> None:
        """Put in what no register is without; in the transaction that opens the file."""

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
            self._held.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(query, tuple(values)).fetchall()

    def _one(self, query: str, values: Iterable[Any] = ()) -> Any:
        rows = self._rows(query, values)
        return rows[0][0] if rows else None

    # ------------------------------------------------------------------------------------------ options

    @property
    def name(self) -> str:
        """Name of this register, unlike that of any other."""
        return self._about("name")

    def _about(self, name: str) -> str:
        return str(self._one("SELECT value FROM about WHERE name = ?", (name,)) or "")

    def remember(self, name: str, value: Any) -> None:
        """Keep a small value under a name."""
        with self._change():
            self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def recall(self, name: str) -> Any:
        """The value kept under a name, or None."""
        text = self._about(name)
        return json.loads(text) if text else None
