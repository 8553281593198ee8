"""Nuclear pores: how wide each is between the membranes, seen face-on, and how the widths are spread (ASEM).

A pore is turned so that the envelope lies in the plane. In the plane through its middle 18 lines run through the
centre, 10 degrees apart; on each the distance between the two dark minima, where the membranes are, is a diameter.
The pore's diameter is the median of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from models.organelles.envelope import Rows
from models.organelles.numbers import NUMBERS

LINES = int(NUMBERS["pores"]["lines"])
SMALLEST_NM, LARGEST_NM = float(NUMBERS["pores"]["smallest_nm"]), float(NUMBERS["pores"]["largest_nm"])  # diameters
SLAB_NM = float(NUMBERS["pores"]["slab_nm"])  # half the thickness of what is averaged around the middle plane
BLUR_NM = float(NUMBERS["pores"]["blur_nm"])
NOISE_NM = float(NUMBERS["pores"]["noise_nm"])  # of one pore's diameter
_STEP_NM = 1.0


@dataclass(frozen=True, slots=True)
class Pore:
    """A measured pore.

    Attributes
    ----------
    number
        Of its object.
    centre
        In voxels (z, y, x).
    normal
        Of the envelope, unit, (z, y, x); either way round.
    diameter_nm
        Median of the lines; NaN where fewer than half of them show two membranes.
    spread_nm
        Standard deviation between the lines.
    lines
        How many lines show both membranes.
    normal_from
        What told the direction: ``envelope`` (a mask of the nucleus), ``pores`` (the surface through the centres),
        ``object`` (its own shortest axis).
    """

    number: int
    centre: tuple[float, float, float]
    normal: tuple[float, float, float]
    diameter_nm: float
    spread_nm: float
    lines: int
    normal_from: str


def plane_axes(normal: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two unit vectors that span the plane of a normal."""
    helper = np.eye(3)[int(np.argmin(np.abs(normal)))]
    first = np.cross(normal, helper)
    first /= np.linalg.norm(first)
    return first, np.cross(normal, first)


def face_on(
    volume: Any, edges_nm: Sequence[float], centre: Sequence[float], normal: NDArray[np.float64], half_nm: float
) -> NDArray[np.float64]:
    """The volume around a point, turned so that ``normal`` points at the viewer; the mean of a slab around the middle.

    Parameters
    ----------
    volume
        What slices like an array (z, y, x).
    edges_nm
        Edges of its voxels.
    centre
        In voxels.
    normal
        Unit, in nm space.
    half_nm
        Half the edge of the picture, whose pixels are 1 nm.

    Returns
    -------
    NDArray
        Square picture; its middle pixel is the centre. NaN beyond the volume.
    """
    first, second = plane_axes(normal)
    across = np.arange(-half_nm, half_nm + 1, _STEP_NM)
    slab = np.arange(-SLAB_NM, SLAB_NM + 1, 2.0)
    places = (
        slab[:, None, None, None] * normal + across[None, :, None, None] * first + across[None, None, :, None] * second
    )
    return np.asarray(sampled(volume, edges_nm, centre, places).mean(axis=0))


def sampled(
    volume: Any, edges_nm: Sequence[float], centre: Sequence[float], places_nm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Grey values at places (…, 3) in nm relative to a centre in voxels, linear in between; NaN beyond the volume."""
    at = np.moveaxis(places_nm / np.asarray(edges_nm) + np.asarray(centre), -1, 0)
    low = [max(0, int(np.floor(a.min())) - 1) for a in at]
    high = [min(int(n), int(np.ceil(a.max())) + 2) for a, n in zip(at, volume.shape, strict=True)]
    if any(b - a < 1 for a, b in zip(low, high, strict=True)):
        return np.full(places_nm.shape[:-1], np.nan)
    part = np.asarray(volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], float)
    inside = np.stack([a - shift for a, shift in zip(at, low, strict=True)])
    return np.asarray(ndimage.map_coordinates(part, inside, order=1, mode="constant", cval=np.nan))


def diameters(picture: NDArray[np.float64], lines: int = LINES) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Distances between the dark minima on lines through the middle of a face-on picture of 1 nm pixels.

    A first round finds where the middle between the membranes is; a second measures from there.

    Returns
    -------
    diameters
        One for each line, nm; NaN where either membrane is not seen.
    shift
        From the middle of the picture to the pore's, in pixels (rows, columns).
    """
    smooth = _blurred(picture)
    middle = (np.array(picture.shape) - 1) / 2
    shift = np.zeros(2)
    angles = np.arange(lines) * np.pi / lines
    ways = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    found = np.full((lines, 2), np.nan)
    for _ in range(2):
        found = np.array([[_membrane(smooth, middle + shift, way * sign) for sign in (1, -1)] for way in ways])
        seen = np.isfinite(found).all(axis=1)
        if seen.sum() < lines / 2:
            break
        offset = (found[seen, 0] - found[seen, 1]) / 2
        # a centre that is off by s shows as s.way on each line: least squares over the lines
        step = np.linalg.lstsq(ways[seen], offset, rcond=None)[0]
        shift = np.clip(shift + step, -20, 20)
    return found.sum(axis=1), (float(shift[0]), float(shift[1]))


def _blurred(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(picture)
    weight = ndimage.gaussian_filter(known.astype(float), BLUR_NM / _STEP_NM)
    values = ndimage.gaussian_filter(np.where(known, picture, 0.0), BLUR_NM / _STEP_NM)
    return np.where(known, values / np.maximum(weight, 1e-9), np.nan)


def _membrane(picture: NDArray[np.float64], centre: NDArray[np.float64], way: NDArray[np.float64]) -> float:
    """Distance from the centre to the darkest minimum on a ray, to a fraction of a pixel; NaN without one."""
    radii = np.arange(SMALLEST_NM / 2 - 8, LARGEST_NM / 2 + 9, _STEP_NM)
    at = centre[:, None] + way[:, None] * radii
    values = ndimage.map_coordinates(picture, at, order=1, mode="constant", cval=np.nan)
    if not np.isfinite(values).all():
        return float("nan")
    inner = values[1:-1]
    low = (inner <= values[:-2]) & (inner < values[2:])
    low &= (radii[1:-1] >= SMALLEST_NM / 2) & (radii[1:-1] <= LARGEST_NM / 2)
    if not low.any():
        return float("nan")
    n = 1 + int(np.flatnonzero(low)[np.argmin(inner[low])])
    bend = values[n - 1] - 2 * values[n] + values[n + 1]
    offset = 0.5 * (values[n - 1] - values[n + 1]) / bend if bend > 0 else 0.0
    return float(radii[n] + offset * _STEP_NM)


def measured(
    volume: Any, edges_nm: Sequence[float], number: int, centre: Rows, normal: Rows, normal_from: str
) -> tuple[Pore, NDArray[np.float64]]:
    """A pore's diameter, and its face-on picture; ``centre`` in voxels, ``normal`` in nm space."""
    picture = face_on(volume, edges_nm, list(centre), normal, LARGEST_NM / 2 + 30)
    found, _ = diameters(picture)
    seen = found[np.isfinite(found)]
    enough = len(seen) >= LINES / 2
    z, y, x = (float(c) for c in centre)
    n0, n1, n2 = (float(c) for c in normal)
    diameter = float(np.median(seen)) if enough else float("nan")
    spread = float(seen.std(ddof=1)) if enough else float("nan")
    return Pore(number, (z, y, x), (n0, n1, n2), diameter, spread, len(seen), normal_from), picture


@dataclass(frozen=True, slots=True)
class Distribution:
    """How diameters are spread.

    Attributes
    ----------
    count
        How many.
    median, mean, deviation, low, high, smallest, largest
        Of them, nm; ``low`` and ``high`` are the 10th and 90th percentile.
    normal_p
        Chance of a sample this far from a normal distribution (Shapiro-Wilk); NaN below 3.
    one_size_p
        Chance of a sample this far from one size and noise of 6 nm (Kolmogorov-Smirnov, by simulation, as the size is
        taken from the sample itself); NaN below 3.
    """

    count: int
    median: float
    mean: float
    deviation: float
    low: float
    high: float
    smallest: float
    largest: float
    normal_p: float
    one_size_p: float


def distribution(diameters_nm: Sequence[float], noise_nm: float = NOISE_NM, trials: int = 2000) -> Distribution:
    """Summary and tests of diameters; those that are NaN are left out."""
    values = np.asarray(diameters_nm, float)
    values = values[np.isfinite(values)]
    if len(values) < 3:
        nan = float("nan")
        middle = float(np.median(values)) if len(values) else nan
        return Distribution(len(values), middle, middle, nan, nan, nan, nan, nan, nan, nan)
    rng = np.random.default_rng(0)
    made = rng.normal(0, noise_nm, (trials, len(values)))
    beyond = _distances(made, noise_nm) >= _distances(values[None], noise_nm)[0]
    return Distribution(
        len(values),
        float(np.median(values)),
        float(values.mean()),
        float(values.std(ddof=1)),
        float(np.percentile(values, 10)),
        float(np.percentile(values, 90)),
        float(values.min()),
        float(values.max()),
        float(stats.shapiro(values).pvalue) if np.ptp(values) > 0 else 1.0,
        float((beyond.sum() + 1) / (trials + 1)),
    )


def _distances(rows: NDArray[np.float64], noise_nm: float) -> NDArray[np.float64]:
    """Largest gap between the distribution of each row and a normal one about its own mean."""
    ordered = np.sort(rows - rows.mean(axis=1, keepdims=True), axis=1)
    expected = stats.norm.cdf(ordered / noise_nm)
    n = rows.shape[1]
    steps = np.arange(n + 1) / n
    return np.asarray(np.maximum(steps[1:] - expected, expected - steps[:-1]).max(axis=1))


def mask_normal(mask: Any, edges_nm: Sequence[float], centre: Sequence[float], reach_nm: float = 60.0) -> Rows:
    """Unit normal of a mask's surface near a point (in the mask's voxels), outwards; NaN where there is no surface."""
    half = [max(2, int(np.ceil(reach_nm / e))) for e in edges_nm]
    low = [max(0, round(c) - h) for c, h in zip(centre, half, strict=True)]
    high = [min(int(n), round(c) + h + 1) for c, h, n in zip(centre, half, mask.shape, strict=True)]
    if any(b - a < 3 for a, b in zip(low, high, strict=True)):
        return np.full(3, np.nan)
    part = np.asarray(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]) > 0
    if part.all() or not part.any():
        return np.full(3, np.nan)
    smooth = ndimage.gaussian_filter(part.astype(float), [20.0 / e for e in edges_nm], mode="nearest")
    way = -np.array([g.mean() for g in np.gradient(smooth, *edges_nm)])
    return np.asarray(way / max(float(np.linalg.norm(way)), 1e-12))


def short_axis(places_nm: Rows) -> tuple[Rows, float]:
    """Direction of an object's shortest principal axis, and its full length, as of an ellipsoid with its moments."""
    centred = places_nm - places_nm.mean(axis=0)
    spread, ways = np.linalg.eigh(centred.T @ centred / max(len(centred), 1))
    return np.asarray(ways[:, 0]), float(2 * np.sqrt(5 * max(spread[0], 0.0)))
