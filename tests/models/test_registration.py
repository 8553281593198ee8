"""A grid that comes back is known again by one low-mag frame: turn and shift, and no other grid is taken for it."""

import math

import pytest

from agent.messages import Stage
from agent.session.react import LEAST_CORRELATION, placement_of
from agent.session.state import Anchor
from models import registration
from simulators.specimen import Specimen, SpecimenSettings, View
from tests.helpers import frame_of, image_of

VIEW = View(0.0, 0.0, 12000.0, (448, 448), dose_e_per_a2=6e-6, rotation_deg=3.0, frame_seed=1)


def specimen(seed: int, ice: str = "mixed") -> Specimen:
    return Specimen(SpecimenSettings(seed=seed, grid_radius_um=450.0, ice=ice))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("turn_deg", "x_um", "y_um", "ice"), [(0.0, 20.0, -15.0, "good"), (-4.0, -50.0, 40.0, "mixed")]
)
def test_how_a_grid_lies_that_came_back_is_found_to_two_micrometres_all_over_it(
    turn_deg: float, x_um: float, y_um: float, ice: str
) -> None:
    grid = specimen(8, ice)
    turn = math.radians(turn_deg)
    cos, sin = math.cos(turn), math.sin(turn)
    # the camera stays; the grid is turned, then shifted: the camera sees what the way back leads to
    seen = View(
        -cos * x_um - sin * y_um, sin * x_um - cos * y_um, 12000.0, (448, 448), dose_e_per_a2=6e-6,
        rotation_deg=3.0 - turn_deg, frame_seed=2,
    )  # fmt: skip
    sighting = registration.sight(grid.render(VIEW), grid.render(seen))
    assert sighting.correlation > 0.85
    matrix = grid.image_to_stage(VIEW)
    anchor = Anchor(frame_id="a", x_um=0.0, y_um=0.0, image_to_stage=matrix)
    frame = frame_of(image_of(shape=(448, 448)), stage=Stage(), image_to_stage=matrix)
    lies = placement_of(anchor, frame, sighting)
    for x, y in ((0.0, 0.0), (400.0, 0.0), (-280.0, 280.0), (0.0, -400.0)):
        now = lies.stage_um(x, y)
        assert math.dist(now, (cos * x - sin * y + x_um, sin * x + cos * y + y_um)) < 2.0


@pytest.mark.parametrize("other", [9, 21])
def test_another_grid_is_not_taken_for_it(other: int) -> None:
    sighting = registration.sight(specimen(8).render(VIEW), specimen(other).render(VIEW))
    assert sighting.correlation < LEAST_CORRELATION


def test_frames_of_different_shapes_are_not_compared() -> None:
    sighting = registration.sight(image_of(shape=(64, 64)), image_of(shape=(64, 80)))
    assert sighting.correlation == 0.0
    assert "(64, 80)" in sighting.note
