"""A driver that leads itself: frames without positions, measurements of its own, and what it is told when it asks."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from agent import control_messages as say
from agent import messages as m
from agent.advice import view
from agent.daemon import Daemon
from agent.session import events as ev
from agent.session import inputs as inp
from tests.agent.play import HOLES_UM, SQUARES_UM, Play, holes, small, squares
from tests.helpers import RawDriver, ask, image_of, until

ADVISOR = {"session__mode": "advisor", "session__autonomy": "suggest"}


def advised() -> Play:
    """Three squares on one tile; the first has two hole images laid out beside each other."""
    play = Play(small(**ADVISOR))
    tile = play.frame("low", nominal=True, grid_id="G7")
    play.found(tile, squares(tile))
    for n in range(2):
        image = play.frame("medium", x_um=-60.0 + 1000.0 * n, nominal=True, area_id="G7-S001")
        play.found(image, holes(image))
    return play


def measured(play: Play, area_id: str, number: int, **fields: Any) -> list[ev.AnyEvent]:
    told = m.Measured(measured_id=f"v{number}", session_id=play.state.session_id, area_id=area_id, **fields)
    return play.do(inp.MeasurementCame(measured=told))


def look(play: Play, **fields: Any) -> m.View:
    values: dict[str, Any] = {"request_id": "l", "grid_ids": ("G7",), "square_ids": ("G7-S001",), "order": True}
    return view(play.state, play.settings, m.Look(**(values | fields)))


def test_nothing_on_a_frame_without_position_is_a_sighting_of_something_on_another() -> None:
    play = Play(small(**ADVISOR))
    for _ in range(2):  # both say that they lie at the same place
        tile = play.frame("low", nominal=True, grid_id="G7")
        play.found(tile, squares(tile))
    assert len(play.state.grids["G7"].squares) == 2 * len(SQUARES_UM)
    placed = Play(small(**ADVISOR))
    for _ in range(2):
        tile = placed.frame("low", grid_id="G7")
        placed.found(tile, squares(tile))
    assert len(placed.state.grids["G7"].squares) == len(SQUARES_UM)


def test_a_second_frame_of_a_square_adds_its_holes_and_leaves_those_that_it_does_not_show() -> None:
    play = advised()
    square = play.state.square("G7-S001")
    assert square is not None
    assert len(square.holes) == 2 * len(HOLES_UM)
    assert len({hole.map_frame_id for hole in square.holes.values()}) == 2
    again = play.frame("medium", x_um=940.0, nominal=True, area_id="G7-S001")  # the place of the second
    play.found(again, holes(again))
    square = play.state.square("G7-S001")
    assert square is not None
    assert len(square.holes) == 2 * len(HOLES_UM)
    play.check_fold()


def test_several_shots_of_a_hole_count_with_their_mean_and_mark_its_square_visited() -> None:
    play = advised()
    hole_id = "G7-S001-H003"
    seen = play.hole(hole_id).features
    measured(play, hole_id, 1, ctf_resolution_angstrom=4.0, ice_thickness_nm=50.0)
    measured(play, hole_id, 2, ctf_resolution_angstrom=6.0)
    measured(play, hole_id, 3)
    hole = play.hole(hole_id)
    assert hole.features["ctf_resolution_angstrom"] == pytest.approx(5.0)
    assert hole.features["ice_thickness_nm"] == pytest.approx(50.0)
    assert (hole.state, hole.quality_label, hole.measurements) == ("done", "good", 3)
    assert hole.quality == pytest.approx(1 / (1 + (5 / 6) ** 2), abs=1e-3)
    assert hole.seen_before == seen
    square = play.state.square("G7-S001")
    assert square is not None
    assert square.visited
    play.check_fold()


def test_a_measured_hole_keeps_its_record_when_its_image_is_taken_again() -> None:
    play = advised()
    measured(play, "G7-S001-H003", 1, ctf_resolution_angstrom=4.0)
    again = play.frame("medium", x_um=-60.0, nominal=True, area_id="G7-S001")
    play.found(again, holes(again))
    assert play.hole("G7-S001-H003").measurements == 1
    square = play.state.square("G7-S001")
    assert square is not None
    assert len(square.holes) == 2 * len(HOLES_UM)


def test_the_order_holds_every_square_that_was_not_visited_and_no_other() -> None:
    play = advised()
    assert set(look(play).order) == {"G7-S001", "G7-S002", "G7-S003"}  # a hole image alone is no visit
    measured(play, "G7-S001-H001", 1, ctf_resolution_angstrom=4.0)
    assert set(look(play).order) == {"G7-S002", "G7-S003"}
    measured(play, "G7-S002", 2)  # a square that is said to be visited
    assert look(play).order == ("G7-S003",)
    assert {s.area_id for s in look(play).squares if s.visited} == {"G7-S001", "G7-S002"}
    assert look(play, order=False).order == ()


def test_an_operators_word_is_above_what_was_learned() -> None:
    play = advised()
    play.ask(say.Rerank(area_id="G7-S003", priority=3))
    assert look(play).order[0] == "G7-S003"
    play.ask(say.Accept(area_ids=("G7-S002",)))
    assert look(play).order[0] == "G7-S002"
    play.ask(say.Reject(area_ids=("G7-S003",)))
    assert "G7-S003" not in look(play).order
    play.ask(say.SetThreshold(name="square_score", value=0.88))
    assert look(play).order == ("G7-S002", "G7-S001")
    wanted = {s.area_id: s.wanted for s in look(play).squares}
    assert wanted == {"G7-S001": True, "G7-S002": True, "G7-S003": False}


def test_what_was_measured_changes_what_is_expected_and_other_grids_count_only_when_asked_for() -> None:
    play = advised()
    before = {h.area_id: h for h in look(play).holes}
    for n in range(6):
        measured(play, f"G7-S001-H{n + 1:03d}", n, ctf_resolution_angstrom=3.0, ice_thickness_nm=30.0)
    after = {h.area_id: h for h in look(play).holes}
    new = "G7-S001-H009"
    assert after[new].p_good > before[new].p_good  # type: ignore[operator]
    assert after[new].ctf_var < before[new].ctf_var  # type: ignore[operator]
    tile = play.frame("low", nominal=True, grid_id="G8")
    play.found(tile, squares(tile))
    alone = {s.area_id: s.expected_good for s in look(play, grid_ids=("G8",), square_ids=(), order=True).squares}
    seeded = {
        s.area_id: s.expected_good for s in look(play, grid_ids=("G8",), square_ids=(), learn_from=("G7",)).squares
    }
    assert set(alone) == set(seeded) == {"G8-S001", "G8-S002", "G8-S003"}
    assert alone != seeded


def test_a_view_asked_for_by_unknown_names_is_empty() -> None:
    play = advised()
    empty = look(play, grid_ids=("G99",), square_ids=("G99-S001",))
    assert (empty.squares, empty.holes, empty.order) == ((), (), ())


@pytest.mark.parametrize("changes", [ADVISOR])
async def test_a_measurement_told_twice_counts_once_and_an_order_is_journalled_before_it_is_told(
    daemon: Daemon, raw: RawDriver
) -> None:
    welcome = await raw.hello(can_pilot=False)
    await raw.send_frame(image_of(), grid_id="G7", frame_id="t1", nominal=True)
    await raw.expect(m.Targets)
    await ask(daemon, say.AddTarget(x_um=0.0, y_um=0.0))
    told = m.Measured(measured_id="v1", session_id=welcome.session_id, area_id="G7-S001")
    for _ in range(2):
        await raw.send(told)
        assert (await raw.expect(m.Accepted)).about == "v1"
    events = [row.kind for row in daemon.core.journal.replay()]
    assert events.count("area_measured") == 1
    await raw.send(replace(told, measured_id="v2", area_id="G7-S099"))
    assert not (await raw.expect(m.Refused)).retry
    await raw.send(replace(told, measured_id="v3", session_id="another"))
    assert (await raw.expect(m.Refused)).about == "v3"
    await raw.send(m.Look(request_id="l1", grid_ids=("G7",), order=True))
    answer = await raw.expect(m.View)
    assert (answer.request_id, answer.order) == ("l1", ())
    await until(lambda: [r.kind for r in daemon.core.journal.replay()].count("order_given") == 1)
    await asyncio.sleep(0)
