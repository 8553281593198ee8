"""Fit of the contrast transfer function to a power spectrum.

A matched filter on the flattened spectrum: −cos 2γ (power is sin² γ on a background) times an envelope, freed from
every part that a smooth background could hold. First over defocus alone, for several envelopes at once; then over
defocus, astigmatism and its direction. What CTFFIND does with the cross-correlation (Rohou & Grigorieff 2015), with
the noise of every bin known and the background fitted together with the rings.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.conditions import Conditions
from models.quality.agreement import WINDOW_BINS, Profile, correlation, last_good, profile_of, rings_per_frequency
from models.quality.flatten import Flat, flatten
from models.quality.matched import APART, Filter, envelope_of, search
from models.quality.optics import Defocus, Lens
from models.quality.spectrum import Polar

Floats = NDArray[np.float64]

RESOLVED_AT = 0.5  # cross-correlation of fit and spectrum at the fit resolution
_LEAST_HEIGHT = 4.6  # of the matched filter's peak, in standard deviations: noise alone stays below
COARSE = 0.17  # frequency in 1/Å: spectra that end before it hold a few rings at most
_FINE = 0.3  # frequency in 1/Å beyond which rings are many
_COARSEST_ANGSTROM = 45.0  # lower frequencies belong to particles and dirt


@dataclass(frozen=True, slots=True)
class CtfFit:
    """What the Thon rings say.

    Parameters
    ----------
    defocus
        The defocus found.
    resolution_angstrom
        Where the local cross-correlation falls below 0.5 for good.
    correlation
        Cross-correlation of fit and spectrum out to there.
    significance
        Height of the matched filter's peak in standard deviations of noise.
    margin
        How far that peak stands above the best one elsewhere, as a share of it, 0 to 1.
    rings
        How many rings lie between the coarsest frequency and the resolution.
    confidence
        Probability that the defocus is right, 0 to 1; calibrated on simulated micrographs.
    profile
        For pictures.
    """

    defocus: Defocus
    resolution_angstrom: float
    correlation: float
    significance: float
    margin: float
    rings: float
    confidence: float
    profile: Profile


def fit(polar: Polar, conditions: Conditions, spoiled: NDArray[np.bool_] | None = None) -> CtfFit | None:
    """Fit the contrast transfer function to a spectrum whose frequencies are in 1/Å.

    Parameters
    ----------
    polar
        The averaged spectrum.
    conditions
        Voltage, spherical aberration, amplitude contrast, phase shift.
    spoiled
        Bins to leave out, such as rings of crystalline ice.

    Returns
    -------
    CtfFit or None
        ``None`` where the spectrum has too few bins to fit anything to.
    """
    high = float(polar.k[-1]) * 0.985
    low = min(1 / _COARSEST_ANGSTROM, 0.2 * high)
    if int(((polar.k >= low) & (polar.k <= high)).sum()) < 40:
        return None
    # coarse pixels show few rings, which a supple background would swallow
    supple = (7,) if high > _FINE else (7, 2)
    found = [_fitted(flatten(polar, low, high, spoiled, spans), conditions) for spans in supple]
    return max(found, key=lambda one: one.confidence + 0.2 * one.margin)


def _fitted(flat: Flat, conditions: Conditions) -> CtfFit:
    lens = Lens.of(conditions)
    starts, grid, scores = search(flat, lens, conditions)
    filter_ = Filter(flat, lens, free_shift=conditions.phase_shift_deg is None)
    height, best = max((filter_.climb(*start) for start in filter_.best_starts(starts)), key=lambda pair: pair[0])
    defocus = filter_.climb(best, envelope_of(flat, lens, best))[1]
    profile = profile_of(flat, lens, defocus)
    return _judged(flat, lens, defocus, profile, height, grid, scores)


def _judged(
    flat: Flat, lens: Lens, defocus: Defocus, profile: Profile, height: float, grid: Floats, scores: Floats
) -> CtfFit:
    k, step = flat.k, float(flat.k[1] - flat.k[0])
    slope = rings_per_frequency(lens, defocus, k)
    good = (profile.correlation >= RESOLVED_AT) & (slope * step < 0.45)
    last = (
        0
        if height < _LEAST_HEIGHT
        else last_good(good, np.maximum(3.0 / np.maximum(slope * step, 1e-9), 2.0 * WINDOW_BINS))
    )
    resolution = 1 / float(k[last])
    band = slice(0, last + 1)
    own = correlation(profile.rings[band], profile.model[band]) if last > 5 else 0.0
    count = float((slope[band] * step).sum()) if last > 5 else 0.0
    peak = float(scores.max())
    away = np.abs(grid / defocus.mean_um - 1) > APART
    rival = float(scores[away].max(initial=0.0))
    margin = max(0.0, 1 - max(rival, 0.0) / peak) if peak > 0 else 0.0
    confidence = _confidence(own, height, margin) * min(1.0, max(0.1, count - 1.0))
    if float(k[-1]) < COARSE:  # what rises and falls two or three times need not be rings
        confidence *= min(1.0, max(0.1, (own - 0.3) / 0.3))
    return CtfFit(defocus, resolution, own, height, margin, count, confidence, profile)


def _confidence(correlation: float, significance: float, margin: float) -> float:
    """P(mean defocus right within 5 %): logistic regression on 300 simulated micrographs (docs/quality.md)."""
    level = 0.78 * math.log(max(significance, 1.0)) + 4.59 * margin + 3.26 * correlation - 3.58
    return 1 / (1 + math.exp(-level))
