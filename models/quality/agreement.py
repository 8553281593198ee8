"""How far fit and spectrum agree: both along ellipses of equal phase, and their local cross-correlation."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.quality.flatten import Flat
from models.quality.matched import envelope_of
from models.quality.optics import Defocus, Lens

Floats = NDArray[np.float64]

_WINDOW_RINGS = 1.5  # rings in the window of the local cross-correlation
WINDOW_BINS = 15


@dataclass(frozen=True, slots=True)
class Profile:
    """Spectrum and fit along the frequency of the mean defocus; all of shape (bins,).

    ``rings`` is the elliptical average of the flattened spectrum, ``rotational`` the plain one, ``model`` the fit
    (−cos 2γ times its envelope), ``correlation`` the local cross-correlation of ``rings`` and ``model``.
    """

    k: Floats
    rings: Floats
    rotational: Floats
    model: Floats
    correlation: Floats
    background: Floats


def profile_of(flat: Flat, lens: Lens, defocus: Defocus) -> Profile:
    """Averages over ellipses of equal phase, and the fit along them."""
    k, step = flat.k, float(flat.k[1] - flat.k[0])
    top, bottom = np.zeros(len(k)), np.zeros(len(k))
    for n, along in enumerate(defocus.along(flat.theta)):
        # frequency at the mean defocus with the phase that this direction has at k
        phase = lens.quadratic * along * k**2 - lens.quartic * k**4
        at = (_frequency(lens, defocus.mean_um, phase, k) - k[0]) / step
        low = np.floor(at).astype(int)
        part = at - low
        for where, share in ((low, 1 - part), (low + 1, part)):
            good = (where >= 0) & (where < len(k))
            np.add.at(top, where[good], (flat.rings[n] * flat.weight[n] * share)[good])
            np.add.at(bottom, where[good], (flat.weight[n] * share)[good])
    rings = np.where(bottom > 0, top / np.maximum(bottom, 1e-12), 0.0)
    rotational, _ = flat.mean()
    gamma = lens.phase(k, defocus.mean_um, math.radians(defocus.shift_deg))
    wave = -np.cos(2 * gamma)
    envelope = envelope_of(flat, lens, defocus)
    # power is a product of background and rings: take out of both what is slow
    return Profile(
        k, rings, rotational, wave * envelope, _local(rings, wave, bottom, lens, defocus, k), flat.background
    )


def _frequency(lens: Lens, mean_um: float, phase: Floats, near: Floats) -> Floats:
    """Frequency at which the mean defocus has this phase; ``near`` where it has none (beyond the turning point)."""
    a, b = lens.quartic, lens.quadratic * mean_um
    if a < 1e-9:
        return np.asarray(np.sqrt(np.maximum(phase / b, 0)), dtype=np.float64)
    inside = b * b - 4 * a * phase
    root = np.sqrt(np.maximum(inside, 0))
    turning = b / (2 * a)
    k2 = np.where(near * near < turning, (b - root) / (2 * a), (b + root) / (2 * a))
    return np.asarray(np.where(inside > 0, np.sqrt(np.maximum(k2, 0)), near), dtype=np.float64)


def _local(rings: Floats, wave: Floats, weight: Floats, lens: Lens, defocus: Defocus, k: Floats) -> Floats:
    """Cross-correlation of rings and fit in a window of one and a half rings about each bin."""
    step = float(k[1] - k[0])
    slope = rings_per_frequency(lens, defocus, k)
    wide = np.maximum(_WINDOW_RINGS / np.maximum(slope, 1e-9) / step, WINDOW_BINS)
    half = np.minimum(wide / 2, len(k) / 3).astype(int)
    starts, ends = np.maximum(np.arange(len(k)) - half, 0), np.minimum(np.arange(len(k)) + half + 1, len(k))

    def total(values: Floats) -> Floats:
        running = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray(running[ends] - running[starts], dtype=np.float64)

    mass = np.maximum(total(weight), 1e-12)
    mean_r, mean_w = total(weight * rings) / mass, total(weight * wave) / mass
    cross = total(weight * rings * wave) / mass - mean_r * mean_w
    var = (total(weight * rings**2) / mass - mean_r**2) * (total(weight * wave**2) / mass - mean_w**2)
    return np.asarray(cross / np.sqrt(np.maximum(var, 1e-18)), dtype=np.float64)


def rings_per_frequency(lens: Lens, defocus: Defocus, k: Floats) -> Floats:
    """How many rings there are per 1/Å at the frequencies ``k``."""
    slope = 2 * lens.quadratic * defocus.mean_um * k - 4 * lens.quartic * k**3
    return np.asarray(np.abs(slope) / math.pi, dtype=np.float64)


def last_good(good: NDArray[np.bool_], patience: Floats) -> int:
    """Last good bin before a stretch of bad ones as long as ``patience`` says; 0 where none is good.

    The rings may begin late, behind the scattering of particles: what comes before the first good bin does not count.
    """
    # by chance alone noise agrees for a part of a window, hardly ever for a whole one
    good = ndimage.binary_opening(good, np.ones(WINDOW_BINS, np.bool_))
    places = np.flatnonzero(good)
    if not len(places):
        return 0
    last = int(places[0])
    for place in places[1:].tolist():
        if place - last > patience[last]:
            break
        last = place
    return last


def correlation(a: Floats, b: Floats) -> float:
    """Cross-correlation coefficient of two series, -1 to 1; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0
