"""Objects across blocks: the same with any block, as scipy labels the whole; numbered by their first voxels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from models.organelles.blocks import blocks, slices
from models.organelles.components import (
    Objects,
    Parts,
    faces_of,
    labelled,
    merged,
    neighbours,
    parts_of,
    touching,
)


def in_blocks(mask: np.ndarray, size: tuple[int, int, int], smallest: int = 1) -> tuple[np.ndarray, Objects]:
    every = blocks(mask.shape, size)
    found = [labelled(mask[slices(b)]) for b in every]
    parts = [parts_of(labels, n, b[0], mask.shape) for (labels, n), b in zip(found, every, strict=True)]
    starts = np.concatenate([[0], np.cumsum([n for _, n in found])])
    faces = [faces_of(labels) for labels, _ in found]
    pairs = [np.zeros((0, 2), np.int64)]
    for before, after, axis in neighbours(every):
        one = touching(faces[before][2 * axis + 1], faces[after][2 * axis])
        pairs.append(one - 1 + [starts[before], starts[after]])
    objects = merged(Parts.joined(parts), np.concatenate(pairs), smallest=smallest)
    out = np.zeros(mask.shape, np.uint32)
    for n, ((labels, count), block) in enumerate(zip(found, every, strict=True)):
        out[slices(block)] = np.concatenate([[0], objects.table[starts[n] : starts[n] + count]])[labels]
    return out, objects


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    size=st.tuples(*[st.integers(1, 9)] * 3),
    share=st.floats(0.2, 0.7),
    smallest=st.integers(1, 6),
)
def test_any_blocks_give_what_the_whole_volume_gives(
    seed: int, shape: tuple[int, int, int], size: tuple[int, int, int], share: float, smallest: int
) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    out, objects = in_blocks(mask, size, smallest)
    whole, count = ndimage.label(mask)
    sizes = np.bincount(whole.ravel(), minlength=count + 1)[1:]
    assert objects.left_out == (sizes < smallest).sum()
    assert np.array_equal(out > 0, np.isin(whole, 1 + np.flatnonzero(sizes >= smallest)))
    numbers, firsts = np.unique(out, return_index=True)
    inside = numbers > 0
    assert numbers[inside].tolist() == list(range(1, len(objects.parts) + 1))
    assert (np.diff(firsts[inside]) > 0).all(), "in the order of first voxels"
    assert objects.parts.first.tolist() == firsts[inside].tolist()
    for n in range(1, len(objects.parts) + 1):
        places = np.argwhere(out == n)
        assert len(np.unique(whole[out == n])) == 1
        assert objects.parts.voxels[n - 1] == len(places)
        assert objects.parts.centres[n - 1] == pytest.approx(places.mean(axis=0))
        assert objects.parts.low[n - 1].tolist() == places.min(axis=0).tolist()
        assert objects.parts.high[n - 1].tolist() == (places.max(axis=0) + 1).tolist()


def test_a_spiral_through_all_blocks_is_one_object() -> None:
    mask = np.zeros((9, 9, 9), bool)
    mask[::2] = True
    for z in range(1, 9, 2):
        mask[z, (0, -1)[z // 2 % 2], (0, -1)[z // 2 % 2]] = True
    out, objects = in_blocks(mask, (2, 3, 4))
    assert len(objects.parts) == 1
    assert np.array_equal(out > 0, mask)
