"""Grey values from 0 to 1: as they are, stretched, equalised, or equalised locally (CLAHE), the same for any block.

What a voxel becomes depends on its own value and on tables made once from the whole volume, so blocks have no seams.
CLAHE is that of scikit-image's ``equalize_adapthist`` in three dimensions (2^14 grey levels, 256 bins, histograms of
tiles that start at the first voxel, trilinear between tiles), without its last stretch, which would need the whole
result at once. Kernel 128 and clip limit 0.02 are those of ASEM.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.organelles.blocks import Corner, mirrored
from models.organelles.numbers import NUMBERS

Kind = Literal["none", "rescale", "histogram", "clahe"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KERNEL = int(NUMBERS["clahe"]["kernel"])  # voxels
CLIP = float(NUMBERS["clahe"]["clip"])
TAILS = float(NUMBERS["rescale"]["tails"])  # share of voxels that a linear stretch lets go black, and white
_GREYS = int(NUMBERS["clahe"]["greys"])
_BINS = int(NUMBERS["clahe"]["bins"])
_SLAB = 16

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]


class BadGreyError(ValueError):
    """Grey values that cannot be normalised, and why."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Grey values of a whole volume.

    Attributes
    ----------
    low, high
        Smallest and largest value.
    edges
        Edges of the bins of the histogram, one more than there are bins.
    counts
        Voxels in each.
    """

    low: float
    high: float
    edges: NDArray[np.float64]
    counts: NDArray[np.int64]


def statistics(volume: Any, say: Progress | None = None) -> Statistics:
    """Range and histogram of a volume (z, y, x), read in slabs: one bin per grey value up to 16 bits, else 65536.

    Raises
    ------
    BadGreyError
        When voxels are not real numbers or not finite (how many, and where the first is), or are all the same.
    """
    kind = np.dtype(volume.dtype)
    if kind.kind not in "iuf":
        raise BadGreyError(f"voxels of type {kind}: real numbers are needed")
    integer = kind.kind in "iu" and kind.itemsize <= 2
    low, high, broken, first = np.inf, -np.inf, 0, ""
    if integer:
        info = np.iinfo(kind)
        counts, edges = np.zeros(2 ** (8 * kind.itemsize), np.int64), np.arange(info.min, info.max + 2) - 0.5
    for z, part in _slabs(volume, say):
        if integer:
            counts += np.bincount((part.ravel().astype(np.int64) - info.min), minlength=len(counts))
            continue
        fine = np.isfinite(part)
        if not fine.all():
            at = np.argwhere(~fine)[0]
            first = first or f"(z {z + at[0]}, y {at[1]}, x {at[2]})"
            broken += int((~fine).sum())
        elif part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    if broken:
        raise BadGreyError(
            f"{broken} voxels are NaN or infinite, the first at {first}: give them a value with"
            " `cryonaut volume convert --nan VALUE`"
        )
    if integer:
        seen = np.flatnonzero(counts)
        low, high = float(seen[0] + info.min), float(seen[-1] + info.min)
    if not high > low:
        raise BadGreyError(f"all voxels are {low:g}: nothing to see")
    if not integer:
        edges, counts = np.linspace(low, high, 65537), np.zeros(65536, np.int64)
        for _, part in _slabs(volume, None):
            counts += np.histogram(part, edges)[0]
    return Statistics(low, high, np.asarray(edges, float), counts)


def _slabs(volume: Any, say: Progress | None) -> Iterator[tuple[int, NDArray[Any]]]:
    depth = int(volume.shape[0])
    for z in range(0, depth, _SLAB):
        yield z, np.asarray(volume[z : z + _SLAB])
        if say:
            say(min(z + _SLAB, depth), depth)


@dataclass(frozen=True, slots=True)
class Normaliser:
    """What turns grey values of one volume into numbers from 0 to 1; see `normaliser`.

    Attributes
    ----------
    kind
        Which way.
    xs, ys
        Of the piecewise-linear function that is applied to each voxel; for ``clahe`` it gives 2^14 grey levels.
    kernel
        Edges of a tile of ``clahe``.
    maps
        Its tables, shape (tiles z, y, x, bins), with one more tile at each end.
    """

    kind: Kind
    xs: NDArray[np.float64]
    ys: NDArray[np.float64]
    kernel: Corner = (KERNEL, KERNEL, KERNEL)
    maps: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.uint16))

    def apply(self, part: NDArray[Any], low: Corner = (0, 0, 0)) -> Floats:
        """Normalised voxels of ``part``, whose first voxel is at ``low`` in the volume."""
        values = np.interp(part, self.xs, self.ys)
        if self.kind != "clahe":
            return np.asarray(values, np.float32)
        bins = _bins(values)
        return _interpolated(bins, low, self.kernel, self.maps)


def normaliser(
    volume: Any,
    kind: Kind,
    *,
    kernel: int = KERNEL,
    clip: float = CLIP,
    tails: float = TAILS,
    known: Statistics | None = None,
    say: Progress | None = None,
) -> Normaliser:
    """Tables that normalise a volume (z, y, x), from passes over it in slabs.

    Parameters
    ----------
    volume
        What slices like an array.
    kind
        ``none``: integers by the largest value of their type, floats as they are (they must lie in 0 to 1);
        ``rescale``: linear between two quantiles; ``histogram``: equalised over the whole volume; ``clahe``: locally.
    kernel, clip
        Tile in voxels and clip limit of ``clahe``.
    tails
        Share of voxels that ``rescale`` lets go black, and white.
    known
        Statistics that are there already.
    say
        Called with how much is done, of how much.

    Raises
    ------
    BadGreyError
        When the grey values cannot be normalised.
    """
    dtype = np.dtype(volume.dtype)
    if kind == "none" and dtype.kind == "u":
        top = float(np.iinfo(dtype).max)
        return Normaliser(kind, np.array([0.0, top]), np.array([0.0, 1.0]))
    found = known or statistics(volume, say)
    if kind == "none":
        if found.low < 0 or found.high > 1:
            raise BadGreyError(
                f"grey values from {found.low:g} to {found.high:g}: without normalisation 0 to 1 are needed"
            )
        return Normaliser(kind, np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    share = np.cumsum(found.counts) / found.counts.sum()
    centres = (found.edges[1:] + found.edges[:-1]) / 2
    if kind == "rescale":
        low = float(centres[int(np.searchsorted(share, tails))])
        high = float(centres[min(int(np.searchsorted(share, 1 - tails)), len(centres) - 1)])
        if high <= low:
            low, high = found.low, found.high
        return Normaliser(kind, np.array([low, high]), np.array([0.0, 1.0]))
    if kind == "histogram":
        return Normaliser(kind, centres, share)
    if kernel < 2 or not 0 < clip <= 1:
        raise BadGreyError(f"kernel {kernel}, clip {clip:g}: at least 2 voxels, and above 0 up to 1")
    stretch = Normaliser("none", np.array([found.low, found.high]), np.array([0.0, _GREYS - 1.0]))
    edges = (kernel, kernel, kernel)
    maps = _tile_maps(volume, stretch, edges, clip, say)
    return Normaliser(kind, stretch.xs, stretch.ys, edges, maps)


def normalised(volume: NDArray[Any], kind: Kind, **options: Any) -> Floats:
    """A volume in memory, normalised; see `normaliser`."""
    return normaliser(volume, kind, **options).apply(volume)


# ---------------------------------------------------------------------------------------------- CLAHE


def _bins(greys: NDArray[Any]) -> NDArray[np.int64]:
    return greys.astype(np.int64) // (1 + _GREYS // _BINS)


def _tile_maps(
    volume: Any, stretch: Normaliser, kernel: Corner, clip: float, say: Progress | None
) -> NDArray[np.uint16]:
    """Cumulated, clipped histograms of all tiles; a tile that reaches beyond the volume sees it mirrored."""
    counts = tuple(-(-int(n) // k) for n, k in zip(volume.shape, kernel, strict=True))
    mirrors = [mirrored(0, c * k, int(n)) for n, c, k in zip(volume.shape, counts, kernel, strict=True)]
    maps = np.zeros((*counts, _BINS), np.uint16)
    voxels = int(np.prod(kernel))
    for number, tile in enumerate(product(*map(range, counts)), start=1):
        at = [m[i * k : (i + 1) * k] for m, i, k in zip(mirrors, tile, kernel, strict=True)]
        part = np.asarray(volume[tuple(slice(int(a.min()), int(a.max()) + 1) for a in at)])
        part = part[np.ix_(*(a - a.min() for a in at))]
        greys = np.interp(part, stretch.xs, stretch.ys)
        histogram = np.bincount(_bins(greys).ravel(), minlength=_BINS)
        clipped = clip_histogram(histogram, max(1, int(clip * voxels)))
        maps[tile] = np.minimum(np.cumsum(clipped) * ((_GREYS - 1) / voxels), _GREYS - 1).astype(np.uint16)
        if say:
            say(number, int(np.prod(counts)))
    return np.pad(maps, [(1, 1)] * 3 + [(0, 0)], mode="edge")


def clip_histogram(histogram: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """A histogram with no bin above ``limit``; what was above is shared out evenly, in rounds, lowest bins first.

    As in Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994.
    """
    clipped = np.asarray(histogram, np.int64).copy()
    over = clipped > limit
    excess = int((clipped[over] - limit).sum())
    clipped[over] = limit
    step = excess // len(clipped)
    low = clipped < limit - step
    excess -= step * int(low.sum())
    clipped[low] += step
    near = (clipped >= limit - step) & (clipped < limit)
    excess -= int((limit - clipped[near]).sum())
    clipped[near] = limit
    while excess > 0:
        before = excess
        for start in range(len(clipped)):
            free = np.flatnonzero(clipped[start:] < limit)[:: max(int((clipped < limit).sum()) // excess, 1)] + start
            take = free[:excess]
            clipped[take] += 1
            excess -= len(take)
            if excess <= 0:
                break
        if before == excess:
            break
    return clipped


def _interpolated(bins: NDArray[np.int64], low: Corner, kernel: Corner, maps: NDArray[np.uint16]) -> Floats:
    """Each voxel's bin looked up in the eight nearest tiles, trilinear between their centres."""
    first, weight = [], []
    for axis, (n, at, k) in enumerate(zip(bins.shape, low, kernel, strict=True)):
        place = np.arange(at, at + n) + k // 2
        shape = [1, 1, 1]
        shape[axis] = n
        first.append((place // k).reshape(shape))
        weight.append(((place % k) / k).astype(np.float32).reshape(shape))
    flat = maps.reshape(-1)
    sizes = maps.shape
    out = np.zeros(bins.shape, np.float32)
    for corner in product((0, 1), repeat=3):
        tile = [np.minimum(f + c, s - 1) for f, c, s in zip(first, corner, sizes, strict=False)]
        index = ((tile[0] * sizes[1] + tile[1]) * sizes[2] + tile[2]) * sizes[3] + bins
        share = [w if c else 1 - w for w, c in zip(weight, corner, strict=True)]
        out += flat[index] * (share[0] * share[1] * share[2])
    return out / np.float32(_GREYS - 1)
