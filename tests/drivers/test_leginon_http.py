"""Leginon's HTTP calls, answered over a real socket with a real daemon behind."""

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from agent import control_messages as say
from agent.errors import BadFileError
from drivers.leginon.register import Register
from drivers.leginon.server import LOOPBACK, _guarded
from simulators.leginon import reader
from tests.drivers.leginon_scene import Scene, blocks, discs, driver_settings, driving, raster, scene
from tests.helpers import ask

T = TypeVar("T")
TILE = blocks(raster(64.0, 3, 60.0), 40.0)
HOLES, CENTRES = discs(32.0, 9.0)


CLIENTS = ThreadPoolExecutor(16)  # not the loop's own: clients that wait must not keep the driver from its threads


async def do(what: Callable[..., T], *args: Any, **more: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(CLIENTS, partial(what, *args, **more))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as found:
        yield found


async def pushed(stage: Scene, grid_id: int = 7, tile_id: int = 11) -> list[reader.Row]:
    await do(stage.calls.push_lm, TILE, grid_id, tile_id)
    return await do(stage.calls.current_lm_state)


async def holes_of(stage: Scene, square_id: int, image_id: int = 100, grid_id: int = 7) -> list[reader.Row]:
    ids = {"grid_id": grid_id, "tile_id": 11, "square_id": square_id, "mm_img_id": image_id}
    return await do(stage.calls.push_and_evaluate_mm, HOLES, **ids)


async def test_a_session_from_tile_to_learned_order_leaves_no_warning_in_leginons_log(stage: Scene) -> None:
    calls = stage.calls
    assert await do(calls.is_there)
    await do(calls.initialize_new_session)
    squares = await pushed(stage)
    assert len(squares) == 9
    truth = sorted(raster(64.0, 3, 60.0))
    found = sorted((row["center_x"], row["center_y"]) for row in squares)
    assert all(abs(x - u) < 3 and abs(y - v) < 3 for (x, y), (u, v) in zip(found, truth, strict=True))
    assert {(row["grid_id"], row["tile_id"], row["visited"]) for row in squares} == {(7, 11, False)}
    assert all(row["area"] ** 0.5 < 0.8 * 64 and 180 < row["brightness"] < 240 for row in squares)
    await do(calls.set_noice_hole_intensity, 160.0)
    holes = await holes_of(stage, squares[0]["square_id"])
    assert len(holes) == len(CENTRES)
    for x, y in CENTRES:
        assert min((row["center_x"] - x) ** 2 + (row["center_y"] - y) ** 2 for row in holes) < 9
    assert {row["visited"] for row in holes} == {False}
    assert all(row["ctf"] is None and row["ctf_pred"] > 0 and row["ice_var"] > 0 for row in holes)
    order = await do(calls.select_next_square)
    assert [row["square_id"] for row in order] != []
    assert {row["square_id"] for row in order} == {row["square_id"] for row in squares}
    assert await do(calls.visit_holes, [holes[0]["hole_id"]], [4.5], [4.5e10]) == {
        "stored": True,
        "unknown_hole_ids": [],
    }
    order = await do(calls.select_next_square)
    assert {row["square_id"] for row in order} == {row["square_id"] for row in squares[1:]}
    scores = [int(1000 * row["GP_probs"]) for row in order]
    assert scores == sorted(set(scores), reverse=True)
    visited = {row["square_id"]: row["visited"] for row in await do(calls.current_lm_state)}
    assert [square_id for square_id, was in visited.items() if was] == [squares[0]["square_id"]]
    assert calls.warnings == []


async def test_a_tile_or_image_pushed_again_changes_nothing(stage: Scene) -> None:
    squares = await pushed(stage)
    assert await pushed(stage) == squares
    first = await holes_of(stage, squares[0]["square_id"])
    assert await holes_of(stage, squares[0]["square_id"]) == first
    events = [row.kind for row in stage.daemon.core.journal.replay()]
    assert (events.count("squares_found"), events.count("holes_found")) == (1, 1)


async def test_another_picture_under_a_known_tile_id_is_refused_and_the_first_counts(stage: Scene) -> None:
    squares = await pushed(stage)
    status, answer = await do(
        stage.calls.send, "POST", "/push_lm", {"image": (TILE + 1).tolist(), "grid_id": 7, "tile_id": 11}
    )
    assert (status, "with other pixels" in answer["error"]) == (400, True)
    assert await do(stage.calls.current_lm_state) == squares


async def test_eight_tiles_pushed_at_once_are_all_answered(stage: Scene) -> None:
    await asyncio.gather(*(do(stage.calls.push_lm, TILE + n, 7, 20 + n) for n in range(8)))
    squares = await do(stage.calls.current_lm_state)
    assert len(squares) == 72
    assert {row["tile_id"] for row in squares} == set(range(20, 28))
    assert len({row["square_id"] for row in squares}) == 72
    assert stage.calls.warnings == []


async def test_the_journal_holds_leginons_ids_and_the_frames(stage: Scene) -> None:
    squares = await pushed(stage)
    await holes_of(stage, squares[2]["square_id"])
    frames = [json.loads(r.body)["frame"] for r in stage.daemon.core.journal.replay() if r.kind == "frame_received"]
    assert [frame["foreign_ids"] for frame in frames] == [
        {"grid_id": 7, "tile_id": 11},
        {"grid_id": 7, "tile_id": 11, "square_id": squares[2]["square_id"], "mm_img_id": 100},
    ]
    assert all(frame["nominal"] and not frame["pixel_size_known"] for frame in frames)


async def test_several_images_of_one_square_keep_the_holes_of_each(stage: Scene) -> None:
    squares = await pushed(stage)
    first = await holes_of(stage, squares[0]["square_id"], 100)
    ids = {"grid_id": 7, "tile_id": 11, "square_id": squares[0]["square_id"], "mm_img_id": 101}
    second = await do(stage.calls.push_and_evaluate_mm, HOLES[::-1].copy(), **ids)
    assert not {row["hole_id"] for row in first} & {row["hole_id"] for row in second}
    status, text = await do(stage.calls.send, "GET", "/current_mm_state")
    everything = reader.holes(text, stage.calls.warnings)
    assert status == 200
    assert len(everything) == len(first) + len(second)
    again = {row["hole_id"]: row for row in everything}
    assert all(again[row["hole_id"]]["center_x"] == row["center_x"] for row in first)


# ---------------------------------------------------------------------------------------------- feedback


async def test_null_ctfs_ice_in_metres_repeated_and_unknown_visits_are_taken_as_they_are_meant(stage: Scene) -> None:
    squares = await pushed(stage)
    one, two, *_ = (row["hole_id"] for row in await holes_of(stage, squares[0]["square_id"]))
    reports = [([one], [4.0], [4.5e10]), ([one], [6.0], [55.0]), ([one], [None], [None]), ([two], [None], [-3.0])]
    for ids, ctfs, ices in reports:
        await do(stage.calls.visit_holes, ids, ctfs, ices)
    answer = await do(stage.calls.visit_holes, [one, 99_999], [5.0], [])
    assert answer == {"stored": True, "unknown_hole_ids": [99_999]}
    await do(stage.calls.select_next_square)  # once it is answered, everything told before is in the session
    _, text = await do(stage.calls.send, "GET", "/current_mm_state")
    rows = {row["hole_id"]: row for row in reader.holes(text, stage.calls.warnings)}
    assert rows[one]["ctf"] == pytest.approx(5.0)
    assert rows[one]["ice_thickness"] == pytest.approx(50.0)
    assert (rows[two]["ctf"], rows[two]["ice_thickness"], rows[two]["visited"]) == (None, -3.0, True)
    assert stage.calls.warnings == []


async def test_a_visited_square_leaves_the_order_and_stays_in_the_state(stage: Scene) -> None:
    squares = await pushed(stage)
    gone = squares[4]["square_id"]
    assert (await do(stage.calls.send, "POST", "/visit_square", {"square_id": gone}))[1] == {"stored": True}
    assert (await do(stage.calls.send, "POST", "/visit_square", {"square_id": 4711}))[1] == {"stored": False}
    assert gone not in {row["square_id"] for row in await do(stage.calls.select_next_square)}
    state = {row["square_id"]: row["visited"] for row in await do(stage.calls.current_lm_state)}
    assert state[gone] is True


# ---------------------------------------------------------------------------------------------- runs


async def test_a_new_session_archives_and_no_id_is_given_twice(stage: Scene) -> None:
    before = {row["square_id"] for row in await pushed(stage)}
    for _ in range(2):  # each proposed name sends it
        await do(stage.calls.initialize_new_session)
    assert await do(stage.calls.current_lm_state) == []
    assert await do(stage.calls.select_next_square) == []
    after = {row["square_id"] for row in await pushed(stage)}  # the very same grid and tile
    assert len(before | after) == 18
    assert min(after) > max(before)


async def test_a_session_goes_on_where_a_wizard_was_cancelled(stage: Scene) -> None:
    squares = await pushed(stage)
    await do(stage.calls.initialize_new_session)
    await holes_of(stage, squares[0]["square_id"])
    assert await do(stage.calls.current_lm_state) == squares
    await do(stage.calls.initialize_new_session)
    await do(stage.calls.push_lm, TILE + 1, 7, 12)  # the atlas goes on
    state = await do(stage.calls.current_lm_state)
    assert state[: len(squares)] == squares
    assert {row["tile_id"] for row in state} == {11, 12}


async def test_reports_of_an_archived_session_still_count_there_and_only_there(stage: Scene) -> None:
    squares = await pushed(stage)
    holes = await holes_of(stage, squares[0]["square_id"])
    await do(stage.calls.initialize_new_session)
    await pushed(stage, 8, 50)
    assert (await do(stage.calls.visit_holes, [holes[0]["hole_id"]], [4.0], [30.0]))["unknown_hole_ids"] == []
    assert not any(row["visited"] for row in await do(stage.calls.current_lm_state))


async def test_a_saved_state_can_be_learned_from_gone_on_with_and_cleared(stage: Scene, tmp_path: Path) -> None:
    squares = await pushed(stage)
    holes = await holes_of(stage, squares[0]["square_id"])
    ids = [row["hole_id"] for row in holes[:10]]
    await do(stage.calls.visit_holes, ids, [3.0] * 10, [30.0] * 10)
    file = str(tmp_path / "state.json")
    assert (await do(stage.calls.send, "POST", "/save_state", {"path": file}))[0] == 200
    await do(stage.calls.initialize_new_session)
    await pushed(stage, 8, 50)
    alone = await do(stage.calls.select_next_square)
    first = alone[0]["square_id"]
    told = await holes_of(stage, first, 900, 8)
    await do(stage.calls.send, "POST", "/load_historical_state", {"path": file})
    again = await holes_of(stage, first, 900, 8)
    assert [row["hole_id"] for row in again] == [row["hole_id"] for row in told]
    assert again[0]["ctf_pred"] < told[0]["ctf_pred"]  # ten exposures of 3 Å say that more is to be had
    register = stage.driver.register
    assert register.historical_names(stage.daemon.core.state.session_id) == ["G7"]
    await do(stage.calls.send, "GET", "/clear_historical_state")
    forgotten = await holes_of(stage, first, 900, 8)
    assert [row["ctf_pred"] for row in forgotten] == [row["ctf_pred"] for row in told]
    await do(stage.calls.send, "POST", "/overwrite_current_state", {"path": file})
    state = await do(stage.calls.current_lm_state)
    assert [row["square_id"] for row in state] == [row["square_id"] for row in squares]
    status, answer = await do(stage.calls.send, "POST", "/load_historical_state", {"path": str(tmp_path / "none")})
    assert (status, "No such file" in answer["error"]) == (400, True)


async def test_the_state_of_another_driver_seeds_the_learning_and_nothing_else(tmp_path: Path) -> None:
    file = str(tmp_path / "state.json")
    async with scene(tmp_path / "then") as stage:
        squares = await pushed(stage)
        holes = await holes_of(stage, squares[0]["square_id"])
        ids = [row["hole_id"] for row in holes[:10]]
        await do(stage.calls.visit_holes, ids, [3.0] * 10, [30.0] * 10)
        await do(stage.calls.select_next_square)
        await do(stage.calls.send, "POST", "/save_state", {"path": file})
    async with scene(tmp_path / "now") as stage:
        squares = await pushed(stage)
        before = await holes_of(stage, squares[0]["square_id"])
        for _ in range(2):  # recalled twice it counts once
            _, answer = await do(stage.calls.send, "POST", "/load_historical_state", {"path": file})
            assert len(answer["learned_from"]) == 1
        after = await holes_of(stage, squares[0]["square_id"])
        state = stage.daemon.core.state
        assert after[0]["ctf_pred"] < before[0]["ctf_pred"]
        assert [row["hole_id"] for row in after] == [row["hole_id"] for row in before]
        assert len(await do(stage.calls.current_lm_state)) == len(squares)
        (past,) = state.past.values()
        assert [len(square.holes) for square in past.squares.values()] == [len(CENTRES)]
        assert set(state.grids) == {"G1", "G7"}
        status, answer = await do(stage.calls.send, "POST", "/overwrite_current_state", {"path": file})
        assert (status, "another register" in answer["error"]) == (400, True)
        assert stage.calls.warnings == []


async def test_no_file_but_a_state_file_is_ever_overwritten(stage: Scene, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("the only copy", encoding="utf-8")
    status, answer = await do(stage.calls.send, "POST", "/save_state", {"path": str(precious)})
    assert (status, "no state file" in answer["error"]) == (400, True)
    assert precious.read_text(encoding="utf-8") == "the only copy"


# ---------------------------------------------------------------------------------------------- operator


async def test_pins_bans_and_thresholds_apply_to_the_answers(stage: Scene) -> None:
    squares = await pushed(stage)
    order = await do(stage.calls.select_next_square)
    areas = {s.square_id: s.area_id for s in stage.driver.register.squares([1])}
    last, banned = order[-1]["square_id"], order[0]["square_id"]
    await ask(stage.daemon, say.Accept(area_ids=(areas[last],)))
    await ask(stage.daemon, say.Reject(area_ids=(areas[banned],)))
    order = await do(stage.calls.select_next_square)
    assert order[0]["square_id"] == last
    assert banned not in {row["square_id"] for row in order}
    state = {row["square_id"]: row for row in await do(stage.calls.current_lm_state)}
    assert set(state) == {row["square_id"] for row in squares}
    assert (state[last]["score"], state[banned]["score"]) == (1.0, 0.0)
    await ask(stage.daemon, say.SetThreshold(name="square_score", value=1.0))
    state = {row["square_id"]: row for row in await do(stage.calls.current_lm_state)}
    assert {row["score"] for square_id, row in state.items() if square_id != last} <= {0.0, 1.0}
    assert len(await do(stage.calls.select_next_square)) == len(squares) - 1  # all of them are still in the order


async def test_while_paused_no_holes_come_and_the_order_stays(stage: Scene) -> None:
    squares = await pushed(stage)
    order = [row["square_id"] for row in await do(stage.calls.select_next_square)]
    await ask(stage.daemon, say.Pause(now=True))
    assert await holes_of(stage, squares[0]["square_id"]) == []
    holes = stage.driver.register.holes([1])
    await do(stage.calls.visit_holes, [h.hole_id for h in holes[:3]], [30.0] * 3, [200.0] * 3)
    assert [row["square_id"] for row in await do(stage.calls.select_next_square)] == [
        square_id for square_id in order if square_id != squares[0]["square_id"]
    ]
    await ask(stage.daemon, say.Resume())
    assert len(await holes_of(stage, squares[0]["square_id"])) == len(CENTRES)


async def test_with_hold_a_hole_image_waits_for_resume(tmp_path: Path) -> None:
    async with scene(tmp_path, answers={"paused": "hold"}) as stage:
        squares = await pushed(stage)
        await ask(stage.daemon, say.Pause(now=True))
        waiting = asyncio.create_task(holes_of(stage, squares[0]["square_id"]))
        done, _ = await asyncio.wait({waiting}, timeout=1.0)
        assert not done
        await ask(stage.daemon, say.Resume())
        assert len(await waiting) == len(CENTRES)


# ---------------------------------------------------------------------------------------------- trouble


async def test_without_a_daemon_tiles_are_kept_and_what_cannot_be_answered_says_so(tmp_path: Path) -> None:
    settings = driver_settings(tmp_path, "tcp://127.0.0.1:9", http={"answer_s": 3.0})
    async with driving(settings) as driver:
        calls = scene_calls(driver.url)
        assert await do(calls.is_there)
        assert (await do(calls.push_lm, TILE, 7, 11))["stored"] is True
        for verb, path, values in (
            ("GET", "/current_lm_state", None),
            ("POST", "/select_next_square", {"value": -1}),
            (
                "POST",
                "/push_and_evaluate_mm",
                {"image": HOLES.tolist(), "grid_id": 7, "tile_id": 11, "square_id": 1, "mm_img_id": 5},
            ),
        ):
            status, answer = await do(calls.send, verb, path, values)
            assert status == 503
            assert "daemon" in answer["error"]
    async with scene(tmp_path) as stage:  # the driver is started again, with a daemon
        assert len(await do(stage.calls.current_lm_state)) == 9


def scene_calls(url: str) -> Any:
    from simulators.leginon.calls import Calls

    return Calls(url)


@pytest.mark.parametrize(
    ("path", "values", "words"),
    [
        ("/push_lm", {"image": [[1.0, 2.0]], "grid_id": 1, "tile_id": 1}, "1 x 2 pixels"),
        ("/push_lm", {"image": [[1.0] * 20] * 19 + [[1.0]], "grid_id": 1, "tile_id": 1}, "rows differ"),
        ("/push_lm", {"image": [[1.0] * 20] * 20, "tile_id": 1}, "grid_id"),
        ("/push_lm", {"image": "none", "grid_id": 1, "tile_id": 1}, "image"),
        ("/push_lm", [1, 2], "cannot be used"),
        ("/select_next_square", {"value": "all"}, "integer"),
        ("/visit_holes", {"hole_ids": "5"}, "list"),
        ("/visit_square", {}, "square_id"),
        ("/set_noice_hole_intensity", {"value": None}, "mean counts"),
        ("/save_state", {}, "file name"),
        ("/rerun_mm_on_arbitrary_holes", {"ints": 3}, "list"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_bad_request_gets_one_clear_line(stage: Scene, path: str, values: Any, words: str) -> None:
    status, answer = await do(stage.calls.send, "POST", path, values)
    assert status == 400
    assert words in answer["error"]
    assert "\n" not in answer["error"]
    assert await do(stage.calls.is_there)


async def test_pixels_that_are_no_numbers_become_the_mean_of_the_rest(stage: Scene) -> None:
    image = TILE.copy()
    image[5, 5], image[6, 6] = float("nan"), float("inf")
    await do(stage.calls.push_lm, image, 7, 11)  # Python's json writes NaN and Infinity
    assert len(await do(stage.calls.current_lm_state)) == 9


async def test_a_tile_that_shows_nothing_gives_no_squares_and_no_warning(stage: Scene) -> None:
    await do(stage.calls.push_lm, TILE * 0 + 3, 7, 11)
    assert await do(stage.calls.current_lm_state) == []
    assert await do(stage.calls.select_next_square) == []
    assert stage.calls.warnings == []


async def test_an_image_of_a_square_that_nobody_knows_gets_its_holes(stage: Scene) -> None:
    await pushed(stage)
    first = await holes_of(stage, 5_000)
    assert len(first) == len(CENTRES)
    assert {row["square_id"] for row in first} == {5_000}
    ids = {"grid_id": 7, "tile_id": 11, "square_id": 5_000, "mm_img_id": 101}
    assert len(await do(stage.calls.push_and_evaluate_mm, HOLES.T.copy(), **ids)) == len(CENTRES)
    assert len(await do(stage.calls.current_lm_state)) == 9


async def test_an_image_with_one_hole_is_answered_with_one_whole_row(stage: Scene) -> None:
    squares = await pushed(stage)
    y, x = np.mgrid[:256, :256]
    image = np.random.default_rng(3).normal(100.0, 4.0, (256, 256))
    image += 60.0 * np.clip(40.5 - np.hypot(x - 128, y - 120), 0.0, 1.0)
    ids = {"grid_id": 7, "tile_id": 11, "square_id": squares[0]["square_id"], "mm_img_id": 77}
    found = await do(stage.calls.push_and_evaluate_mm, image.astype(np.float32), **ids)
    few = [line for line in stage.calls.warnings if "lattice needs two" in line]
    assert stage.calls.warnings == few  # Leginon gives that image no target; nothing else is wrong
    assert all(row["score"] is not None and row["radius"] > 0 for row in found)


async def test_a_second_driver_on_the_same_folder_is_refused(stage: Scene) -> None:
    with pytest.raises(BadFileError, match="another Leginon driver"):
        Register(stage.driver.settings.daemon.folder / "register.sqlite")


@pytest.mark.parametrize(("who", "status"), [("127.0.0.1", 200), ("::1", 200), ("10.0.0.5", 200), ("10.0.0.6", 403)])
async def test_only_who_is_allowed_may_ask(who: str, status: int) -> None:
    async def call(raw: bytes) -> str:
        return "told"

    networks = [ipaddress.ip_network(text) for text in (*LOOPBACK, "10.0.0.5/32")]
    app = Starlette(routes=[Route("/", _guarded(call, networks, 1 << 20))])
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "client": (who, 1)}
    await app(scope, receive, send)
    assert sent[0]["status"] == status


async def test_how_much_is_sent_at_once_is_bounded(tmp_path: Path) -> None:
    async with scene(tmp_path, http={"body_mb": 1}) as stage:
        status, answer = await do(
            stage.calls.send, "POST", "/push_lm", {"image": [[1.5] * 1000] * 400, "grid_id": 1, "tile_id": 1}
        )
        assert (status, "http.body_mb" in answer["error"]) == (413, True)
        assert (await do(stage.calls.send, "GET", "/nothing"))[0] == 404


# ---------------------------------------------------------------------------------------------- options and the rest


async def test_shrunk_coordinates_undo_leginons_binning(tmp_path: Path) -> None:
    image, centres = discs(48.0, 14.0, (160, 1472))
    async with scene(tmp_path, answers={"hole_coordinates": "shrunk", "hole_score": "learned"}) as stage:
        squares = await pushed(stage)
        ids = {"grid_id": 7, "tile_id": 11, "square_id": squares[0]["square_id"], "mm_img_id": 9}
        holes = await do(stage.calls.push_and_evaluate_mm, image, **ids)
    binned = image.reshape(80, 2, 736, 2).mean(axis=(1, 3))
    assert len(holes) >= 0.95 * len(centres)
    bright = [binned[round(row["center_y"]), round(row["center_x"])] for row in holes if row["center_y"] < 79]
    assert min(bright) > 140
    assert all("GP_probs" in row and row["score"] == row["GP_probs"] for row in holes)


async def test_the_calls_of_ptolemys_own_client_answer(stage: Scene) -> None:
    squares = await pushed(stage)
    holes = await holes_of(stage, squares[0]["square_id"])
    calls = stage.calls
    found = (await do(calls.send, "POST", "/process_stateless_lm", {"image": TILE.tolist()}))[1]
    assert len(found) == 9
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    crops = (await do(calls.send, "POST", "/process_stateless_mm_with_crops", {"image": HOLES.tolist()}))[1]
    assert len(crops) == len(CENTRES)
    assert all(len(one["crop"]) > 9 for one in crops)
    features = (await do(calls.send, "GET", "/current_lm_features"))[1]["features"]
    assert len(features) == 9
    assert len((await do(calls.send, "GET", "/current_mm_features"))[1]["features"]) == len(holes)
    chosen = [holes[0]["hole_id"], holes[3]["hole_id"]]
    text = (await do(calls.send, "POST", "/rerun_mm_on_arbitrary_holes", {"ints": chosen}))[1]
    assert [row["hole_id"] for row in reader.holes(text, [])] == chosen
    assert (await do(calls.send, "POST", "/push_mm", {
        "image": HOLES.tolist(), "grid_id": 7, "square_id": squares[1]["square_id"], "mm_img_id": 300
    }))[0] == 200  # fmt: skip
    anonymous = {"image": (TILE + 5).tolist(), "grid_id": "7", "tile_id": None}  # what that client may leave out
    for _ in range(2):
        assert (await do(calls.send, "POST", "/push_lm", anonymous))[1]["stored"]
    assert len(await do(calls.current_lm_state)) == 18
    nameless = {"image": (HOLES + 5).tolist(), "grid_id": 7.0, "square_id": squares[2]["square_id"], "mm_img_id": None}
    text = (await do(calls.send, "POST", "/push_and_evaluate_mm", nameless))[1]
    assert len(reader.holes(text, [])) == len(CENTRES)
    assert (await do(calls.send, "GET", "/initialize_new_session"))[1]["run"] == 2
    assert (await do(calls.send, "GET", "/clear_current_state"))[0] == 200


async def test_several_calls_of_one_kind_do_not_wait_for_each_other(stage: Scene) -> None:
    squares = await pushed(stage)
    ids = [row["square_id"] for row in squares[:3]]
    found = await asyncio.gather(*(holes_of(stage, square_id, 200 + n) for n, square_id in enumerate(ids)))
    assert [len(rows) for rows in found] == [len(CENTRES)] * 3
    all_ids = [row["hole_id"] for rows in found for row in rows]
    assert len(set(all_ids)) == len(all_ids)
