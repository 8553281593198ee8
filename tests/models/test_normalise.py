"""Normalised grey values: what each way means, checked a second way, and no seams between blocks."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import exposure

from models.organelles.blocks import blocks, read_mirrored, slices
from models.organelles.normalise import KINDS, BadGreyError, clip_histogram, normalised, normaliser, statistics


def cell(dtype: str = "u1") -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(33, 50, 41)), 2)
    noise = (noise - noise.min()) / np.ptp(noise)
    return (noise if dtype == "f4" else noise * 200 + 20).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_any_size_are_normalised_as_the_whole(kind: str, dtype: str) -> None:
    volume = cell(dtype)
    tables = normaliser(volume, kind, kernel=16)
    whole = tables.apply(volume)
    assert whole.dtype == np.float32
    assert whole.min() >= 0
    assert whole.max() <= 1
    for size in ((7, 50, 9), (16, 16, 16)):
        out = np.empty_like(whole)
        for block in blocks(volume.shape, size):
            out[slices(block)] = tables.apply(volume[slices(block)], block[0])
        assert np.array_equal(out, whole)


@pytest.mark.parametrize("clip", [0.02, 0.005])
def test_clahe_is_scikit_images_up_to_its_last_stretch(clip: float) -> None:
    volume = cell()
    ours = normalised(volume, "clahe", kernel=16, clip=clip)
    theirs = exposure.equalize_adapthist(volume, kernel_size=16, clip_limit=clip)
    stretched = (ours - ours.min()) / np.ptp(ours)
    assert np.abs(stretched - theirs).max() < 0.01
    assert np.abs(stretched - theirs).mean() < 5e-4


def test_histogram_equalisation_is_the_share_of_voxels_that_are_not_brighter() -> None:
    volume = cell()
    ours = normalised(volume, "histogram")
    for value in (40, 111, 180):
        assert ours[volume == value] == pytest.approx((volume <= value).mean(), abs=1e-6)


def test_a_linear_stretch_lets_so_many_voxels_go_black_and_white() -> None:
    volume = cell("f4")
    ours = normalised(volume, "rescale", tails=0.05)
    assert (ours == 0).mean() == pytest.approx(0.05, abs=0.002)
    assert (ours == 1).mean() == pytest.approx(0.05, abs=0.002)
    middle = (ours > 0) & (ours < 1)
    assert np.corrcoef(ours[middle], volume[middle])[0, 1] == pytest.approx(1, abs=1e-6)


def test_clipping_keeps_the_sum_and_the_limit() -> None:
    rng = np.random.default_rng(1)
    for limit in (20, 50, 400):
        histogram = rng.geometric(0.02, 256) * rng.integers(0, 4, 256)
        if histogram.sum() > limit * 256:
            continue
        clipped = clip_histogram(histogram, limit)
        assert clipped.sum() == histogram.sum()
        assert clipped.max() <= limit


def test_what_cannot_be_normalised_is_told() -> None:
    broken = cell("f4")
    broken[3, 4, 5] = np.inf
    with pytest.raises(BadGreyError, match=r"1 voxels are NaN or infinite, the first at \(z 3, y 4, x 5\)"):
        statistics(broken)
    with pytest.raises(BadGreyError, match="without normalisation 0 to 1 are needed"):
        normaliser(cell("f4") * 300, "none")


def test_a_block_beyond_the_border_sees_the_volume_mirrored_however_much_is_asked_for() -> None:
    volume = cell()
    wide = np.pad(volume, 70, mode="reflect")
    for low, high in (((-5, 40, -60), (3, 70, 45)), ((33, 0, 0), (37, 3, 3)), ((-70, 1, 2), (100, 4, 111))):
        wanted = wide[tuple(slice(a + 70, b + 70) for a, b in zip(low, high, strict=True))]
        assert np.array_equal(read_mirrored(volume, low, high), wanted)
