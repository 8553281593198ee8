"""Rules that the classical hole finder keeps, on drawn foils with a known truth."""

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from models.base import BadImageError
from models.detections import HoleFinding
from models.holes import TemplateHoleFinder
from tests.models.drawing import HEXAGONAL, SQUARE, foil, hits, lattice_points


def places(finding: HoleFinding) -> np.ndarray:
    return np.array([[h.x, h.y] for h in finding.holes], float).reshape(-1, 2)


def inner(points: np.ndarray, shape: tuple[int, int], margin: float) -> np.ndarray:
    return points[((points > margin) & (points < np.array(shape[::-1]) - 1 - margin)).all(axis=1)]


CASES = [
    pytest.param(300, 40.0, 11.0, 12.0, SQUARE, 1.0, 30.0, "square", id="square"),
    pytest.param(300, 40.0, 12.0, -7.0, HEXAGONAL, 1.0, 30.0, "hexagonal", id="hexagonal"),
    pytest.param(360, 48.0, 11.0, 20.0, SQUARE, 0.72, 30.0, "oblique", id="tilted"),
    pytest.param(300, 40.0, 11.0, 12.0, SQUARE, 1.0, -30.0, "square", id="dark holes"),
    pytest.param(260, 11.0, 2.9, 26.0, SQUARE, 1.0, 30.0, "square", id="three-pixel holes"),
    pytest.param(400, 210.0, 70.0, 40.0, SQUARE, 1.0, 20.0, None, id="close-up"),
]


@pytest.mark.parametrize(("side", "pitch", "radius", "angle", "kind", "tilt", "contrast", "symmetry"), CASES)
def test_every_hole_of_a_drawn_foil_is_found_and_nothing_else(
    side, pitch, radius, angle, kind, tilt, contrast, symmetry
):
    shape = (side, side + 40)
    truth = lattice_points(shape, pitch, angle, kind, margin=-radius, tilt=tilt)
    finding = TemplateHoleFinder().find(foil(shape, truth, radius, contrast=contrast))
    found = places(finding)
    hit, missed, _ = hits(found, inner(truth, shape, 0.5 * radius), 0.15 * pitch)
    assert missed == 0
    assert hits(found, truth, 0.15 * pitch)[2] == 0
    assert hit > 0
    radii = [h.radius_px for h in finding.holes]
    assert radii[0] == pytest.approx(radius, rel=0.15, abs=0.8)
    if symmetry is not None:
        assert finding.lattice is not None
        assert finding.lattice.symmetry == symmetry
        got = min(np.hypot(*finding.lattice.a), np.hypot(*finding.lattice.b))
        assert got == pytest.approx(cKDTree(truth).query(truth, k=2)[0][:, 1].min(), rel=0.02)


def test_three_holes_make_a_lattice():
    truth = np.array([[100.0, 90.0], [190.0, 100.0], [90.0, 180.0]])
    finding = TemplateHoleFinder().find(foil((280, 290), truth, 24.0))
    assert finding.lattice is not None
    assert finding.lattice.symmetry == "square"
    assert hits(places(finding), truth, 4.0)[:2] == (3, 0)


def test_scattered_holes_have_no_lattice_and_are_given_as_seen():
    truth = np.array([[80.0, 70.0], [230.0, 120.0], [95.0, 235.0]])
    finding = TemplateHoleFinder().find(foil((300, 320), truth, 34.0))
    assert finding.lattice is None
    assert "no lattice" in finding.note
    assert hits(places(finding), truth, 4.0) == (3, 0, 0)


def test_a_hidden_hole_is_inferred_from_the_lattice():
    shape = (300, 300)
    truth = lattice_points(shape, 45.0, 10.0, margin=16.0)
    hidden = int(np.argmin(np.hypot(*(truth - 150.0).T)))
    finding = TemplateHoleFinder().find(foil(shape, np.delete(truth, hidden, axis=0), 12.0))
    inferred = [h for h in finding.holes if h.inferred]
    assert any(np.hypot(h.x - truth[hidden, 0], h.y - truth[hidden, 1]) < 3 for h in inferred)


def test_indices_and_lattice_agree_with_positions():
    shape = (300, 300)
    finding = TemplateHoleFinder().find(foil(shape, lattice_points(shape, 45.0, 10.0), 12.0))
    lattice = finding.lattice
    assert lattice is not None
    for hole in finding.holes:
        assert hole.index is not None
        place = np.array(lattice.origin) + hole.index @ np.array([lattice.a, lattice.b])
        assert np.hypot(*(place - (hole.x, hole.y))) < 3.0


def test_no_hole_is_put_on_a_grid_bar():
    shape = (320, 320)
    truth = lattice_points(shape, 24.0, 15.0)
    image = foil(shape, truth, 7.0)
    image[:, 220:] = 5.0 + 0.1 * np.random.default_rng(2).normal(size=(320, 100))
    found = places(TemplateHoleFinder().find(image))
    assert hits(found, truth[truth[:, 0] < 205], 3.0)[1] == 0
    assert (found[:, 0] < 235).all()


def test_a_hole_that_the_frame_cuts_is_partial():
    shape = (260, 260)
    truth = lattice_points(shape, 52.0, 0.0, margin=-8.0)
    finding = TemplateHoleFinder().find(foil(shape, truth, 15.0))
    for hole in finding.holes:
        cut = min(hole.x, hole.y, 259 - hole.x, 259 - hole.y) < 10
        assert not cut or hole.label == "partial"
        assert cut or hole.label != "partial" or min(hole.x, hole.y, 259 - hole.x, 259 - hole.y) < 17


def test_twice_the_size_gives_the_same_holes_at_twice_the_place():
    shape = (240, 260)
    image = foil(shape, lattice_points(shape, 40.0, 12.0), 11.0)
    once = TemplateHoleFinder().find(image)
    twice = TemplateHoleFinder().find(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR))
    a, b = places(once), (places(twice) + 0.5) / 2 - 0.5
    inside = inner(a, shape, 6.0)
    assert hits(b, inside, 2.0)[1] == 0
    assert hits(a, inner(b, shape, 6.0), 2.0)[1] == 0


def test_bytes_and_floats_from_zero_to_one_give_the_same_answer():
    shape = (200, 220)
    image = np.clip(foil(shape, lattice_points(shape, 40.0, 12.0), 11.0), 0, 255).astype(np.uint8)
    as_bytes, as_floats = (TemplateHoleFinder().find(i) for i in (image, image.astype(np.float32) / 255.0))
    assert len(as_bytes.holes) == len(as_floats.holes)
    for a, b in zip(as_bytes.holes, as_floats.holes, strict=True):
        assert (a.x, a.y, a.label) == (pytest.approx(b.x, abs=0.05), pytest.approx(b.y, abs=0.05), b.label)


def test_the_same_image_gives_the_same_answer_on_one_thread_and_on_four():
    shape = (240, 260)
    image = foil(shape, lattice_points(shape, 40.0, 12.0), 11.0, noise=15)
    before = cv2.getNumThreads()
    try:
        answers = []
        for threads in (1, 4, 4):
            cv2.setNumThreads(threads)
            answers.append(TemplateHoleFinder().find(image))
    finally:
        cv2.setNumThreads(before)
    assert answers[0] == answers[1] == answers[2]


def blank_images() -> list:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:200, :220]
    soft = cv2.GaussianBlur(rng.normal(size=(256, 256)), (0, 0), 3)
    return [
        pytest.param(np.zeros((200, 200), np.uint8), id="black"),
        pytest.param(np.full((200, 200), 65535, np.uint16), id="saturated"),
        pytest.param(rng.normal(100, 10, (300, 320)), id="white noise"),
        pytest.param(rng.poisson(3, (300, 300)).astype(np.uint16), id="few counts"),
        pytest.param(soft, id="coloured noise"),
        pytest.param((x + y).astype(np.int16), id="slope"),
        pytest.param((x > 100).astype(np.float64), id="step"),
    ]


@pytest.mark.parametrize("image", blank_images())
def test_an_image_without_holes_gives_none_and_says_why(image):
    finding = TemplateHoleFinder().find(image)
    assert finding.holes == ()
    assert finding.note


def test_dead_pixels_do_not_matter():
    shape = (240, 260)
    truth = lattice_points(shape, 40.0, 12.0)
    image = foil(shape, truth, 11.0)
    image[50:60, 70:90] = np.nan
    image[100, 100] = np.inf
    image[130, 140] = 1e9
    found = places(TemplateHoleFinder().find(image))
    assert hits(found, inner(truth, shape, 8.0), 4.0)[1] <= 1


def test_a_hole_that_shines_among_grey_ones_is_empty_and_a_dirty_one_is_dirty():
    shape = (300, 300)
    truth = lattice_points(shape, 60.0, 5.0, margin=20.0)
    image = foil(shape, truth, 18.0, contrast=20.0, noise=2.0)
    y, x = np.mgrid[:300, :300]
    image[np.hypot(x - truth[3, 0], y - truth[3, 1]) < 18] += 60
    image[np.hypot(x - truth[7, 0] - 4, y - truth[7, 1]) < 7] -= 70
    finding = TemplateHoleFinder().find(image)

    def at(k: int):
        return min(finding.holes, key=lambda h: np.hypot(h.x - truth[k, 0], h.y - truth[k, 1]))

    assert at(3).label == "empty"
    assert at(7).label == "dirty"
    assert at(5).label == "good"
    assert at(5).score > max(at(3).score, at(7).score)


def test_an_array_that_is_no_image_is_refused():
    for bad in (np.zeros((4, 300)), np.zeros((20, 20, 3)), np.full((30, 30), np.nan), np.zeros((30, 30), complex)):
        with pytest.raises(BadImageError):
            TemplateHoleFinder().find(bad)


def test_any_small_image_is_answered():
    rng = np.random.default_rng(3)
    for shape in ((16, 16), (16, 300), (33, 17), (64, 64)):
        for image in (rng.normal(size=shape), rng.integers(0, 2, shape).astype(np.uint8)):
            TemplateHoleFinder().find(image)


def test_name_and_fingerprint_are_fixed():
    assert TemplateHoleFinder().name == "holes-template"
    assert TemplateHoleFinder().fingerprint == TemplateHoleFinder().fingerprint
