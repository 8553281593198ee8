"""Which squares a frame's finds may belong to."""

from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from agent.session.places import near_squares, nearest_square
from agent.session.state import Grid, Square

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
