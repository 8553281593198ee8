"""Simulated frames with vesicles: the same for a seed, true where they say so, and harder where they say so."""

from dataclasses import replace

import numpy as np
import pytest

from simulators.specimen.vesicles import DIFFICULTIES, KINDS, Kind, Look, render
from simulators.specimen.vesicles.bodies import Ball, Wall, profile

CLEAR: dict[Kind, Look] = {
    kind: replace(DIFFICULTIES["easy"][kind], noise=0.001, clutter=0.0, touching=0.0, per_um2=60, large=0.0)
    for kind in KINDS
}
PIXEL: dict[Kind, float] = {"cryo": 1.2, "section": 1.3, "fib": 3.0}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_frame_and_another_one_another(kind: Kind) -> None:
    look = DIFFICULTIES["medium"][kind]
    a, b, c = (render(look, seed, (160, 200), PIXEL[kind]) for seed in (4, 4, 5))
    assert a.image.shape == (160, 200)
    assert np.array_equal(a.image, b.image)
    assert a.vesicles == b.vesicles
    assert not np.array_equal(a.image, c.image)


@pytest.mark.parametrize("kind", KINDS)
def test_vesicles_are_darker_than_what_lies_around_them_where_and_as_large_as_the_truth_says(kind: Kind) -> None:
    """Mean grey within 90 % of the radius against a ring from 115 to 150 %; half a diameter aside it is lost."""
    nm = PIXEL[kind]
    contrast, aside = [], []
    for seed in range(4):
        made = render(CLEAR[kind], seed, (420, 420), nm)
        y, x = np.mgrid[:420, :420]
        grey = made.image.astype(float)
        for v in made.vesicles:
            r = v.diameter_nm / 2 / nm
            if not v.visible or min(v.x, v.y) < 3 * r or max(v.x, v.y) > 420 - 3 * r:
                continue
            for found, dx in ((contrast, 0.0), (aside, 2 * r)):
                d = np.hypot(x - v.x - dx, y - v.y)
                found.append(grey[(d > 1.15 * r) & (d < 1.5 * r)].mean() - grey[d < 0.9 * r].mean())
    assert len(contrast) > 8
    assert np.mean(np.array(contrast) > 0) > 0.9
    assert np.median(contrast) > 3 * abs(np.median(aside))


def test_no_vesicles_means_none_that_count() -> None:
    for kind in KINDS:
        made = render(replace(DIFFICULTIES["hard"][kind], per_um2=0.0), 3, (200, 200), PIXEL[kind])
        assert not [v for v in made.vesicles if v.visible]


def test_a_vesicle_half_outside_the_slab_shows_as_a_cap_and_its_outline_as_pythagoras_says() -> None:
    ball = Ball(radius_nm=20.0, depth_nm=22.0)
    assert ball.shown_nm(20.0) == pytest.approx(16.0)  # 12 nm beyond: sqrt(20² - 12²)
    r, density = profile(ball, Wall(), 20.0)
    assert float(density[r > 17.5].max()) < 0.05 * float(density.max())
    assert Ball(radius_nm=20.0).shown_nm(1e4) == 20.0


def test_the_density_of_a_vesicle_through_a_thick_slab_is_that_of_a_shell() -> None:
    """The summed lumen alone is the chord of a sphere (the inner half of the membrane is where it ends)."""
    wall = Wall()
    r, density = profile(Ball(radius_nm=25.0, membrane=0.0, lumen=1.0), wall, 1e4)
    inner = 25.0 - wall.thickness_nm / 2
    chord = 2 * np.sqrt(np.maximum(inner**2 - r**2, 0))
    near = r < 0.8 * inner
    assert np.allclose(density[near], chord[near], rtol=0.03)
