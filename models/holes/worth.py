"""What a hole is worth: a calibrated line through what was measured of it and of the frame's other holes.

The line is learned on simulated foil (``models/training/hole_scores.py``) and stands in the manifest of the network.
"""

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.detections import HoleDetection
from models.holes.scoring import CUT, WHOLE, free

Floats = NDArray[np.float64]

FACTS = ("mean", "step", "spread", "dark_share", "correlation", "promise")
_INFERRED = 0.5  # what a hole that was not seen counts for


def facts(features: list[dict[str, float]]) -> Floats:
    """Measured facts of each hole of a frame, and how far each is from the frame's median, shape (n, 12)."""
    if not features:
        return np.zeros((0, 2 * len(FACTS)))
    table = np.array([[f.get(name, 0.5) for name in FACTS] for f in features], np.float64)
    at = FACTS.index("promise")
    chance = np.clip(table[:, at], 1e-3, 1 - 1e-3)
    table[:, at] = np.log(chance / (1 - chance))
    table[:, FACTS.index("dark_share")] *= 10.0
    table = np.arcsinh(table)
    return np.concatenate([table, table - np.median(table, axis=0)], axis=1)


@dataclass(frozen=True, slots=True)
class Worth:
    """The line: ``logit = slope * (intercept + weights · (facts - middle) / spread) + offset``."""

    middle: Floats
    spread: Floats
    weights: Floats
    intercept: float
    slope: float = 1.0
    offset: float = 0.0

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Worth | None":
        """The line in the settings of a manifest, or None where it has none."""
        held = settings.get("worth")
        if held is None:
            return None
        middle, spread, weights = (np.array(held[name], np.float64) for name in ("middle", "spread", "weights"))
        slope, offset = held["calibration"]
        return cls(middle, spread, weights, float(held["intercept"]), float(slope), float(offset))

    def calibrated(self, slope: float, offset: float) -> "Worth":
        """The same line with another calibration."""
        return replace(self, slope=slope, offset=offset)

    def judged(self, holes: tuple[HoleDetection, ...]) -> tuple[HoleDetection, ...]:
        """Holes with their chance of a good micrograph as score, and ``for_*`` features that say why; best first."""
        table = facts([hole.features for hole in holes])
        terms = self.slope * np.clip((table - self.middle) / self.spread, -4, 4) * self.weights
        chance = 1.0 / (1.0 + np.exp(-(self.slope * self.intercept + self.offset + terms.sum(axis=1))))
        terms = terms[:, : len(FACTS)] + terms[:, len(FACTS) :]
        out = []
        for hole, p, parts in zip(holes, chance.tolist(), terms.tolist(), strict=True):
            seen = hole.features.get("seen", 1.0)
            cut = hole.label == "partial" and seen >= WHOLE
            whole = CUT if cut else min(1.0, seen) * free(hole.features.get("dark_share", 0.0))
            score = p * whole * (_INFERRED if hole.inferred else 1.0)
            reasons = {f"for_{name}": round(part, 6) for name, part in zip(FACTS, parts, strict=True)}
            out.append(msgspec.structs.replace(hole, score=round(score, 6), features=hole.features | reasons))
        return tuple(sorted(out, key=lambda h: (-h.score, h.y, h.x)))
