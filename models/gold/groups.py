"""Sizes of gold: the nearest of given nominal sizes, or as many sizes as the diameters themselves show.

A mixture of Gaussians in the logarithm of the diameter, one to four of them, chosen by the Bayesian information
criterion (Schwarz 1978); a group has to be apart from its neighbours and to hold a fair share of the particles.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from models.gold.records import Candidate, GoldParticle, SizeGroup

MOST_GROUPS = 4
APART = 0.22  # least distance of two groups in the logarithm of the diameter: 6 and 7.5 nm are one
LEAST_SHARE = 0.03
LEAST_COUNT = 8  # fewer particles than this cannot say how many sizes there are
NARROWEST = 0.05
OTHER = "other"  # with given sizes: what is none of them
BELOW, ABOVE = 0.6, 1.35  # of the smallest and of the largest given size


def grouped(
    found: Sequence[Candidate], sizes_nm: Sequence[float] = ()
) -> tuple[tuple[GoldParticle, ...], tuple[SizeGroup, ...]]:
    """Particles with the name of their group, best score first, and the groups, smallest first."""
    if not found:
        return (), ()
    diameters = np.array([one.diameter_nm for one in found])
    centres = np.sort(np.asarray(sizes_nm, float)) if sizes_nm else sizes_of(diameters)
    index = nearest(diameters, centres)
    names = _names(centres)
    if sizes_nm:
        strange = (diameters < BELOW * centres[0]) | (diameters > ABOVE * centres[-1])
        index = np.where(strange, len(centres), index)
        names.append(OTHER)
    groups = tuple(
        SizeGroup(
            name=names[k],
            mean_nm=round(float(diameters[index == k].mean()), 3),
            spread_nm=round(float(diameters[index == k].std()), 3),
            count=int((index == k).sum()),
        )
        for k in range(len(names))
        if (index == k).any()
    )
    particles = [
        GoldParticle(x=one.x, y=one.y, diameter_nm=one.diameter_nm, score=one.score, group=names[k])
        for one, k in zip(found, index.tolist(), strict=True)
    ]
    return tuple(sorted(particles, key=lambda p: (-p.score, p.y, p.x))), groups


def nearest(diameters: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.intp]:
    """Index of the size whose ratio to each diameter is nearest to 1, shape (n,)."""
    away = np.abs(np.log(np.maximum(diameters, 1e-3))[:, None] - np.log(centres)[None, :])
    return np.asarray(np.argmin(away, axis=1), dtype=np.intp)


def sizes_of(diameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sizes in nm that explain the diameters best, smallest first; at least one."""
    logs = np.log(np.maximum(diameters, 1e-3))[:, None]
    if len(logs) < LEAST_COUNT:
        return np.array([float(np.exp(np.median(logs)))])
    best, best_score = np.array([float(np.median(logs))]), np.inf
    for count in range(1, min(MOST_GROUPS, len(logs) // 4) + 1):
        mixture = GaussianMixture(count, covariance_type="spherical", reg_covar=NARROWEST**2, n_init=2, random_state=0)
        mixture.fit(logs)
        means, shares = np.sort(mixture.means_.ravel()), mixture.weights_
        if count > 1 and (np.diff(means).min() < APART or shares.min() < LEAST_SHARE):
            continue
        score = float(mixture.bic(logs))
        if score < best_score - 6:  # strong evidence, no less
            best, best_score = means, score
    return np.asarray(np.exp(best), np.float64)


def _names(centres: NDArray[np.float64]) -> list[str]:
    names = [f"{size:.0f} nm" for size in centres]
    return names if len(set(names)) == len(names) else [f"{size:.1f} nm" for size in centres]
