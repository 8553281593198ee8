"""Holes rich in vesicles become target files that PACEtomo reads, and a list that grows while the session runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent import recording
from agent.cli import app
from agent.errors import CryonautError
from agent.messages import DetectedObject
from agent.recording.record import Happened, Record
from agent.session import advance
from agent.session import events as ev
from drivers.exchange import pacetomo
from drivers.serialem.navfile import read_nav
from tests import golden

WHAT = "vesicles under 65 nm"


def with_vesicles(record: Record, counts: dict[str, int], at: tuple[float, float] = (100.0, 140.0)) -> Record:
    """The record after a detector spoke about the micrographs of these holes, most vesicles about pixel ``at``."""
    happened, state = list(record.happened), record.state
    for hole_id, count in counts.items():
        hole = state.hole(hole_id)
        assert hole is not None
        objects = tuple(
            DetectedObject(x=at[0] + k % 3 - 1, y=at[1] + k % 5 - 2, group="under 65 nm", score=0.9)
            for k in range(count)
        )
        event = ev.ObjectsDetected(
            area_id=hole_id, frame_id=hole.frame_id, detector="vesicles", fingerprint="f", objects=objects,
            counts={"under 65 nm": count},
        )  # fmt: skip
        state = advance(state, event, seq=len(happened) + 1, utc=0.0)
        happened.append(Happened(len(happened) + 1, 0.0, event))
    return replace(record, happened=tuple(happened), state=state)


def exposed(record: Record) -> list[str]:
    return [h.area_id for g in record.state.grids.values() for s in g.squares.values() for h in s.holes.values()
            if h.frame_id]  # fmt: skip


def targets(file: Path) -> list[dict[str, str]]:
    """A target file as PACEtomo reads it: ``key = value`` lines, each target begun by ``_tgt``."""
    found: list[dict[str, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        words = line.split(" ")
        if words[0] == "_tgt":
            found.append({"number": words[2]})
        elif line:
            key, equals, value = words
            assert equals == "="
            found[-1][key] = value
    return found


@pytest.fixture
def record() -> Record:
    return recording.read(golden.FOLDER / "pilot")


def test_a_batch_holds_the_holes_of_one_square_within_reach_the_richest_is_tracked(
    record: Record, tmp_path: Path
) -> None:
    holes = exposed(record)
    counts = {hole: 30 + 10 * n for n, hole in enumerate(holes)}
    made = pacetomo.export(with_vesicles(record, counts), tmp_path, WHAT, 25)
    series = [one.hole_id for batch in made for one in batch.series]
    assert sorted(series) == sorted(holes)
    for batch in made:
        assert batch.series[0].count == max(one.count for one in batch.series)
        read = targets(tmp_path / batch.file)
        assert [t["number"] for t in read] == [f"{n:03d}" for n in range(1, len(read) + 1)]
        assert len({t["tsfile"] for t in read}) == len(read)
        assert all(t["skip"] == "False" and "SSX" not in t for t in read)
        first = np.array([float(read[0]["stageX"]), float(read[0]["stageY"])])
        for t in read:
            assert np.hypot(*(np.array([float(t["stageX"]), float(t["stageY"])]) - first)) <= 12
        squares = {one.hole_id.rpartition("-H")[0] for one in batch.series}
        assert len(squares) == 1


def test_a_series_is_centred_on_the_vesicles_and_not_on_the_hole(record: Record, tmp_path: Path) -> None:
    hole_id = exposed(record)[0]
    (batch,) = pacetomo.export(with_vesicles(record, {hole_id: 40}), tmp_path, WHAT, 25)
    hole = record.state.hole(hole_id)
    assert hole is not None
    frame = record.frames[hole.frame_id].frame
    matrix = np.array(
        frame.image_to_stage or (frame.pixel_size_angstrom * 1e-4, 0, 0, frame.pixel_size_angstrom * 1e-4)
    )
    middle = (np.array(frame.shape[::-1]) - 1) / 2
    wanted = matrix.reshape(2, 2) @ (np.array([100.0, 140.0]) - middle)
    wanted += np.array([frame.stage.x_um, frame.stage.y_um]) + frame.image_shift_um
    assert np.allclose((batch.series[0].x_um, batch.series[0].y_um), wanted, atol=2e-3)
    assert np.hypot(*(wanted - (hole.x_um, hole.y_um))) > 0.01


def test_only_the_first_of_a_batch_is_acquired_and_its_note_names_the_file(record: Record, tmp_path: Path) -> None:
    made = pacetomo.export(with_vesicles(record, dict.fromkeys(exposed(record), 50)), tmp_path, WHAT, 25)
    items = read_nav(tmp_path / "pacetomo-01.nav")
    assert len(items) == sum(len(batch.series) for batch in made)
    assert [item.note for item in items if item.acquire] == [batch.file for batch in made]
    assert len({item.label for item in items}) == len(items)


def test_asked_again_only_new_holes_are_added_and_files_in_use_are_left_alone(record: Record, tmp_path: Path) -> None:
    first, second = exposed(record)[:2]
    early = with_vesicles(record, {first: 50, second: 3})
    (batch,) = pacetomo.export(early, tmp_path, WHAT, 25)
    in_use = tmp_path / batch.file
    in_use.write_text(in_use.read_text(encoding="utf-8") + "_spos = 4,0\n", encoding="utf-8")  # PACEtomo works on it
    before = in_use.read_bytes()
    assert pacetomo.export(early, tmp_path, WHAT, 25) == []
    late = with_vesicles(record, {first: 50, second: 60})
    (added,) = pacetomo.export(late, tmp_path, WHAT, 25)
    assert [one.hole_id for one in added.series] == [second]
    assert in_use.read_bytes() == before
    assert sorted(p.name for p in tmp_path.glob("*.nav")) == ["pacetomo-01.nav", "pacetomo-02.nav"]
    assert len((tmp_path / "pacetomo.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_what_no_detector_counted_is_said_with_what_was_counted(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CryonautError, match="'gold 6 nm'; counted were: vesicles under 65 nm"):
        pacetomo.export(with_vesicles(record, {exposed(record)[0]: 9}), tmp_path, "gold 6 nm", 5)
    with pytest.raises(CryonautError, match=r"inference\.detectors names none"):
        app(
            ["session", "export", str(record.folder), str(tmp_path / "out"), "--as", "pacetomo"],
            result_action="return_value",
        )
