"""Simulated immunogold: the same for a seed, true where it says so, and harder where it says so."""

import numpy as np
import pytest

from simulators.specimen.immunogold import DIFFICULTIES, draw_look, render


def test_a_seed_gives_the_same_picture_and_another_seed_another():
    look = DIFFICULTIES["medium"]
    one, two, other = (render(look, seed, (200, 220)) for seed in (1, 1, 2))
    assert np.array_equal(one.image, two.image)
    assert one.beads == two.beads
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("name", list(DIFFICULTIES))
def test_visible_particles_are_darker_than_what_is_around_them(name):
    made = render(DIFFICULTIES[name], 3, (700, 700))
    y, x = np.mgrid[0:700, 0:700]
    seen = [b for b in made.beads if b.visible]
    assert len(seen) > 0.8 * len(made.beads) > 10
    darker = []
    for b in seen:
        d = np.hypot(x - b.x, y - b.y) * made.pixel_nm / b.diameter_nm * 2
        if (near := (d > 1.3) & (d < 1.8)).any():
            darker.append(made.image[d < 0.7].mean() < np.median(made.image[near]) - 8)
    assert np.mean(darker) > 0.95


def test_both_sizes_are_there_and_about_as_large_as_they_are_called():
    made = render(DIFFICULTIES["easy"], 5, (1000, 1000))
    for size in (6.0, 12.0):
        diameters = [b.diameter_nm for b in made.beads if b.nominal_nm == size]
        assert len(diameters) > 15
        assert np.mean(diameters) == pytest.approx(size, rel=0.05)


def test_particles_do_not_lie_in_one_another():
    made = render(DIFFICULTIES["hard"], 2, (900, 900))
    at = np.array([(b.x, b.y) for b in made.beads])
    r = np.array([b.diameter_nm for b in made.beads]) / 2 / made.pixel_nm
    gap = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) - 0.9 * (r[:, None] + r[None])
    np.fill_diagonal(gap, 1)
    assert gap.min() > 0


def test_random_looks_draw_at_every_magnification():
    rng = np.random.default_rng(0)
    for k, pixel_nm in enumerate((0.3, 0.7, 1.5, 3.0)):
        made = render(draw_look(rng, pixel_nm), k, (128, 150), pixel_nm)
        assert made.image.shape == (128, 150)
        assert made.image.std() > 1
