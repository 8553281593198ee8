"""Rules of the lattice fit, on points with a known lattice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.holes.lattice import fit_lattice, reduce_basis
from tests.models.drawing import HEXAGONAL, SQUARE, lattice_points


@settings(max_examples=25, deadline=None)
@given(
    pitch=st.floats(8.0, 90.0),
    angle=st.floats(0.0, 90.0),
    kind=st.sampled_from(["square", "hexagonal"]),
    seed=st.integers(0, 1000),
)
def test_a_lattice_with_gaps_strays_and_jitter_is_found(pitch, angle, kind, seed):
    rng = np.random.default_rng(seed)
    side = int(8 * pitch)
    points = lattice_points((side, side), pitch, angle, SQUARE if kind == "square" else HEXAGONAL)
    keep = rng.random(len(points)) > 0.15
    strays = rng.uniform(0, side, (4, 2))
    fit = fit_lattice(np.concatenate([points[keep] + rng.normal(0, 0.02 * pitch, (keep.sum(), 2)), strays]))
    assert fit is not None
    assert fit.symmetry() == kind
    assert fit.pitch == pytest.approx(pitch, rel=0.02)
    assert fit.member[: keep.sum()].mean() > 0.9


def test_reduced_vectors_span_the_same_lattice_and_are_the_shortest():
    a, b = reduce_basis(np.array([37.0, 20.0]), np.array([57.0, 30.0]))
    assert abs(a[0] * b[1] - a[1] * b[0]) == pytest.approx(abs(37 * 30 - 20 * 57))
    for i in range(-3, 4):
        for j in range(-3, 4):
            if (i, j) != (0, 0):
                assert np.hypot(*(i * a + j * b)) >= min(np.hypot(*a), np.hypot(*b)) - 1e-9


def test_three_points_of_no_regular_lattice_have_none():
    assert fit_lattice(np.array([[0.0, 0.0], [50.0, 3.0], [30.0, 41.0]])) is None


def test_points_on_a_line_have_no_lattice():
    assert fit_lattice(np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])) is None


def test_repeated_points_do_no_harm():
    points = np.zeros((5, 2))
    assert fit_lattice(points) is None


def test_a_bent_lattice_keeps_its_indices():
    points = lattice_points((600, 600), 40.0, 8.0)
    bent = points + np.stack([15 * np.sin(points[:, 1] / 150), 12 * np.sin(points[:, 0] / 170)], axis=1)
    fit = fit_lattice(bent)
    assert fit is not None
    assert fit.member.all()
    assert len(np.unique(fit.indices, axis=0)) == len(points)
