"""The parts of the Leginon driver by themselves: layout, tables, feedback, register, settings."""

import contextlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.messages import SquareSeen
from agent.settings import preset_folder
from drivers.leginon import body, feedback
from drivers.leginon.layout import LIMIT_UM, NoRoomError, image_place, spiral, tile_pitch_um, tile_place
from drivers.leginon.polygons import mean_inside, polygon_area
from drivers.leginon.register import Register
from drivers.leginon.register_rows import NewHole, NewSquare, Square
from drivers.leginon.settings import LeginonSettings, load
from drivers.leginon.table import area_limits, binning, four_corners, gp_probs, shrink, squares_csv
from simulators.leginon import reader
from simulators.leginon.atlas import Target, merged
from tests.drivers.leginon_scene import driver_settings

# ---------------------------------------------------------------------------------------------- layout


def test_the_spiral_fills_rings_without_a_gap_or_a_double() -> None:
    cells = [spiral(n) for n in range(49)]
    assert set(cells) == {(x, y) for x in range(-3, 4) for y in range(-3, 4)}
    assert len(set(cells)) == 49


@pytest.mark.parametrize("pixel_size", [None, 600.0, 6000.0, 60_000.0])
def test_tiles_never_lie_on_each_other_nor_beyond_what_the_wire_can_carry(pixel_size: float | None) -> None:
    pitch = tile_pitch_um(pixel_size, 1024)
    places = []
    with contextlib.suppress(NoRoomError):
        places.extend(tile_place(number, pitch, pixel_size, 1024) for number in itertools.count())
    with pytest.raises(NoRoomError, match="find room"):
        tile_place(len(places), pitch, pixel_size, 1024)
    assert len(places) >= 25
    half = places[0].um_per_pixel * 1024 / 2
    points = np.array([(p.x_um, p.y_um) for p in places])
    apart = np.abs(points[:, None] - points[None]).max(axis=2) + np.eye(len(points)) * 1e9
    assert apart.min() >= 2 * half
    assert np.abs(points).max() + half <= LIMIT_UM


def test_nine_hole_images_of_unknown_scale_lie_side_by_side_within_their_square() -> None:
    places = [image_place(n, (100.0, -50.0, 60.0), None, 1024) for n in range(9)]
    half = places[0].um_per_pixel * 1024 / 2
    assert all(abs(p.x_um - 100.0) + half <= 30.0 and abs(p.y_um + 50.0) + half <= 30.0 for p in places)
    gaps = [max(abs(p.x_um - q.x_um), abs(p.y_um - q.y_um)) for p in places for q in places if p is not q]
    assert min(gaps) >= 2 * half


# ---------------------------------------------------------------------------------------------- tables


def square(number: int, x: float, y: float, *, area: float = 900.0, tile_id: int = 1) -> Square:
    corners = ((x - 15, y - 15), (x + 15, y - 15), (x + 15, y + 15), (x - 15, y + 15))
    return Square(number, f"G1-S{number:03d}", 1, 1, tile_id, 256, 256, x, y, corners, 100.0, area, 0.5, False)


@given(st.lists(st.one_of(st.none(), st.floats(0, 500)), max_size=1200))
@examples(max_examples=60, deadline=None, derandomize=True)
def test_scores_keep_the_order_after_leginons_rounding_to_thousandths(expected: list[float | None]) -> None:
    seen = [
        SquareSeen(area_id=f"G1-S{n:03d}", score=0.5, state="found", expected_good=value)
        for n, value in enumerate(expected)
    ]
    probs = gp_probs(seen)
    assert all(0.0 <= p <= 1.0 for p in probs)
    coded = [int(1000 * p) for p in probs]
    if len(coded) <= 1000:
        assert all(a > b for a, b in itertools.pairwise(coded))
    else:
        assert all(a > b for a, b in itertools.pairwise(probs))


def test_an_area_that_would_make_leginon_merge_without_end_is_cut() -> None:
    huge = [square(j * 5 + i + 1, 20.0 + 50.0 * i, 20.0 + 50.0 * j, area=60.0**2) for i in range(4) for j in range(5)]
    assert area_limits(huge)[1] == pytest.approx((0.75 * 50.0) ** 2)
    warnings: list[str] = []
    rows = reader.squares(squares_csv(huge, {}), warnings)
    assert all(math.sqrt(row["area"]) < 0.8 * 50.0 for row in rows)

    def targets(areas: list[float]) -> list[Target]:
        return [
            Target(s.square_id, n % 3, 1, s.x, s.y, area, 100.0, 0.5)
            for n, (s, area) in enumerate(zip(huge, areas, strict=True))
        ]

    assert len(merged(targets([row["area"] for row in rows]), 3, warnings)) == len(huge)
    assert warnings == []
    assert len(merged(targets([s.area for s in huge]), 3, warnings)) < len(huge)  # what would have happened


def test_every_cell_of_a_square_is_filled_and_its_centre_lies_on_the_tile() -> None:
    odd = square(1, -3.0, 300.0)._replace(brightness=float("nan"), area=float("nan"), vertices=((1.0, 2.0), (3.0, 4.0)))
    text = squares_csv([odd], {})
    assert ",," not in text.split("\n")[1]
    warnings: list[str] = []
    (row,) = reader.squares(text, warnings)
    assert (row["center_x"], row["center_y"], row["visited"]) == (0.0, 255.0, False)
    assert warnings == []


def test_no_squares_are_a_header_and_an_empty_list() -> None:
    assert reader.squares(squares_csv([], {}), []) == []
    assert squares_csv([], {}, []).startswith(",square_id,")


def test_the_reader_that_judges_us_sees_each_trap() -> None:
    head = "square_id,tile_id,grid_id,center_x,center_y,prior_score,brightness,area\n"
    warnings: list[str] = []
    rows = reader.squares(head + "3.0,1,1,5,6,0.5,1,2\n4,,1,5,6,0.5,1,2\n", warnings)
    assert [row["square_id"] for row in rows] == [3, 3]  # the row before is repeated
    assert len(warnings) == 2
    reader.squares(head + "3,1,1,5,6,,1,2\n", warnings)
    assert "prior_score is empty" in warnings[-1]
    for bad in ({"error": "x"}, head + ",1,1,5,6,0.5,1,2\n", "a,b\n1,2\n"):
        with pytest.raises(reader.UnreadableError):
            reader.squares(bad, [])


@pytest.mark.parametrize(("side", "factor"), [(1440, 1), (1441, 2), (2880, 2), (2881, 4), (4096, 4), (20_000, 8)])
def test_binning_is_leginons(side: int, factor: int) -> None:
    assert binning(100, side) == factor


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_shrinking_is_where_the_mean_of_the_binned_pixels_lies(factor: int) -> None:
    ramp = np.arange(64.0)  # each pixel holds its own coordinate
    binned = ramp.reshape(-1, factor).mean(axis=1)
    for n, centre in enumerate(binned):
        assert shrink(float(centre), factor) == pytest.approx(n)


def test_four_corners_span_nearly_what_the_best_four_would() -> None:
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    x, y = (50 + 30 * np.clip(1.3 * wave(angles), -1, 1) for wave in (np.cos, np.sin))
    ring = list(zip(x.tolist(), y.tolist(), strict=True))
    corners = four_corners(ring, 50.0, 50.0)
    assert len(corners) == 4
    best = max(polygon_area(four) for four in itertools.combinations(ring, 4))
    assert polygon_area(corners) > 0.85 * best
    assert four_corners([(1.0, 2.0)], 0.0, 0.0) == [(1.0, 2.0)] * 4


def test_means_inside_polygons_agree_with_counting_pixels() -> None:
    image = np.random.default_rng(0).normal(50.0, 5.0, (60, 80))
    box = ((10.0, 20.0), (30.0, 20.0), (30.0, 40.0), (10.0, 40.0))
    assert mean_inside(image, box, (20.0, 30.0)) == pytest.approx(image[20:41, 10:31].mean())
    assert mean_inside(image, (), (-5.0, 500.0)) == pytest.approx(image[59, 0])
    outside = ((-30.0, -30.0), (-10.0, -30.0), (-10.0, -10.0))
    assert mean_inside(image, outside, (-20.0, -20.0)) == pytest.approx(image[0, 0])


# ---------------------------------------------------------------------------------------------- feedback and bodies


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (45.0, 45.0), (4.5e10, 45.0), (-3e9, -3.0), (-4.0, -4.0), (0.0, 0.0), (None, None), (float("nan"), None),
        ("37.5", 37.5), ("thick", None), (True, None), (1e30, None), (5e5, None),
    ],
)  # fmt: skip
def test_ice_is_in_nm_however_it_was_told(told: Any, meant: float | None) -> None:
    assert feedback.ice_nm(told) == (meant if meant is None else pytest.approx(meant))


@pytest.mark.parametrize(
    ("told", "meant"),
    [(4.2, 4.2), (50, 50.0), (None, None), (0.0, None), (-1.0, None), (float("inf"), None), ("", None), (1e9, None)],
)
def test_a_ctf_is_a_positive_number_or_none(told: Any, meant: float | None) -> None:
    assert feedback.ctf_angstrom(told) == meant


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=16, max_size=16), min_size=16, max_size=20))
@examples(max_examples=25, deadline=None, derandomize=True)
def test_pixels_come_out_of_json_as_they_went_in(rows: list[list[float]]) -> None:
    raw = json.dumps({"image": rows, "grid_id": 1, "tile_id": 2}).encode()
    told, image = body.tile(raw)
    assert (told.grid_id, told.tile_id) == (1, 2)
    assert np.array_equal(image, np.array(rows, np.float32))


# ---------------------------------------------------------------------------------------------- register


def filled(path: Path) -> Register:
    register = Register(path)
    tile = register.add_tile(
        session="s", run=register.run, grid_id=7, tile_id=11, frame_id="f", shape=(256, 256), pitch_um=525.0
    )
    corners = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    register.add_squares(
        tile, [NewSquare(f"G7-S00{n}", 1.0, 2.0, corners, 1.0, 1.0, 0.5, 0.0, 0.0, 9.0) for n in (1, 2)]
    )
    return register


def test_ids_are_never_given_twice_not_even_after_a_new_run_and_a_restart(tmp_path: Path) -> None:
    register = filled(tmp_path / "r.sqlite")
    first = [s.square_id for s in register.squares(register.current_runs())]
    register.new_run()
    register.close()
    register = Register(tmp_path / "r.sqlite")
    assert register.squares(register.current_runs()) == []
    tile = register.add_tile(
        session="s", run=register.run, grid_id=7, tile_id=11, frame_id="g", shape=(256, 256), pitch_um=525.0
    )
    assert tile.grid == "G7.2"  # the daemon must not take it for the old one
    register.add_squares(tile, [NewSquare("G7.2-S001", 1.0, 2.0, (), 1.0, 1.0, 0.5, 0.0, 0.0, 9.0)])
    assert [s.square_id for s in register.squares(register.current_runs())] == [max(first) + 1]
    assert [s.square_id for s in register.squares([1])] == first  # archived, not gone
    register.close()


def test_an_answer_that_comes_twice_counts_once(tmp_path: Path) -> None:
    register = filled(tmp_path / "r.sqlite")
    tile = register.tile(11, register.run)
    assert tile is not None
    before = register.squares([1])
    register.add_squares(tile, [NewSquare("G7-S001", 9.0, 9.0, (), 1.0, 1.0, 0.5, 0.0, 0.0, 9.0)])
    assert register.squares([1]) == before
    register.close()


def test_a_report_is_told_to_the_session_that_knows_the_hole_and_to_no_other(tmp_path: Path) -> None:
    register = filled(tmp_path / "r.sqlite")
    image = register.add_image(run=1, grid="G7", square_id=1, mm_img_id=5, frame_id="m", shape=(9, 9))
    register.add_holes(image, [NewHole("G7-S001-H001", 1.0, 2.0, 3.0, 0.5)])
    assert register.add_visits("s", [(1, 4.0, None), (77, 4.0, None)]) == [77]
    assert [(visit.area_id, visit.ctf) for visit in register.untold()] == [("G7-S001-H001", 4.0)]
    register.told(register.untold()[0])
    assert register.add_visits("another", [(1, 5.0, None)]) == []
    assert register.untold() == []
    assert [v["ctf"] for v in register.visits_of(["G7-S001-H001"])] == [4.0, 5.0]
    assert [s.visited for s in register.squares([1])] == [True, False]
    register.close()


# ---------------------------------------------------------------------------------------------- settings


def test_the_commented_config_is_the_default(tmp_path: Path) -> None:
    given = load(preset_folder() / "leginon.yaml").model_dump()
    default = driver_settings(tmp_path, "tcp://127.0.0.1:5870").model_dump()
    given["daemon"]["folder"] = default["daemon"]["folder"]
    given["http"] |= {"port": 0, "answer_s": 60.0}
    assert given == default


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http: {host: 0.0.0.0}", "no password"),
        ("http: {allow: [somewhere]}", "10.0.0.0/24"),
        ("http: {prt: 1}", "did you mean port?"),
        ("answers: {hole_coordinates: binned}", "shrunk"),
        ("pixel_size_angstrom: {low: -1}", "pixel_size_angstrom.low"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.yaml")
    assert words in str(caught.value)


def test_every_setting_of_the_driver_stands_in_its_page() -> None:
    page = (preset_folder().parent / "docs" / "leginon.md").read_text(encoding="utf-8")
    for section in ("daemon", "http", "answers"):
        for key in type(getattr(LeginonSettings(), section)).model_fields:
            told = f"`{section}.{key}`" in page or f"`{key}`" in page or f"`.{key}`" in page
            assert told or key in ("key", "server_key"), f"{section}.{key}"
