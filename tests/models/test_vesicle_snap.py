"""A click near a vesicle becomes its centre and radius."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.vesicles.network import BadVolumeError
from models.vesicles.snap import snap
from simulators.specimen.tomogram import TomogramSettings, simulate


def rings(
    pixel_nm: float, discs_nm: list[tuple[float, float, float]], side_nm: float = 200.0, noise: float = 0.3
) -> NDArray[np.float32]:
    """Dark rings (x, y, outer radius) with half their depth at the outer radius, noise per 2 nm pixel."""
    side = round(side_nm / pixel_nm)
    y, x = (np.mgrid[:side, :side] + 0.5) * pixel_nm
    out = np.zeros((side, side), np.float32)
    for cx, cy, radius in discs_nm:
        d = np.hypot(x - cx, y - cy)
        out -= np.exp(-(((d - radius + 3.5) / 4.2) ** 2)).astype(np.float32)
    rng = np.random.default_rng(5)
    return out + np.float32(noise * 2.0 / pixel_nm) * rng.standard_normal(out.shape, dtype=np.float32)


@pytest.mark.parametrize("pixel_nm", [0.4, 1.3, 3.0])
def test_a_click_in_an_image_finds_centre_and_radius_whatever_the_pixel_size_though_a_neighbour_touches(
    pixel_nm: float,
) -> None:
    """Neighbours on both sides are rings of the same kind."""
    image = rings(pixel_nm, [(90, 100, 22), (132, 104, 20), (50, 80, 21)])
    click = ((90 + 7) / pixel_nm - 0.5, (100 - 6) / pixel_nm - 0.5)
    centre, radius = snap(image, click, pixel_nm)
    x, y = ((c + 0.5) * pixel_nm for c in centre)
    assert np.hypot(x - 90, y - 100) < 1.5
    assert radius * pixel_nm == pytest.approx(22, abs=1.5)


def test_bright_membranes_are_snapped_to_when_told_so() -> None:
    """The same picture turned round gives the same vesicle."""
    image = rings(1.3, [(90, 100, 22)])
    click = (92 / 1.3, 96 / 1.3)
    assert snap(-image, click, 1.3, dark=False) == snap(image, click, 1.3)


def test_clicks_in_a_tomogram_come_nearer_to_the_true_centres_and_measure_the_radius() -> None:
    """Vesicles of a simulated tomogram, clicked 8 nm beside their centre; half of them end up within 1.5 nm."""
    made = simulate(TomogramSettings(seed=3, shape=(56, 112, 112), vesicles=30, snr=0.3))
    rng = np.random.default_rng(0)
    off, ratio = [], []
    for centre, radius in zip(made.centres, made.radii, strict=True):
        if (centre < radius + 2).any() or (centre > np.array(made.volume.shape) - radius - 3).any():
            continue
        aside = rng.normal(size=3)
        click = centre + aside * 8 / 2.2 / np.linalg.norm(aside)
        found, r = snap(made.volume, tuple(click[::-1]), 2.2)
        off.append(np.linalg.norm(np.array(found[::-1]) - centre) * 2.2)
        ratio.append(r / radius)
    assert len(off) >= 8
    assert np.median(off) < 1.8
    assert abs(np.median(ratio) - 1) < 0.06


@pytest.mark.parametrize(
    ("array", "click", "pixel_nm", "says"),
    [
        (np.zeros((50, 50)), (25, 25), 2.0, "one grey value"),
        (np.full((50, 50), np.nan), (25, 25), 2.0, "one grey value"),
        (np.eye(50), (25, 60), 2.0, "outside"),
        (np.eye(50), (25, 25, 3), 2.0, "(x, y)"),
        (np.eye(50), (25, 25), 40.0, "pixel size 40 nm"),
    ],
)
def test_a_click_that_means_nothing_says_why(
    array: NDArray[np.float64], click: tuple[float, ...], pixel_nm: float, says: str
) -> None:
    """One line for the person."""
    with pytest.raises(BadVolumeError, match=says.replace("(", r"\(").replace(")", r"\)")):
        snap(array, click, pixel_nm)
