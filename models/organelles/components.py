"""Connected components of a volume in blocks: the same objects with the same numbers, whatever the blocks.

Each block is labelled alone; objects that touch across a face between blocks are one; objects are numbered in the
order of their first voxels (z, then y, then x). Voxels are neighbours where they share a face.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from models.organelles.blocks import Block, Corner

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parts:
    """Objects, or the parts of objects within one block, as columns.

    Attributes
    ----------
    voxels
        How many each has.
    first
        Number of its first voxel in the whole volume, counted along x, then y, then z.
    sums
        Sums of its voxels' places, shape (n, 3), (z, y, x).
    low, high
        Corners of its box, shape (n, 3); the high one outside.
    """

    voxels: Ints
    first: Ints
    sums: NDArray[np.float64]
    low: Ints
    high: Ints

    def __len__(self) -> int:
        return len(self.voxels)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Centres of mass, (z, y, x) in voxels."""
        return np.asarray(self.sums / np.maximum(self.voxels, 1)[:, None])

    def at_border(self, shape: Corner) -> NDArray[np.bool_]:
        """Which of them touch the border of a volume, so that they may go on outside."""
        return np.asarray((self.low <= 0).any(axis=1) | (self.high >= np.array(shape)).any(axis=1))

    def taken(self, which: NDArray[Any]) -> "Parts":
        """Some of them."""
        return Parts(self.voxels[which], self.first[which], self.sums[which], self.low[which], self.high[which])

    @classmethod
    def joined(cls, parts: Sequence["Parts"]) -> "Parts":
        """Those of several blocks, one after the other."""
        return cls(
            np.concatenate([p.voxels for p in parts]),
            np.concatenate([p.first for p in parts]),
            np.concatenate([p.sums for p in parts]),
            np.concatenate([p.low for p in parts]),
            np.concatenate([p.high for p in parts]),
        )


def labelled(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Components of one block, from 1, and how many."""
    labels, count = ndimage.label(mask)
    return labels, int(count)


def parts_of(labels: NDArray[np.int32], count: int, low: Corner, shape: Corner) -> Parts:
    """What is known of the components of a block that begins at ``low`` in a volume of ``shape``."""
    flat = labels.ravel()
    index = np.flatnonzero(flat)
    mine = flat[index] - 1
    places = np.stack(np.unravel_index(index, labels.shape), axis=1).astype(np.int64) + np.array(low)
    voxels = np.bincount(mine, minlength=count)
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, mine, (places[:, 0] * shape[1] + places[:, 1]) * shape[2] + places[:, 2])
    sums = np.stack([np.bincount(mine, places[:, axis], minlength=count) for axis in range(3)], axis=1).astype(float)
    boxes = ndimage.find_objects(labels, max_label=count)
    corners = np.array([[(s.start, s.stop) for s in box] for box in boxes], np.int64).reshape(count, 3, 2)
    return Parts(voxels, first, sums, corners[:, :, 0] + np.array(low), corners[:, :, 1] + np.array(low))


def faces_of(labels: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """The six outer planes of a block: low z, high z, low y, high y, low x, high x."""
    return [np.take(labels, end, axis) for axis in range(3) for end in (0, -1)]


def touching(high: NDArray[np.int32], low: NDArray[np.int32]) -> Ints:
    """Pairs of labels (in the block before, in the block after) that meet at a face, each pair once, shape (n, 2)."""
    both = (high > 0) & (low > 0)
    pairs = np.stack([high[both], low[both]], axis=1).astype(np.int64)
    return np.unique(pairs, axis=0) if len(pairs) else pairs.reshape(0, 2)


def neighbours(every: Sequence[Block]) -> Iterable[tuple[int, int, int]]:
    """Numbers of blocks that share a face, and its axis: (before, after, axis)."""
    at = {low: number for number, (low, _) in enumerate(every)}
    for number, (low, high) in enumerate(every):
        for axis in range(3):
            beside = list(low)
            beside[axis] = high[axis]
            other = at.get((beside[0], beside[1], beside[2]))
            if other is not None:
                yield number, other, axis


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects of a volume.

    Attributes
    ----------
    parts
        What is known of each; number n of the label volume is row n - 1.
    table
        For each part of each block, blocks one after the other, the number of its object; 0 where it was left out.
    left_out
        Objects that were too small.
    """

    parts: Parts
    table: NDArray[np.uint32]
    left_out: int


def merged(parts: Parts, pairs: Ints, *, smallest: int = 1, keep: NDArray[np.bool_] | None = None) -> Objects:
    """Objects from the parts of all blocks.

    Parameters
    ----------
    parts
        Of all blocks, one after the other.
    pairs
        Rows of ``parts`` that belong together, shape (n, 2).
    smallest
        Objects of fewer voxels are left out.
    keep
        Whether each *part* may stay; an object stays where all of its parts do.
    """
    count = len(parts)
    graph = sparse.coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (count, count))
    number, group = connected_components(graph, directed=False) if count else (0, np.zeros(0, np.int64))
    voxels = np.bincount(group, parts.voxels, minlength=number).astype(np.int64)
    first = np.full(number, np.iinfo(np.int64).max)
    np.minimum.at(first, group, parts.first)
    sums = np.stack([np.bincount(group, parts.sums[:, axis], number) for axis in range(3)], axis=1).astype(float)
    low, high = np.full((number, 3), np.iinfo(np.int64).max), np.zeros((number, 3), np.int64)
    np.minimum.at(low, group, parts.low)
    np.maximum.at(high, group, parts.high)
    stays = voxels >= smallest
    if keep is not None:
        stays &= np.bincount(group, ~keep, minlength=number) == 0
    order = np.argsort(first, kind="stable")
    order = order[stays[order]]
    name = np.zeros(number, np.uint32)
    name[order] = np.arange(1, len(order) + 1)
    everything = Parts(voxels, first, sums, low, high)
    return Objects(everything.taken(order), name[group], int(number - len(order)))
