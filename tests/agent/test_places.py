"""Which squares a frame's finds may belong to."""

import math

from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from agent.messages import Stage
from agent.session.places import merge_holes, near_squares, nearest_square
from agent.session.state import Grid, Square, square_id
from models.detections import HoleDetection, HoleFinding
from tests.helpers import frame_of, image_of

metres = st.floats(-500, 500, allow_nan=False)
points = st.tuples(metres, metres)


@bounded(max_examples=60, deadline=None, derandomize=True)
@given(centres=st.lists(points, min_size=1, max_size=25), spots=st.lists(points, min_size=1, max_size=8))
def test_squares_left_out_as_too_far_are_the_nearest_of_no_point(
    centres: list[tuple[float, float]], spots: list[tuple[float, float]]
) -> None:
    squares = {
        f"G1-S{n:03d}": Square(area_id=f"G1-S{n:03d}", x_um=x, y_um=y, size_um=50.0, score=0.5)
        for n, (x, y) in enumerate(centres)
    }
    grid = Grid(grid_id="G1", squares=squares)
    fewer = near_squares(grid, spots)
    assert all(nearest_square(fewer, spot) == nearest_square(grid, spot) for spot in spots)


def test_far_squares_are_left_out() -> None:
    squares = {
        f"G1-S{n:03d}": Square(area_id=f"G1-S{n:03d}", x_um=100.0 * n, y_um=0.0, size_um=50.0, score=0.5)
        for n in range(20)
    }
    assert len(near_squares(Grid(grid_id="G1", squares=squares), [(490.0, 0.0), (510.0, 0.0)]).squares) == 1


@bounded(max_examples=60, deadline=None, derandomize=True)
@given(
    centres=st.lists(points, min_size=1, max_size=12, unique=True),
    cut=st.integers(0, 4095),
    found=st.lists(points, min_size=1, max_size=30),
)
def test_a_hole_is_left_to_the_whole_square_that_is_nearest(
    centres: list[tuple[float, float]], cut: int, found: list[tuple[float, float]]
) -> None:
    squares = {
        square_id("G1", n): Square(
            area_id=square_id("G1", n), x_um=x, y_um=y, size_um=50.0, score=0.5, touches_edge=bool(cut >> n & 1)
        )
        for n, (x, y) in enumerate(centres)
    }
    own = squares[square_id("G1", 0)]
    frame = frame_of(image_of(shape=(1, 1)), stage=Stage(), image_to_stage=(1.0, 0.0, 0.0, 1.0), level="medium")
    holes = tuple(HoleDetection(x=x, y=y, radius_px=0.5, score=0.5) for x, y in found)
    kept, _ = merge_holes(Grid(grid_id="G1", squares=squares), own, frame, HoleFinding(holes=holes))
    nearest = [min(squares.values(), key=lambda s: (math.hypot(s.x_um - x, s.y_um - y), s.area_id)) for x, y in found]
    mine = [spot for spot, s in zip(found, nearest, strict=True) if s is own or s.touches_edge]
    assert [(hole.x_um, hole.y_um) for hole in kept] == [(round(x, 4), round(y, 4)) for x, y in mine]
