"""Volumes as 8-bit greys: what supervoxels, histograms and pages work on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # first and one past the last voxel along z, y, x
Grey = NDArray[np.uint8]
_SAMPLE = 1 << 20
_SLAB = 16


class AnnotationError(ValueError):
    """Something that cannot be annotated, and why."""


def to_grey(volume: Any, box: Box | None = None, percentiles: tuple[float, float] = (0.1, 99.9)) -> Grey:
    """A box of a volume as uint8 of shape (z, y, x), read slab by slab.

    Parameters
    ----------
    volume
        What slices like an array of shape (z, y, x).
    box
        The part to take; all of it by default.
    percentiles
        Greys that become 0 and 255, measured on a sample of the box. Voxels that are not finite become 0.

    Raises
    ------
    AnnotationError
        When the box does not lie in the volume, or all its voxels are alike.
    """
    shape = tuple(int(n) for n in volume.shape)
    box = box or whole(shape)
    check_box(box, shape)
    z, y, x = (slice(*side) for side in box)
    size = tuple(high - low for low, high in box)
    step = max(1, int(np.ceil(np.prod(size, dtype=float) / _SAMPLE)))
    sample = np.concatenate([_finite(volume[k : k + 1, y, x])[:: max(1, step)] for k in _planes(*box[0], step)])
    if sample.size == 0 or sample.min() == sample.max():
        raise AnnotationError("all voxels of the box have one grey value, or none is a finite number")
    low, high = (float(v) for v in np.percentile(sample, percentiles))
    if not high > low:
        low, high = float(sample.min()), float(sample.max())
    out = np.empty(size, np.uint8)
    for k in range(0, size[0], _SLAB):
        last = min(k + _SLAB, size[0])
        part = np.asarray(volume[z.start + k : z.start + last, y, x], np.float32)
        scaled = (part - np.float32(low)) * np.float32(255 / (high - low))
        out[k:last] = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0, 255))
    return out


def _planes(first: int, last: int, step: int) -> range:
    # a sample of a few million voxels needs no more than a few planes
    return range(first, last, max(1, min(step, (last - first) // 8)))


def _finite(plane: Any) -> NDArray[np.float32]:
    values = np.asarray(plane, np.float32).ravel()
    return values[np.isfinite(values)]


def whole(shape: tuple[int, ...]) -> Box:
    """The box of all voxels."""
    z, y, x = ((0, int(n)) for n in shape)
    return z, y, x


def check_box(box: Box, shape: tuple[int, ...]) -> None:
    """Refuse a box that does not lie in a volume of this shape.

    Raises
    ------
    AnnotationError
        With the axis, its limits and what was asked for.
    """
    if len(shape) != 3:
        raise AnnotationError(f"volume of shape {shape}: expected (z, y, x)")
    for name, (low, high), n in zip("zyx", box, shape, strict=True):
        if not 0 <= low < high <= n:
            raise AnnotationError(f"box {low}:{high} along {name}: the volume has voxels 0:{n}")
