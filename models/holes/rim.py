"""The rim of single large holes: how sharp it is, how much of it is there, and the circle through it.

The frame is unrolled round a first guess, the steepest step along each ray is taken for the rim, and a circle is
fitted to these points by reweighted least squares (Kasa, IEEE Trans. Instrum. Meas. 25, 8, 1976).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter1d

from models.holes.prepare import Working

Points = NDArray[np.float64]

_RAYS = 48
_RADIUS = 24.0  # pixels: the frame is reduced until holes have this radius
_INNER, _OUTER, _SAMPLES = 0.55, 1.55, 51  # rays, in radii


_AGREEMENT, _SHARPNESS, _SEEN = 0.8, 0.45, 0.25  # what a rim must show to be one


@dataclass(frozen=True, slots=True)
class Rim:
    """What is seen of the rim of one hole.

    Attributes
    ----------
    centre, radius
        Circle through the rim, working pixels; the first guess where no circle fits.
    seen
        Share of the rim that the frame shows.
    agreement
        Share of the seen rim along which the hole is on the right side of the step.
    sharpness
        Share of the step from foil to hole that lies at the rim: about 1 for a hole, less for a glow.
    """

    centre: Points
    radius: float
    seen: float
    agreement: float
    sharpness: float

    @property
    def clear(self) -> bool:
        """Whether enough of a sharp rim is there to say that this is a hole."""
        return self.agreement >= _AGREEMENT and self.sharpness >= _SHARPNESS and self.seen >= _SEEN


def settled_rims(work: Working, guesses: Points, radius: float, sign: int) -> list[Rim]:
    """Rims traced again from where the first tracing puts them."""
    first = trace_rims(work, guesses, radius, sign)
    centres = np.array([rim.centre for rim in first]).reshape(-1, 2)
    return trace_rims(work, centres, np.array([rim.radius for rim in first]), sign)


def trace_rims(work: Working, guesses: Points, radius: float | Points, sign: int) -> list[Rim]:
    """Rims of the holes near ``guesses``, shape (n, 2) as (x, y), with about ``radius`` (one, or n); working pixels."""
    if not len(guesses):
        return []
    radii = np.broadcast_to(np.asarray(radius, np.float64), (len(guesses),))
    values, seen, k = work.shrunk(min(1.0, _RADIUS / float(np.median(radii))))
    at, r0 = (guesses + 0.5) * k - 0.5, radii * k
    angle = np.arange(_RAYS) * 2.0 * np.pi / _RAYS
    reach = np.linspace(_INNER, _OUTER, _SAMPLES)
    x = at[:, 0, None, None] + r0[:, None, None] * reach * np.cos(angle)[:, None]
    y = at[:, 1, None, None] + r0[:, None, None] * reach * np.sin(angle)[:, None]
    rays = sign * map_coordinates(values, [y, x], order=1, mode="nearest")
    rows, columns = values.shape
    known = (x >= 0) & (y >= 0) & (x <= columns - 1) & (y <= rows - 1)
    nearest_y, nearest_x = np.rint(y).clip(0, rows - 1).astype(int), np.rint(x).clip(0, columns - 1).astype(int)
    known &= seen[nearest_y, nearest_x] > 0.5
    rays = uniform_filter1d(rays, 5, axis=1, mode="wrap")
    return [_traced(rays[i], known[i], guesses[i], at[i], float(r0[i]), k, angle, reach) for i in range(len(guesses))]


def _traced(
    rays: Points,
    known: NDArray[np.bool_],
    guess: Points,
    at: Points,
    r0: float,
    k: float,
    angle: Points,
    reach: Points,
) -> Rim:
    """Rim seen along the rays (rays, samples) about ``at`` with ``r0``, in pixels of the plane reduced by ``k``."""
    # Steps: mean of the samples inside a radius less the mean outside, over a fifth of the radius.
    width = round(0.12 * (_SAMPLES - 1) / (_OUTER - _INNER))
    total = np.concatenate([np.zeros((_RAYS, 1)), np.cumsum(rays, axis=1)], axis=1)
    middle = np.arange(width, _SAMPLES - width)
    step = (2 * total[:, middle] - total[:, middle - width] - total[:, middle + width]) / width
    usable = known[:, middle] & (np.abs(reach[middle] - 1.0) <= 0.3)[None, :]
    has = usable.any(axis=1)
    best = np.argmax(np.where(usable, step, -np.inf), axis=1)
    at_rim = int(np.argmin(np.abs(reach[middle] - 1.0)))
    on_rim = known[:, middle[at_rim]]
    share = float(on_rim.mean())
    radius = r0 / k
    if share < 0.1 or has.sum() < 8:
        return Rim(guess, radius, share, 0.0, 0.0)
    near = step[:, max(0, at_rim - 4) : at_rim + 5].max(axis=1)
    inner = float(np.median(rays[on_rim][:, reach < 0.75]))
    outer = float(np.median(rays[on_rim][:, reach > 1.35]))
    agreement = float((step[on_rim, at_rim] > 0).mean())
    sharpness = float(np.median(near[on_rim])) / (inner - outer) if inner - outer > 1e-6 else 0.0
    weight = np.where(has, np.maximum(step[np.arange(_RAYS), best], 0.0), 0.0)
    weight = np.minimum(weight, np.median(weight[has]))
    distance = r0 * reach[middle][best]
    rim = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)
    centre, fitted = _circle(rim, weight, r0)
    if fitted is None:
        return Rim(guess, radius, share, agreement, sharpness)
    return Rim((at + centre + 0.5) / k - 0.5, fitted / k, share, agreement, sharpness)


def _circle(points: Points, weight: NDArray[np.float64], radius: float) -> tuple[Points, float | None]:
    """Circle through most of ``points`` (n, 2), or None where they agree on none near the guess."""
    use = weight > 0
    if use.sum() < 8:
        return np.zeros(2), None
    p, w = points[use], weight[use]
    design = np.column_stack([2 * p, np.ones(len(p))])
    target = (p**2).sum(axis=1)
    trust = np.ones(len(p))
    centre, fitted, off = np.zeros(2), radius, np.zeros(len(p))
    for _ in range(8):
        weighted = design * (w * trust)[:, None]
        solution = np.linalg.solve(weighted.T @ design + 1e-9 * np.eye(3), weighted.T @ target)
        centre = solution[:2]
        fitted = float(np.sqrt(max(solution[2] + float(centre @ centre), 1e-9)))
        off = np.abs(np.hypot(*(p - centre).T) - fitted)
        scale = max(0.06 * radius, 1.5 * float(np.median(off)))
        trust = 1.0 / (1.0 + (off / scale) ** 2) ** 2
    if np.hypot(*centre) > 0.3 * radius or not 0.8 < fitted / radius < 1.25:
        return np.zeros(2), None
    if float((off < 0.08 * radius).mean()) < 0.5:
        return np.zeros(2), None
    return centre, fitted
