"""The journal: all or nothing, one writer, append only, and what is damaged shows."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from agent.errors import JournalError
from agent.journal import FILE_NAME, Draft, Journal

WRITER = """
import sys, time
from pathlib import Path
from agent.journal import Journal, Draft
journal = Journal(Path(sys.argv[1]))
n = 0
while True:
    journal.append([Draft("noticed", f"row {n}"), Draft("noticed", f"row {n} b")], utc=1.0, epoch=1)
    n += 1
    print(journal.last_seq, flush=True)
"""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "s")
    yield journal
    journal.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Another process that writes to ``tmp_path / "s"`` as fast as it can; has written when this returns."""
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        arguments = [sys.executable, "-c", WRITER, str(tmp_path / "s")]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def add(journal: Journal, *bodies: str, key: str | None = None) -> int:
    return journal.append([Draft("noticed", body, key) for body in bodies], utc=1.0, epoch=1)


def test_rows_come_back_in_order_with_their_numbers(journal: Journal) -> None:
    assert add(journal, "a", "b") == 2
    assert add(journal, "c") == 3
    assert [(row.seq, row.body) for row in journal.replay()] == [(1, "a"), (2, "b"), (3, "c")]
    assert [row.seq for row in journal.replay(after=1, most=1)] == [2]
    assert journal.verify() == 3


def test_a_commit_is_all_or_nothing(journal: Journal) -> None:
    add(journal, "a", key="frame:1")
    with pytest.raises(JournalError, match="commit failed"):
        journal.append([Draft("x", "b"), Draft("x", "c", "frame:1")], utc=1.0, epoch=1)
    assert [row.body for row in journal.replay()] == ["a"]
    assert journal.last_seq == 1
    assert add(journal, "d") == 2
    assert journal.verify() == 2


def test_a_key_is_found_again(journal: Journal) -> None:
    add(journal, "a", key="frame:1")
    assert journal.find("frame:1") == 1
    assert journal.find("frame:2") is None


def test_a_reopened_journal_goes_on_with_number_and_chain(tmp_path: Path) -> None:
    for number in range(1, 4):
        journal = Journal(tmp_path)
        assert add(journal, f"row {number}") == number
        journal.close()
    reader = Journal(tmp_path, write=False)
    assert reader.verify() == 3
    reader.close()


def test_a_second_writer_is_refused_with_the_way_out(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"another cryonaut daemon writes to this session.*session\.name"):
        Journal(tmp_path / "s")
    assert add(journal, "the first goes on") == 1


def test_a_writer_in_another_process_is_refused_too(tmp_path: Path, writer: Callable[[], object]) -> None:
    writer()
    with pytest.raises(JournalError, match="another cryonaut daemon"):
        Journal(tmp_path / "s")


def test_the_lock_goes_with_its_owner_even_by_sigkill_and_no_acknowledged_row_is_lost(
    tmp_path: Path, writer: Callable[[], "subprocess.Popen[str]"]
) -> None:
    for _ in range(2):
        process = writer()
        assert process.stdout is not None
        acknowledged = 0
        for _ in range(20):
            acknowledged = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        journal = Journal(tmp_path / "s")
        assert journal.last_seq >= acknowledged
        assert journal.last_seq % 2 == 0, "half a commit"
        assert journal.verify() == journal.last_seq
        journal.close()


def test_a_reader_needs_no_lock_and_sees_whole_commits_while_a_writer_runs(
    tmp_path: Path, writer: Callable[[], object]
) -> None:
    writer()
    reader = Journal(tmp_path / "s", write=False)
    for _ in range(5):
        rows = list(reader.replay())
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        assert len(rows) % 2 == 0
        assert reader.verify() >= len(rows)
    with pytest.raises(JournalError, match="readonly"):
        add(reader, "a reader does not write")
    reader.close()


@pytest.mark.parametrize("statement", ["update journal set body = 'x'", "delete from journal where seq = 1"])
def test_rows_cannot_be_changed_or_removed(journal: Journal, tmp_path: Path, statement: str) -> None:
    add(journal, "a")
    other = sqlite3.connect(tmp_path / "s" / FILE_NAME)
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        other.execute(statement)
    other.close()
    assert [row.body for row in journal.replay()] == ["a"]


def tampered(journal: Journal, copy: Path, statement: str) -> Journal:
    """A copy of the journal on which somebody with a database tool did ``statement``."""
    copy.mkdir()
    shutil.copy(journal.path, copy / FILE_NAME)
    raw = sqlite3.connect(copy / FILE_NAME)
    raw.execute("drop trigger no_change")
    raw.execute("drop trigger no_removal")
    raw.execute(statement)
    raw.commit()
    raw.close()
    return Journal(copy, write=False)


@pytest.mark.parametrize(
    ("statement", "good"),
    [
        ("update journal set body = 'row 99' where seq = 7", 6),
        ("update journal set kind = 'other' where seq = 1", 0),
        ("update journal set key = 'frame:other' where seq = 4", 3),
        ("delete from journal where seq = 5", 4),
        ("update journal set chain = 'abc' where seq = 10", 9),
        ("insert into journal values (12, 1.0, 1, 'noticed', null, 'smuggled', 'abc')", 10),
        ("select 1", 10),
    ],
)
def test_verify_gives_the_last_row_before_a_change_or_a_gap(tmp_path: Path, statement: str, good: int) -> None:
    journal = Journal(tmp_path / "s")
    for number in range(1, 11):
        add(journal, f"row {number}", key=f"frame:{number}")
    journal.close()
    copy = tampered(journal, tmp_path / "copy", statement)
    assert copy.verify() == good
    copy.close()


def test_a_damaged_file_is_refused_with_one_line_and_left_as_it_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(300):
        add(journal, f"row {number} " + "x" * 200)
    journal.close()
    raw = bytearray(journal.path.read_bytes())
    raw[len(raw) // 3 : len(raw) // 2] = os.urandom(len(raw) // 2 - len(raw) // 3)
    journal.path.write_bytes(raw)
    with pytest.raises(JournalError, match=r"journal\.sqlite: .*left as it is") as caught:
        Journal(tmp_path)
    assert "\n" not in str(caught.value)
    assert journal.path.read_bytes() == raw


@bounded(max_examples=25, deadline=None)
@given(junk=st.binary(max_size=400))
def test_a_file_that_is_no_database_is_refused(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("junk")
    (folder / FILE_NAME).write_bytes(junk)
    said = ""
    try:
        Journal(folder).close()  # sqlite takes an empty file for a new database
    except JournalError as error:
        said = str(error)
    assert "\n" not in said
    assert said or not junk.rstrip(b"\x00") or len(junk) < 16


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("update meta set value = '99'", "format 99; this version reads up to 1: update cryonaut"),
        ("update meta set value = 'new'", "format new;"),
        ("delete from meta", "format no format;"),
        ("drop table meta", "is empty"),
        ("drop table journal", "no such table: journal"),
    ],
)
def test_a_file_of_a_newer_or_no_format_is_refused(tmp_path: Path, statement: str, says: str) -> None:
    Journal(tmp_path).close()
    raw = sqlite3.connect(tmp_path / FILE_NAME)
    raw.execute(statement)
    raw.commit()
    raw.close()
    with pytest.raises(JournalError, match=says):
        Journal(tmp_path, write=False)


def test_a_folder_without_a_journal_is_told_to_a_reader_and_not_filled(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is this a session folder"):
        Journal(tmp_path / "nothing", write=False)
    assert not (tmp_path / "nothing").exists()


def test_a_full_disk_fails_the_commit_and_the_next_one_works(journal: Journal) -> None:
    add(journal, "a")
    pages = journal._db.execute("pragma page_count").fetchone()[0]
    journal._db.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(JournalError, match="full"):
        add(journal, *("x" * 4000 for _ in range(50)))
    assert journal.last_seq == 1
    journal._db.execute("pragma max_page_count = 100000")
    assert add(journal, "b") == 2
    assert [row.body for row in journal.replay()] == ["a", "b"]
    assert journal.verify() == 2
