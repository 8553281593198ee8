"""How a volume is cut into blocks, and read with its surroundings."""

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

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


def read_padded(
    volume: Any, low: tuple[int, ...], high: tuple[int, ...], outside: Literal["edge", "zero"] = "edge"
) -> NDArray[Any]:
    """Voxels from ``low`` to ``high``, which may lie outside of ``volume``: there its border goes on, or 0 is."""
    shape = tuple(int(n) for n in volume.shape)
    inner = tuple(slice(min(max(a, 0), n - 1), max(min(b, n), 1)) for a, b, n in zip(low, high, shape, strict=True))
    part = np.asarray(volume[inner])
    before = [max(0, min(s.start - a, b - a - 1)) for a, b, s in zip(low, high, inner, strict=True)]
    after = [b - a - n - p for a, b, n, p in zip(low, high, part.shape, before, strict=True)]
    if not any(before) and not any(after):
        return part
    widths = list(zip(before, after, strict=True))
    return np.pad(part, widths, mode="edge") if outside == "edge" else np.pad(part, widths)
