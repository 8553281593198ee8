"""A session folder is a recording: read without touching it, damage found, everything before it still usable."""

import asyncio
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agent import recording
from agent.cli import app
from agent.core import restore
from agent.errors import BadFileError, CryonautError, JournalError
from agent.journal import FILE_NAME, Journal
from agent.messages import Accepted
from agent.recording.manifest import read_manifest
from agent.recording.trim import trim
from agent.retention import OldSession, prune
from agent.session import events as ev
from tests.helpers import RawDriver, image_of, running, settings_in

FRAMES = 6


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session whose daemon ended in good order after a few advisor frames."""
    folder = tmp_path_factory.mktemp("recorded")

    async def record() -> None:
        async with running(settings_in(folder, session__mode="advisor", session__autonomy="suggest")) as daemon:
            driver = RawDriver(daemon.endpoints["drivers"])
            await driver.hello(can_pilot=False)
            for number in range(FRAMES):
                await driver.send_frame(image_of(seed=number), frame_id=f"f{number}", level="low")
                await driver.expect(Accepted)
            driver.close()

    asyncio.run(record())
    return folder / "test"


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def test_a_recording_gives_events_frames_and_pixels_in_order_and_changes_nothing(copy: Path) -> None:
    before = listing(copy)
    record = recording.read(copy)
    assert [item.seq for item in record.happened] == list(range(1, record.rows + 1))
    assert [shot.frame.frame_id for shot in record.shots] == [f"f{n}" for n in range(FRAMES)]
    assert all(np.array_equal(record.pixels(f"f{n}"), image_of(seed=n)) for n in range(FRAMES))
    assert recording.verify(record).whole
    assert listing(copy) == before
    journal = Journal(copy, write=False)
    assert record.state == restore(journal)
    journal.close()


def test_the_manifest_knows_settings_versions_and_sums(copy: Path) -> None:
    record = recording.read(copy)
    manifest = record.manifest
    assert manifest is not None
    assert manifest.ended
    assert manifest.events == record.rows
    epoch = next(item.event for item in record.happened if isinstance(item.event, ev.EpochBegan))
    assert manifest.configs[epoch.config]["squares"]["per_grid"] == 2
    assert manifest.versions["numpy"] == np.__version__
    assert [found.bytes for found in manifest.frames] == [
        (copy / shot.received.file).stat().st_size for shot in record.shots
    ]


def test_a_record_up_to_an_event_folds_to_the_state_of_that_moment(copy: Path) -> None:
    record = recording.read(copy)
    half = record.until(record.rows // 2)
    assert half.state.seq == record.rows // 2
    assert half.state.frames < record.state.frames


def frame_file(folder: Path, number: int) -> Path:
    return folder / recording.read(folder).shots[number].received.file


def change_row(folder: Path) -> None:
    db = sqlite3.connect(folder / FILE_NAME)
    db.execute("drop trigger no_change")
    db.execute("update journal set body = replace(body, 'low', 'high') where key = 'frame:f1'")
    db.commit()
    db.close()


def drop_end(folder: Path) -> None:
    db = sqlite3.connect(folder / FILE_NAME)
    db.execute("drop trigger no_removal")
    db.execute("delete from journal where seq > 9")
    db.commit()
    db.close()


def damage_frame(folder: Path) -> None:
    path = frame_file(folder, 2)
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 0xFF
    path.write_bytes(raw)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a changed row": (change_row, r"row \d+ is missing or was changed"),
    "a missing end": (drop_end, "ends at row 9; the manifest knows"),
    "a changed pixel": (damage_frame, "digest"),
    "a frame cut short": (
        lambda f: cut(f / recording.read(f).shots[1].received.file, 0.5),
        "cannot be read|shape|digest",
    ),
    "a frame gone": (lambda f: frame_file(f, 0).unlink(), "cannot be read"),
    "a journal cut short": (lambda f: cut(f / FILE_NAME, 0.6), "damaged|malformed|ends at row"),
    "a manifest of something else": (lambda f: (f / "manifest.json").write_text("{}"), "no manifest"),
    "a manifest that is no JSON": (lambda f: (f / "manifest.json").write_text("[" * 10_000), "no manifest"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_everything_before_it_is_usable(copy: Path, name: str) -> None:
    whole = recording.read(copy)
    damage, said = DAMAGES[name]
    damage(copy)
    record = recording.read(copy)
    verdict = recording.verify(record)
    assert not verdict.whole
    assert any(t.severity == "damage" and re.search(said, t.what) for t in verdict.troubles), verdict.troubles
    usable = [item.event for item in record.happened if item.seq <= record.whole_up_to]
    assert usable == [item.event for item in whole.happened[: len(usable)]]
    assert verdict.frames >= len(record.shots) - 1
    if "journal cut" in name:
        assert record.unreadable or record.rows < whole.rows


def test_a_file_whose_first_page_is_gone_says_so_in_one_line(copy: Path) -> None:
    (copy / FILE_NAME).write_bytes(b"\0" * 8192)
    with pytest.raises(JournalError, match=r"journal\.sqlite"):
        recording.read(copy)


def test_a_frame_outside_the_folder_is_never_opened(copy: Path) -> None:
    record = recording.read(copy)
    frame_id = record.shots[0].frame.frame_id
    received = record.frames[frame_id]
    record.frames[frame_id] = ev.FrameReceived(frame=received.frame, file="../../etc/passwd", grid_id="G1", area_id="")
    with pytest.raises(BadFileError, match="outside the session folder"):
        record.pixels(frame_id)


def test_a_trimmed_copy_is_smaller_whole_and_equal_row_by_row(copy: Path, tmp_path: Path) -> None:
    record = recording.read(copy)
    last = record.shots[3].seq
    made = recording.read(trim(record, tmp_path / "small", until=last, pack=True))
    assert made.rows == last
    assert [item.event for item in made.happened] == [item.event for item in record.happened[:last]]
    assert recording.verify(made).whole
    assert np.array_equal(made.pixels("f2"), record.pixels("f2"))
    without = recording.read(trim(record, tmp_path / "headers", without=("low",)))
    verdict = recording.verify(without)
    assert verdict.whole
    assert verdict.frames == 0
    with pytest.raises(CryonautError, match="not empty"):
        trim(record, tmp_path / "small")


def test_pixels_that_were_pruned_are_no_damage(copy: Path) -> None:
    assert prune(OldSession(copy, 0.0, 0), keep_record=True) > 0
    verdict = recording.verify(recording.read(copy))
    assert verdict.whole
    assert verdict.frames == 0
    assert {trouble.severity for trouble in verdict.troubles} == {"note"}


def test_a_restarted_daemon_keeps_the_settings_of_every_epoch(tmp_path: Path) -> None:
    async def once(per_grid: int) -> None:
        async with running(settings_in(tmp_path, squares__per_grid=per_grid)):
            manifest, _ = read_manifest(tmp_path / "test")
            assert manifest is not None
            assert not manifest.ended

    asyncio.run(once(2))
    asyncio.run(once(3))
    manifest, _ = read_manifest(tmp_path / "test")
    assert manifest is not None
    assert manifest.ended
    assert [values["squares"]["per_grid"] for values in manifest.configs.values()] == [2, 3]
    assert "endpoints" not in json.dumps(manifest.configs)
    assert str(tmp_path) not in json.dumps(manifest.configs)


def test_the_command_line_verifies_shows_and_trims(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app(["session", "verify", str(copy)], result_action="return_value")
    assert "whole" in capsys.readouterr().out
    app(["session", "show", str(copy), "--events"], result_action="return_value")
    assert "low-mag frame f3" in capsys.readouterr().out
    app(["session", "trim", str(copy), str(tmp_path / "t"), "--pack"], result_action="return_value")
    assert f"{FRAMES} frames" in capsys.readouterr().out
    damage_frame(copy)
    with pytest.raises(SystemExit) as ended:
        app(["session", "verify", str(copy)], result_action="return_value")
    assert ended.value.code == 1
    assert "digest" in capsys.readouterr().out
