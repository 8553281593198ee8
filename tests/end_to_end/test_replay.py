"""A recorded session, replayed: the same decisions, byte for byte; with other settings or faults: what changed, why."""

import asyncio
import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from agent import recording
from agent.cli import app
from agent.cli.replay import free_folder
from agent.errors import ConfigError, CryonautError
from agent.frames import FrameStore
from agent.recording.cues import cues
from agent.recording.decisions import decisions
from agent.recording.difference import compare
from agent.recording.record import Record
from agent.recording.trim import trim
from agent.report.difference import render
from agent.session import events as ev
from agent.session.state import summary
from simulators.replay.faults import HARMLESS, KINDS, ReplayFault, parse
from simulators.replay.host import own_host, program_host
from simulators.replay.link import DriverLink
from simulators.replay.player import hello_of
from simulators.replay.run import Options, Outcome, replay, settings_for
from tests import golden
from tests.helpers import until

pytestmark = pytest.mark.timeout(120)


def kept(name: str) -> Record:
    return recording.read(golden.FOLDER / name)


@cache
def recorded(name: str) -> Record:
    """The golden recording with the decisions of this version: only the golden test is about those of the last."""
    out = Path(tempfile.mkdtemp(prefix="replay-"))
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    return asyncio.run(replay(kept(name), out)).now


def played(name: str, out: Path, **options: Any) -> Outcome:
    return asyncio.run(replay(recorded(name), out, Options(**options)))


@pytest.mark.parametrize("name", golden.NAMES)
def test_the_golden_recordings_are_whole(name: str) -> None:
    verdict = recording.verify(kept(name))
    assert verdict.whole, verdict.troubles
    assert verdict.frames == verdict.all_frames > 0


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("name", golden.NAMES)
def test_a_golden_recording_gives_the_same_decisions_byte_for_byte(name: str, threads: int, tmp_path: Path) -> None:
    changes = {"inference.threads": threads, "inference.model_threads": threads}
    outcome = asyncio.run(replay(kept(name), tmp_path, Options(changes=changes)))
    if not outcome.same:
        pytest.fail(
            f"the decisions of tests/data/golden/{name} changed; if that is wanted, `{golden.ACCEPT}` accepts it:\n"
            + golden.readable(compare(outcome.then, outcome.now)),
            pytrace=False,
        )
    assert outcome.fingerprints[0] == outcome.fingerprints[1]
    assert not outcome.played.diverged
    assert not outcome.played.missing
    assert end_of(outcome.now) == end_of(outcome.then)
    assert recording.verify(outcome.now).whole


def end_of(record: Record) -> dict[str, Any]:
    """How a session ended, without its name and the hash of its config: threads are a setting, too."""
    text = json.dumps(summary(record.state) | {"session_id": ""})
    for config in {item.event.config for item in record.happened if isinstance(item.event, ev.EpochBegan)}:
        text = text.replace(config, "config")
    return dict(json.loads(text))


def test_a_recording_of_a_replay_replays_too(tmp_path: Path) -> None:
    again = played("advisor", tmp_path)
    assert again.same
    assert again.fingerprints[0] == again.fingerprints[1]


def test_frames_that_come_as_recorded_share_their_files_and_are_never_written_into(tmp_path: Path) -> None:
    shutil.copytree(recorded("advisor").folder, tmp_path / "then")
    record = recording.read(tmp_path / "then")
    dark = record.shots[1].frame
    outcome = asyncio.run(replay(record, tmp_path / "now", Options(faults=(ReplayFault("dark", at=2),))))
    for shot in outcome.now.shots:
        then, now = record.folder / shot.received.file, outcome.now.folder / shot.received.file
        assert then.samefile(now) == (shot.frame.frame_id != dark.frame_id)
    store = FrameStore(outcome.now.folder)  # whatever goes on in the replay's folder
    store.save(record.shots[0].frame, np.zeros(record.shots[0].frame.shape, "<u2"))
    verdict = recording.verify(recording.read(record.folder))
    assert verdict.whole, verdict.troubles


def test_two_microscopes_at_once_do_not_leak_into_each_other(tmp_path: Path) -> None:
    records = {name: recorded(name) for name in golden.NAMES}

    async def both() -> list[Outcome]:
        jobs = [replay(record, tmp_path / name) for name, record in records.items()]
        return list(await asyncio.gather(*jobs))

    for name, outcome in zip(golden.NAMES, asyncio.run(both()), strict=True):
        assert outcome.same, name
        assert [shot.frame.digest for shot in outcome.now.shots] == [shot.frame.digest for shot in outcome.then.shots]


def test_exact_timing_takes_as_long_as_it_took_and_keeps_the_decisions(tmp_path: Path) -> None:
    came = [cue.utc for cue in cues(recorded("advisor")) if cue.kind != "finding"]
    speed = 4.0
    outcome = played("advisor", tmp_path, timing="exact", speed=speed)
    assert outcome.same
    assert outcome.played.seconds >= (came[-1] - came[0]) / speed


@pytest.mark.parametrize("moment", ["middle", "after"])
def test_a_daemon_that_attaches_later_catches_up_with_the_same_decisions(moment: str, tmp_path: Path) -> None:
    record = recorded("pilot")
    attach = record.rows // 2 if moment == "middle" else record.rows
    assert played("pilot", tmp_path, timing="exact", speed=1e3, attach=attach).same


def test_a_burst_answers_every_frame(tmp_path: Path) -> None:
    outcome = played("advisor", tmp_path, timing="burst")
    assert len(outcome.now.shots) == len(outcome.then.shots)
    assert not outcome.now.state.pending
    assert outcome.now.state.phase == "stopped"


@pytest.mark.parametrize("name", golden.NAMES)
def test_a_session_taken_over_in_the_middle_ends_as_it_did(name: str, tmp_path: Path) -> None:
    record = recorded(name)
    outcome = played(name, tmp_path, start=record.rows // 2)
    assert outcome.same
    assert outcome.now.state.session_id == record.state.session_id
    assert outcome.now.state.epoch == record.state.epoch + 1


def test_a_replay_ends_by_the_hours_of_the_recorded_night_and_a_replay_of_it_does_the_same(tmp_path: Path) -> None:
    record = recorded("pilot")
    half = record.until(record.rows * 2 // 3).state
    assert 0 < half.exposures < record.state.exposures
    early = played("pilot", tmp_path, changes={"budget.hours": half.spent_s / 3600})
    assert "time budget" in early.now.state.why
    assert 0 < early.now.state.exposures < record.state.exposures
    again = asyncio.run(replay(early.now, tmp_path / "again", Options(changes={"budget.hours": half.spent_s / 3600})))
    assert again.same
    assert again.now.state.why == early.now.state.why


def test_what_if_goes_its_own_way_as_far_as_the_recording_knows_and_says_why(tmp_path: Path) -> None:
    outcome = played("pilot", tmp_path, changes={"holes.per_square": 4})
    assert not outcome.same
    assert "expose" in outcome.played.diverged
    assert outcome.played.missing
    assert all("recorded" in text for text in outcome.played.missing)
    assert outcome.now.state.phase == "stopped"
    difference = compare(outcome.then, outcome.now)
    assert {change.kind for change in difference.changes} == {"visited only now"}
    assert len(difference.changes) == difference.counts[1]["holes exposed"] - difference.counts[0]["holes exposed"] == 4
    assert difference.settings == (("holes.per_square", "2", "4"),)
    page, as_json = render(outcome.then, outcome.now, difference, tmp_path / "report", list(outcome.played.notes))
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 4
    assert "http" not in text.replace("http-equiv", "")
    assert len(json.loads(as_json.read_text(encoding="utf-8"))["changes"]) == 4


def test_another_threshold_finds_the_same_squares_and_translates_the_operators_words(tmp_path: Path) -> None:
    """With another number of squares the ids mean other places: the words are about places, not about names."""
    outcome = played("pilot", tmp_path, changes={"exposure.autofocus": False})
    assert outcome.played.diverged
    accepted = [[s for s in r.state.grids["G1"].squares.values() if s.word == "accepted"] for r in
                (outcome.then, outcome.now)]  # fmt: skip
    assert [(s.x_um, s.y_um) for s in accepted[0]] == [(s.x_um, s.y_um) for s in accepted[1]]
    assert outcome.now.state.exposures == outcome.then.state.exposures
    assert not outcome.played.missing


FAULTS = [ReplayFault(kind, "medium", 1) for kind in KINDS] + [ReplayFault("dark", "high", 2)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.kind}-{f.level}")
def test_every_fault_on_replay_ends_in_good_order(fault: ReplayFault, tmp_path: Path) -> None:
    """The matrix: what only costs time changes no decision; a spoilt frame is told, costs its retry, and no more."""
    outcome = played("pilot", tmp_path, faults=(fault,))
    now, then = outcome.now.state, outcome.then.state
    assert outcome.played.notes[-1].startswith(fault.kind) or any(
        n.startswith(fault.kind) for n in outcome.played.notes
    )
    assert now.phase == "stopped", (now.phase, now.suspensions)
    assert not now.pending
    commanded = [
        item.event.command.command_id for item in outcome.now.happened if isinstance(item.event, ev.CommandIssued)
    ]
    assert len(commanded) == len(set(commanded))
    if fault.kind in HARMLESS:
        assert outcome.first_difference is None
        return
    errors = [item.event for item in outcome.now.happened if isinstance(item.event, ev.ErrorCounted)]
    kinds = {"dark": "frame_dark", "truncated": "frame_wrong", "wrong_magnification": ""}
    if kinds[fault.kind]:
        assert errors[0].error == kinds[fault.kind]
    if fault.level == "medium" and kinds[fault.kind]:
        assert errors[0].will == "try again"
        assert now.exposures == then.exposures
        assert not compare(outcome.then, outcome.now).changes
    if fault.level == "high":
        assert now.exposures == then.exposures


@pytest.mark.parametrize("kind", ["lost", "doubled", "dropped_driver", "killed_daemon", "truncated"])
def test_faults_on_an_advisors_replay_are_told_and_the_rest_is_answered(kind: Any, tmp_path: Path) -> None:
    outcome = played("advisor", tmp_path, faults=(ReplayFault(kind, "high", 1),))
    assert outcome.now.state.phase == "stopped"
    if kind in HARMLESS:
        assert outcome.first_difference is None
    else:
        assert len(outcome.now.shots) == len(outcome.then.shots) - 1
        assert any("was refused" in note and "bytes of pixels" in note for note in outcome.played.notes)


async def test_what_a_killed_daemon_finds_at_its_next_start_waits_for_its_turn(tmp_path: Path) -> None:
    """A frame that is on disk when the daemon dies is analysed at once: its answer must not overtake the driver."""
    record = kept("advisor")
    shot = record.shots[0]
    async with program_host(settings_for(record, tmp_path, Options(), fixed_ports=True), paced=True) as host:
        link = DriverLink(host.drivers, hello_of(record))
        await link.open()
        try:
            frame = replace(shot.frame, session_id=link.session_id)
            await link.send_frame(frame, record.pixels(frame.frame_id))
            await until(lambda: frame.frame_id in link.safe, 90)
            before = host.log.stat().st_size
            await host.kill()
            await until(lambda: b"answer.waits" in host.log.read_bytes()[before:] or not host.state().pending, 90)
            assert list(host.state().pending) == [frame.frame_id]
            await host.allow(frame.frame_id)
            await until(lambda: not host.state().pending, 90)
        finally:
            await link.close()


async def test_a_replay_judges_micrographs_by_the_quality_settings_of_the_session(tmp_path: Path) -> None:
    changes = {"quality.voltage_kv": 200.0}
    settings = settings_for(kept("advisor"), tmp_path, Options(changes=changes), fixed_ports=False)
    async with own_host(settings, paced=True) as host:
        assert host.analyst.quality == settings.quality
        assert host.analyst.quality.voltage_kv == 200.0


def test_a_wrong_magnification_is_refused_where_the_config_knows_the_right_one(tmp_path: Path) -> None:
    outcome = played(
        "pilot",
        tmp_path,
        changes={"pixel_size_angstrom": {"medium": [1000, 4000]}},
        faults=(ReplayFault("wrong_magnification", "medium", 1),),
    )
    errors = [item.event for item in outcome.now.happened if isinstance(item.event, ev.ErrorCounted)]
    assert errors[0].error == "frame_wrong"
    assert "no medium magnification" in errors[0].why
    assert outcome.now.state.exposures == outcome.then.state.exposures


def test_a_damaged_recording_is_replayed_up_to_its_damage(tmp_path: Path) -> None:
    part = recording.read(trim(recorded("pilot"), tmp_path / "part", until=40))
    outcome = asyncio.run(replay(part, tmp_path / "out"))
    assert outcome.same
    assert outcome.played.beyond or outcome.now.rows >= part.rows


def test_a_replay_needs_settings_frames_and_a_folder_of_its_own(tmp_path: Path) -> None:
    copy = trim(recorded("advisor"), tmp_path / "copy")
    (copy / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="give --config"):
        asyncio.run(replay(recording.read(copy), tmp_path / "out"))
    record = recorded("advisor")
    (tmp_path / "taken" / "advisor").mkdir(parents=True)
    with pytest.raises(CryonautError, match="exists already"):
        asyncio.run(replay(record, tmp_path / "taken"))
    nothing = recording.read(trim(record, tmp_path / "nothing", until=record.shots[0].seq - 1))
    with pytest.raises(CryonautError, match="nothing to replay"):
        asyncio.run(replay(nothing, tmp_path / "no"))


def test_cues_are_what_came_from_outside_in_order() -> None:
    found = cues(recorded("advisor"))
    assert [cue.kind for cue in found[:2]] == ["frame", "finding"]
    assert sum(cue.kind == "measured" for cue in found) == 4
    assert sum(cue.kind == "request" for cue in found) == 3
    assert [cue.seq for cue in found] == sorted(cue.seq for cue in found)


def test_decisions_hold_nothing_that_is_new_each_time() -> None:
    record = recorded("pilot")
    text = "\n".join(line.text for line in decisions(record))
    assert record.state.session_id not in text
    for word in ("elapsed_s", "taken_utc", "epoch", "fingerprint", "by local"):
        assert word not in text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("dark:medium:2", ReplayFault("dark", "medium", 2)),
        ("killed_daemon:5", ReplayFault("killed_daemon", "", 5)),
        ("late", ReplayFault("late")),
    ],
)
def test_faults_are_written_as_words(text: str, fault: ReplayFault) -> None:
    assert parse(text) == fault
    for bad in ("tea", "dark:medium:two", "dark:1:2"):
        with pytest.raises(ValueError, match="fault"):
            parse(bad)


def test_the_command_line_replays_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", str(recorded("advisor").folder), "--out", str(tmp_path)]
    app(arguments, result_action="return_value")
    said = capsys.readouterr().out
    assert "byte for byte" in said
    assert (tmp_path / "advisor" / "difference.html").is_file()
    for bad in (
        ["--exact", "--burst"],
        ["--attach", "noon"],
        ["--weights", "hole=x"],
        ["--fault", "tea"],
        ["--speed", "0"],
    ):
        with pytest.raises(ConfigError):
            app([*arguments[:2], "--out", str(tmp_path / "x"), *bad], result_action="return_value")


def test_a_second_replay_goes_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert free_folder(["tonight"]) == Path("replays")
    (tmp_path / "replays" / "tonight").mkdir(parents=True)
    (tmp_path / "replays-2" / "b").mkdir(parents=True)
    assert free_folder(["tonight"]) == Path("replays-2")
    assert free_folder(["b", "tonight"]) == Path("replays-3")
