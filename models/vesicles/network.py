"""Probability maps of a tomogram, block by block, the same whatever the block.

The network looks at `REACH` voxels around each voxel and at nothing else, so a block with that much of its neighbours
around it gets the answer that the whole volume would get. Blocks start at multiples of the network's alignment; outside
the volume its mean goes on. Axes are (z, y, x).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models import runtime

VOXEL_NM = 2.2  # what the networks are trained on
REACH = 32  # voxels; a multiple of the alignment that covers the receptive field
BLOCK = (64, 128, 128)
_SAME_SIZE = 0.04  # voxel sizes that differ by less need no resampling: vesicles differ more

Map = NDArray[np.uint8]
Progress = Callable[[int, int], None]


class BadVolumeError(ValueError):
    """A volume that cannot be searched, and why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A tomogram on the network's grid, read where it is needed.

    Attributes
    ----------
    volume
        Anything that slices like an array (z, y, x): an array, a memory map, a zarr array.
    voxel_nm
        Edge of its voxels.
    mean, deviation
        Of its finite voxels.
    dark
        Whether matter is dark; else grey values are turned round.
    """

    volume: Any
    voxel_nm: float
    mean: float
    deviation: float
    dark: bool = True

    @property
    def factor(self) -> float:
        """Voxels of the file for each voxel of the grid; 1 where the file's own grid serves."""
        factor = VOXEL_NM / self.voxel_nm
        return 1.0 if abs(factor - 1) < _SAME_SIZE else factor

    @property
    def grid_nm(self) -> float:
        """Edge of a voxel of the grid."""
        return self.voxel_nm * self.factor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the grid as (z, y, x)."""
        z, y, x = (max(1, round(n / self.factor)) for n in self.volume.shape)
        return z, y, x

    def read(self, low: tuple[int, ...], high: tuple[int, ...]) -> NDArray[np.float32]:
        """Standardised grey values of the grid's voxels from ``low`` to ``high``; 0 outside the volume."""
        size = tuple(b - a for a, b in zip(low, high, strict=True))
        out = np.zeros(size, np.float32)
        inner_low = [max(a, 0) for a in low]
        inner_high = [min(b, n) for b, n in zip(high, self.shape, strict=True)]
        if any(a >= b for a, b in zip(inner_low, inner_high, strict=True)):
            return out
        part = self._plain(inner_low, inner_high)
        at = tuple(slice(a - s, b - s) for a, b, s in zip(inner_low, inner_high, low, strict=True))
        out[at] = part
        return out

    def _plain(self, low: list[int], high: list[int]) -> NDArray[np.float32]:
        scale = 1.0 if self.dark else -1.0
        if self.factor == 1.0:
            at = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            part = np.asarray(self.volume[at], np.float32)
        else:
            part = self._resampled(low, high)
        part = (part - np.float32(self.mean)) * np.float32(scale / self.deviation)
        return np.where(np.isfinite(part), part, np.float32(0))

    def _resampled(self, low: list[int], high: list[int]) -> NDArray[np.float32]:
        blur = 0.5 * math.sqrt(max(self.factor**2 - 1, 0.0))
        margin = math.ceil(4 * blur) + 2
        first = [max(0, math.floor(a * self.factor) - margin) for a in low]
        last = [min(n, math.ceil(b * self.factor) + margin) for b, n in zip(high, self.volume.shape, strict=True)]
        part = np.asarray(self.volume[tuple(slice(a, b) for a, b in zip(first, last, strict=True))], np.float32)
        part = np.where(np.isfinite(part), part, np.float32(self.mean))
        if blur > 0:
            part = ndimage.gaussian_filter(part, blur, mode="nearest", radius=math.ceil(4 * blur))
        axes = [(np.arange(a, b) + 0.5) * self.factor - 0.5 - f for a, b, f in zip(low, high, first, strict=True)]
        grid = np.meshgrid(*axes, indexing="ij")
        return np.asarray(ndimage.map_coordinates(part, grid, order=1, mode="nearest"), np.float32)


def open_source(volume: Any, voxel_nm: float | None, *, dark: bool = True) -> Source:
    """A tomogram ready to be searched.

    Parameters
    ----------
    volume
        Array-like, (z, y, x).
    voxel_nm
        Edge of a voxel.
    dark
        Whether matter is dark.

    Raises
    ------
    BadVolumeError
        When it is not three-dimensional, too small, constant, without a finite voxel, or its voxel size is missing or
        makes no sense.
    """
    shape = tuple(volume.shape)
    if len(shape) != 3:
        raise BadVolumeError(f"volume of shape {shape}: three axes (z, y, x) are needed")
    if voxel_nm is None:
        raise BadVolumeError("the file says no voxel size: give it with --voxel-size NM")
    if not 0.2 <= voxel_nm <= 6.0:
        raise BadVolumeError(
            f"voxel size {voxel_nm:g} nm: 0.2 to 6 nm are expected; is the header wrong? --voxel-size NM overrides it"
        )
    if min(shape) * voxel_nm < 20:
        axis = "zyx"[int(np.argmin(shape))]
        raise BadVolumeError(f"volume of {shape} voxels of {voxel_nm:g} nm: less than one vesicle along {axis}")
    count, total, square = 0, 0.0, 0.0
    for z in range(0, shape[0], 16):
        part = np.asarray(volume[z : z + 16])
        if not (np.issubdtype(part.dtype, np.integer) or np.issubdtype(part.dtype, np.floating)):
            raise BadVolumeError(f"volume of dtype {part.dtype}: real numbers are needed")
        values = part[np.isfinite(part)].astype(np.float64)
        count, total, square = count + values.size, total + values.sum(), square + (values**2).sum()
    if not count:
        raise BadVolumeError("the volume has no finite voxel")
    mean = total / count
    variance = square / count - mean**2
    if not variance > 1e-12 * max(mean**2, 1e-30):
        raise BadVolumeError(f"the volume is constant ({mean:g}): nothing to find")
    return Source(volume, voxel_nm, mean, math.sqrt(variance), dark)


def blocks(shape: tuple[int, ...], size: tuple[int, int, int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Corners (low, high) of the blocks that tile a volume."""
    starts = [range(0, n, s) for n, s in zip(shape, size, strict=True)]
    return [(low, tuple(min(a + s, n) for a, s, n in zip(low, size, shape, strict=True))) for low in product(*starts)]


def probability(
    source: Source,
    model: runtime.OnnxModel,
    out: NDArray[np.uint8],
    *,
    size: tuple[int, int, int] = BLOCK,
    done: set[int] | None = None,
    progress: Progress | None = None,
) -> Iterator[int]:
    """Fill ``out`` (2, z, y, x) with probabilities times 255, one block at a time; yields the number of each.

    Parameters
    ----------
    source
        The tomogram.
    model
        A network of this family.
    out
        Array or memory map on the grid of ``source``.
    size
        Block as (z, y, x), multiples of 8.
    done
        Blocks that need not be done again.
    progress
        Called with how many blocks are done, of how many.
    """
    if any(s % 8 or s < 8 for s in size):
        raise BadVolumeError(f"block {size}: multiples of 8 are needed")
    every = blocks(source.shape, size)
    for number, (low, high) in enumerate(every):
        if not done or number not in done:
            padded = tuple(a + 8 * math.ceil((b - a) / 8) for a, b in zip(low, high, strict=True))
            wide_low = tuple(a - REACH for a in low)
            wide_high = tuple(b + REACH for b in padded)
            answer = model.run(source.read(wide_low, wide_high)[None, None])["probability"][0]
            inner = tuple(slice(REACH, REACH + b - a) for a, b in zip(low, high, strict=True))
            at = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            out[(slice(None), *at)] = np.rint(answer[(slice(None), *inner)] * 255).astype(np.uint8)
            yield number
        if progress:
            progress(number + 1, len(every))
