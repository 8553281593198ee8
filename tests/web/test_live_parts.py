"""What the page is told of a session beside its areas: queue, forecast, who leads, what a threshold would change."""

import asyncio
import json
import os
import signal
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from agent.messages import Command, MapSquare
from agent.policy.outlook import outlook
from agent.session.state import Grid, Group, Hole, Outstanding, Square, State
from agent.settings import Settings
from agent.web.live.changes import between
from agent.web.live.expected import Expected
from agent.web.live.expecting import Ask, Begin, Expecting, Teller
from agent.web.live.outlook import Plans, forecast, leader, preview, queue
from agent.web.precedence import Precedence

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


def test_what_is_left_of_a_square_is_counted_anew_when_it_or_a_threshold_changes() -> None:
    plans, state = Plans(), session(MAPPED)
    other = replace(MAPPED, holes={k: v for k, v in MAPPED.holes.items() if not k.endswith("H005")})
    strict = replace(state, thresholds={**THRESHOLDS, "hole_score": 0.75})
    found = [plans.of(s, SETTINGS, square) for s in (state, strict) for square in (MAPPED, other, MAPPED)]
    assert found == [Plans().of(s, SETTINGS, square) for s in (state, strict) for square in (MAPPED, other, MAPPED)]
    assert found == [3, 3, 3, 2, 1, 2]


def test_the_program_that_expects_knows_the_session_as_it_was_told_last() -> None:
    first = session(MAPPED, square(2), square(3))
    judged = replace(MAPPED.holes["G1-S001-H002"], quality=0.9, quality_label="good", frame_id="f")
    later = session(replace(MAPPED, holes={**MAPPED.holes, judged.area_id: judged}), square(2), square(4))
    teller, expecting = Teller(), Expecting()
    expecting.take(Begin(settings=SETTINGS.model_dump_json().encode()))
    for state in (first, later):
        for told in teller.tell(state):
            expecting.take(msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=type(told)))
        known = outlook(state, SETTINGS)
        answer = expecting.take(Ask(grid_id="G1"))
        assert answer is not None
        assert json.loads(answer.body) == {i: e.p_good for found in known[:2] for i, e in found.items()}
        one = expecting.take(Ask(area_id="G1-S001-H003"))
        assert one is not None
        assert one.body == msgspec.json.encode(known.holes["G1-S001-H003"])
    assert len(teller.tell(later)) == 1  # nothing is told twice


async def test_nothing_is_expected_while_the_program_is_gone_and_nobody_waits_for_it() -> None:
    expected, state = Expected(SETTINGS), session(MAPPED)
    try:
        assert json.loads(await expected.of_area(state, "G1-S001-H001"))["reasons"] is not None
        assert expected.pid is not None
        os.kill(expected.pid, signal.SIGKILL)
        assert await expected.of_area(state, "G1-S001-H001") == b"null"
        assert await expected.of_grid(state, "G1") == b"{}"
    finally:
        expected.close()


async def test_pages_wait_for_frames_one_after_the_other_and_not_for_ever() -> None:
    in_hand, served = [True], []
    precedence = Precedence(lambda: in_hand[0], patience_s=600.0)

    async def serve(name: str) -> None:
        await precedence.turn()
        served.append(name)

    pieces = [asyncio.create_task(serve(name)) for name in "abc"]
    for _ in range(20):
        await asyncio.sleep(0)
    assert served == []
    in_hand[0] = False
    await asyncio.gather(*pieces)
    assert served == ["a", "b", "c"]
    await Precedence(lambda: True, patience_s=0.0).turn()
