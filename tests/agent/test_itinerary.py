"""Several grids: a first look at each, then where it pays, also back to one that was out meanwhile."""

import math
from functools import cache
from typing import Any

import pytest

from agent import control_messages as say
from agent import geometry
from agent import messages as m
from agent.errors import ConfigError
from agent.session import EMPTY, NotPossibleError, fold, step
from agent.session import events as ev
from agent.session.state import grid_of
from models.detections import GridSighting, QualityFinding
from tests.agent.play import Play, encode, small

GRIDS = [{"id": f"G{n}", "slot": n} for n in (1, 2, 3)]
TIMES_S = {"load_grid": 300.0, "acquire_atlas": 300.0, "map_square": 60.0, "expose": 60.0, "focus": 20.0}


def cassette(**changes: Any) -> Play:
    values: dict[str, Any] = {
        "policy__name": "learning",
        "policy__screening": {"squares_per_grid": 1, "holes_per_square": 2, "hours": 1.0},
        "session__grids": GRIDS,
        "squares__per_grid": 3,
        "holes__per_square": 9,
        "budget__hours": 1.1,
    }
    return Play(small(**(values | changes)), pure=False)


def turn(play: Play, good: tuple[str, ...]) -> None:
    """Carry out the command under way; micrographs are good on these grids and on no other."""
    work = play.work
    took_s = TIMES_S.get(str(work.__struct_config__.tag), 0.0) if work else 0.0
    if isinstance(work, m.Expose):
        frame = play.frame("high", work.x_um, work.y_um)
        play.result(dose_e_per_a2=work.dose_e_per_a2, elapsed_s=took_s)
        fine = grid_of(work.area_id) in good
        play.found(frame, QualityFinding(score=0.8 if fine else 0.1, label="good" if fine else "thick"))
    elif isinstance(work, m.LoadGrid | m.Focus | m.Park):
        play.result(elapsed_s=took_s)
    else:
        play.finish()


def run(play: Play, good: tuple[str, ...] = ("G2",), most: int = 500) -> Play:
    while play.state.outstanding:
        turn(play, good)
        most -= 1
        assert most, "no end"
    return play


@cache
def usual() -> Play:
    """The session in which G2 is the good one, to its end; nobody changes it."""
    return run(cassette())


def loaded(play: Play) -> list[str]:
    return [c.work.grid_id for c in play.issued() if isinstance(c.work, m.LoadGrid)]


def grid_words(play: Play, grid_id: str) -> list[tuple[str, str]]:
    events = [e for _, _, e in play.rows if isinstance(e, ev.GridChanged) and e.grid_id == grid_id]
    return [(event.state, event.decision.why) for event in events]


def test_every_grid_is_looked_at_first_and_the_good_one_is_gone_back_to() -> None:
    play = usual()
    assert loaded(play)[:4] == ["G1", "G2", "G3", "G2"]
    firsts = play.exposed()[:6]
    assert [grid_of(a) for a in firsts] == ["G1", "G1", "G2", "G2", "G3", "G3"]
    assert grid_of(play.exposed()[6]) == "G2"
    said = grid_words(play, "G2")
    assert ("screened", "screening G2: 2 of 2 micrographs good") in said
    back = next(why for state, why in said if state == "loading" and "back to it" in why)
    assert "promises" in back
    assert "min to change" in back
    assert "screening pass, grid 2 of 3" in said[0][1]
    counts = {g: sum(grid_of(a) == g for a in play.exposed()) for g in ("G1", "G2", "G3")}
    assert counts["G2"] > 15 > counts["G1"] + counts["G3"]
    play.check_fold()


def test_without_screening_grids_follow_each_other_and_none_is_loaded_twice() -> None:
    play = run(cassette(policy__screening=None))
    assert loaded(play) == sorted(set(loaded(play)))


@pytest.mark.parametrize("stop", [4, 11, 24])
def test_a_crash_anywhere_in_the_pass_goes_on_where_it_was(stop: int) -> None:
    whole = usual()
    begun = cassette()
    for _ in range(stop):
        turn(begun, ("G2",))
    begun.check_fold()
    rows = [(seq, utc, ev.decode_event(ev.encode_event(event))) for seq, utc, event in begun.rows]
    state = fold(rows)
    assert encode(state) == encode(begun.state)
    begun.state = state  # what a daemon that starts again knows
    run(begun)
    assert loaded(begun) == loaded(whole)
    assert begun.exposed() == whole.exposed()


def test_a_pass_takes_no_more_time_than_it_may() -> None:
    look = {"squares_per_grid": 1, "holes_per_square": 2, "hours": 0.5}  # one grid, as this microscope does it
    play = run(cassette(policy__screening=look))
    first = [why for state, why in grid_words(play, "G1") if state == "screened"]
    assert first
    assert "screening pass" in grid_words(play, "G1")[0][1]
    assert all("screening pass" not in why for grid in ("G3",) for _, why in grid_words(play, grid))


def test_places_on_a_grid_that_came_back_are_sent_as_places_of_the_stage() -> None:
    play = usual()
    sighted = [e for _, _, e in play.rows if isinstance(e, ev.GridSighted)]
    assert sighted
    lies = sighted[0].placement
    assert lies is not None
    grid = play.state.grids["G2"]
    after = [e for _, _, e in play.rows if isinstance(e, ev.CommandIssued) and e.on_grid is not None]
    shots = [e for e in after if isinstance(e.on_grid, m.Expose)]
    assert shots
    for event in shots:
        sent, meant = event.command.work, event.on_grid
        assert isinstance(sent, m.Expose)
        assert isinstance(meant, m.Expose)
        hole = play.hole(meant.area_id)
        x, y = lies.stage_um(hole.x_um, hole.y_um)
        assert sent.x_um + sent.image_shift_x_um == pytest.approx(x, abs=1e-3)
        assert sent.y_um + sent.image_shift_y_um == pytest.approx(y, abs=1e-3)
        assert math.hypot(sent.x_um - meant.x_um, sent.y_um - meant.y_um) > 1.0, "it lies otherwise"
    for square in grid.squares.values():  # mapped anew before it went on, and found where it was
        exposed = [h for h in square.holes.values() if h.visited]
        places = [(h.x_um, h.y_um) for h in exposed]
        assert len({(round(x), round(y)) for x, y in places}) == len(places), "no place twice"
    received = [e for _, _, e in play.rows if isinstance(e, ev.FrameReceived) and e.as_taken is not None]
    for event in received:
        x, y = lies.stage_um(*geometry.centre_um(event.frame))
        assert (x, y) == pytest.approx(geometry.centre_um(event.as_taken), abs=1e-3)  # type: ignore[arg-type]


def test_a_grid_that_is_not_known_again_is_left_alone_and_somebody_is_told() -> None:
    play = cassette()
    play.sighting = GridSighting(turn_deg=0.0, dx=0.0, dy=0.0, correlation=0.2)
    run(play)
    assert play.state.grids["G2"].state == "done"
    assert any("not known again" in text for text in play.told())
    assert sum(grid_of(a) == "G2" for a in play.exposed()) == 2
    assert play.state.phase == "stopped"


def test_a_pinned_grid_is_next_and_a_banned_one_never() -> None:
    play = cassette(budget__hours=12.0)
    play.ask(say.Pin(area_ids=("G3",)))
    play.ask(say.Ban(area_ids=("G2",)))
    run(play, ("G1", "G2", "G3"))
    assert "G2" not in loaded(play)
    assert play.state.grids["G2"].state == "skipped"
    assert loaded(play)[1] == "G3", "G1 was being loaded when it was said"
    g3 = [i for i, a in enumerate(play.exposed()) if grid_of(a) == "G3"]
    assert len(g3) > 20
    assert g3 == list(range(g3[0], g3[-1] + 1)), "and it is worked on until it is done"
    assert "operator" in grid_words(play, "G3")[0][1]


def test_a_grid_that_was_left_comes_back_when_it_is_pinned_under_every_policy() -> None:
    play = cassette(policy__name="score-order", policy__screening=None, budget__hours=12.0)
    play.until(m.Expose)
    play.ask(say.Pin(area_ids=("G2",)))
    run(play)
    assert loaded(play)[:3] == ["G1", "G2", "G1"]
    assert all(grid.state == "done" for grid in play.state.grids.values())
    play.check_fold()


def test_a_grid_without_a_slot_cannot_be_pinned_once_it_is_out() -> None:
    play = Play(small(session__grids=[{"id": "G1"}, {"id": "G2", "slot": 2}]))
    play.until(m.LoadGrid)
    play.finish()
    play.until(m.Expose)
    with pytest.raises(NotPossibleError, match="no autoloader slot"):
        play.ask(say.Pin(area_ids=("G1",)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy__name": "score-order"}, "policy.name: learning"),
        ({"session__mode": "advisor"}, "session.mode: pilot"),
        ({"session__grids": [{"id": "G1"}, {"id": "G2", "slot": 2}]}, "G1 could not be loaded again"),
    ],
)
def test_screening_is_refused_where_grids_cannot_come_back(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cassette(**changes)


def test_a_replay_of_the_same_messages_goes_to_the_same_grids() -> None:
    first = usual()
    state, utc, rows = EMPTY, 5e8, list[ev.AnyEvent]()
    for what in first.inputs:
        utc += 0.001
        events, state, _ = step(state, what, first.settings, utc)
        rows += events
    asked = [
        [e.command.work for e in r if isinstance(e, ev.CommandIssued)] for r in (rows, [e for _, _, e in first.rows])
    ]
    assert asked[0] == asked[1]
