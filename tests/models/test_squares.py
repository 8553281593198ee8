"""Rules that the classical square finder keeps, on drawn meshes with a known truth."""

import cv2
import numpy as np
import pytest

from models.base import BadImageError
from models.detections import SquareFinding
from models.squares import MixtureSquareFinder
from tests.models.drawing import HEXAGONAL, SQUARE, foil, hits, lattice_points, mesh


def places(finding: SquareFinding) -> np.ndarray:
    return np.array([[s.x, s.y] for s in finding.squares], float).reshape(-1, 2)


CASES = [
    pytest.param(300, 40.0, 26.0, 12.0, SQUARE, id="dozens"),
    pytest.param(240, 10.0, 6.5, 0.0, SQUARE, id="hundreds of six pixels"),
    pytest.param(240, 10.0, 6.5, 19.0, SQUARE, id="hundreds of six pixels, turned"),
    pytest.param(400, 170.0, 110.0, 30.0, SQUARE, id="a few large ones"),
    pytest.param(300, 40.0, 24.0, 0.0, HEXAGONAL, id="hexagonal mesh"),
]


@pytest.mark.parametrize(("side", "pitch", "opening", "angle", "kind"), CASES)
def test_every_whole_square_of_a_drawn_mesh_is_found_and_nothing_else(side, pitch, opening, angle, kind):
    shape = (side, side + 30)
    truth = lattice_points(shape, pitch, angle, kind, margin=-opening)
    finding = MixtureSquareFinder().find(mesh(shape, truth, opening, angle))
    found = places(finding)
    whole = lattice_points(shape, pitch, angle, kind, margin=0.75 * opening)
    assert len(whole)
    assert hits(found, whole, 0.1 * pitch)[1] == 0
    assert hits(found, truth, 0.5 * opening)[2] == 0
    if len(whole) > 4:
        assert finding.pitch_px == pytest.approx(pitch, rel=0.02)
        assert finding.angle_deg is not None
        turn = 60.0 if kind is HEXAGONAL else 90.0
        off = abs(finding.angle_deg - angle) % turn
        assert min(off, turn - off) < 2.0
    middle = min(finding.squares, key=lambda s: np.hypot(s.x - whole[0, 0], s.y - whole[0, 1]))
    assert middle.area_px == pytest.approx(opening**2, rel=0.2)


def test_squares_cut_by_the_frame_say_so():
    shape = (200, 200)
    truth = lattice_points(shape, 50.0, 0.0, margin=-10.0)
    finding = MixtureSquareFinder().find(mesh(shape, truth, 30.0, 0.0))
    for square in finding.squares:
        cut = min(square.x, square.y, 199 - square.x, 199 - square.y) < 13
        assert square.touches_edge == cut
        assert (square.label == "partial") == cut


def test_dust_off_the_lattice_is_no_square():
    shape = (300, 300)
    truth = lattice_points(shape, 50.0, 10.0, margin=20.0)
    image = mesh(shape, truth, 30.0, 10.0)
    dust = (truth[0] + truth[1]) / 2
    cv2.circle(image, (round(dust[0]), round(dust[1])), 5, 200.0, -1)
    assert hits(places(MixtureSquareFinder().find(image)), truth, 5.0) == (len(truth), 0, 0)


@pytest.mark.parametrize("kind", [SQUARE, HEXAGONAL], ids=["square", "hexagonal"])
def test_glows_in_the_gaps_of_the_mesh_are_thick_squares_and_gaps_without_one_are_none(kind):
    shape = (400, 420)
    truth = lattice_points(shape, 50.0, 10.0, kind, margin=25.0)
    levels = np.full(len(truth), 120.0)
    middle = np.argsort(np.hypot(*(truth - (210, 200)).T))
    glows, gaps = middle[[0, 1, 5]], middle[[3, 9]]
    levels[glows], levels[gaps] = 28.0, 10.0  # the bars are at 10
    found = places(MixtureSquareFinder().find(mesh(shape, truth, 28.0, 10.0, levels=levels)))
    assert hits(found, np.delete(truth, gaps, axis=0), 5.0) == (len(truth) - 2, 0, 0)


def test_a_dim_square_among_bright_ones_is_recovered_and_called_thick():
    shape = (300, 300)
    truth = lattice_points(shape, 50.0, 10.0, margin=20.0)
    levels = np.full(len(truth), 120.0)
    levels[5] = 50.0
    finding = MixtureSquareFinder().find(mesh(shape, truth, 30.0, 10.0, levels=levels))
    dim = min(finding.squares, key=lambda s: np.hypot(*(truth[5] - (s.x, s.y))))
    assert np.hypot(*(truth[5] - (dim.x, dim.y))) < 4
    assert dim.label in ("thick", "dark")
    assert dim.score < max(s.score for s in finding.squares)


def test_grey_squares_come_first_then_torn_then_empty_ones():
    shape = (300, 300)
    truth = lattice_points(shape, 60.0, 0.0, margin=25.0)
    levels = np.full(len(truth), 100.0)
    levels[:3] = 230.0
    image = mesh(shape, truth, 40.0, 0.0, levels=levels)
    x, y = np.rint(truth[5]).astype(int)
    image[y - 18 : y + 18, x - 18 : x] = 230.0
    finding = MixtureSquareFinder().find(image)

    def at(k: int):
        return min(finding.squares, key=lambda s: np.hypot(*(truth[k] - (s.x, s.y))))

    assert at(0).label == "empty"
    assert at(5).label == "broken"
    assert at(9).label == "good"
    assert at(9).score > at(5).score > at(0).score
    assert "bright_share" in at(5).features


def test_a_torn_square_in_two_pieces_is_one_square():
    shape = (300, 300)
    truth = lattice_points(shape, 60.0, 0.0, margin=25.0)
    image = mesh(shape, truth, 40.0, 0.0)
    x, y = np.rint(truth[4]).astype(int)
    image[y - 2 : y + 3, x - 22 : x + 22] = 10.0
    assert hits(places(MixtureSquareFinder().find(image)), truth, 5.0) == (len(truth), 0, 0)


def test_an_uneven_background_and_a_hot_pixel_change_nothing():
    shape = (300, 300)
    truth = lattice_points(shape, 50.0, 10.0, margin=20.0)
    image = mesh(shape, truth, 30.0, 10.0)
    image += np.linspace(0, 60, 300, dtype=np.float32)[:, None]
    image[7, 9] = 1e7
    image[40, 41] = np.nan
    assert hits(places(MixtureSquareFinder().find(image)), truth, 3.0) == (len(truth), 0, 0)


def test_offset_gain_and_number_type_do_not_matter():
    shape = (240, 240)
    truth = lattice_points(shape, 50.0, 10.0, margin=20.0)
    image = np.clip(mesh(shape, truth, 30.0, 10.0), 0, 255).astype(np.uint8)
    floats = image.astype(np.float32) / 255.0
    others = (floats, image.astype(np.uint16) * 200 + 300, floats * 1e-3 - 7.0)
    first = MixtureSquareFinder().find(image)
    assert len(first.squares) == len(truth)
    for other in others:
        second = MixtureSquareFinder().find(other)
        assert np.abs(np.sort(places(first), axis=0) - np.sort(places(second), axis=0)).max() < 0.5


def test_twice_the_size_gives_the_same_squares_at_twice_the_place():
    shape = (240, 240)
    truth = lattice_points(shape, 40.0, 17.0, margin=20.0)
    image = mesh(shape, truth, 25.0, 17.0)
    big = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    twice = (places(MixtureSquareFinder().find(big)) + 0.5) / 2 - 0.5
    assert hits(twice, places(MixtureSquareFinder().find(image)), 1.0) == (len(truth), 0, 0)


def test_the_same_image_gives_the_same_answer_on_one_thread_and_on_four():
    shape = (240, 240)
    image = mesh(shape, lattice_points(shape, 40.0, 17.0), 25.0, 17.0, noise=20)
    before = cv2.getNumThreads()
    try:
        answers = []
        for threads in (1, 4, 4):
            cv2.setNumThreads(threads)
            answers.append(MixtureSquareFinder().find(image))
    finally:
        cv2.setNumThreads(before)
    assert answers[0] == answers[1] == answers[2]


def blank_images() -> list:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:200, :220]
    shape = (300, 300)
    return [
        pytest.param(np.zeros((200, 200), np.uint8), id="black"),
        pytest.param(np.full((200, 200), 65535, np.uint16), id="saturated"),
        pytest.param(rng.normal(100, 10, (300, 320)), id="white noise"),
        pytest.param(rng.poisson(3, (300, 300)).astype(np.uint16), id="few counts"),
        pytest.param(cv2.GaussianBlur(rng.normal(size=(256, 256)), (0, 0), 3), id="coloured noise"),
        pytest.param((x + y).astype(np.int16), id="slope"),
        pytest.param((x > 100).astype(np.float64), id="step"),
        pytest.param(foil(shape, np.array([[100.0, 120.0]]), 2.0, noise=10), id="one speck"),
    ]


@pytest.mark.parametrize("image", blank_images())
def test_an_image_without_squares_gives_none_and_says_why(image):
    finding = MixtureSquareFinder().find(image)
    assert finding.squares == ()
    assert finding.note


def test_a_constant_margin_is_no_square():
    shape = (300, 300)
    truth = lattice_points(shape, 50.0, 10.0, margin=20.0)
    image = np.full((330, 340), 255.0, np.float32)
    image[10:310, 20:320] = mesh(shape, truth, 30.0, 10.0)
    found = places(MixtureSquareFinder().find(image))
    assert hits(found, truth + np.array([20, 10]), 2.0) == (len(truth), 0, 0)


def test_an_array_that_is_no_image_is_refused():
    for bad in (np.zeros((4, 300)), np.zeros((20, 20, 3)), np.full((30, 30), np.nan)):
        with pytest.raises(BadImageError):
            MixtureSquareFinder().find(bad)


def test_any_small_image_is_answered():
    rng = np.random.default_rng(3)
    for shape in ((16, 16), (16, 300), (33, 17), (64, 64)):
        for image in (rng.normal(size=shape), rng.integers(0, 2, shape).astype(np.uint8)):
            MixtureSquareFinder().find(image)


def test_name_and_fingerprint_are_fixed():
    assert MixtureSquareFinder().name == "squares-mixture"
    assert MixtureSquareFinder().fingerprint == MixtureSquareFinder().fingerprint
