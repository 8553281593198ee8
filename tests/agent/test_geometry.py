"""Pixels to stage and back, against numpy's own solver."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from agent import geometry
from agent.messages import Frame, Stage
from tests.helpers import frame_of, image_of

IMAGE = image_of(shape=(16, 16))
coordinate = st.floats(-900, 900)
scale = st.floats(1e-4, 1.0)
angle = st.floats(0, 360)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Frames with any rotation, mirror, shear and stage position that a camera can have."""
    turn, size = math.radians(draw(angle)), draw(scale)
    shear, mirror = draw(st.floats(-0.3, 0.3)), draw(st.sampled_from([-1.0, 1.0]))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = size * rotation @ np.array([[1.0, shear], [0.0, mirror]])
    return frame_of(
        IMAGE,
        shape=(draw(st.integers(1, 8192)), draw(st.integers(1, 8192))),
        stage=Stage(x_um=draw(coordinate), y_um=draw(coordinate)),
        image_shift_um=(draw(st.floats(-15, 15)), draw(st.floats(-15, 15))),
        image_to_stage=tuple(float(v) for v in matrix.ravel()),
    )


@bounded(max_examples=200, deadline=None)
@given(frame=frames(), x=st.floats(-10, 9000), y=st.floats(-10, 9000))
def test_stage_to_pixel_takes_back_what_pixel_to_stage_did(frame: Frame, x: float, y: float) -> None:
    assert geometry.stage_to_pixel(frame, *geometry.pixel_to_stage(frame, x, y)) == pytest.approx((x, y), abs=1e-5)


@bounded(max_examples=200, deadline=None)
@given(frame=frames(), x=coordinate, y=coordinate)
def test_stage_to_pixel_solves_the_linear_system(frame: Frame, x: float, y: float) -> None:
    assert frame.image_to_stage is not None
    matrix = np.array(frame.image_to_stage).reshape(2, 2)
    centre = np.array([frame.stage.x_um + frame.image_shift_um[0], frame.stage.y_um + frame.image_shift_um[1]])
    middle = (np.array(frame.shape[::-1]) - 1) / 2
    expected = np.linalg.solve(matrix, np.array([x, y]) - centre) + middle
    found = geometry.stage_to_pixel(frame, x, y)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-4)
    assert geometry.micron_per_pixel(frame) == pytest.approx(math.sqrt(abs(np.linalg.det(matrix))))


def test_without_a_matrix_the_pixel_size_is_the_scale_and_y_runs_down_the_image() -> None:
    frame = frame_of(IMAGE, shape=(101, 201), pixel_size_angstrom=20_000.0, stage=Stage(x_um=5.0, y_um=7.0))
    assert geometry.pixel_to_stage(frame, 100, 50) == (5.0, 7.0)
    assert geometry.pixel_to_stage(frame, 110, 80) == pytest.approx((25.0, 67.0))
    assert geometry.micron_per_pixel(frame) == pytest.approx(2.0)


def test_the_image_shift_moves_the_centre_of_the_frame() -> None:
    frame = frame_of(IMAGE, image_shift_um=(3.0, -4.0), stage=Stage(x_um=1.0, y_um=1.0))
    assert geometry.centre_um(frame) == (4.0, -3.0)


def test_distances_are_euclidean() -> None:
    assert geometry.distance((0, 0), (3, 4)) == 5
