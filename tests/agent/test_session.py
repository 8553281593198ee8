"""The session core: what follows from what, with no socket, disk or clock."""

from typing import Any, get_args

import pytest

from agent import control_messages as say
from agent import messages as m
from agent.messages import CommandResult, ErrorKind, ScopeState
from agent.session import EMPTY, NotPossibleError, step
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.state import PHASE_MOVES, Phase, grid_of, is_hole, square_of
from agent.session.turn import Turn
from models.detections import HoleFinding, QualityFinding
from tests.agent.play import HOLES_UM, SQUARES_UM, Play, encode, gap, holes, small, squares

# ---------------------------------------------------------------------------------------------- the whole


def test_a_grid_is_screened_from_atlas_to_park() -> None:
    play = Play()
    play.to_the_end()
    assert (play.state.phase, play.state.why) == ("stopped", "every grid is done")
    assert play.mapped() == ["G1-S001", "G1-S002"]
    assert len(play.exposed()) == len(set(play.exposed())) == 6
    assert isinstance(play.issued()[-1].work, m.Park)
    assert play.state.parked
    play.check_fold()


def test_command_ids_count_up_and_frames_belong_to_their_commands_area() -> None:
    play = Play()
    play.to_the_end()
    assert [c.command_id for c in play.issued()] == [f"C{n:06d}" for n in range(1, len(play.issued()) + 1)]
    assert all(play.hole(area).frame_id for area in play.exposed())


def test_every_hole_that_is_shot_lies_where_stage_and_image_shift_say() -> None:
    play = Play()
    play.to_the_end()
    for command in play.issued():
        if isinstance(shot := command.work, m.Expose):
            hole = play.hole(shot.area_id)
            assert shot.x_um + shot.image_shift_x_um == pytest.approx(hole.x_um, abs=1e-3)
            assert shot.y_um + shot.image_shift_y_um == pytest.approx(hole.y_um, abs=1e-3)


def test_grids_of_an_autoloader_are_loaded_one_after_the_other() -> None:
    play = Play(small(session__grids=[{"id": "A", "slot": 1}, {"id": "B", "slot": 4}]))
    play.to_the_end()
    loads = [c.work for c in play.issued() if isinstance(c.work, m.LoadGrid)]
    assert [(w.grid_id, w.slot) for w in loads] == [("A", 1), ("B", 4)]
    assert {grid.state for grid in play.state.grids.values()} == {"done"}


# ---------------------------------------------------------------------------------------------- phases


def test_every_phase_can_reach_stopped() -> None:
    assert set(PHASE_MOVES) == set(get_args(Phase))
    for start in PHASE_MOVES:
        seen, todo = {start}, [start]
        while todo:
            new = [phase for phase in PHASE_MOVES[todo.pop()] if phase not in seen]
            seen |= set(new)
            todo += new
        assert "stopped" in seen


@pytest.mark.parametrize("start", get_args(Phase))
@pytest.mark.parametrize("goal", get_args(Phase))
def test_a_forbidden_move_does_nothing(start: Phase, goal: Phase) -> None:
    turn = Turn(Play().state, small(), 5.0)
    turn.emit(ev.PhaseChanged(phase=start, why="set"))
    turn.phase(goal, "wanted")
    moved = goal in PHASE_MOVES[start]
    assert turn.state.phase == (goal if moved else start)
    assert len(turn.events) == 1 + moved


@pytest.mark.parametrize("start", ["idle", "collecting", "pausing", "paused", "stopping", "fault"])
def test_an_operator_reaches_stopped_from_every_phase(start: Phase) -> None:
    play = Play()
    play.until(m.MapSquare)
    turn = Turn(play.state, play.settings, play.utc)
    turn.emit(ev.PhaseChanged(phase=start, why="set"))
    play.state, play.pure = turn.state, False
    if start == "fault":
        play.ask(say.Clear())
    play.ask(say.Stop())
    play.to_the_end()
    assert play.state.phase == "stopped"


def test_pause_after_this_item_waits_for_its_end() -> None:
    play = Play()
    play.until(m.Expose)
    play.ask(say.Pause())
    assert play.state.phase == "pausing"
    play.finish()
    assert play.state.phase == "paused"
    assert not play.state.outstanding
    play.ask(say.Resume())
    assert isinstance(play.work, m.Expose)


def test_pause_now_sends_nothing_new_and_the_item_under_way_ends_by_itself() -> None:
    play = Play()
    play.until(m.Expose)
    play.ask(say.Pause(now=True))
    assert play.state.phase == "paused"
    assert "was sent before" in play.answer
    play.finish()
    assert not play.state.outstanding


@pytest.mark.parametrize("phase", ["stopping", "idle"])
def test_what_pause_answers_is_what_happens(phase: str) -> None:
    play = Play(small(session__autonomy="approve")) if phase == "idle" else Play()
    if phase == "idle":
        play.finish()  # the atlas
        play.finish()  # parked while it waits
        assert play.state.phase == "idle"
        play.ask(say.GoTo(x_um=1.0, y_um=1.0))
    else:
        play.until(m.Expose)
        play.ask(say.Stop())
    play.ask(say.Pause())
    assert play.answer.startswith("pausing")
    assert play.state.phase == "pausing"
    play.finish()
    assert play.state.phase == "paused"


def test_stop_after_the_square_finishes_the_square_and_parks() -> None:
    play = Play()
    first = play.until(m.Expose)
    play.ask(say.Stop(after="square"))
    play.to_the_end()
    assert play.state.phase == "stopped"
    assert len(play.exposed()) == 3
    assert {square_of(area) for area in play.exposed()} == {square_of(first.area_id)}


@pytest.mark.parametrize("verb", [say.Stop(after="item"), say.Abort()])
def test_a_second_harder_stop_is_obeyed(verb: say.AnyVerb) -> None:
    play = Play()
    play.until(m.Expose)
    play.ask(say.Stop(after="square"))
    play.ask(verb)
    play.finish()
    assert isinstance(play.work, m.Park)
    assert len(play.exposed()) == 1


def test_resume_while_stopping_is_refused_with_the_way_out() -> None:
    play = Play()
    play.until(m.Expose)
    play.ask(say.Stop())
    with pytest.raises(NotPossibleError, match="`pause` holds that, then `resume`"):
        play.ask(say.Resume())
    play.ask(say.Pause())
    play.finish()
    play.ask(say.Resume())
    assert play.state.phase == "collecting"


def test_emergency_stop_cancels_orders_the_safe_state_and_only_clear_leads_on() -> None:
    play = Play()
    play.until(m.MapSquare)
    under_way = play.command.command_id
    events = play.ask(say.EmergencyStop(why="smoke"))
    assert play.state.phase == "fault"
    assert [e.command_id for e in events if isinstance(e, ev.CommandCancelled)] == [under_way]
    assert any(isinstance(e, ev.SafeOrdered) for e in events)
    play.result("cancelled", dose_e_per_a2=0.0)
    for verb in (say.Resume(), say.Pause(), say.Stop()):
        with pytest.raises(NotPossibleError):
            play.ask(verb)
    play.do(inp.TakenOver(why="a hand on the console"))
    assert play.state.phase == "fault", "only `clear` leads out of a fault"
    assert any(isinstance(e, ev.Released) for e in play.ask(say.Clear()))
    assert play.state.phase == "paused"
    play.ask(say.Resume())
    assert isinstance(play.work, m.MapSquare)


def test_a_person_at_the_console_takes_over_and_nothing_new_leaves_until_resume() -> None:
    play = Play()
    play.until(m.MapSquare)
    play.do(inp.TakenOver(why="STOP pressed"))
    play.result("cancelled", dose_e_per_a2=0.0)
    assert play.state.phase == "paused"
    assert not play.state.outstanding
    play.ask(say.Resume())
    play.to_the_end()
    assert len(play.exposed()) == 6


def test_an_atlas_that_was_cancelled_is_taken_again() -> None:
    play = Play()
    play.do(inp.TakenOver(why="STOP pressed"))
    play.result("cancelled", dose_e_per_a2=0.0)
    play.ask(say.Resume())
    assert isinstance(play.work, m.AcquireAtlas)
    play.to_the_end()
    assert len(play.exposed()) == 6


def test_an_atlas_whose_outcome_is_unknown_is_taken_again_once() -> None:
    play = Play()
    play.result("unknown")
    assert isinstance(play.work, m.AcquireAtlas)
    play.result("unknown")
    assert play.state.grids["G1"].state == "skipped"


# ---------------------------------------------------------------------------------------------- budgets, autonomy


def test_a_spent_budget_of_exposures_ends_the_session_in_order() -> None:
    play = Play(small(budget__exposures=2))
    play.to_the_end()
    assert len(play.exposed()) == 2
    assert play.state.why == "the budget of 2 exposures is spent"
    assert play.state.parked


def test_a_spent_budget_of_one_grid_leads_to_the_next() -> None:
    grids = [{"id": "G1"}, {"id": "G2", "slot": 2}]
    play = Play(small(budget__exposures_per_grid=2, session__grids=grids))
    play.to_the_end()
    exposed = {grid_id: len([i for i in play.exposed() if i.startswith(f"{grid_id}-")]) for grid_id in ("G1", "G2")}
    assert exposed == {"G1": 2, "G2": 2}
    assert "budget of 2 exposures" in play.state.grids["G1"].why


def test_a_spent_budget_of_hours_ends_the_session_in_order() -> None:
    play = Play(small(budget__hours=0.5))
    play.until(m.Expose)
    shot = play.work
    frame = play.frame("high", shot.x_um, shot.y_um)
    play.result(elapsed_s=1801.0)
    play.found(frame, QualityFinding(score=0.8, label="good"))
    play.to_the_end()
    assert len(play.exposed()) == 1
    assert play.state.why == "the time budget of 0.5 h is spent"


@pytest.mark.parametrize("pace", [0.001, 100.0])
def test_hours_count_by_the_drivers_clock_so_that_a_replay_ends_where_the_session_ended(pace: float) -> None:
    first = Play(small(budget__hours=0.04))
    while first.state.outstanding:
        if isinstance(shot := first.work, m.Expose):
            frame = first.frame("high", shot.x_um, shot.y_um)
            first.result(elapsed_s=40.0)
            first.found(frame, QualityFinding(score=0.8, label="good"))
        else:
            first.finish()
    assert "time budget of 0.04 h" in first.state.why
    state, utc = EMPTY, 5e8
    for what in first.inputs:
        utc += pace
        _, state, _ = step(state, what, first.settings, utc)
    assert (state.phase, state.why) == (first.state.phase, first.state.why)
    assert (state.exposures, state.spent_s) == (first.state.exposures, first.state.spent_s)
    assert state.exposures == 4  # 144 s: the fourth goes beyond


def test_suggest_issues_nothing() -> None:
    play = Play(small(session__autonomy="suggest"))
    frame = play.frame("low")
    play.found(frame, squares(frame))
    assert play.issued() == []
    assert len(play.state.grids["G1"].squares) == 3


def test_approve_maps_only_what_an_operator_accepted() -> None:
    play = Play(small(session__autonomy="approve"))
    play.to_the_end()
    assert play.state.phase == "idle"
    assert play.mapped() == []
    play.ask(say.Accept(area_ids=("G1-S003",)))
    play.to_the_end()
    assert play.mapped() == ["G1-S003"]


def test_approve_becomes_unattended_at_a_word() -> None:
    play = Play(small(session__autonomy="approve"))
    play.to_the_end()
    play.ask(say.SetAutonomy(level="unattended"))
    play.to_the_end()
    assert play.mapped() == ["G1-S001", "G1-S002"]


# ---------------------------------------------------------------------------------------------- the operator's word


def at_squares() -> Play:
    """A session in approve mode that knows its squares and waits."""
    play = Play(small(session__autonomy="approve"))
    play.to_the_end()
    return play


def at_holes() -> Play:
    """A paused session with one mapped square whose first exposure is done."""
    play = Play()
    play.until(m.Expose)
    play.ask(say.Pause())
    play.finish()
    return play


def test_a_rejected_square_is_never_visited_and_an_accepted_one_comes_first_whatever_its_score() -> None:
    play = at_squares()
    play.ask(say.Reject(area_ids=("G1-S001",)))
    play.ask(say.Accept(area_ids=("G1-S003",)))
    play.ask(say.SetAutonomy(level="unattended"))
    play.to_the_end()
    assert play.mapped()[0] == "G1-S003"
    assert "G1-S001" not in play.mapped()


def test_a_rejected_hole_is_never_exposed() -> None:
    play = at_holes()
    wanted = [i for group in play.square().groups.values() for i in group.hole_ids][1:]
    play.ask(say.Reject(area_ids=tuple(wanted)))
    play.ask(say.Resume())
    play.to_the_end()
    assert not set(wanted) & set(play.exposed())


def test_an_added_target_is_a_full_target() -> None:
    play = at_squares()
    play.ask(say.AddTarget(x_um=-10.0, y_um=-70.0))
    play.until(m.MapSquare)
    assert (play.work.area_id, play.work.x_um, play.work.y_um) == ("G1-S004", -10.0, -70.0)  # type: ignore[union-attr]
    play.until(m.Expose)
    play.ask(say.AddTarget(x_um=-12.0, y_um=-72.0, square_id="G1-S004"))
    added = play.answer.split()[0]
    play.to_the_end()
    assert added in play.exposed()
    assert play.hole(added).quality == 0.8
    assert play.hole(added).by == "ada"


def test_a_hole_that_an_operator_adds_accepts_or_moves_in_a_finished_square_is_visited() -> None:
    for verb in (
        say.AddTarget(x_um=-61.0, y_um=2.0, square_id="G1-S001"),
        say.Accept(area_ids=("G1-S001-H009",)),
        say.MoveTarget(area_id="G1-S001-H009", x_um=-61.0, y_um=2.0),
    ):
        play = Play()
        play.until(m.MapSquare, "G1-S002")
        assert play.square().state == "done"
        play.ask(verb)
        play.to_the_end()
        assert len([area for area in play.exposed() if area.startswith("G1-S001")]) == 4


def test_a_moved_hole_is_shot_at_its_new_place() -> None:
    play = at_holes()
    area_id = next(i for g in play.square().groups.values() for i in g.hole_ids if play.hole(i).state == "found")
    play.ask(say.MoveTarget(area_id=area_id, x_um=-60.0 + 25.0, y_um=20.0))
    play.ask(say.Resume())
    shot = play.until(m.Expose, area_id)
    assert (shot.x_um + shot.image_shift_x_um, shot.y_um + shot.image_shift_y_um) == pytest.approx((-35.0, 20.0))
    assert abs(shot.image_shift_x_um) <= play.settings.holes.max_image_shift_um
    play.to_the_end()
    assert area_id in play.exposed()
    play.check_fold()


@pytest.mark.parametrize(
    "verb",
    [
        say.AddTarget(x_um=4_000.0, y_um=0.0),
        say.AddTarget(x_um=4_000.0, y_um=0.0, square_id="G1-S001"),
        say.MoveTarget(area_id="G1-S001", x_um=0.0, y_um=-4_000.0),
        say.GoTo(x_um=4_000.0, y_um=0.0),
    ],
)
def test_a_place_that_cannot_be_reached_is_refused_with_value_and_limit(verb: say.AnyVerb) -> None:
    play = at_squares()
    with pytest.raises(NotPossibleError, match=r"4000 µm is outside -1000…1000 µm \(interlocks"):
        play.ask(verb)


def test_a_rerank_changes_the_order_and_survives_what_a_model_finds_later() -> None:
    play = at_squares()
    play.ask(say.Rerank(area_id="G1-S003", priority=5))
    frame = play.frame("low", command_id="")
    play.found(frame, squares(frame, score=0.99))
    play.ask(say.SetAutonomy(level="unattended"))
    play.to_the_end()
    assert play.mapped()[0] == "G1-S003"


def test_a_reranked_hole_keeps_its_rank_when_the_square_is_mapped_again() -> None:
    play = at_holes()
    area_id = next(h.area_id for h in play.square().holes.values() if h.state == "found")
    play.ask(say.Rerank(area_id=area_id, priority=7))
    frame = play.frame("medium", -60.0, 0.0, command_id="", area_id="G1-S001")
    play.found(frame, holes(frame))
    assert play.hole(area_id).priority == 7


def test_a_map_taken_again_leaves_no_group_with_holes_that_are_gone() -> None:
    play = at_holes()
    frame = play.frame("medium", -60.0, 0.0, command_id="", area_id="G1-S001")
    play.found(frame, holes(frame, [(1.0, 1.0), (9.0, 9.0)]))
    play.ask(say.Resume())
    play.to_the_end()
    assert play.state.phase == "stopped"
    assert len(set(play.exposed())) == len(play.exposed())


def test_ids_of_holes_are_never_used_again() -> None:
    play = at_holes()
    ever = set(play.square().holes)
    for places in ([], HOLES_UM, [], HOLES_UM):
        frame = play.frame("medium", -60.0, 0.0, command_id="", area_id="G1-S001")
        play.found(frame, holes(frame, places))
        new = {i for i, hole in play.square().holes.items() if not hole.frame_id}
        assert not new & ever
        ever |= new


@pytest.mark.parametrize("word", [say.Accept, say.Reject])
def test_undo_brings_back_what_was_before(word: Any) -> None:
    play = at_squares()
    play.ask(say.Pause(now=True))
    before = encode(play.state.grids)
    play.ask(word(area_ids=("G1-S001", "G1-S002")))
    assert encode(play.state.grids) != before
    play.ask(say.Undo())
    assert encode(play.state.grids) == before


def test_undo_goes_back_step_by_step_and_then_says_that_there_is_nothing() -> None:
    play = at_holes()
    wanted = sorted(h.area_id for h in play.square().holes.values() if h.state == "found")
    before = [encode(play.state.grids)]
    verbs = [
        say.Reject(area_ids=(wanted[0],)),
        say.Rerank(area_id=wanted[1], priority=3),
        say.Accept(area_ids=(wanted[0], wanted[2])),
        say.Skip(area_id=wanted[3]),
    ]
    for verb in verbs:
        play.ask(verb)
        before.append(encode(play.state.grids))
    for state in reversed(before[:-1]):
        play.ask(say.Undo())
        assert encode(play.state.grids) == state
    with pytest.raises(NotPossibleError, match="nothing to undo"):
        play.ask(say.Undo())


def test_undo_of_a_move_brings_the_hole_back_and_it_is_shot_there() -> None:
    play = at_holes()
    area_id = next(i for g in play.square().groups.values() for i in g.hole_ids if play.hole(i).state == "found")
    old = play.hole(area_id)
    play.ask(say.MoveTarget(area_id=area_id, x_um=-60.0, y_um=15.0))
    play.ask(say.Undo())
    assert gap(play.hole(area_id), old) == 0
    assert play.hole(area_id).word == ""
    play.ask(say.Resume())
    play.to_the_end()
    assert play.state.phase == "stopped"


def test_undo_of_what_was_visited_meanwhile_is_refused() -> None:
    play = at_holes()
    area_id = next(i for g in play.square().groups.values() for i in g.hole_ids if play.hole(i).state == "found")
    play.ask(say.Rerank(area_id=area_id, priority=1))
    play.ask(say.Resume())
    play.until(m.Expose, area_id)
    play.finish()
    with pytest.raises(NotPossibleError, match=f"{area_id} is done by now"):
        play.ask(say.Undo())


def test_undo_of_skipping_the_square_under_way_leaves_it_open_to_be_visited() -> None:
    play = Play()
    square = play.until(m.MapSquare).area_id
    play.ask(say.Pause(now=True))
    play.ask(say.Skip())
    play.result("cancelled", dose_e_per_a2=0.0)
    assert play.state.area(square).state == "skipped"  # type: ignore[union-attr]
    play.ask(say.Undo())
    play.ask(say.Resume())
    play.to_the_end()
    assert square in {square_of(area) for area in play.exposed()}


def test_undo_does_not_send_a_mapped_square_to_be_mapped_again() -> None:
    play = at_squares()
    play.ask(say.Accept(area_ids=("G1-S002",)))
    play.until(m.Expose)
    play.ask(say.Undo())
    play.to_the_end()
    assert play.mapped() == ["G1-S002"]


def test_skip_without_a_name_leaves_what_is_under_way_but_a_begun_exposure_ends() -> None:
    play = Play()
    area_id = play.until(m.Expose).area_id
    events = play.ask(say.Skip())
    assert not any(isinstance(event, ev.CommandCancelled) for event in events)
    play.finish()
    assert play.hole(area_id).dose_e_per_a2 > 0
    assert play.exposed().count(area_id) == 1


def test_an_exposed_hole_is_not_exposed_again_at_anybodys_word() -> None:
    play = at_holes()
    (area_id,) = play.exposed()
    with pytest.raises(NotPossibleError, match="40 e/Å² already"):
        play.ask(say.Accept(area_ids=(area_id,)))


def test_a_refused_request_changes_nothing() -> None:
    play = at_holes()
    before, rows = encode(play.state), len(play.rows)
    for verb in (
        say.Accept(area_ids=("G1-S999",)),
        say.Reject(area_ids=("G1-S002", "G1-S999")),
        say.Skip(),
        say.Undo(),
        say.Clear(),
        say.GoTo(),
        say.SetThreshold(name="hole_score", value=2.0),
        say.AddTarget(x_um=0.0, y_um=0.0, square_id="G1-S999"),
    ):
        with pytest.raises(NotPossibleError):
            play.ask(verb)
    assert encode(play.state) == before
    assert len(play.rows) == rows


def test_a_threshold_counts_from_now_on() -> None:
    play = at_squares()
    play.ask(say.SetThreshold(name="square_score", value=0.88))
    play.ask(say.SetAutonomy(level="unattended"))
    play.to_the_end()
    assert play.mapped() == ["G1-S001"]


def test_goto_moves_only_while_paused_and_exposes_nothing() -> None:
    play = Play()
    play.until(m.MapSquare)
    with pytest.raises(NotPossibleError, match="collecting"):
        play.ask(say.GoTo(x_um=1.0, y_um=1.0))
    play.ask(say.Pause())
    play.finish()
    play.ask(say.GoTo(area_id="G1-S002"))
    assert play.work == m.Goto(x_um=play.square(2).x_um, y_um=play.square(2).y_um)
    play.finish()
    assert play.state.phase == "paused"


def test_who_spoke_is_remembered_when_the_agent_goes_on_with_it() -> None:
    play = at_squares()
    play.ask(say.Accept(area_ids=("G1-S003",)), by="grace")
    assert play.state.area("G1-S003").by == "grace"  # type: ignore[union-attr]
    play.until(m.Expose)
    assert play.state.area("G1-S003").by == "grace"  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------------- driver and restart


def test_a_driver_that_leaves_holds_the_session_and_its_hello_leads_on() -> None:
    play = Play()
    play.until(m.MapSquare)
    play.do(inp.Left(driver="scope", why="silent for 10 s"))
    assert "link" in play.state.suspensions
    assert not play.state.may_command
    play.hello(running=play.command.command_id)
    assert not play.state.suspensions
    play.to_the_end()
    assert len(play.exposed()) == 6


def test_another_driver_leaving_changes_nothing() -> None:
    play = Play()
    assert play.do(inp.Left(driver="somebody", why="gone")) == []


def test_an_adviser_beside_the_pilot_does_not_take_the_session_from_it() -> None:
    play = Play()
    play.hello(driver="folder-watcher", can_pilot=False)
    assert (play.state.driver, play.state.can_pilot) == ("scope", True)
    play.do(inp.Left(driver="folder-watcher", why="done"))
    assert not play.state.suspensions
    play.to_the_end()
    assert len(play.exposed()) == 6


def test_a_restart_takes_a_new_epoch_and_holds_until_the_driver_is_back() -> None:
    play = Play()
    play.until(m.Expose)
    play.start()
    assert play.state.epoch == 2
    assert "link" in play.state.suspensions
    assert not any(isinstance(event, ev.SessionOpened) for _, _, event in play.rows[5:])
    play.hello(running=play.command.command_id)
    play.to_the_end()
    assert len(play.exposed()) == len(set(play.exposed())) == 6
    play.check_fold()


def test_a_restart_while_paused_stays_paused() -> None:
    play = at_holes()
    play.start()
    play.hello()
    assert play.state.phase == "paused"
    assert not play.state.outstanding


def test_a_restart_of_an_ended_session_stays_ended() -> None:
    play = Play()
    play.to_the_end()
    play.start()
    play.hello()
    assert play.state.phase == "stopped"
    with pytest.raises(NotPossibleError, match="has ended"):
        play.ask(say.Resume())


def test_a_hold_of_a_suspender_that_the_config_no_longer_has_ends_at_the_start() -> None:
    play = Play()
    play.do(inp.Held(cause="reading:vacuum", detail="too high"))
    play.start()
    assert "reading:vacuum" not in play.state.suspensions


def test_another_grid_on_the_stage_holds_the_session_until_resume() -> None:
    play = Play(small(session__grids=[{"id": "G1"}, {"id": "G2", "slot": 2}]))
    play.until(m.MapSquare)
    play.do(inp.Left(driver="scope", why="silent"))
    play.hello(grid_id="G2", running=play.command.command_id)
    assert "the microscope holds grid G2, this session was at G1" in play.state.suspensions["grid"]
    play.finish()
    assert not play.state.outstanding
    play.ask(say.Resume())
    assert play.state.outstanding


def test_results_that_a_driver_tells_at_its_hello_count_as_if_they_had_come() -> None:
    play = Play()
    shot = play.until(m.Expose)
    result = CommandResult(command_id=play.command.command_id, session_id="session-1", status="done")
    frame = play.frame("high", shot.x_um, shot.y_um)
    play.do(inp.Left(driver="scope", why="silent"))
    play.hello(results=(result,))
    play.found(frame, QualityFinding(score=0.5, label="good"))
    assert play.hole(shot.area_id).state == "done"


@pytest.mark.parametrize("told_at", ["hello", "result"])
def test_an_exposure_of_unknown_outcome_is_never_exposed_again(told_at: str) -> None:
    play = Play()
    area_id = play.until(m.Expose).area_id
    if told_at == "hello":
        unknown = CommandResult(command_id=play.command.command_id, session_id="session-1", status="unknown")
        play.do(inp.Left(driver="scope", why="silent"))
        play.hello(results=(unknown,))
    else:
        play.result("unknown")
    assert play.hole(area_id).state == "unknown"
    assert play.hole(area_id).dose_e_per_a2 == 40.0
    play.to_the_end()
    assert play.exposed().count(area_id) == 1
    assert len(play.exposed()) >= 6


def test_an_overdue_exposure_is_cancelled_counted_as_dosed_and_not_asked_for_again() -> None:
    play = Play()
    area_id = play.until(m.Expose).area_id
    command_id = play.command.command_id
    events = play.do(inp.Overdue(command_id=command_id))
    assert any(isinstance(e, ev.CommandCancelled) and e.command_id == command_id for e in events)
    assert play.hole(area_id).state == "unknown"
    assert play.exposed().count(area_id) == 1
    assert play.do(inp.Overdue(command_id=command_id)) == []


def test_an_overdue_map_holds_the_session_for_a_look() -> None:
    play = Play()
    play.until(m.MapSquare)
    play.do(inp.Overdue(command_id=play.command.command_id))
    assert "no result within" in play.state.suspensions["errors"]
    play.ask(say.Resume())
    assert isinstance(play.work, m.MapSquare)


def test_a_result_told_twice_counts_once() -> None:
    play = Play()
    play.until(m.Expose)
    result = CommandResult(command_id=play.command.command_id, session_id="session-1", status="failed", error="drift")  # type: ignore[arg-type]
    assert play.do(inp.ResultCame(result=result))
    assert play.do(inp.ResultCame(result=result)) == []


def test_a_result_of_another_session_is_none_of_ours() -> None:
    play = Play()
    other = CommandResult(command_id=play.command.command_id, session_id="session-0", status="done")
    assert play.do(inp.ResultCame(result=other)) == []
    assert play.state.outstanding


def test_too_many_commands_without_a_frame_hold_the_session() -> None:
    play = Play(small(interlocks__moves_without_frame=3))
    play.until(m.Focus)
    for _ in range(3):
        if play.state.outstanding:
            play.result("failed", ErrorKind.DRIFT)
    assert "moves_without_frame" in play.state.suspensions["moves"]
    play.ask(say.Resume())
    assert play.state.outstanding


def test_valves_closed_from_outside_hold_the_session_until_they_are_open() -> None:
    play = Play()
    play.do(inp.Reported(state=ScopeState(valves_open=False)))
    assert "valves" in play.state.suspensions
    play.do(inp.Reported(state=ScopeState(valves_open=True)))
    assert not play.state.suspensions


def test_nothing_finished_for_long_is_told_once_and_again_after_something_was() -> None:
    play = Play()
    for _ in range(3):
        play.utc += 700
        play.do(inp.Tick())
    assert sum("nothing was finished" in text for text in play.told()) == 1
    play.finish()
    play.utc += 700
    play.do(inp.Tick())
    assert sum("nothing was finished" in text for text in play.told()) == 2


# ---------------------------------------------------------------------------------------------- advisor


def test_an_advised_session_places_frames_that_nobody_asked_for_and_commands_nothing() -> None:
    play = Play(small(session__mode="advisor"))
    low = play.frame("low", grid_id="G7")
    play.found(low, squares(low))
    assert list(play.state.grids["G7"].squares) == ["G7-S001", "G7-S002", "G7-S003"]
    medium = play.frame("medium", *SQUARES_UM[1], grid_id="G7")
    play.found(medium, holes(medium))
    square = play.state.grids["G7"].squares["G7-S002"]
    assert (square.state, len(square.holes)) == ("mapped", 9)
    hole = square.holes["G7-S002-H005"]
    high = play.frame("high", hole.x_um + 0.1, hole.y_um, grid_id="G7", dose_e_per_a2=33.0)
    play.found(high, QualityFinding(score=0.7, label="good"))
    judged = play.hole(hole.area_id)
    assert (judged.state, judged.quality, judged.dose_e_per_a2) == ("done", 0.7, 33.0)
    assert play.issued() == []
    play.check_fold()


def test_frames_of_places_that_nobody_knows_make_them_known() -> None:
    play = Play(small(session__mode="advisor"))
    high = play.frame("high", 300.0, 300.0)
    play.found(high, QualityFinding(score=0.2, label="thick"))
    (square,) = play.state.grids["G1"].squares.values()
    (hole,) = square.holes.values()
    assert (hole.x_um, hole.y_um, hole.quality_label) == (300.0, 300.0, "thick")


def test_what_the_microscope_software_exposed_is_not_exposed_again_when_the_agent_leads() -> None:
    play = Play(small(session__mode="advisor"))
    low = play.frame("low")
    play.found(low, squares(low))
    medium = play.frame("medium", *SQUARES_UM[0])
    play.found(medium, holes(medium))
    shot = play.frame("high", *SQUARES_UM[0])
    play.do(inp.AnalysisFailed(frame_id=shot.frame_id, error=ErrorKind.FRAME_DARK, why="dark"))
    seen = next(hole for hole in play.square().holes.values() if hole.frame_id)
    play.ask(say.SetMode(mode="pilot"))
    play.to_the_end()
    assert len(play.exposed()) > 2
    assert seen.area_id not in play.exposed()


def test_a_frame_of_the_wrong_magnification_is_set_aside_with_both_numbers() -> None:
    play = Play(small(pixel_size_angstrom={"low": [50_000, 70_000]}, session__mode="advisor"))
    play.frame("low", pixel_size_angstrom=100.0)
    (aside,) = [event for _, _, event in play.rows if isinstance(event, ev.FrameSetAside)]
    assert aside.error == ErrorKind.FRAME_WRONG
    assert "pixel size 100 Å is no low magnification" in aside.why
    assert not play.state.pending


def test_a_square_without_holes_is_left_and_the_night_goes_on() -> None:
    play = Play()
    square = play.until(m.MapSquare)
    frame = play.frame("medium", square.x_um, square.y_um)
    play.result()
    play.found(frame, HoleFinding(holes=(), note="no contrast"))
    assert play.state.area(square.area_id).state == "skipped"  # type: ignore[union-attr]
    play.to_the_end()
    assert {square_of(area) for area in play.exposed()} == {"G1-S002", "G1-S003"}


def test_a_degraded_model_is_told_once_and_so_is_its_return() -> None:
    play = Play(small(session__mode="advisor"))
    for text in ("holes: RuntimeError", "holes: RuntimeError", "", ""):
        frame = play.frame("low")
        play.found(frame, squares(frame), degraded=text)
    assert [t for t in play.told() if "degraded" in t or "well again" in t] == [
        "degraded: holes: RuntimeError",
        "models are well again",
    ]


@pytest.mark.parametrize("grid", ["G1", "a", "Night-H1", "X-S001", "2026-H12-S003", "A-Square", "B-Hole", "a.b_c"])
def test_ids_name_their_parents_whatever_the_grid_is_called(grid: str) -> None:
    square, hole = f"{grid}-S012", f"{grid}-S012-H034"
    assert is_hole(hole)
    assert not is_hole(square)
    assert (square_of(hole), square_of(square)) == (square, square)
    assert (grid_of(hole), grid_of(square)) == (grid, grid)
