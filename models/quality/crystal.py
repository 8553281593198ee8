"""Crystalline ice: power at the lattice spacings of ice, in rings or in spots.

Hexagonal ice reflects at 3.90, 3.67 and 3.44 Å, cubic ice at 3.67 Å (Dowell & Rinfret, Nature 188, 1144, 1960).
Vitreous ice has one broad ring there: so a ring counts by what stands out of its own neighbourhood, and single spots by
how impossible they are as noise, whose power is exponentially distributed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.quality.spectrum import Polar, Spectrum

Floats = NDArray[np.float64]

SPACINGS_ANGSTROM = (3.90, 3.67, 3.44)
BAND_ANGSTROM = (4.05, 3.33)  # where the three lie
_HALF_WIDTH = 0.0022  # in 1/Å, of a ring of crystallites of 200 Å
_SHOULDER = 0.012  # in 1/Å, neighbourhood on both sides
_SPOT = 26.0  # power of a spot in units of its surroundings; exp(-26) of all noise pixels reach it
_SPOT_CELL = 24


@dataclass(frozen=True, slots=True)
class Lattice:
    """What speaks for crystals.

    Parameters
    ----------
    ring
        Power of the strongest of the three rings over that beside it, minus 1.
    spots
        Fourier pixels in the band that stand out as spots do.
    spoiled
        Bins of the polar spectrum that a CTF fit should leave out.
    """

    ring: float
    spots: int
    spoiled: NDArray[np.bool_]


def lattice(spectrum: Spectrum, polar: Polar) -> Lattice | None:
    """Rings and spots of ice in a spectrum in 1/Å; ``None`` where its pixels are too coarse to show any."""
    if float(polar.k[-1]) < 1 / SPACINGS_ANGSTROM[1] + _HALF_WIDTH:
        return None
    power, count = polar.radial()
    # rings of ice are spotty and round, Thon rings even and often oval: the mean over all directions tells them apart
    best = 0.0
    spoiled = np.zeros(len(polar.k), np.bool_)
    for spacing in SPACINGS_ANGSTROM:
        away = np.abs(polar.k - 1 / spacing)
        inside, beside = away < _HALF_WIDTH, (away > 2 * _HALF_WIDTH) & (away < _SHOULDER)
        if not (inside.any() and beside.any()) or count[inside].sum() < 200:
            continue
        # Thon rings swing by their own amplitude: a ring of ice must beat the brightest of them nearby
        swing = ndimage.uniform_filter1d(power, max(1, round(2 * _HALF_WIDTH / (polar.k[1] - polar.k[0]))))
        rival = float(np.percentile(swing[beside], 95))
        height = float(np.average(power[inside], weights=count[inside])) / max(rival, 1e-30) - 1
        best = max(best, height)
    spots = _spots(spectrum)
    if best > 0.05 or spots >= 4:
        for spacing in SPACINGS_ANGSTROM:
            spoiled |= np.abs(polar.k - 1 / spacing) < 1.5 * _HALF_WIDTH
    return Lattice(max(best, 0.0), spots, spoiled)


def _spots(spectrum: Spectrum) -> int:
    """Fourier pixels in the band whose power no noise has."""
    low, high = (1 / spacing for spacing in BAND_ANGSTROM)
    ky = (spectrum.rows * spectrum.step_y).astype(np.float32)[:, None]
    kx = (np.arange(spectrum.power.shape[1]) * spectrum.step_x).astype(np.float32)[None, :]
    k = np.sqrt(kx * kx + ky * ky)
    band = (k > low) & (k < high) & (kx > 3 * spectrum.step_x) & (np.abs(ky) > 3 * spectrum.step_y)
    if int(band.sum()) < 500:
        return 0
    power, k = spectrum.power[band], k[band]
    # mean power about each pixel: of all with nearly its frequency
    ring = ((k - low) / (high - low) * _SPOT_CELL).astype(int).clip(0, _SPOT_CELL - 1)
    middle = np.array([np.median(power[ring == n]) if (ring == n).any() else np.inf for n in range(_SPOT_CELL)])
    # the median of an exponential distribution is ln 2 of its mean
    return int((power > _SPOT * middle[ring] / np.log(2)).sum())
