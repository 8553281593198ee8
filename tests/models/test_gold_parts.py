"""The parts of the gold detectors, each against drawn discs or a second way to the same number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gold import Candidate, GoldError, GoldParticle, MatchedDetector, TacDetector, find, matched_disc
from models.gold.depth import doubt
from models.gold.files import read_csv, write_csv, write_rois
from models.gold.groups import grouped, sizes_of
from models.gold.matching import matched
from models.gold.refine import refined
from models.gold.sampling import Greys, Raster, raster_of
from models.gold.tiles import count, tiles


def drawn(shape, discs, *, soft=0.7, ground=180.0, depth=140.0, noise=0.0, seed=0):
    """Grey image with dark discs (x, y, diameter) in pixels on a sloping ground."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    image = ground + 0.02 * x - 0.03 * y
    for cx, cy, d in discs:
        image = image - depth / (1 + np.exp(np.minimum((np.hypot(x - cx, y - cy) - d / 2) / soft, 50)))
    return image + noise * np.random.default_rng(seed).standard_normal(shape)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    pixel_nm=st.floats(0.3, 3.0), top=st.integers(-40, 90), left=st.integers(-40, 90),
    rows=st.integers(1, 50), columns=st.integers(1, 50),
)  # fmt: skip
def test_a_window_of_the_raster_is_the_same_whatever_else_is_read(pixel_nm, top, left, rows, columns):
    image = np.random.default_rng(3).normal(100, 20, (83, 71))
    raster = raster_of(image, pixel_nm)
    part = raster.window(top, left, rows, columns)
    whole = raster.window(-50, -50, 250, 250)
    assert np.allclose(part, whole[top + 50 : top + 50 + rows, left + 50 : left + 50 + columns], atol=1e-4)


def test_a_raster_keeps_places_and_levels():
    image = np.zeros((200, 300))
    image[:] = np.arange(300)[None, :] * 2.0 + np.arange(200)[:, None]
    raster = Raster(image, 2.37, Greys(0.0, 1.0))
    window = raster.window(10, 20, 30, 40)
    x, y = raster.to_image(np.arange(20.0, 60.0)), raster.to_image(np.arange(10.0, 40.0))
    assert np.allclose(window, 2 * x[None, :] + y[:, None], atol=0.3)  # an eighth of a pixel


@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows=st.integers(1, 70), columns=st.integers(1, 70), side=st.integers(1, 40))
def test_tiles_cover_every_pixel_once(rows, columns, side):
    seen = np.zeros((rows, columns), int)
    made = list(tiles((rows, columns), side))
    for tile in made:
        seen[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert (seen == 1).all()
    assert len(made) == count((rows, columns), side)


def test_discs_are_fitted_to_a_tenth_of_a_pixel():
    rng = np.random.default_rng(2)
    truth = [(20 + 31.3 * k + rng.uniform(-3, 3), 25 + 29.1 * j + rng.uniform(-3, 3), rng.uniform(4, 16))
             for k in range(8) for j in range(6)]  # fmt: skip
    image = drawn((190, 280), truth, noise=6.0)
    x, y, d = np.array(truth).T
    found = refined(image, x + rng.normal(0, 0.4, len(x)), y + rng.normal(0, 0.4, len(x)), d * 1.1, 1.0)
    assert np.sqrt(np.mean((found.x - x) ** 2 + (found.y - y) ** 2)) < 0.1
    assert np.median(np.abs(found.diameter / d - 1)) < 0.04
    assert found.held.mean() > 0.95


def test_touching_discs_keep_their_own_centres():
    truth = np.array([(30.2, 30.4, 11.0), (41.5, 30.1, 11.0), (36.0, 39.8, 11.0)])
    image = drawn((70, 80), truth, noise=3.0)
    found = refined(image, truth[:, 0] + 0.5, truth[:, 1] - 0.4, truth[:, 2], 1.0)
    assert np.hypot(found.x - truth[:, 0], found.y - truth[:, 1]).max() < 0.5


def test_a_mark_on_nothing_stays_where_it_was():
    image = drawn((60, 60), [], noise=5.0)
    found = refined(image, np.array([30.0]), np.array([28.0]), np.array([8.0]), 1.0)
    assert np.hypot(found.x - 30, found.y - 28).max() < 2.9


def test_sizes_are_found_by_the_diameters_themselves():
    rng = np.random.default_rng(4)
    for sizes in ((6,), (6, 12), (6, 12, 18), (10, 15)):
        diameters = np.concatenate([rng.normal(size, 0.07 * size, 60) for size in sizes])
        assert np.allclose(sizes_of(diameters), sizes, rtol=0.05), sizes


def test_a_handful_of_particles_is_one_size():
    assert len(sizes_of(np.array([6.0, 12.0, 6.1]))) == 1


def test_given_sizes_name_the_groups_and_unused_ones_are_left_out():
    found = [Candidate(1, 1, 6.6, 0.9), Candidate(2, 2, 11.0, 0.8), Candidate(3, 3, 5.2, 0.99)]
    particles, groups = grouped(found, (6, 12, 18))
    assert [g.name for g in groups] == ["6 nm", "12 nm"]
    assert [g.count for g in groups] == [2, 1]
    assert [p.score for p in particles] == [0.99, 0.9, 0.8]


def test_gold_that_is_none_of_the_given_sizes_is_set_apart():
    found = [
        Candidate(1, 1, 6.2, 0.9),
        Candidate(2, 2, 12.5, 0.8),
        Candidate(3, 3, 17.8, 0.7),
        Candidate(4, 4, 2.9, 0.6),
    ]
    particles, groups = grouped(found, (6, 12))
    assert [p.group for p in particles] == ["6 nm", "12 nm", "other", "other"]
    assert [(g.name, g.count) for g in groups] == [("6 nm", 1), ("12 nm", 1), ("other", 2)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tac_finds_gold_of_the_published_areas_only(dtype):
    d6, d12, d30 = (nm / 1.126 for nm in (6.5, 12.0, 30.0))
    image = drawn((200, 200), [(40, 40, d6), (100, 60, d12), (150, 150, d30)], soft=0.3, depth=170)
    factor = 1 if dtype == np.uint8 else 100
    found = TacDetector().candidates((image * factor).clip(0, 65535).astype(dtype), 1.126)
    assert sorted((round(c.x), round(c.y)) for c in found) == [(40, 40), (100, 60)]


def test_matched_discs_are_found_at_their_places_and_sizes_whatever_the_tiles(monkeypatch):
    truth = np.array([(40.3, 41.2, 6.0), (100.0, 62.5, 11.0), (150.4, 148.0, 20.0), (64.2, 120.0, 6.5)])
    image = drawn((200, 210), truth, noise=4.0)
    whole = MatchedDetector().candidates(image, 1.1)
    assert len(whole) == len(truth)
    pairs = matched(truth[:, :2], np.array([(c.x, c.y) for c in whole]), 0.5)
    assert len(pairs) == len(truth)
    assert all(whole[j].diameter_nm / 1.1 == pytest.approx(truth[i, 2], rel=0.1) for i, j in pairs)
    monkeypatch.setattr(matched_disc, "TILE", 67)
    assert [(round(c.x, 1), round(c.y, 1)) for c in MatchedDetector().candidates(image, 1.1)] == [
        (round(c.x, 1), round(c.y, 1)) for c in whole
    ]


def test_a_pixel_size_at_which_gold_cannot_be_seen_is_refused():
    image = np.full((64, 64), 100, np.uint8)
    with pytest.raises(GoldError, match="pixel size 11"):
        find(TacDetector(), image, 11.1)
    with pytest.raises(GoldError, match="at least 16 pixels"):
        find(TacDetector(), image[:4], 1.1)
    with pytest.raises(GoldError, match="size 600"):
        find(TacDetector(), image, 1.1, (600,))


def test_doubt_is_said_for_wrong_sizes_and_hesitation_only():
    sure = [Candidate(k, k, 6.0, 0.95) for k in range(20)]
    assert doubt(sure, 3, 1.1, (6, 12), scored=True) == ""
    assert "is the pixel size right" in doubt(sure, 3, 1.1, (10,), scored=True)
    assert "nearly taken" in doubt(sure, 40, 1.1, (), scored=True)
    assert "wrong magnification" in doubt([], 0, 3.9, (), scored=True)
    assert "no immunogold" in doubt([Candidate(k, k, 6.0, 0.5) for k in range(20)], 0, 1.1, (), scored=True)
    assert doubt(sure, 0, 1.1, (), scored=False) == ""


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    particles = [GoldParticle(x=1.25, y=2.5, diameter_nm=6.125, score=0.5, group="6 nm")]
    write_csv(particles, 1.11, tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv") == particles
    (tmp_path / "b.csv").write_text("x_px,y_px,diameter_nm\n1,2,three\n")
    with pytest.raises(ValueError, match="line 2"):
        read_csv(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="no column diameter_nm, x_px, y_px"):
        read_csv(tmp_path / "c.csv")


def test_imagej_regions_lie_around_their_particles(tmp_path):
    import roifile

    particles = [GoldParticle(x=10.3, y=20.7, diameter_nm=12.0, score=0.9, group="12 nm"),
                 GoldParticle(x=50, y=5, diameter_nm=6.0, score=0.9, group="6 nm")]  # fmt: skip
    write_rois(particles, 1.2, tmp_path / "a.zip")
    rois = roifile.roiread(tmp_path / "a.zip")
    assert [r.name for r in rois] == ["00001 12 nm", "00002 6 nm"]
    assert rois[0].group != rois[1].group
    # ImageJ counts from the corner of the first pixel
    assert np.allclose(rois[0].coordinates().mean(axis=0), (10.8, 21.2), atol=0.01)
    assert np.ptp(rois[0].coordinates()[:, 0]) == pytest.approx(10.0, abs=0.01)
