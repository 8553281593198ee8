"""What a driver has done: commands begun and ended, dose given, kept on disk so that nothing is done twice."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from agent.messages import Command, CommandResult, Expose

UNKNOWN = "the driver ended while this was under way"
SCHEMA = """
create table if not exists commands(
    session_id text not null,
    command_id text not null,
    result text,
    taken integer not null default 0,
    primary key (session_id, command_id)
) strict;
create table if not exists dose(
    session_id text not null,
    command_id text not null,
    area_id text not null,
    e_per_a2 real not null,
    primary key (session_id, command_id)
) strict;
"""


class Ledger:
    """One SQLite file beside the driver; every write is on disk when it returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=full")
        self._db.executescript(SCHEMA)
        self._lock = threading.Lock()  # one transaction at a time, whichever thread asks

    def begin(self, command: Command) -> None:
        """Note that the command is about to be carried out; its dose counts from now on, whatever becomes of it."""
        key = (command.session_id, command.command_id)
        with self._transaction():
            self._db.execute("insert or ignore into commands(session_id, command_id) values (?, ?)", key)
            if isinstance(command.work, Expose):
                row = (*key, command.work.area_id, command.work.dose_e_per_a2)
                self._db.execute("insert or ignore into dose values (?, ?, ?, ?)", row)

    def end(self, result: CommandResult) -> None:
        """Note how it ended, and the dose that its area really had where that is known."""
        with self._transaction():
            self._end(result)

    def _end(self, result: CommandResult) -> None:
        self._db.execute(
            "insert into commands(session_id, command_id, result) values (?, ?, ?)"
            " on conflict do update set result = excluded.result",
            (result.session_id, result.command_id, msgspec.json.encode(result).decode()),
        )
        if result.dose_e_per_a2 is not None:
            self._db.execute(
                "update dose set e_per_a2 = ? where session_id = ? and command_id = ?",
                (result.dose_e_per_a2, result.session_id, result.command_id),
            )

    def drop(self, session_id: str, command_id: str) -> CommandResult:
        """How a cancelled command that is not under way ended; one that never began never will."""
        with self._transaction():
            row = self._db.execute(
                "select result from commands where session_id = ? and command_id = ?", (session_id, command_id)
            ).fetchone()
            if row is not None and row[0]:
                return msgspec.json.decode(row[0], type=CommandResult)
            result = CommandResult(
                command_id=command_id,
                session_id=session_id,
                status="cancelled" if row is None else "unknown",
                message="cancelled before it began" if row is None else UNKNOWN,
                dose_e_per_a2=0.0 if row is None else None,
            )
            self._end(result)
            return result

    def known(self, command: Command) -> bool:
        """Whether the command was begun before."""
        return self._row(command) is not None

    def result(self, command: Command) -> CommandResult | None:
        """How the command ended; None when it did not, or is not known."""
        row = self._row(command)
        return msgspec.json.decode(row[0], type=CommandResult) if row and row[0] else None

    def _row(self, command: Command) -> tuple[str | None] | None:
        with self._lock:
            row: tuple[str | None] | None = self._db.execute(
                "select result from commands where session_id = ? and command_id = ?",
                (command.session_id, command.command_id),
            ).fetchone()
        return row

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")

    def untaken(self, session_id: str | None = None) -> list[CommandResult]:
        """Results that no daemon has acknowledged yet, of one session or of all.

        A command that was begun and has no end counts as ``unknown``.
        """
        with self._lock:
            rows = self._db.execute(
                "select session_id, command_id, result from commands where taken = 0"
                " and session_id = coalesce(?, session_id) order by session_id desc, command_id limit 1000",
                (session_id,),
            ).fetchall()
        return [
            msgspec.json.decode(text, type=CommandResult)
            if text
            else CommandResult(
                command_id=command_id,
                session_id=session,
                status="unknown",
                message=UNKNOWN,
            )
            for session, command_id, text in rows
        ]

    def take(self, session_id: str, command_id: str) -> None:
        """The daemon has this result on disk."""
        with self._lock:
            self._db.execute(
                "update commands set taken = 1 where session_id = ? and command_id = ?", (session_id, command_id)
            )

    def dose(self, session_id: str, area_id: str) -> float:
        """Dose that an area had through this driver, in electrons per square angstrom."""
        with self._lock:
            (total,) = self._db.execute(
                "select coalesce(sum(e_per_a2), 0) from dose where session_id = ? and area_id = ?",
                (session_id, area_id),
            ).fetchone()
        return float(total)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
