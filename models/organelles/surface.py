"""Areas of labelled objects, and of where they are near others, counted along lines; any block adds its share.

Cauchy and Crofton: the area of a surface is twice the mean, over all directions, of the area that its crossings with
parallel lines stand for. Lines run through voxels in the 13 directions to neighbours, each weighted with the part of
the sphere that is nearest to it, so voxels need not be cubes (Legland, Kieu & Devaux, Image Anal Stereol 26, 83, 2007).
Counts of blocks add up exactly. A round object comes out within 1 %, a flat face along the grid 7 % small.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import SphericalVoronoi

from models.organelles.blocks import Corner

Edges = tuple[float, float, float]
DIRECTIONS: tuple[Corner, ...] = tuple((z, y, x) for z, y, x in product((-1, 0, 1), repeat=3) if (z, y, x) > (0, 0, 0))


@lru_cache(maxsize=16)
def crossing_areas(edges: Edges) -> NDArray[np.float64]:
    """Area, in the square of the edges' unit, that one crossing along each of `DIRECTIONS` stands for."""
    steps = np.array(DIRECTIONS, float) * np.array(edges)
    lengths = np.linalg.norm(steps, axis=1)
    units = steps / lengths[:, None]
    share = SphericalVoronoi(np.concatenate([units, -units])).calculate_areas()[: len(units)] / (2 * np.pi)
    return np.asarray(2 * share * np.prod(edges) / lengths)


def areas(labels: NDArray[Any], block: tuple[slice, slice, slice], edges: Edges) -> dict[int, float]:
    """Surface area that a block adds to each label.

    Parameters
    ----------
    labels
        The block with one voxel more on each side where the volume has one, (z, y, x).
    block
        Where the block is in it.
    edges
        Of a voxel; areas are in their unit squared. Surfaces at the border of the volume are not counted.
    """
    found: dict[int, float] = {}
    for step, area in zip(DIRECTIONS, crossing_areas(edges), strict=True):
        here, there = _pair(labels, block, step)
        differ = here != there
        for side in (here[differ], there[differ]):
            names, counts = np.unique(side, return_counts=True)
            for name, count in zip(names.tolist(), counts.tolist(), strict=True):
                if name:
                    found[name] = found.get(name, 0.0) + count * float(area)
    return found


def _pair(values: NDArray[Any], block: tuple[slice, ...], step: Corner) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values of voxels of a block, and of those one step further, where both are in the array."""
    here, there = [], []
    for at, s, n in zip(block, step, values.shape, strict=True):
        first, last = max(at.start, -s, 0), min(at.stop, n - max(s, 0))
        here.append(slice(first, max(first, last)))
        there.append(slice(first + s, max(first, last) + s))
    return values[tuple(here)], values[tuple(there)]


@dataclass(frozen=True, slots=True)
class Contact:
    """Where two objects are near: area of the first one's surface, and the smallest distance between surfaces."""

    area: float
    gap: float


def contacts(
    first: NDArray[Any], second: NDArray[Any], block: tuple[slice, slice, slice], edges: Edges, within: float
) -> dict[tuple[int, int], Contact]:
    """Surface of each object of ``first`` that lies within a distance of each object of ``second``, in a block.

    Parameters
    ----------
    first, second
        Labels of the block with its surroundings, `reach` voxels more on each side where the volume has them.
    block
        Where the block is in them.
    edges
        Of a voxel.
    within
        Largest distance between surfaces, in the unit of the edges; a place is given to the nearest object.
    """
    if not first[block].any() or not second.any():
        return {}
    far, nearest = ndimage.distance_transform_edt(second == 0, sampling=edges, return_indices=True)
    beside = second[tuple(nearest)]
    half = float(np.mean(edges)) / 2
    found: dict[tuple[int, int], Contact] = {}
    for step, area in zip(DIRECTIONS, crossing_areas(edges), strict=True):
        here, there = _pair(first, block, step)
        gap = (np.add(*_pair(far, block, step)) / 2 - half).clip(0)
        names = _pair(beside, block, step)
        for side, mine, other in ((0, here, there), (1, there, here)):
            at = (mine > 0) & (mine != other) & (gap <= within)
            if not at.any():
                continue
            pairs = np.stack([mine[at], names[1 - side][at]], axis=1)
            unique, which = np.unique(pairs, axis=0, return_inverse=True)
            counts = np.bincount(which.ravel())
            smallest = np.full(len(unique), np.inf)
            np.minimum.at(smallest, which.ravel(), gap[at])
            for (a, b), count, near in zip(unique.tolist(), counts.tolist(), smallest.tolist(), strict=True):
                old = found.get((a, b), Contact(0.0, np.inf))
                found[(a, b)] = Contact(old.area + count * float(area), min(old.gap, near))
    return found


def reach(edges: Edges, within: float) -> Corner:
    """Voxels around a block that `contacts` must see."""
    z, y, x = (int(np.ceil(within / e)) + 3 for e in edges)
    return z, y, x
