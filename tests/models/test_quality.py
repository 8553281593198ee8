"""Rules that the classical quality scorer keeps, on drawn micrographs."""

import cv2
import numpy as np
import pytest

from models.base import BadImageError
from models.quality import SimpleQualityScorer


def micrograph(side: int = 512, *, seed: int = 1, defocus: float = 60.0) -> np.ndarray:
    """Noise shaped by a contrast transfer function: power in rings that falls off slowly."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    transfer = np.sin(np.pi * defocus * f**2 * 4 + 0.1) * np.exp(-((f / 0.25) ** 2))
    signal = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * transfer, s=(side, side))
    return 100.0 + 12.0 * signal / signal.std() + 4.0 * rng.normal(size=(side, side))


def test_thon_rings_are_worth_more_than_white_noise():
    good = SimpleQualityScorer().judge(micrograph())
    empty = SimpleQualityScorer().judge(np.random.default_rng(2).normal(100, 12, (512, 512)))
    assert good.label == "good"
    assert empty.label == "empty"
    assert good.score > empty.score + 0.2


def test_dark_contamination_lowers_the_score_and_is_named():
    image = micrograph()
    for x, y in ((100, 120), (300, 200), (400, 420), (90, 400)):
        cv2.circle(image, (x, y), 40, 20.0, -1)
    dirty = SimpleQualityScorer().judge(image)
    assert dirty.label == "dirty"
    assert dirty.score < SimpleQualityScorer().judge(micrograph()).score
    assert dirty.features["dark_share"] == pytest.approx(4 * np.pi * 1600 / 512**2, rel=0.3)


def test_reflections_of_ice_crystals_are_named():
    y, x = np.mgrid[:512, :512]
    lines = sum(np.cos(2 * np.pi * (0.27 * (x * np.cos(t) + y * np.sin(t)))) for t in (0.3, 1.4, 2.4))
    assert SimpleQualityScorer().judge(micrograph() + 10 * lines).label == "crystalline"


def test_a_clipped_image_is_saturated_and_one_without_beam_is_dark():
    clipped = np.minimum(micrograph(), 110.0)
    assert SimpleQualityScorer().judge(clipped).label == "saturated"
    few = np.random.default_rng(3).poisson(0.05, (300, 300)).astype(np.uint8)
    assert SimpleQualityScorer().judge(few).label == "dark"


@pytest.mark.parametrize("value", [0, 255])
def test_a_constant_image_is_worth_nothing(value):
    finding = SimpleQualityScorer().judge(np.full((64, 64), value, np.uint8))
    assert finding.score == 0
    assert finding.note


def test_offset_gain_and_number_type_do_not_matter():
    image = np.clip(micrograph(), 0, 255).astype(np.uint8)
    first = SimpleQualityScorer().judge(image)
    for other in (image / 255.0, image.astype(np.int16) * 3 - 1000, image.astype(np.float32) * 1e-3 + 5):
        second = SimpleQualityScorer().judge(other)
        assert second.label == first.label
        assert second.score == pytest.approx(first.score, abs=0.02)


def test_a_pixel_that_is_no_number_does_not_matter():
    image = micrograph()
    image[3, 4] = np.nan
    assert SimpleQualityScorer().judge(image).label == "good"


def test_the_same_image_gives_the_same_answer():
    assert SimpleQualityScorer().judge(micrograph()) == SimpleQualityScorer().judge(micrograph())


def test_any_small_image_is_answered_and_no_image_is_refused():
    rng = np.random.default_rng(3)
    for shape in ((16, 16), (16, 300), (33, 17)):
        finding = SimpleQualityScorer().judge(rng.normal(size=shape))
        assert 0 <= finding.score <= 1
        assert all(np.isfinite(v) for v in finding.features.values())
    with pytest.raises(BadImageError):
        SimpleQualityScorer().judge(np.zeros((20, 20, 3)))
