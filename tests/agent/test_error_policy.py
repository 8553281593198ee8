"""The error policy: each kind of error, each answer to it, told as a table."""

from typing import Any, get_args

import pytest

from agent import control_messages as say
from agent import messages as m
from agent.messages import ErrorKind
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.state import square_of
from agent.settings import DEFAULT_ON_ERROR, Then
from models.detections import HoleFinding
from tests.agent.play import Play, small

THENS: tuple[Then, ...] = get_args(Then)


def with_row(kind: ErrorKind, then: Then, retries: int = 0, **more: Any) -> Any:
    return small(on_error={kind: {"then": then, "retries": retries, **more}})


def failing_map(settings: Any, kind: ErrorKind) -> tuple[Play, str]:
    """The map of the first square fails with this error."""
    play = Play(settings)
    area_id = play.until(m.MapSquare).area_id
    play.result("failed", kind)
    return play, area_id


def check_then(play: Play, then: Then, area_id: str) -> None:
    """What the session does next is what the row says."""
    grid = play.state.grids["G1"]
    area = play.state.area(area_id)
    assert area is not None
    assert area.state != "busy" or play.state.outstanding, f"{area_id} waits for nothing"
    match then:
        case "skip":
            assert area.state == "skipped"
        case "go_on":
            assert area.state in ("done", "skipped", "mapped")
        case "suspend":
            assert "errors" in play.state.suspensions
            assert not play.state.outstanding
        case "fault":
            assert play.state.phase == "fault"
            assert any(isinstance(event, ev.SafeOrdered) for _, _, event in play.rows)
        case "next_grid":
            assert grid.state == "skipped"
    if then in ("skip", "go_on"):
        assert play.state.outstanding, "the night goes on"


@pytest.mark.parametrize("then", THENS)
@pytest.mark.parametrize("kind", ErrorKind)
def test_a_map_that_fails_does_what_the_row_of_its_error_says(kind: ErrorKind, then: Then) -> None:
    play, area_id = failing_map(with_row(kind, then), kind)
    check_then(play, then, area_id)
    play.check_fold()


@pytest.mark.parametrize("then", THENS)
@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind != ErrorKind.OUTCOME_UNKNOWN])
def test_an_exposure_that_fails_before_its_dose_does_what_the_row_of_its_error_says(
    kind: ErrorKind, then: Then
) -> None:
    play = Play(with_row(kind, then))
    area_id = play.until(m.Expose).area_id
    play.result("failed", kind, dose_e_per_a2=0.0)
    check_then(play, then, area_id)


@pytest.mark.parametrize("then", THENS)
@pytest.mark.parametrize("dose", [None, 40.0, 0.1])
@pytest.mark.parametrize("kind", [ErrorKind.CAMERA, ErrorKind.DRIFT, ErrorKind.OUTCOME_UNKNOWN, ErrorKind.SCRIPT])
def test_an_exposure_that_fails_after_its_dose_is_never_tried_again_whatever_the_row_says(
    kind: ErrorKind, dose: float | None, then: Then
) -> None:
    play = Play(with_row(kind, then, retries=5))
    area_id = play.until(m.Expose).area_id
    play.result("unknown" if kind == ErrorKind.OUTCOME_UNKNOWN else "failed", kind, dose_e_per_a2=dose)
    if play.state.phase == "fault":
        play.ask(say.Clear())
    if play.state.phase in ("paused", "collecting"):
        play.ask(say.Resume())
    play.to_the_end()
    assert play.exposed().count(area_id) == 1
    assert play.hole(area_id).state in ("skipped", "unknown", "done")


@pytest.mark.parametrize("then", THENS)
@pytest.mark.parametrize("kind", [ErrorKind.AUTOFOCUS_FAILED, ErrorKind.STAGE_TIMEOUT])
def test_a_focus_that_fails_does_what_the_row_of_its_error_says(kind: ErrorKind, then: Then) -> None:
    play = Play(with_row(kind, then))
    play.until(m.Focus)
    group = play.square().groups[min(play.square().groups)]
    play.result("failed", kind)
    states = {play.hole(area_id).state for area_id in group.hole_ids}
    match then:
        case "skip":
            assert states == {"skipped"}
        case "go_on":
            assert isinstance(play.work, m.Expose)
        case "suspend":
            assert "errors" in play.state.suspensions
            assert states == {"found"}
        case "fault":
            assert play.state.phase == "fault"
        case "next_grid":
            assert play.state.grids["G1"].state == "skipped"


@pytest.mark.parametrize("then", THENS)
@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (ErrorKind.FRAME_DARK, "medium"),
        (ErrorKind.FRAME_SATURATED, "medium"),
        (ErrorKind.MODEL_FAILED, "medium"),
        (ErrorKind.FRAME_DARK, "high"),
        (ErrorKind.MODEL_FAILED, "high"),
    ],
)
@pytest.mark.parametrize("first", ["result", "analysis"])
def test_a_frame_that_no_model_can_use_does_what_the_row_of_its_error_says(
    kind: ErrorKind, level: m.Level, then: Then, first: str
) -> None:
    play = Play(with_row(kind, then))
    area_id = play.until(m.MapSquare if level == "medium" else m.Expose).area_id
    frame = play.frame(level)
    failed = inp.AnalysisFailed(frame_id=frame.frame_id, error=kind, why="no use")
    if first == "result":
        play.result()
        play.do(failed)
    else:
        play.do(failed)
        play.result()
    if then in ("suspend", "fault"):
        assert "errors" in play.state.suspensions or play.state.phase == "fault"
        area = play.state.area(area_id)
        assert area is not None
        assert area.state in ("queued", "skipped")
    else:
        check_then(play, then, area_id)
    if level == "high":
        play.ask(say.Clear()) if play.state.phase == "fault" else None
        play.ask(say.Resume()) if play.state.phase in ("paused", "collecting") else None
        play.to_the_end()
        assert play.exposed().count(area_id) == 1


@pytest.mark.parametrize("then", THENS)
def test_a_square_without_holes_does_what_the_row_says(then: Then) -> None:
    play = Play(with_row(ErrorKind.NO_HOLES, then))
    work = play.until(m.MapSquare)
    frame = play.frame("medium", work.x_um, work.y_um)
    play.result()
    play.found(frame, HoleFinding(holes=()))
    check_then(play, then, work.area_id)


@pytest.mark.parametrize("then", THENS)
def test_a_grid_that_cannot_be_loaded_is_left_whatever_the_row_says(then: Then) -> None:
    settings = small(
        session__grids=[{"id": "A", "slot": 1}, {"id": "B", "slot": 2}],
        on_error={ErrorKind.LOAD_FAILED: {"then": then, "retries": 1}},
    )
    play = Play(settings)
    for _ in range(2):
        assert play.work == m.LoadGrid(grid_id="A", slot=1)
        play.result("failed", ErrorKind.LOAD_FAILED)
    assert play.state.grids["A"].state == "skipped"
    if then in ("suspend", "fault"):
        assert "errors" in play.state.suspensions
        play.ask(say.Resume())
    assert play.work == m.LoadGrid(grid_id="B", slot=2)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_work_is_tried_again_as_often_as_the_row_says(retries: int) -> None:
    play = Play(with_row(ErrorKind.EUCENTRIC_FAILED, "skip", retries=retries))
    area_id = play.until(m.MapSquare).area_id
    for left in range(retries, -1, -1):
        assert play.work.area_id == area_id  # type: ignore[union-attr]
        play.result("failed", ErrorKind.EUCENTRIC_FAILED)
        wills = [event.will for _, _, event in play.rows if isinstance(event, ev.ErrorCounted)]
        assert wills[-1] == ("try again" if left else "skip")
    assert play.mapped().count(area_id) == retries + 1
    assert play.work.area_id != area_id  # type: ignore[union-attr]


def test_errors_in_a_row_hold_the_session_and_a_success_ends_the_count() -> None:
    settings = with_row(ErrorKind.DRIFT, "skip", suspend_after=3)
    play = Play(settings)
    for outcome in ("bad", "bad", "good", "bad", "bad", "bad"):
        assert not play.state.suspensions
        play.until(m.Expose)
        if outcome == "good":
            play.finish()
        else:
            play.result("failed", ErrorKind.DRIFT, dose_e_per_a2=0.0)
    assert "3 x drift in a row" in play.state.suspensions["errors"]
    play.ask(say.Resume())
    assert not play.state.suspensions
    assert play.state.in_a_row == {}
    play.to_the_end()
    assert play.state.phase == "stopped"


@pytest.mark.parametrize("kind", [k for k, row in DEFAULT_ON_ERROR.items() if row.then == "skip"])
def test_a_night_in_which_everything_fails_in_one_way_still_ends(kind: ErrorKind) -> None:
    """No error, however often, leaves the session in a loop or waiting for nothing."""
    play = Play(small(squares__per_grid=3))
    for _ in range(400):
        if play.state.suspensions:
            play.ask(say.Resume())
        elif not play.state.outstanding:
            break
        elif isinstance(play.work, m.AcquireAtlas | m.Park):
            play.finish()
        else:
            play.result("failed", kind, dose_e_per_a2=0.0)
    assert play.state.phase == "stopped"
    assert all(square.state != "busy" for square in play.state.grids["G1"].squares.values())


def test_a_microscope_that_cannot_be_parked_is_a_fault_after_the_second_try() -> None:
    play = Play()
    play.until(m.Park)
    play.result("failed", ErrorKind.SCRIPT)
    assert isinstance(play.work, m.Park)
    play.result("failed", ErrorKind.SCRIPT)
    assert play.state.phase == "fault"
    assert "could not be parked" in play.state.why


def test_what_a_refused_command_was_for_is_skipped_and_three_hold_the_session() -> None:
    play = Play(small(squares__per_grid=3))
    for _ in range(3):
        area_id = play.until(m.MapSquare).area_id
        play.result("refused", ErrorKind.OUTSIDE_ENVELOPE, dose_e_per_a2=0.0)
        assert play.state.area(area_id).state == "skipped"  # type: ignore[union-attr]
    assert "3 x outside_envelope in a row" in play.state.suspensions["errors"]


def test_a_command_without_its_frame_is_an_error_of_the_camera() -> None:
    play = Play()
    area_id = play.until(m.Expose).area_id
    play.result("done")
    counted = [event for _, _, event in play.rows if isinstance(event, ev.ErrorCounted)]
    assert [event.error for event in counted] == [ErrorKind.CAMERA]
    assert play.hole(area_id).state == "skipped"
    assert square_of(area_id) in {square_of(i) for i in play.exposed()}
