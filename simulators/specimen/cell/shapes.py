"""Forms that cells are built from: random fields, winding tubes, spheres, as signed distances in nanometres.

A signed distance is negative inside. Volumes are (z, y, x), points (z, y, x) in nanometres from the centre of the
first voxel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Rows = NDArray[np.float64]
Box = tuple[slice, slice, slice]
FAR_NM = np.float32(1e4)


def field(shape: Sequence[int], sigma: float | Sequence[float], rng: np.random.Generator) -> Volume:
    """Gaussian random field of mean 0 and deviation 1 everywhere, smooth over ``sigma`` voxels (of each axis).

    White noise on a coarse grid is spread by Gaussians, one axis after the other, so that a field of any smoothness
    costs three matrix products.
    """
    sigmas = [float(sigma)] * len(shape) if isinstance(sigma, int | float) else [float(s) for s in sigma]
    weights = []
    for n, s in zip(shape, sigmas, strict=True):
        step = max(1.0, 0.8 * s)
        knots = np.arange(-4 * s - step, n + 4 * s + step, step) + rng.uniform(0, step)
        spread = np.exp(-((np.arange(n)[:, None] - knots[None]) ** 2) / (2 * s * s))
        weights.append((spread / np.sqrt((spread**2).sum(1, keepdims=True))).astype(np.float32))
    out = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    for axis, w in enumerate(weights):
        out = np.moveaxis(np.tensordot(w, out, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(out, np.float32)


def axes(shape: Sequence[int], voxel_nm: float) -> tuple[Volume, Volume, Volume]:
    """Coordinates of voxel centres along each axis, shaped to be broadcast."""
    z, y, x = (np.arange(n, dtype=np.float32) * np.float32(voxel_nm) for n in shape)
    return z[:, None, None], y[None, :, None], x[None, None, :]


def box_round(point: Rows, reach_nm: float, shape: Sequence[int], voxel_nm: float) -> Box:
    """Voxels within ``reach_nm`` of a point along each axis; an empty box where there are none."""
    low = [min(max(0, math.floor((p - reach_nm) / voxel_nm)), n) for p, n in zip(point, shape, strict=True)]
    high = [max(0, min(n, math.ceil((p + reach_nm) / voxel_nm) + 1)) for p, n in zip(point, shape, strict=True)]
    z, y, x = (slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def offsets(box: Box, point: Rows, voxel_nm: float) -> tuple[Volume, Volume, Volume]:
    """Where the voxels of a box are as seen from a point, in nanometres, shaped to be broadcast."""
    z, y, x = (
        np.arange(s.start, s.stop, dtype=np.float32) * np.float32(voxel_nm) - np.float32(p)
        for s, p in zip(box, point, strict=True)
    )
    return z[:, None, None], y[None, :, None], x[None, None, :]


def sphere(box: Box, centre: Rows, radius_nm: float, voxel_nm: float) -> Volume:
    """Signed distance from a sphere."""
    z, y, x = offsets(box, centre, voxel_nm)
    return np.asarray(np.sqrt(z * z + y * y + x * x) - np.float32(radius_nm), np.float32)


def smooth_union(a: Volume, b: Volume, blend_nm: float) -> Volume:
    """Union of two forms whose seam is rounded over ``blend_nm`` (polynomial smooth minimum)."""
    h = np.clip(0.5 + 0.5 * (b - a) / np.float32(blend_nm), 0, 1)
    return np.asarray(b + (a - b) * h - np.float32(blend_nm) * h * (1 - h), np.float32)


def membrane(distance_nm: Volume, sigma_nm: float = 4.5) -> Volume:
    """How much stain a membrane holds at a signed distance from its middle, 1 at most."""
    return np.asarray(np.exp(-(distance_nm**2) / np.float32(2 * sigma_nm**2)), np.float32)


@dataclass(frozen=True, slots=True)
class Course:
    """How the voxels of a box lie along a path: distance from it, and which of its points is nearest.

    Attributes
    ----------
    box
        The voxels.
    distance_nm
        From the nearest point of the path; far beyond reach.
    nearest
        Number of that point, -1 beyond reach.
    """

    box: Box
    distance_nm: Volume
    nearest: NDArray[np.int32]


def along(path_nm: Rows, reach_nm: float, shape: Sequence[int], voxel_nm: float) -> Course | None:
    """Course of a path of points about a voxel apart, out to ``reach_nm``; None where no voxel is near."""
    size = np.array(shape) * voxel_nm
    near = ((path_nm > -reach_nm) & (path_nm < size + reach_nm)).all(1)
    if not near.any():
        return None
    low, high = path_nm[near].min(0), path_nm[near].max(0)
    z, y, x = (
        slice(max(0, math.floor((a - reach_nm) / voxel_nm)), max(0, min(n, math.ceil((b + reach_nm) / voxel_nm) + 1)))
        for a, b, n in zip(low, high, shape, strict=True)
    )
    if z.stop <= z.start or y.stop <= y.start or x.stop <= x.start:
        return None
    inner = (z.stop - z.start, y.stop - y.start, x.stop - x.start)
    squared = np.full(inner, FAR_NM**2, np.float32)
    nearest = np.full(inner, -1, np.int32)
    corner = np.array([z.start, y.start, x.start]) * voxel_nm
    for number in np.flatnonzero(near):
        point = path_nm[number] - corner
        box = box_round(point, reach_nm, inner, voxel_nm)
        dz, dy, dx = offsets(box, point, voxel_nm)
        here = dz * dz + dy * dy + dx * dx
        better = here < squared[box]
        squared[box] = np.where(better, here, squared[box])
        nearest[box] = np.where(better, np.int32(number), nearest[box])
    return Course((z, y, x), np.sqrt(squared), nearest)


def winding(start: Rows, way: Rows, length_nm: float, step_nm: float, bend: float, rng: np.random.Generator) -> Rows:
    """A path from ``start`` towards ``way`` that turns at random by about ``bend`` radians each 100 nm."""
    way = way / np.linalg.norm(way)
    count = max(2, round(length_nm / step_nm))
    turns = np.asarray(field((count, 3), (max(1.0, 80 / step_nm), 0.3), rng), np.float64)
    points = np.empty((count, 3))
    points[0] = start
    for k in range(1, count):
        way = way + turns[k] * bend * step_nm / 100
        way /= np.linalg.norm(way)
        points[k] = points[k - 1] + step_nm * way
    return points
