"""Windows of an image on the network's own pixel raster: of any image, anywhere, and the same for every tiling.

Output pixel ``j`` lies at ``(j + 0.5) * step - 0.5`` of the image, whatever window it is read in; outside the image
its mirror goes on. Finer images are averaged with a triangle two output pixels wide, coarser ones are interpolated.
"""

import mmap
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

CANONICAL_NM = 1.1
NEAR = 0.08  # pixel sizes this close to the canonical one are taken as they are
FINEST_NM, COARSEST_NM = 0.1, 4.0
SAMPLE = 1 << 20  # pixels that the grey statistics look at

Field = NDArray[np.float32]


class Pixels(Protocol):
    """What a detector needs of an image: a numpy array, a memory map, or anything that is cut like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        ...

    def __getitem__(self, window: tuple[slice, slice], /) -> NDArray[Any]:
        """Part of the image."""
        ...


def forget(image: Pixels) -> None:
    """Let the pages of a mapped file go from this process's memory; they are read again where they are needed."""
    mapped = getattr(image, "_mmap", None)
    if isinstance(image, np.memmap) and mapped is not None and image.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, slots=True)
class Greys:
    """Median grey value and the spread about it (1.4826 times the median deviation), from a fixed sample."""

    median: float
    spread: float


def greys(image: Pixels) -> Greys:
    """Grey statistics of at most about a million pixels, spread evenly; NaN and infinite ones do not count."""
    rows, columns = image.shape[:2]
    step = max(1, int(np.ceil(np.sqrt(rows * columns / SAMPLE))))
    parts = [np.asarray(image[y : y + 1, 0:columns])[:, step // 2 :: step] for y in range(step // 2, rows, step)]
    sample = np.concatenate(parts, axis=1).ravel().astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return Greys(0.0, 1.0)
    median = float(np.median(sample))
    spread = 1.4826 * float(np.median(np.abs(sample - median)))
    return Greys(median, max(spread, 0.25 * float(sample.std()), 1e-9))


@dataclass(frozen=True, slots=True)
class Raster:
    """An image seen on another raster.

    Attributes
    ----------
    image
        Pixels of shape (rows, columns).
    step
        Raster pixels in image pixels; 1 leaves pixels as they are.
    greys
        What is subtracted and divided by.
    """

    image: Pixels
    step: float
    greys: Greys

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the raster."""
        rows, columns = self.image.shape[:2]
        return max(1, round(rows / self.step)), max(1, round(columns / self.step))

    def to_image(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """Image coordinate of raster coordinates, along either axis."""
        return np.asarray((at + 0.5) * self.step - 0.5)

    def window(self, top: int, left: int, rows: int, columns: int) -> Field:
        """Normalised grey values of a window that may reach beyond the image, shape (rows, columns)."""
        along_y = _taps(top, rows, self.step, self.image.shape[0])
        along_x = _taps(left, columns, self.step, self.image.shape[1])
        part = np.asarray(
            self.image[slice(along_y.first, along_y.last), slice(along_x.first, along_x.last)], dtype=np.float32
        )
        bad = ~np.isfinite(part)
        if bad.any():
            part = np.where(bad, np.float32(self.greys.median), part)
        part = (part - np.float32(self.greys.median)) * np.float32(1 / self.greys.spread)
        if along_y.matrix is None or along_x.matrix is None:
            return np.ascontiguousarray(part[along_y.index][:, along_x.index])
        down = along_y.matrix @ part
        return np.ascontiguousarray((along_x.matrix @ np.ascontiguousarray(down.T)).T, dtype=np.float32)


def raster_of(image: Pixels, pixel_nm: float) -> Raster:
    """The image on the canonical raster; as it is, where its pixel size is close enough."""
    step = CANONICAL_NM / pixel_nm
    return Raster(image, 1.0 if abs(step - 1) <= NEAR else step, greys(image))


@dataclass(frozen=True, slots=True)
class _Taps:
    first: int
    last: int
    index: NDArray[np.intp]
    matrix: Any  # sparse, (out, last - first); None where pixels are taken as they are


def _taps(start: int, count: int, step: float, size: int) -> _Taps:
    """Which pixels of one axis make up outputs ``start`` to ``start + count``, and with what weights."""
    if step == 1.0:
        index = _mirror(np.arange(start, start + count), size)
        first = int(index.min())
        return _Taps(first, int(index.max()) + 1, index - first, None)
    reach = max(1.0, step)
    centre = (np.arange(start, start + count) + 0.5) * step - 0.5
    taps = np.arange(int(np.ceil(2 * reach)) + 1)
    source = np.floor(centre - reach).astype(np.int64)[:, None] + 1 + taps[None, :]
    weight = np.maximum(0, 1 - np.abs(source - centre[:, None]) / reach)
    weight /= weight.sum(axis=1, keepdims=True)
    inside = _mirror(source, size)
    used = weight > 0
    first, last = int(inside[used].min()), int(inside[used].max()) + 1
    row = np.repeat(np.arange(count), len(taps)).reshape(count, -1)
    matrix = sparse.csr_matrix(
        (weight[used].astype(np.float32), (row[used], inside[used] - first)), shape=(count, last - first)
    )
    return _Taps(first, last, np.arange(0), matrix)


def _mirror(index: NDArray[Any], size: int) -> NDArray[np.intp]:
    """Indices folded back into 0 to size - 1, edges repeated."""
    folded = np.mod(index, 2 * size)
    return np.asarray(np.where(folded >= size, 2 * size - 1 - folded, folded), dtype=np.intp)
