"""The spectrum without its slow decay: Thon rings that swing about zero, with even noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from models.quality.spectrum import Polar

Floats = NDArray[np.float64]

_SECTOR_SPANS = 3  # of what differs between directions: drift, uneven detectors


@dataclass(frozen=True, slots=True)
class Flat:
    """A spectrum over its background, minus 1.

    Parameters
    ----------
    rings
        Shape (sectors, bins).
    weight
        Inverse variance of ``rings``: pixels in each bin, 0 where it is not used; same shape.
    k, theta
        As in `Polar`; only the band that is used.
    background
        Smooth mean power, shape (bins,).
    basis
        Smooth functions, orthonormal under the summed weights, that no ring can be told from, shape (n, bins).
    """

    rings: Floats
    weight: Floats
    k: Floats
    theta: Floats
    background: Floats
    basis: Floats

    def mean(self) -> tuple[Floats, Floats]:
        """Rings averaged over all directions, and their weight; shape (bins,) each."""
        weight = self.weight.sum(axis=0)
        return (self.rings * self.weight).sum(axis=0) / np.maximum(weight, 1e-12), weight


def splines(at: Floats, low: float, high: float, spans: int, degree: int = 3) -> Floats:
    """Values of the B-splines of ``spans`` equal spans from ``low`` to ``high``, shape (points, spans + degree)."""
    inner = np.linspace(low, high, spans + 1)
    knots = np.concatenate([[low] * degree, inner, [high] * degree])
    return np.asarray(BSpline.design_matrix(np.clip(at, low, high), knots, degree).toarray(), dtype=np.float64)


def flatten(polar: Polar, low: float, high: float, spoiled: NDArray[np.bool_] | None = None, spans: int = 7) -> Flat:
    """``polar`` between the frequencies ``low`` and ``high``, over its background.

    Parameters
    ----------
    polar
        The averaged spectrum.
    low, high
        Band in the unit of ``polar.k``.
    spoiled
        Bins to leave out, shape of ``polar.k``, such as the rings of crystalline ice.
    spans
        Of the background's splines: it must not follow rings, and can follow whatever is wider than a span.
    """
    band = (polar.k >= low) & (polar.k <= high)
    if spoiled is not None:
        used = band & ~spoiled
    else:
        used = band
    k = polar.k[band]
    count = polar.count[:, band] * used[band]
    power = polar.power[:, band]
    weight = count.sum(axis=0)
    radial = (power * count).sum(axis=0) / np.maximum(weight, 1e-12)
    floor = max(float(radial.max(initial=0.0)) * 1e-9, 1e-30)
    radial = np.maximum(np.where(weight > 0, radial, floor), floor)
    # knots are evenly spaced in the square root: power falls steeply at first
    at = np.sqrt(k)
    smooth = splines(at, float(at[0]), float(at[-1]), spans)
    background = np.exp(smooth @ _solve(smooth, np.log(radial), weight))
    for _ in range(2):  # the logarithm of a mean is biased by its noise: correct in the power itself
        ratio = radial / background
        background = background * np.clip(smooth @ _solve(smooth, ratio, weight), 0.2, 5.0)
    ratio2 = power / background
    turning = splines(at, float(at[0]), float(at[-1]), min(_SECTOR_SPANS, spans))
    rings = np.zeros_like(ratio2)
    for n in range(len(ratio2)):
        if count[n].sum() > 0:
            slow = np.clip(turning @ _solve(turning, ratio2[n], count[n]), 0.1, 10.0)
            rings[n] = np.where(count[n] > 0, ratio2[n] / slow - 1, 0.0)
    root = np.sqrt(weight)
    orthogonal, _ = np.linalg.qr(smooth * root[:, None])
    return Flat(rings, count, k, polar.theta, background, np.asarray(orthogonal.T, dtype=np.float64))


def _solve(design: Floats, values: Floats, weight: Floats) -> Floats:
    root = np.sqrt(weight)
    ridge = 1e-9 * float(weight.sum()) + 1e-12
    normal = (design * weight[:, None]).T @ design + ridge * np.eye(design.shape[1])
    return np.asarray(np.linalg.solve(normal, design.T @ (root * root * values)), dtype=np.float64)
