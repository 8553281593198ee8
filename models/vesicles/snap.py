"""A vesicle where a person clicked: centre and radius from the radial profile, in images and in volumes.

Where a person clicks is near the centre, and no better. The outside of a vesicle is where grey values along rays from
its centre rise fastest, from the dark membrane to what lies around (the radial profile of CryoVesNet, "Radial
profile", searched over centres and radii together). Each ray counts only up to a limit, so that a neighbour that
touches, or a direction in the missing wedge that shows no membrane, does not decide.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from models.vesicles.network import BadVolumeError
from models.vesicles.refine import rays

RADIUS_NM = (12.0, 50.0)  # where an outer radius is looked for
_STEP_NM = 2.0  # of the search
_HALF_NM = 2.5  # grey values this far inside and outside are compared
_BLUR_NM = 1.2
_MOST_MOVED = 0.6  # of the radius
_CLIPPED = 2.0  # deviations that one ray may count
_PULL = 0.5  # loss, in deviations, of a centre one radius away from the click
_USUAL_NM, _SPREAD, _UNUSUAL = 22.0, 0.35, 0.15  # usual outer radius, spread of its logarithm, loss at one spread

Rows = NDArray[np.float64]


class Snapped(NamedTuple):
    """A vesicle at a click.

    Attributes
    ----------
    centre
        (x, y) in pixels of an image, (x, y, z) in voxels of a volume; the centre of the first is (0, 0).
    radius
        Outer radius in pixels.
    """

    centre: tuple[float, ...]
    radius: float


def snap(
    image_or_volume: NDArray[np.generic],
    centre: tuple[float, ...],
    pixel_size_nm: float,
    *,
    dark: bool = True,
    radius_nm: tuple[float, float] = RADIUS_NM,
) -> Snapped:
    """The vesicle at a click, as ``centre, radius`` in pixels.

    Parameters
    ----------
    image_or_volume
        Image (rows, columns) or volume (z, y, x); anything that slices like an array, only the surroundings are read.
    centre
        The click: (x, y) in an image, (x, y, z) in a volume, pixels.
    pixel_size_nm
        Edge of a pixel or voxel.
    dark
        Whether membranes are dark.
    radius_nm
        Smallest and largest outer radius.

    Raises
    ------
    BadVolumeError
        When the click lies outside, the pixel size makes no sense, or there is nothing but one grey value around it.
    """
    shape = tuple(int(n) for n in image_or_volume.shape)
    if len(shape) not in (2, 3) or len(centre) != len(shape):
        raise BadVolumeError(f"click {centre} in an array of shape {shape}: (x, y) or (x, y, z) is needed")
    if not 0.05 <= pixel_size_nm <= 10:
        raise BadVolumeError(f"pixel size {pixel_size_nm:g} nm: a vesicle cannot be measured below 0.05 or above 10 nm")
    click = np.array(centre[::-1], float)  # array order
    if not all(-0.5 <= c <= n - 0.5 for c, n in zip(click, shape, strict=True)):
        raise BadVolumeError(f"click {centre} lies outside the array of shape {shape}")
    around = _Around.of(image_or_volume, click, pixel_size_nm, radius_nm[1], dark)
    best, radius = _search(around, radius_nm)
    best, radius = _polished(around, best, radius, radius_nm)
    at = around.to_array(best)
    return Snapped(tuple(float(c) for c in at[::-1]), float(radius / pixel_size_nm))


class _Around:
    """What lies around a click: blurred grey values, and the way from nm around the click to them."""

    def __init__(self, box: NDArray[np.float32], low: Rows, step: float, pixel_nm: float, click: Rows) -> None:
        self.box, self.low, self.step, self.pixel_nm, self.click = box, low, step, pixel_nm, click
        self.ways = rays(96) if box.ndim == 3 else _circle(48)
        self.noise = 1.0
        self.noise = self._noise()

    @classmethod
    def of(cls, source: NDArray[np.generic], click: Rows, pixel_nm: float, largest_nm: float, dark: bool) -> "_Around":
        reach = (1 + _MOST_MOVED) * largest_nm + 2 * _HALF_NM
        reach_px = math.ceil(reach / pixel_nm) + 2
        low = np.maximum(np.floor(click).astype(int) - reach_px, 0)
        high = np.minimum(np.ceil(click).astype(int) + reach_px + 1, source.shape)
        part = np.asarray(source[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))], np.float32)
        finite = np.isfinite(part)
        if not finite.any() or float(np.ptp(part[finite])) == 0:
            raise BadVolumeError("nothing but one grey value around the click: there is no vesicle to measure")
        part = np.where(finite, part, np.float32(np.median(part[finite])))
        part = ndimage.gaussian_filter(part, _BLUR_NM / pixel_nm, mode="nearest")
        step = max(1, int(_BLUR_NM / pixel_nm))  # fine pixels say nothing new after the blur
        box = np.ascontiguousarray(part[(slice(None, None, step),) * part.ndim]) * np.float32(1 if dark else -1)
        return cls(box, low.astype(float), step, pixel_nm, click)

    def to_array(self, offset_nm: Rows) -> Rows:
        """Array coordinates of a place in nm from the click."""
        return np.asarray(self.click + offset_nm / self.pixel_nm)

    def rises(self, offset_nm: Rows, radii_nm: Rows) -> Rows:
        """How much brighter it is outside of each radius than inside, along each ray; (rays, radii), NaN outside."""
        edges = radii_nm[None, :] + np.array([-_HALF_NM, _HALF_NM])[:, None]
        points = offset_nm + self.ways[:, None, None] * edges[None, :, :, None]  # (rays, 2, radii, axes)
        at = (self.to_array(points) - self.low) / self.step
        values = ndimage.map_coordinates(self.box, np.moveaxis(at, -1, 0), order=1, mode="constant", cval=np.nan)
        return np.asarray(values[:, 1] - values[:, 0], float)

    def _noise(self) -> float:
        """Typical difference of grey values at that distance, anywhere around the click."""
        lag = max(1, round(2 * _HALF_NM / (self.pixel_nm * self.step)))
        parts = [np.abs(np.diff(self.box.take(range(0, n, lag), axis=k), axis=k)) for k, n in enumerate(self.box.shape)]
        return max(float(np.median(np.concatenate([p.ravel() for p in parts]))) * 1.4826, 1e-12)

    def score(self, offset_nm: Rows, radii_nm: Rows) -> Rows:
        """How well circles or spheres of these radii fit, shape (radii,)."""
        clipped = np.clip(self.rises(offset_nm, radii_nm) / self.noise, -_CLIPPED, _CLIPPED)
        seen = np.isfinite(clipped)
        mean = np.where(seen, clipped, 0).sum(axis=0) / len(self.ways)  # what lies beyond the edge counts as nothing
        pull = _PULL * (offset_nm**2).sum() / radii_nm**2
        return np.asarray(mean - pull - _UNUSUAL * (np.log(radii_nm / _USUAL_NM) / _SPREAD) ** 2)


def _circle(count: int) -> Rows:
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _search(around: _Around, radius_nm: tuple[float, float]) -> tuple[Rows, float]:
    """Best centre (nm from the click, array order) and radius on a grid, coarse first."""
    axes = around.box.ndim
    radii = np.arange(radius_nm[0], radius_nm[1] + 0.1, _STEP_NM)
    best, radius, best_score = np.zeros(axes), float(radii[0]), -np.inf
    reach = _MOST_MOVED * radius_nm[1]
    step = 4 * _STEP_NM if axes == 3 else 2 * _STEP_NM
    while step >= _STEP_NM:
        ticks = np.arange(-reach, reach + step / 2, step)
        grid = best + np.stack(np.meshgrid(*[ticks] * axes, indexing="ij"), axis=-1).reshape(-1, axes)
        for offset in grid:
            allowed = radii[radii * _MOST_MOVED >= np.linalg.norm(offset)]
            if not len(allowed):
                continue
            scores = around.score(offset, allowed)
            k = int(np.argmax(scores))
            if scores[k] > best_score:
                best, radius, best_score = offset, float(allowed[k]), float(scores[k])
        reach, step = step, step / 2
    return best, radius


def _polished(around: _Around, best: Rows, radius: float, radius_nm: tuple[float, float]) -> tuple[Rows, float]:
    """Best centre and radius between the steps of the grid."""

    def loss(at: Rows) -> float:
        return -float(around.score(at[:-1], at[-1:])[0])

    first = np.append(best, radius)
    simplex = np.vstack([first, first + np.eye(len(first)) * _STEP_NM / 2])
    found = optimize.minimize(loss, first, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 240})
    return found.x[:-1], float(np.clip(found.x[-1], *radius_nm))
