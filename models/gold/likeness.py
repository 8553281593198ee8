"""How like its fellows a hit is: gold of one size is equally dark and equally sharp where it lies close together.

The network sees some sixty pixels around a hit; it does not know how dark gold is in this image. The hits that it is
sure of tell: each hit is compared with those of them that are nearest in place and size. What it differs by, and what
its fit says, is weighed with the network's own score by a small network, learned on simulated pictures.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.gold.refine import Discs

Floats = NDArray[np.float64]

SURE = 0.7
FELLOWS = 7
NEAR_NM = 600.0  # this far away counts as much as a diameter that differs by `ALIKE`
ALIKE = 0.15
UNKNOWN = 6.0  # distance to fellows that are not there
FACTS = (
    "logit", "depth", "depth against fellows", "too faint", "too deep", "softness", "softness against fellows",
    "misfit", "misfit against fellows", "distance of fellows", "diameter", "held", "fellows",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weigher:
    """A network of one hidden layer on `facts`: mean and spread of each fact, and the weights of both layers."""

    mean: Floats
    spread: Floats
    inner: Floats  # (facts, hidden)
    inner_bias: Floats
    outer: Floats  # (hidden,)
    outer_bias: float

    def score(self, known: Floats) -> Floats:
        """Chance, from 0 to 1, that each hit is gold; ``known`` as `facts` tells them, shape (n, facts)."""
        hidden = np.tanh((known - self.mean) / self.spread @ self.inner + self.inner_bias)
        return np.asarray(1 / (1 + np.exp(-np.clip(hidden @ self.outer + self.outer_bias, -30, 30))))

    def to_settings(self) -> dict[str, Any]:
        """As numbers that a manifest keeps."""
        names = ("mean", "spread", "inner", "inner_bias", "outer")
        kept = {name: np.round(getattr(self, name), 5).tolist() for name in names}
        return {"facts": list(FACTS), **kept, "outer_bias": round(self.outer_bias, 5)}

    @classmethod
    def from_settings(cls, kept: dict[str, Any]) -> "Weigher":
        """What `to_settings` wrote.

        Raises
        ------
        ValueError
            When it was learned on other facts than this version's.
        """
        if tuple(kept["facts"]) != FACTS:
            raise ValueError("the scores were learned on other facts than this version's; train it anew")
        mean, spread, inner, bias, outer = (
            np.asarray(kept[name], float) for name in ("mean", "spread", "inner", "inner_bias", "outer")
        )
        return cls(mean, spread, inner, bias, outer, float(kept["outer_bias"]))


def facts(score: Floats, discs: Discs, pixel_nm: float) -> Floats:
    """What is known of each hit, shape (n, facts); see `FACTS`.

    Parameters
    ----------
    score
        What the network says, from 0 to 1.
    discs
        The fit of each hit, in pixels.
    pixel_nm
        Pixel size in nm.
    """
    n = len(score)
    if n == 0:
        return np.zeros((0, len(FACTS)))
    score = np.clip(score, 1e-4, 1 - 1e-4)
    sure = np.flatnonzero((score > SURE) & discs.held)
    bottom = discs.ground - discs.depth
    black = float(np.quantile(bottom[sure], 0.05)) if len(sure) else float(bottom.min())
    light = np.maximum(discs.ground - black, 1e-3 * np.abs(discs.depth) + 1e-9)
    depth = np.log(np.clip(discs.depth / light, 0.01, 1.5))
    soft = np.log(np.clip(discs.softness * pixel_nm, 0.05, 20))
    misfit = np.log(np.clip(discs.misfit, 0.005, 5))
    diameter = np.log(np.clip(discs.diameter * pixel_nm, 1, 60))
    against = np.zeros((3, n))
    distance = np.full(n, UNKNOWN)
    places = np.stack([discs.x * pixel_nm / NEAR_NM, discs.y * pixel_nm / NEAR_NM, diameter / ALIKE], axis=1)
    if len(sure) > 1:
        far, index = cKDTree(places[sure]).query(places, k=min(FELLOWS + 1, len(sure)))
        own = sure[index] == np.arange(n)[:, None]
        # a hit is no fellow of its own; who has none of its own in the list drops the farthest
        own[~own.any(axis=1), -1] = True
        rows = (n, index.shape[1] - 1)
        fellows, far = sure[index][~own].reshape(rows), far[~own].reshape(rows)
        distance = np.minimum(np.median(far, axis=1), UNKNOWN)
        for k, kind in enumerate((depth, soft, misfit)):
            against[k] = kind - np.median(kind[fellows], axis=1)
    against = np.clip(against, -2, 2)
    return np.stack(
        [
            np.log(score / (1 - score)), depth, against[0], np.maximum(-against[0], 0) ** 2,
            np.maximum(against[0], 0) ** 2, soft, against[1], misfit, against[2], distance, diameter,
            discs.held.astype(float), np.full(n, np.log1p(len(sure))),
        ],
        axis=1,
    )  # fmt: skip
