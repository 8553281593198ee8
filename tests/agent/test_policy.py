"""Atlas, groups, ranks: against brute force and against what the words promise."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.policy import atlas, grouping, selection
from agent.policy import lattice as lattices
from agent.session.state import Grid, Hole, Square
from agent.settings import AtlasSettings, EnvelopeSettings

WIDE = EnvelopeSettings(stage_x_um=(-5_000.0, 5_000.0), stage_y_um=(-5_000.0, 5_000.0))


@bounded(max_examples=60, deadline=None)
@given(radius=st.floats(20, 1_200), field=st.floats(100, 900), overlap=st.floats(0, 0.5), limit=st.floats(50, 1_000))
def test_atlas_positions_stay_inside_disc_and_limits_and_none_comes_twice(
    radius: float, field: float, overlap: float, limit: float
) -> None:
    envelope = EnvelopeSettings(stage_x_um=(-limit, limit), stage_y_um=(-limit / 2, limit))
    found = atlas.positions(AtlasSettings(radius_um=radius, field_um=field, overlap=overlap), envelope)
    assert len(set(found)) == len(found)
    for x, y in found:
        assert math.hypot(x, y) <= radius + 1e-6
        assert -limit <= x <= limit
        assert -limit / 2 <= y <= limit
    steps = [math.dist(a, b) for a, b in itertools.pairwise(found)]
    assert all(step > 0 for step in steps)


@pytest.mark.parametrize("radius", [90.0, 350.0, 900.0])
@pytest.mark.parametrize("field", [200.0, 600.0])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.3])
def test_an_atlas_covers_the_grid_but_for_a_rim_beyond_the_outermost_frames(
    radius: float, field: float, overlap: float
) -> None:
    """Brute force: every point of a fine raster of the disc's inner part lies in some frame."""
    found = np.array(atlas.positions(AtlasSettings(radius_um=radius, field_um=field, overlap=overlap), WIDE))
    inner = max(radius - field / 2, 0.0)
    axis = np.linspace(-inner, inner, 41)
    points = np.array([(x, y) for x in axis for y in axis if math.hypot(x, y) <= inner])
    gaps = np.abs(points[:, None, :] - found[None, :, :]).max(axis=2).min(axis=1)
    assert (gaps <= field / 2 + 1e-6).all()


def hole(n: int, x: float, y: float, **fields: object) -> Hole:
    values = {"area_id": f"G1-S001-H{n:03d}", "x_um": x, "y_um": y, "radius_um": 0.6, "score": 0.5}
    return Hole(**(values | fields))  # type: ignore[arg-type]


def lattice(rows: int, columns: int, pitch: float = 3.0) -> list[Hole]:
    return [hole(r * columns + c + 1, c * pitch, r * pitch) for r in range(rows) for c in range(columns)]


points = st.lists(st.tuples(st.integers(-12, 12), st.integers(-12, 12)), max_size=40, unique=True)


@bounded(max_examples=150, deadline=None)
@given(
    places=points,
    most=st.integers(0, 30),
    shift=st.sampled_from([0.0, 3.0, 8.0, 15.0]),
    accepted=st.sets(st.integers(0, 39)),
    seed=st.integers(0, 99),
)
def test_groups_keep_their_promises(
    places: list[tuple[int, int]], most: int, shift: float, accepted: set[int], seed: int
) -> None:
    rng = random.Random(seed)
    holes = [
        hole(n, 2.0 * x, 2.0 * y, score=rng.random(), word="accepted" if n in accepted else "")
        for n, (x, y) in enumerate(places)
    ]
    by_id = {one.area_id: one for one in holes}
    groups = grouping.group_holes(holes, most=most, max_shift_um=shift, obstacles=holes).groups
    members = [i for group in groups for i in group.hole_ids]
    plain = [i for i in members if by_id[i].word != "accepted"]
    assert len(members) == len(set(members)), "a hole is in one group"
    assert {i for i, one in by_id.items() if one.word == "accepted"} <= set(members), "accepted holes are always in"
    assert len(plain) == min(most, sum(one.word != "accepted" for one in holes))
    assert [group.number for group in groups] == list(range(len(groups)))
    for group in groups:
        assert group.hole_ids
        distances = [math.dist((group.x_um, group.y_um), (by_id[i].x_um, by_id[i].y_um)) for i in group.hole_ids]
        assert max(distances) <= shift + 1e-9
        assert distances == sorted(distances)
    again = grouping.group_holes(holes, most=most, max_shift_um=shift, obstacles=holes).groups
    assert again == groups, "the same holes give the same groups"


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (3, 3), (9, 9), (2, 15)])
@pytest.mark.parametrize("pitch", [1.8, 3.0, 5.0])
@pytest.mark.parametrize("shift", [0.0, 8.0])
def test_the_focus_spot_burns_no_hole(rows: int, columns: int, pitch: float, shift: float) -> None:
    holes = lattice(rows, columns, pitch)
    for group in grouping.group_holes(holes, most=100, max_shift_um=shift, obstacles=holes).groups:
        spot = (group.focus_x_um, group.focus_y_um)
        assert min(math.dist(spot, (one.x_um, one.y_um)) for one in holes) > 0.6
        assert math.dist(spot, (group.x_um, group.y_um)) <= max(pitch, shift, 2.0)


def fewest_groups(holes: list[Hole], shift: float) -> int:
    """Brute force: the smallest number of holes from which all others can be reached."""
    places = [(one.x_um, one.y_um) for one in holes]
    for count in range(1, len(holes) + 1):
        for centres in itertools.combinations(places, count):
            if all(any(math.dist(p, c) <= shift for c in centres) for p in places):
                return count
    return len(holes)


@bounded(max_examples=60, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8, unique=True),
    shift=st.sampled_from([2.0, 4.0, 6.0]),
)
def test_greedy_groups_are_nearly_as_few_as_can_be(places: list[tuple[int, int]], shift: float) -> None:
    holes = [hole(n, 2.0 * x, 2.0 * y) for n, (x, y) in enumerate(places)]
    groups = grouping.group_holes(holes, most=len(holes), max_shift_um=shift, obstacles=holes).groups
    best = fewest_groups(holes, shift)
    assert best <= len(groups) <= 2 * best + 1


def test_without_image_shift_every_hole_is_a_group_of_its_own() -> None:
    holes = lattice(3, 3)
    groups = grouping.group_holes(holes, most=9, max_shift_um=0.0, obstacles=holes).groups
    assert sorted(len(group.hole_ids) for group in groups) == [1] * 9


# ---------------------------------------------------------------------------------------------- patterns


def foil(symmetry: str, rows: int, pitch: float, angle_deg: float, error_um: float = 0.05, seed: int = 1) -> list[Hole]:
    """Holes of a turned, slightly uneven foil in a square of ``rows`` pitches a side."""
    rng = np.random.default_rng(seed)
    turn = math.radians(angle_deg)
    second = turn + math.pi / (2 if symmetry == "square" else 3)
    axes = pitch * np.array([(math.cos(turn), math.sin(turn)), (math.cos(second), math.sin(second))])
    index = np.array([(i, j) for i in range(-2 * rows, 2 * rows) for j in range(-2 * rows, 2 * rows)])
    places = index @ axes + rng.normal(0.0, error_um, (len(index), 2)) + (31.0, -17.0)
    inside = np.abs(places - (31.0, -17.0)).max(axis=1) < rows * pitch / 2
    return [hole(n, float(x), float(y), score=0.6) for n, (x, y) in enumerate(places[inside])]


@pytest.mark.parametrize("symmetry", ["square", "hexagonal"])
@pytest.mark.parametrize("angle", [0.0, 13.0, 44.0, 71.5])
def test_the_lattice_of_a_turned_foil_is_found_to_every_hole(symmetry: lattices.Symmetry, angle: float) -> None:
    holes = [one for n, one in enumerate(foil(symmetry, 16, 2.5, angle)) if n % 3]  # with gaps
    places = np.array([(one.x_um, one.y_um) for one in holes])
    found = lattices.fit(places, symmetry)
    assert found is not None
    assert found.pitch_um == pytest.approx(2.5, rel=0.003)
    assert np.hypot(*(found.place_um(found.indices) - places).T).max() < 0.3
    assert len({tuple(index) for index in found.indices.tolist()}) == len(holes), "no two holes have one place"


def test_holes_at_random_have_no_lattice_and_are_grouped_freely() -> None:
    rng = np.random.default_rng(4)
    holes = [hole(n, *rng.uniform(0, 60, 2).tolist()) for n in range(120)]
    plan = grouping.group_holes(
        holes, most=120, max_shift_um=8.0, obstacles=holes, pattern=grouping.Pattern("square", 3), symmetry="square"
    )
    assert "no square lattice" in plan.note
    assert sum(len(group.hole_ids) for group in plan.groups) == 120


@pytest.mark.parametrize("angle", [0.0, 20.0])
@pytest.mark.parametrize(
    ("kind", "size", "full"), [("square", 3, 9), ("square", 4, 16), ("hexagonal", 3, 7), ("hexagonal", 5, 19)]
)
def test_a_pattern_is_whole_inside_the_square_and_shot_from_its_middle_hole_outwards(
    kind: lattices.Symmetry, size: int, full: int, angle: float
) -> None:
    holes = foil(kind, 14, 2.4, angle, error_um=0.02)
    by_id = {one.area_id: one for one in holes}
    shift = 8.0
    plan = grouping.group_holes(
        holes, most=len(holes), max_shift_um=shift, obstacles=holes, pattern=grouping.Pattern(kind, size), symmetry=kind
    )
    members = [i for group in plan.groups for i in group.hole_ids]
    assert sorted(members) == sorted(by_id), "every hole is in one group"
    sizes = [len(group.hole_ids) for group in plan.groups]
    assert max(sizes) == full
    assert sizes.count(full) >= 0.45 * len(holes) / full
    for group in plan.groups:
        away = [math.dist((group.x_um, group.y_um), (by_id[i].x_um, by_id[i].y_um)) for i in group.hole_ids]
        assert max(away) <= shift
        if len(group.hole_ids) == full:
            assert away[0] < 0.001, "the stage stands on the first hole, the middle one"
            rings = [math.ceil(d / 2.4 - 0.1) for d in away] if kind == "hexagonal" else [0]
            assert rings == sorted(rings)


def test_a_pattern_is_no_larger_than_image_shift_reaches_and_says_so() -> None:
    holes = foil("square", 12, 4.0, 5.0)
    wanted = grouping.Pattern("square", 5)
    plan = grouping.group_holes(
        holes, most=len(holes), max_shift_um=6.0, obstacles=holes, pattern=wanted, symmetry="square"
    )
    assert "3 holes across" in plan.note
    assert "5 would need 11.3" in plan.note
    assert max(len(group.hole_ids) for group in plan.groups) == 9


def test_patterns_are_laid_where_the_wanted_holes_are() -> None:
    """A block of 3 x 3 good holes anywhere on the lattice is one group, not parts of four."""
    everything = lattice(10, 10)
    for row, column in itertools.product(range(3), range(3)):
        wanted = [
            one
            for n, one in enumerate(everything)
            if row <= n // 10 - 3 < row + 3 and column <= n % 10 - 3 < column + 3
        ]
        plan = grouping.group_holes(
            wanted,
            most=9,
            max_shift_um=8.0,
            obstacles=everything,
            pattern=grouping.Pattern("square", 3),
            symmetry="square",
        )
        assert [len(group.hole_ids) for group in plan.groups] == [9]


@pytest.mark.parametrize(("pitch", "radius", "beam"), [(2.5, 0.6, 1.2), (4.0, 1.0, 2.4), (1.9, 0.6, 1.0)])
@pytest.mark.parametrize("kind", ["free", "square"])
def test_the_beam_at_a_focus_spot_reaches_no_hole(pitch: float, radius: float, beam: float, kind: str) -> None:
    holes = [replace(one, radius_um=radius) for one in lattice(12, 12, pitch)]
    plan = grouping.group_holes(
        holes, most=144, max_shift_um=8.0, obstacles=holes, pattern=grouping.Pattern(kind, 3), symmetry="square",  # type: ignore[arg-type]
        beam_um=beam,
    )  # fmt: skip
    for group in plan.groups:
        spot = (group.focus_x_um, group.focus_y_um)
        gap = min(math.dist(spot, (one.x_um, one.y_um)) - radius - beam / 2 for one in holes)
        assert gap >= 0
        assert grouping.clearance_um(group, holes, beam) == pytest.approx(gap)


def test_a_beam_too_wide_for_the_foil_is_focused_beside_the_holes() -> None:
    holes = lattice(5, 5, 2.0)
    plan = grouping.group_holes(holes, most=25, max_shift_um=8.0, obstacles=holes, beam_um=2.2)
    assert all(grouping.clearance_um(group, holes, 2.2) >= 0 for group in plan.groups)
    assert all(math.dist((g.x_um, g.y_um), (g.focus_x_um, g.focus_y_um)) <= 8.0 for g in plan.groups)


# ---------------------------------------------------------------------------------------------- selection


def square(n: int, **fields: object) -> Square:
    values = {"area_id": f"G1-S{n:03d}", "x_um": 10.0 * n, "y_um": 0.0, "size_um": 50.0, "score": 0.5}
    return Square(**(values | fields))  # type: ignore[arg-type]


def ranked(squares: list[Square], **fields: object) -> list[str]:
    grid = Grid(grid_id="G1", squares={one.area_id: one for one in squares})
    values = {"min_score": 0.3, "per_grid": 3, "autonomy": "unattended", "envelope": EnvelopeSettings()}
    found = selection.rank_squares(grid, **(values | fields))  # type: ignore[arg-type]
    return [one.area_id[-1] for one in found]


def test_squares_are_ranked_by_word_then_priority_then_score_then_id() -> None:
    squares = [square(1, score=0.9), square(2, score=0.9), square(3, priority=1), square(4, word="accepted", score=0)]
    assert ranked(squares, per_grid=9) == ["4", "3", "1", "2"]


@pytest.mark.parametrize(
    "fields",
    [
        {"score": 0.2},
        {"touches_edge": True},
        {"word": "rejected"},
        {"state": "rejected"},
        {"state": "skipped"},
        {"state": "done"},
        {"state": "busy"},
        {"x_um": 1_500.0},
    ],
)
def test_squares_that_are_not_wanted_are_left_out(fields: dict[str, object]) -> None:
    assert ranked([square(1, **fields)], per_grid=9) == []


def test_visited_squares_count_and_accepted_ones_do_not() -> None:
    squares = [square(1, state="done"), square(2, state="mapped"), *(square(n) for n in range(3, 7))]
    assert len(ranked(squares, per_grid=3)) == 1
    squares.append(square(7, word="accepted"))
    assert ranked(squares, per_grid=3)[0] == "7"
    assert len(ranked(squares, per_grid=3)) == 2


def test_holes_that_were_exposed_or_rejected_or_are_out_of_reach_are_no_candidates() -> None:
    holes = [
        hole(1, 0, 0),
        hole(2, 1, 0, dose_e_per_a2=40.0),
        hole(3, 2, 0, frame_id="f"),
        hole(4, 3, 0, word="rejected"),
        hole(5, 4, 0, score=0.1),
        hole(6, 5, 0, score=0.1, word="accepted"),
        hole(7, 1_000.5, 0),
        hole(8, 6, 0, state="done"),
    ]
    one = square(1, holes={h.area_id: h for h in holes})
    found = selection.candidates(one, min_score=0.3, envelope=EnvelopeSettings())
    assert [h.area_id[-1] for h in found] == ["6", "1"]


@bounded(max_examples=100, deadline=None)
@given(low=st.floats(-5, 5), span=st.floats(0, 5), step=st.floats(0.05, 2))
def test_defocus_steps_run_from_the_least_to_no_more_than_the_most(low: float, span: float, step: float) -> None:
    steps = selection.defocus_steps(low, low + span, step)
    assert steps[0] == pytest.approx(low, abs=1e-4)
    assert steps[-1] <= low + span + 1e-3
    assert low + span - steps[-1] < step + 1e-3
    assert steps == sorted(steps)
