"""What the page is told of a session beside its areas: queue, forecast, who leads, what a threshold would change."""

from typing import Any

import pytest
from msgspec.structs import replace

from agent.messages import Command, MapSquare
from agent.session.state import Grid, Group, Hole, Outstanding, Square, State
from agent.settings import Settings
from agent.web.live.changes import between
from agent.web.live.outlook import forecast, leader, preview, queue

SETTINGS = Settings.model_validate({"policy": {"name": "score-order"}})
THRESHOLDS = {"square_score": 0.5, "hole_score": 0.5, "squares_per_grid": 2.0, "exposures_per_square": 3.0}


def hole(square: int, number: int, **fields: Any) -> Hole:
    values: dict[str, Any] = {"x_um": number * 4.0, "y_um": 0.0, "radius_um": 0.6, "score": 0.4 + 0.1 * number}
    return Hole(area_id=f"G1-S{square:03d}-H{number:03d}", **(values | fields))


def square(number: int, **fields: Any) -> Square:
    values: dict[str, Any] = {"x_um": number * 90.0, "y_um": 0.0, "size_um": 60.0, "score": 1.0 - 0.1 * number}
    return Square(area_id=f"G1-S{number:03d}", **(values | fields))


def session(*squares: Square, **fields: Any) -> State:
    grid = Grid(grid_id="G1", state="screening", squares={s.area_id: s for s in squares})
    values: dict[str, Any] = {"phase": "collecting", "driver": "scope", "thresholds": THRESHOLDS, "grid_id": "G1"}
    return replace(State(grids={"G1": grid}), **(values | {"started_utc": 1000.0} | fields))


MAPPED = square(
    1,
    state="mapped",
    map_frame_id="m1",
    holes={h.area_id: h for h in (hole(1, n, group=1) for n in range(1, 6))},
    groups={1: Group(number=1, x_um=0, y_um=0, focus_x_um=1, focus_y_um=1, hole_ids=("G1-S001-H002", "G1-S001-H003"))},
)


def test_the_queue_says_what_runs_what_follows_and_why() -> None:
    command = Command(
        command_id="C1", session_id="s", epoch=1, timeout_s=9.0, work=MapSquare(area_id="G1-S001", x_um=0, y_um=0)
    )
    running = {"C1": Outstanding(command=command, area_id="G1-S001", issued_utc=0.0)}
    wanted = square(3, word="accepted", by="anna", score=0.1)
    rows = queue(session(MAPPED, square(2), wanted, outstanding=running), SETTINGS)
    assert [(row.id, row.what, row.now) for row in rows] == [
        ("G1-S001", "map square", True),
        ("G1-S001", "group 1", False),
        ("G1-S003", "map square", False),
        ("G1-S002", "map square", False),
    ]
    assert rows[1].why == "2 holes by image shift, focus first"
    assert rows[2].why == "accepted by anna"


def test_where_the_policy_learns_the_queue_promises_no_order() -> None:
    learning = Settings.model_validate({"policy": {"name": "learning"}})
    rows = queue(session(square(1), square(2)), learning)
    assert [row.what for row in rows] == ["may be next", "may be next"]


def test_a_preview_names_what_would_be_visited_and_what_not() -> None:
    state = session(square(1), square(2), square(3), square(4))
    more = preview(state, SETTINGS, "squares_per_grid", 3.0)
    assert (more.more, more.less) == (("G1-S003",), ())
    less = preview(state, SETTINGS, "square_score", 0.85)
    assert (less.more, less.less) == ((), ("G1-S002",))
    holes = preview(session(MAPPED), SETTINGS, "hole_score", 0.85)
    assert holes.more == ()
    assert set(holes.less) == {"G1-S001-H003", "G1-S001-H004"}
    with pytest.raises(KeyError):
        preview(state, SETTINGS, "nothing", 1.0)


def test_a_forecast_needs_exposures_and_then_follows_their_pace_and_the_budget() -> None:
    state = session(MAPPED, square(2))
    few = forecast(state, SETTINGS, [2000.0, 2010.0], 2010.0)
    assert few["left"] == 3 + 3  # three of the mapped square, three of the one to come
    assert "ends_utc" not in few
    told = forecast(state, SETTINGS, [2000.0 + 10.0 * n for n in range(11)], 2100.0)
    assert (told["per_hour"], told["shot_s"]) == (360.0, 10.0)
    assert told["ends_utc"] == 2100.0 + 6 * 10.0
    short = replace(state, spent_s=72 * 3600 - 30.0)
    capped = forecast(short, SETTINGS, [2000.0 + 10.0 * n for n in range(11)], 2100.0)
    assert capped["ends_utc"] == pytest.approx(2130.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Cryonaut"),
        ({"autonomy": "approve"}, "Cryonaut, with your approval"),
        ({"mode": "advisor"}, "the microscope software; Cryonaut advises"),
        ({"driver": ""}, "nobody: no driver"),
        ({"phase": "paused", "why": "paused by anna"}, "you: paused by anna"),
        ({"phase": "fault"}, "nobody: fault"),
        ({"phase": "stopped"}, "nobody: ended"),
    ],
)
def test_who_leads_is_said_in_words(changes: dict[str, Any], words: str) -> None:
    assert leader(session(**changes)) == words


def test_changes_are_what_is_not_the_same_record() -> None:
    before = session(MAPPED, square(2))
    rejected = replace(MAPPED.holes["G1-S001-H002"], state="rejected")
    holes = {k: v for k, v in MAPPED.holes.items() if k != "G1-S001-H005"} | {rejected.area_id: rejected}
    after = session(replace(MAPPED, holes=holes), before.grids["G1"].squares["G1-S002"], square(3))
    found = between(before, after)
    assert [s.area_id for s in found.squares] == ["G1-S001", "G1-S003"]
    assert found.holes == [rejected]
    assert found.gone == ["G1-S001-H005"]
    assert between(after, after) == ([], [], [])
