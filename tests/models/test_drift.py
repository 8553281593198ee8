"""Rules of the drift of movies: the way that frames were given is the way that is found."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from models.base import BadImageError
from models.quality.drift import drift


def movie(path_px: NDArray, *, dose: float = 1.0, shape: tuple[int, int] = (288, 352), seed: int = 1) -> NDArray:
    """Frames of a smooth random specimen at the places ``path_px`` (x, y), each with its own shot noise."""
    rng = np.random.default_rng(seed)
    large = ndimage.gaussian_filter(rng.normal(size=(shape[0] + 80, shape[1] + 80)), 2.0)
    large = 1 + 0.12 * large / large.std()
    frames = []
    for x, y in path_px:
        moved = ndimage.shift(large, (y, x), order=3)[40:-40, 40:-40]
        frames.append(rng.poisson(np.maximum(moved, 0.05) * dose * 4).astype(np.uint16))
    return np.stack(frames)


def test_a_known_path_is_found_to_a_quarter_of_a_pixel() -> None:
    t = np.linspace(0, 1, 8)
    path = np.stack([6 * t**2, -9 * t + 4 * t**2], axis=1)
    found = drift(movie(path))
    assert np.abs(found.path_angstrom - (path - path[0])).max() < 0.25
    steps = np.hypot(*np.diff(path, axis=0).T)
    assert found.total_angstrom == pytest.approx(steps.sum(), rel=0.05)
    assert found.fastest_angstrom == pytest.approx(steps.max(), rel=0.2)
    assert found.straight_angstrom == pytest.approx(np.hypot(*(path[-1] - path[0])), rel=0.03)


def test_lengths_are_in_angstrom_where_the_pixel_size_is_known() -> None:
    path = np.stack([np.arange(6) * 1.5, np.zeros(6)], axis=1)
    found = drift(movie(path), pixel_size_angstrom=3.0)
    assert found.per_frame_angstrom == pytest.approx(4.5, rel=0.05)


def test_a_still_movie_does_not_drift() -> None:
    found = drift(movie(np.zeros((6, 2)), dose=8.0))
    assert found.total_angstrom < 0.6
    assert found.straight_angstrom < 0.2


def test_one_frame_and_frames_of_different_shapes_are_refused() -> None:
    with pytest.raises(BadImageError, match="at least two"):
        drift([np.ones((32, 32))])
    with pytest.raises(BadImageError, match="alike"):
        drift([np.ones((32, 32)), np.ones((32, 33))])
