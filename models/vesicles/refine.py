"""Centres and radii to a fraction of a voxel, from the membrane as all vesicles of the tomogram show it.

The published pipeline fits each vesicle's own radial profile in whole voxels (CryoVesNet, "Radial profile"). Here the
vesicles share one profile for each group of directions, learned from the tomogram itself, and each is moved to where
the membrane seen along many rays matches it best: Gauss-Newton on the match, with the first estimate as a prior.
Directions in the missing wedge show no membrane, so their shared profile is flat and they say nothing, whatever the
tilt range was.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.vesicles.network import Source
from models.vesicles.seeds import Rows, Spheres

_RAYS = 128
_HALF = 5.0  # voxels to both sides of the outer radius
_STEP = 0.5
_ROUNDS = 6
_BLUR = 0.9  # voxels
_PRIOR_CENTRE, _PRIOR_RADIUS = 0.45, 0.4  # voxels: how well the maps know them
_MOST_MOVED = 3.0  # voxels, along each axis
_FEWEST = 8  # vesicles that make a shared profile


@dataclass(frozen=True, slots=True)
class Refined:
    """Refined spheres and what their membranes look like.

    Attributes
    ----------
    spheres
        The spheres.
    thickness
        Of the membrane in voxels, twice from the outer radius to its darkest shell, shape (n,); NaN where unknown.
    fit
        Correlation of the rays with the shared profile, -1 to 1, shape (n,).
    profile
        Shared mean profile over ``offsets``, standardised grey values.
    offsets
        Voxels from the outer radius.
    """

    spheres: Spheres
    thickness: Rows
    fit: Rows
    profile: Rows
    offsets: Rows


def rays(count: int = _RAYS) -> Rows:
    """Directions spread evenly over the sphere (Fibonacci), shape (n, 3) as (z, y, x)."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    turn = np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z**2)
    return np.stack([z, r * np.sin(turn), r * np.cos(turn)], axis=1)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Blurred grey values around each sphere, read once: boxes as float16 and their first voxels."""

    boxes: list[NDArray[np.float16]]
    corners: list[NDArray[np.int64]]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, source: Source, spheres: Spheres, reach: float) -> "Surroundings":
        """Boxes that hold ``reach`` voxels around each sphere, with room for it to move."""
        boxes, corners = [], []
        for centre, radius in zip(spheres.centres, spheres.radii, strict=True):
            low = np.floor(centre - radius - reach).astype(np.int64)
            high = np.ceil(centre + radius + reach).astype(np.int64) + 1
            box = source.read(tuple(int(n) for n in low), tuple(int(n) for n in high))
            boxes.append(ndimage.gaussian_filter(box, _BLUR, radius=3, mode="nearest").astype(np.float16))
            corners.append(low)
        return cls(boxes, corners, source.shape)

    def along(self, spheres: Spheres, ways: Rows, offsets: Rows) -> NDArray[np.float32]:
        """Grey values along the rays of each sphere, shape (n, rays, offsets); NaN outside the volume."""
        out = np.full((len(spheres), len(ways), len(offsets)), np.nan, np.float32)
        last = np.array(self.shape) - 1
        for i, (centre, radius) in enumerate(zip(spheres.centres, spheres.radii, strict=True)):
            points = centre + ways[:, None, :] * np.maximum(radius + offsets, 0)[None, :, None]
            at = (points - self.corners[i]).reshape(-1, 3).T
            values = ndimage.map_coordinates(self.boxes[i].astype(np.float32), at, order=1, mode="nearest")
            seen = ((points >= 0) & (points <= last)).all(axis=-1)
            out[i] = np.where(seen, values.reshape(seen.shape), np.nan)
        return out


def refine(source: Source, spheres: Spheres) -> Refined:
    """Refined ``spheres``; with fewer than a handful there is no shared profile, and they stay as they are."""
    offsets = np.arange(-_HALF, _HALF + _STEP / 2, _STEP)
    ways = rays()
    if len(spheres) < _FEWEST:
        nothing = np.full(len(spheres), np.nan)
        return Refined(spheres, nothing, nothing.copy(), np.zeros(len(offsets)), offsets)
    groups = _groups(ways)
    around = Surroundings.of(source, spheres, _HALF + _MOST_MOVED)
    centres, radii = spheres.centres.copy(), spheres.radii.copy()
    for _ in range(_ROUNDS):
        now = Spheres(centres, radii, spheres.scores)
        values = around.along(now, ways, offsets)
        shared = _shared(values, groups)
        step = _steps(values, shared, groups, ways, spheres, now)
        centres = spheres.centres + np.clip(centres + step[:, :3] - spheres.centres, -_MOST_MOVED, _MOST_MOVED)
        radii = radii + step[:, 3]
    refined = Spheres(centres, radii, spheres.scores)
    values = around.along(refined, ways, offsets)
    shared = _shared(values, groups)
    fit, thickness = _membranes(values, shared, groups, offsets)
    return Refined(refined, thickness, fit, np.asarray(np.nanmean(values, axis=(0, 1))), offsets)


def _groups(ways: Rows) -> NDArray[np.int64]:
    """Directions that the missing wedge treats alike: by steepness, and by which level axis they lean to."""
    steep = np.digitize(np.abs(ways[:, 0]), (0.35, 0.6, 0.8))
    return np.asarray(2 * steep + (np.abs(ways[:, 1]) > np.abs(ways[:, 2])), np.int64)


def _shared(values: NDArray[np.float32], groups: NDArray[np.int64]) -> Rows:
    """Mean profile of each group of directions, shape (groups, offsets)."""
    out = []
    for group in range(int(groups.max()) + 1):
        part = values[:, groups == group]
        with np.errstate(invalid="ignore"):
            mean = np.nanmean(part.reshape(-1, values.shape[2]), axis=0) if part.size else np.zeros(values.shape[2])
        out.append(np.nan_to_num(mean))
    return np.asarray(ndimage.gaussian_filter1d(np.array(out), 1.0, axis=1, mode="nearest"))


def _steps(
    values: NDArray[np.float32],
    shared: Rows,
    groups: NDArray[np.int64],
    ways: Rows,
    first: Spheres,
    now: Spheres,
) -> Rows:
    """Step of each sphere, (z, y, x, radius): linear least squares for level, gain and shift of the shared profile."""
    slope = np.gradient(shared, _STEP, axis=1)
    template, falls = shared[groups], slope[groups]  # (rays, offsets)
    seen = np.isfinite(values)
    data = np.nan_to_num(values).astype(np.float64)
    noise = _noise(values - template[None].astype(np.float32), ways)
    columns = np.stack(
        [np.ones_like(template), template, *[-falls * ways[:, k, None] for k in range(3)], -falls], axis=-1
    )  # (rays, offsets, 6): a level, a gain, and the shifts
    normal = np.einsum("nro,roi,roj->nij", seen.astype(np.float64), columns, columns) / noise
    right = np.einsum("nro,roi->ni", data * seen, columns) / noise
    prior = np.zeros(6)
    prior[0], prior[1] = 1 / 0.5**2, 1 / 0.35**2
    prior[2:5], prior[5] = 1 / _PRIOR_CENTRE**2, 1 / _PRIOR_RADIUS**2
    back = np.concatenate([first.centres - now.centres, (first.radii - now.radii)[:, None]], axis=1)
    right[:, 1] += prior[1]  # a gain of one
    right[:, 2:] += prior[2:] * back
    normal += np.diag(prior)
    solved = np.linalg.solve(normal, right[..., None])[..., 0]
    gain = np.clip(solved[:, 1:2], 0.5, 2.0)
    return np.asarray(np.clip(solved[:, 2:] / gain, -1.0, 1.0))


def _noise(residual: NDArray[np.float32], ways: Rows) -> float:
    """Variance of the residuals, raised by how alike neighbouring samples are, so that each counts as independent.

    Blur, the reconstruction and above all diffusion spread noise over neighbours: along a ray the sum of the
    autocorrelation says how far, across rays the variance of the mean of neighbours against that of one.
    """
    seen = np.isfinite(residual)
    level = np.nan_to_num(residual).sum(axis=(1, 2)) / np.maximum(seen.sum(axis=(1, 2)), 1)
    part = residual - level[:, None, None]
    variance = float(np.nanvar(part))
    if not variance > 0:
        return 1e-12
    lags = [float(np.nanmean(part[..., k:] * part[..., :-k])) / variance for k in range(1, part.shape[2] // 2)]
    first_none = next((k for k, value in enumerate(lags) if value <= 0), len(lags))
    along = 1 + 2 * sum(lags[:first_none])
    near = np.argsort(-(ways @ ways.T), axis=1)[:, :7]  # itself and six around it
    around = part[:, near]
    whole = np.isfinite(around).all(axis=2)
    across = 7 * float(np.nan_to_num(around).mean(axis=2)[whole].var()) / variance if whole.any() else 1.0
    return variance * max(1.0, along) * max(1.0, across)


def outside(maps: NDArray[np.uint8], spheres: Spheres) -> float:
    """How much larger than these radii, in voxels, the first map says that vesicles are, over all of them.

    The probability along the rays, a median over vesicles and directions, crosses one half there: one number for a
    tomogram, which no crowd of neighbours and no single vesicle decides.
    """
    offsets = np.arange(-3.0, 3.01, 0.25)
    ways = rays(64)
    last = np.array(maps.shape[1:]) - 1
    found = []
    for centre, radius in zip(spheres.centres, spheres.radii, strict=True):
        points = centre + ways[:, None, :] * (radius + offsets)[None, :, None]
        if (points < 0).any() or (points > last).any():
            continue
        low, high = np.floor(points.min(axis=(0, 1))).astype(int), np.ceil(points.max(axis=(0, 1))).astype(int) + 1
        z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        box = maps[0, z, y, x].astype(np.float32)
        found.append(ndimage.map_coordinates(box, (points - low).reshape(-1, 3).T, order=1).reshape(len(ways), -1))
    if len(found) < _FEWEST:
        return 0.0
    middle = np.median(np.concatenate(found), axis=0)
    below = np.flatnonzero(middle < 127.5)
    if not len(below) or below[0] == 0:
        return 0.0
    k = int(below[0])
    share = (middle[k - 1] - 127.5) / max(float(middle[k - 1] - middle[k]), 1e-9)
    return float(offsets[k - 1] + 0.25 * share)


def _membranes(
    values: NDArray[np.float32], shared: Rows, groups: NDArray[np.int64], offsets: Rows
) -> tuple[Rows, Rows]:
    """Fit (correlation with the shared profile) and membrane thickness of each vesicle."""
    template = shared[groups] - shared.mean()
    fits, thick = np.zeros(len(values)), np.full(len(values), np.nan)
    strength = shared.std(axis=1)
    clear = np.isin(groups, np.flatnonzero(strength > 0.6 * strength.max()))
    for i, rows in enumerate(values):
        seen = np.isfinite(rows)
        if seen.sum() < 50:
            continue
        a, b = rows[seen].astype(np.float64), template[seen]
        a, b = a - a.mean(), b - b.mean()
        fits[i] = float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))
        part = rows[clear]
        if np.isfinite(part).any(axis=0).all():
            mean = ndimage.gaussian_filter1d(np.nanmean(part, axis=0), 1.0, mode="nearest")
            inner = (offsets > -4.0) & (offsets < 0.5)
            k = int(np.flatnonzero(inner)[np.argmin(mean[inner])])
            before, here, after = mean[k - 1], mean[k], mean[k + 1]
            bend = before - 2 * here + after  # the vertex of a parabola through the darkest shell and its neighbours
            shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
            thick[i] = max(0.0, -2.0 * (offsets[k] + _STEP * float(np.clip(shift, -0.5, 0.5))))
    return fits, thick
