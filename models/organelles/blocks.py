"""How a volume is cut into blocks, and read with its surroundings."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int, int]  # (z, y, x)
Block = tuple[Corner, Corner]  # low and high corner, the high one outside


def blocks(shape: tuple[int, ...], size: Corner) -> list[Block]:
    """The blocks that tile a volume, in the order of their first voxels; those at the far ends may be smaller."""
    return list(_blocks(shape, size))


def _blocks(shape: tuple[int, ...], size: Corner) -> Iterator[Block]:
    for z, y, x in product(*(range(0, n, s) for n, s in zip(shape, size, strict=True))):
        yield (
            (z, y, x),
            (min(z + size[0], int(shape[0])), min(y + size[1], int(shape[1])), min(x + size[2], int(shape[2]))),
        )


def slices(block: Block) -> tuple[slice, slice, slice]:
    """A block as an index."""
    (z0, y0, x0), (z1, y1, x1) = block
    return slice(z0, z1), slice(y0, y1), slice(x0, x1)


def read_mirrored(volume: Any, low: tuple[int, ...], high: tuple[int, ...]) -> NDArray[Any]:
    """Voxels from ``low`` to ``high``, which may lie outside of ``volume``: there it is mirrored about its last voxel.

    What stands outside does not depend on how much is asked for.
    """
    axes = [mirrored(a, b, int(n)) for a, b, n in zip(low, high, volume.shape, strict=True)]
    part = np.asarray(volume[tuple(slice(int(a.min()), int(a.max()) + 1) for a in axes)])
    if all(len(a) == n and a[0] <= a[-1] for a, n in zip(axes, part.shape, strict=True)):
        return part
    return part[np.ix_(*(a - a.min() for a in axes))]


def mirrored(low: int, high: int, n: int) -> NDArray[np.int64]:
    """Indices from ``low`` to ``high``, folded back into 0 to ``n``."""
    if n == 1:
        return np.zeros(high - low, np.int64)
    period = 2 * (n - 1)
    folded = np.arange(low, high) % period
    return np.where(folded < n, folded, period - folded)


def taken(part: NDArray[Any], size: tuple[int, ...], low: int) -> NDArray[Any]:
    """``size`` voxels of ``part`` from ``low`` on, along every axis."""
    return part[tuple(slice(low, low + n) for n in size)]
