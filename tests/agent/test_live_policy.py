"""The learning policy in a session that is played by hand."""

from pathlib import Path
from typing import Any

import pytest

from agent import control_messages as say
from agent import messages as m
from agent.session import EMPTY, step
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.state import square_of
from models.detections import QualityFinding
from tests.agent.play import SQUARES_UM, Play, small, squares


def learning(**changes: Any) -> Play:
    return Play(small(**({"policy__name": "learning", "squares__per_grid": 3, "holes__per_square": 6} | changes)))


def run(play: Play, good: Any, most: int = 300, **result: Any) -> None:
    """Carry out what is asked for; ``good`` says of an area id whether its micrograph is good."""
    for _ in range(most):
        if not play.state.outstanding:
            return
        work = play.work
        if isinstance(work, m.Expose):
            frame = play.frame("high", work.x_um, work.y_um)
            play.result(dose_e_per_a2=work.dose_e_per_a2, **result)
            fine = good(work.area_id)
            play.found(frame, QualityFinding(score=0.9 if fine else 0.1, label="good" if fine else "thick"))
        else:
            play.finish()
    raise AssertionError("no end")


def test_a_night_with_the_learning_policy_ends_in_good_order_and_folds_to_itself() -> None:
    play = learning()
    run(play, lambda area: "S001" in area)
    assert play.state.phase == "stopped"
    assert len(play.exposed()) == len(set(play.exposed()))
    play.check_fold()


def test_no_square_gets_more_than_its_budget() -> None:
    play = learning(holes__per_square=4)
    run(play, lambda area: True)
    counts = [sum(area.startswith(s) for area in play.exposed()) for s in play.state.grids["G1"].squares]
    assert max(counts) <= 4
    assert sum(counts) == 12


def test_a_poor_square_is_left_for_better_ones_when_time_is_short() -> None:
    play = learning(budget__exposures=8, holes__per_square=9)
    run(play, lambda area: "S001" not in area)
    shot = play.exposed()
    assert sum("S001" in area for area in shot) <= 4
    assert sum("S001" not in area for area in shot) >= 4


def test_every_choice_says_what_is_expected_and_what_came_second() -> None:
    play = learning()
    run(play, lambda area: True)
    issued = [e for _, _, e in play.rows if isinstance(e, ev.CommandIssued)]
    chosen = [e.decision for e in issued if isinstance(e.command.work, m.Expose | m.MapSquare)]
    assert chosen
    assert all(d.model == "learning" and d.score is not None and "–" in d.why and "min" in d.why for d in chosen)
    assert any(d.runner_up for d in chosen)


def test_what_an_operator_accepted_is_next_whatever_is_expected() -> None:
    play = learning()
    play.until(m.Expose)
    run_until = play.state.square("G1-S001")
    assert run_until is not None
    play.ask(say.Accept(area_ids=("G1-S003",)))
    play.until(m.MapSquare, "G1-S003")


def test_squares_that_turn_out_alike_are_preferred_after_more_like_this_one() -> None:
    from agent.policy.outlook import outlook

    play = learning()
    play.until(m.Expose)
    before = outlook(play.state, play.settings)
    target = next(iter(play.state.grids["G1"].squares["G1-S001"].holes))
    play.ask(say.Like(area_id=target))
    after = outlook(play.state, play.settings)
    assert all(after.holes[h].p_good > before.holes[h].p_good for h in before.holes)
    play.ask(say.Like(area_id=target, more=False))
    less = outlook(play.state, play.settings)
    assert all(less.holes[h].p_good < before.holes[h].p_good for h in before.holes)


def test_a_pinned_hole_is_next_and_a_banned_one_never() -> None:
    play = learning()
    play.until(m.Expose)
    shot = play.work.area_id
    ids = [h for h in play.state.grids["G1"].squares["G1-S001"].holes if h != shot]
    play.ask(say.Ban(area_ids=(ids[0],)))
    play.ask(say.Pin(area_ids=(ids[-1],)))
    run(play, lambda area: True)
    exposed = play.exposed()
    assert exposed[1] == ids[-1]
    assert ids[0] not in exposed


@pytest.mark.parametrize("name", ["learning", "score-order"])
def test_an_operators_budget_for_a_square_holds_under_every_policy(name: str) -> None:
    play = learning(policy__name=name)
    play.until(m.Expose)
    play.ask(say.SetBudget(area_id="G1-S001", exposures=2))
    run(play, lambda area: True)
    assert sum("S001" in area for area in play.exposed()) == 2


def test_costs_follow_the_sessions_own_timings() -> None:
    from agent.policy.costs import USUAL_S, seconds

    play = learning()
    run(play, lambda area: True, elapsed_s=4.0)
    assert play.state.timings["expose"].count == len(play.exposed())
    assert seconds(play.state, "expose") < USUAL_S["expose"]


@pytest.mark.parametrize("pace", [0.001, 3.0])
def test_the_same_messages_give_the_same_choices_however_fast_they_come(pace: float) -> None:
    """Time that is left is what the driver measured: here it decides when the session has to hurry."""
    first = Play(small(policy__name="learning", squares__per_grid=3, holes__per_square=9, budget__hours=0.1))
    run(first, lambda area: "S001" not in area, elapsed_s=20.0)
    assert first.state.spent_s > 200.0
    state, utc, rows = EMPTY, 5e8, list[ev.AnyEvent]()
    for what in first.inputs:
        utc += pace
        events, state, _ = step(state, what, first.settings, utc)
        rows += events
    both = (rows, [event for _, _, event in first.rows])
    asked = [[e.command.work for e in those if isinstance(e, ev.CommandIssued)] for those in both]
    assert asked[0] == asked[1]
    why = [[e.decision.why for e in those if isinstance(e, ev.CommandIssued)] for those in both]
    assert why[0] == why[1]


def test_time_goes_on_by_the_frames_own_clock_and_is_not_lost_when_that_is_set_anew() -> None:
    play = learning()
    for taken, spent in ((1e9, 0.0), (1e9 + 50, 50.0), (1e9 + 20, 50.0), (2e9, 50.0), (2e9 + 30, 80.0), (5.0, 80.0)):
        play.frame("low", taken_utc=taken, command_id="")
        assert play.state.spent_s == spent


def test_ice_that_was_measured_tells_of_the_ice_beside_it() -> None:
    from agent.policy.outlook import outlook
    from agent.policy.thickness import USUAL_NM

    play = learning(holes__per_square=3)
    play.until(m.Expose)
    before = outlook(play.state, play.settings).holes
    assert {h.ice_nm for h in before.values()} == {USUAL_NM}
    usual = next(iter(before.values()))
    for _ in range(300):
        if not play.state.outstanding:
            break
        work = play.work
        if not isinstance(work, m.Expose):
            play.finish()
            continue
        frame = play.frame("high", work.x_um, work.y_um)
        play.result(dose_e_per_a2=work.dose_e_per_a2)
        thick = 70.0 if "S001" in work.area_id else 22.0
        play.found(frame, QualityFinding(score=0.9, label="good", features={"ice_thickness_nm": thick}))
    after = outlook(play.state, play.settings).holes
    for area_id, hole in after.items():
        truth = 70.0 if "S001" in area_id else 22.0
        assert hole.ice_low < truth < hole.ice_high
        if area_id in play.exposed():
            assert hole.ice_nm == truth
        elif square_of(area_id) in map(square_of, play.exposed()):
            assert hole.ice_nm == pytest.approx(truth, rel=0.25)
            assert hole.ice_high / hole.ice_low < 0.6 * usual.ice_high / usual.ice_low


def test_screen_of_an_empty_atlas_still_ends() -> None:
    play = learning()
    frame = play.frame("low")
    play.result()
    play.found(frame, squares(frame, places=SQUARES_UM[:1]))
    run(play, lambda area: False)
    assert play.state.phase == "stopped"


def test_what_a_session_taught_is_where_the_next_one_begins(tmp_path: Path) -> None:
    from agent.daemon import prior_of
    from agent.policy import lessons
    from agent.policy.outlook import outlook

    first = learning()
    run(first, lambda area: True)
    taught = lessons.lessons(first.state, 6.0, "first")
    path = tmp_path / "project.json"
    path.write_bytes(lessons.encode(taught))
    prior = prior_of(path)
    assert prior == taught
    assert taught.exposures == len(first.exposed())
    fresh, second = learning(), Play(first.settings, started=False)
    second.do(inp.Started(session_id="session-2", version="0", models={}, prior=prior))
    second.hello()
    for play in (fresh, second):
        play.until(m.MapSquare)
    expected = [outlook(play.state, play.settings).squares["G1-S001"].p_good for play in (fresh, second)]
    assert expected[1] > expected[0]
    second.check_fold()


@pytest.mark.parametrize("text", ["", "{}", '{"offset": [0.0, -1.0]}', '{"offset": [1e9, 1.0]}'])
def test_a_damaged_file_of_lessons_is_refused_with_the_way_out(tmp_path: Path, text: str) -> None:
    from agent.daemon import prior_of
    from agent.errors import ConfigError

    path = tmp_path / "project.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="session learned"):
        prior_of(path)


def test_a_budget_smaller_than_the_square_is_spent_group_by_group_not_on_single_holes_of_many() -> None:
    play = learning(holes__per_square=4, holes__max_image_shift_um=4.5)
    run(play, lambda area: True)
    shots = [c.work for c in play.issued() if isinstance(c.work, m.Expose)]
    assert len(shots) == 12
    focused = [c for c in play.issued() if isinstance(c.work, m.Focus)]
    assert len(focused) == 3, "one group, and one focus, in each square"
