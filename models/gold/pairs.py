"""How one kind of particle lies about another: cross-type K and L, and distances between the kinds, with controls.

The control keeps the first kind where it is and strews the second over the region. Source: Ripley, J. R. Stat. Soc. B
39 (1977); the edges are corrected as in `models.gold.spatial`.
"""

from dataclasses import dataclass

import numpy as np

from models.gold.spatial import (
    FEWEST_TRIALS,
    MOST_COMPARED,
    MOST_RANDOM,
    Floats,
    Region,
    longest,
    neighbours_nm,
    radii_of,
    ripley_k,
    ripley_l,
    rounded,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sets of particles in one region: how the second lies about the first.

    ``k`` is the cross-type K; the envelope holds the middle 95 % of as many trials in which the second set was strewn
    at random over the region and the first stayed where it is.
    """

    names: tuple[str, str]
    counts: tuple[int, int]
    neighbours_nm: Floats  # from each of the first to the nearest of the second
    random_neighbour_nm: float
    radii_nm: Floats
    k: Floats
    l_minus_r: Floats
    low: Floats
    high: Floats

    @property
    def name(self) -> str:
        """Both names, such as ``6 nm - 12 nm``."""
        return " - ".join(self.names)

    def row(self) -> dict[str, float | int | str]:
        """One row of a table."""
        above = longest(self.radii_nm, self.l_minus_r > self.high)
        below = longest(self.radii_nm, self.l_minus_r < self.low)
        return {
            "from": self.names[0],
            "to": self.names[1],
            "particles": self.counts[0],
            "others": self.counts[1],
            "nnd_mean_nm": rounded(self.neighbours_nm, np.mean),
            "nnd_median_nm": rounded(self.neighbours_nm, np.median),
            "nnd_random_mean_nm": round(self.random_neighbour_nm, 2) if np.isfinite(self.random_neighbour_nm) else "",
            "largest_l_minus_r_nm": rounded(self.l_minus_r[np.isfinite(self.l_minus_r)], np.max),
            "together_from_nm": round(float(above[0]), 1) if len(above) else "",
            "together_to_nm": round(float(above[-1]), 1) if len(above) else "",
            "apart_from_nm": round(float(below[0]), 1) if len(below) else "",
            "apart_to_nm": round(float(below[-1]), 1) if len(below) else "",
        }


def paired(
    names: tuple[str, str],
    points_nm: Floats,
    others_nm: Floats,
    region: Region,
    *,
    most_nm: float | None = None,
    trials: int = 99,
    seed: int = 0,
) -> Pair:
    """How ``others_nm`` (m, 2) lie about ``points_nm`` (n, 2): cross-type K and nearest neighbours; see `measured`."""
    first, second = (
        points[region.contains(points)] if len(points) else points.reshape(0, 2) for points in (points_nm, others_nm)
    )
    radii = radii_of(region, most_nm)
    rng = np.random.default_rng(seed)
    k = ripley_k(first, radii, region, second)
    curves, means = [], []
    both = len(first) + len(second)
    affordable = max(FEWEST_TRIALS, MOST_RANDOM // max(1, both))
    for _ in range(min(trials, affordable) if min(len(first), len(second)) > 0 and both <= MOST_COMPARED else 0):
        control = region.random(rng, len(second))
        curves.append(ripley_l(ripley_k(first, radii, region, control)) - radii)
        means.append(float(neighbours_nm(first, control).mean()))
    low, high = np.quantile(curves, (0.025, 0.975), axis=0) if curves else np.full((2, len(radii)), np.nan)
    return Pair(
        names=names,
        counts=(len(first), len(second)),
        neighbours_nm=neighbours_nm(first, second),
        random_neighbour_nm=float(np.mean(means)) if means else float("nan"),
        radii_nm=radii,
        k=k,
        l_minus_r=ripley_l(k) - radii,
        low=low,
        high=high,
    )
