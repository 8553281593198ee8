"""What a hole is worth where the open beam is known: a curve over how thick its ice is, by what it lets through.

Greys of a frame say how holes differ, never how thick the ice is; as a share of the open beam they do. The curve is
learned on simulated foil (``models/training/hole_scores.py``) and stands in the manifest of the network.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.conditions import Conditions
from models.detections import HoleDetection
from models.holes.scoring import CUT, WHOLE, free

Floats = NDArray[np.float64]

FEATURE = "transmission"  # of a hole: its level as a share of the open beam
_INSIDE, _AROUND = 0.7, 1.5  # radii: what is clear of the rim, and what is mostly foil
_ASKED = 60  # holes that say whether they are brighter than the foil
_MOST = 1.1  # transmission of the usual hole above which the reference must be wrong
_LEAST = 1e-3  # transmission below which a hole is black
_INFERRED = 0.5  # what a hole that was not seen counts for


@dataclass(frozen=True, slots=True)
class Worth:
    """Chance of a good micrograph by thickness: logits at knots in nm, straight between them and flat beyond."""

    thickness_nm: Floats
    logits: Floats

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Worth | None":
        """The curve in the settings of a manifest, or None where it has none."""
        held = settings.get("worth")
        if held is None:
            return None
        return cls(np.array(held["thickness_nm"], np.float64), np.array(held["logits"], np.float64))

    def chance(self, thickness_nm: Floats) -> Floats:
        """Chance of a good micrograph through so much ice, shape (n,)."""
        return np.asarray(1.0 / (1.0 + np.exp(-np.interp(thickness_nm, self.thickness_nm, self.logits))))

    def judged(
        self, holes: tuple[HoleDetection, ...], shares: Floats, conditions: Conditions
    ) -> tuple[HoleDetection, ...]:
        """Holes with their chance of a good micrograph as score and their transmission as a feature; best first.

        What a bar, the frame or dirt takes off a hole, and that it was not seen, counts as it does without the open
        beam.

        Parameters
        ----------
        holes
            Of one frame.
        shares
            Transmission of each, shape (n,).
        conditions
            Of the frame.
        """
        out = []
        for hole, share, chance in zip(holes, shares, self.chance(thickness_nm(shares, conditions)), strict=True):
            seen = hole.features.get("seen", 1.0)
            cut = hole.label == "partial" and seen >= WHOLE
            left = CUT if cut else min(1.0, seen) * free(hole.features.get("dark_share", 0.0))
            score = float(chance) * left * (_INFERRED if hole.inferred else 1.0)
            features = hole.features | {FEATURE: round(float(share), 6)}
            out.append(msgspec.structs.replace(hole, score=round(score, 6), features=features))
        return tuple(sorted(out, key=lambda h: (-h.score, h.y, h.x)))


def thickness_nm(shares: Floats, conditions: Conditions) -> Floats:
    """How much ice lets through so much, shape (n,): Λ ln(1 / transmission), see ``models.quality.ice``."""
    return np.asarray(-conditions.path_nm * np.log(np.maximum(shares, _LEAST)))


def transmissions(
    plain: NDArray[np.float32], holes: tuple[HoleDetection, ...], open_beam: float
) -> tuple[Floats | None, str]:
    """Level of each hole as a share of the open beam, shape (n,), or why the frame belies that reference.

    The level is the mean of the middle half of the pixels well inside, so that a lump does not count. Holes that are
    darker than what is round them are no counts of electrons.

    Parameters
    ----------
    plain
        Frame in its own counts, zero where no electron arrives, shape (rows, columns).
    holes
        Of the frame.
    open_beam
        Mean count of this exposure where nothing is in the beam.
    """
    levels = np.array([_level(plain, hole, _INSIDE) for hole in holes])
    around = np.array([_level(plain, hole, _AROUND) for hole in holes[:_ASKED]])
    usual = float(np.median(levels)) if len(levels) else 0.0
    if usual <= 0.0:
        return None, f"holes at {usual:.4g} counts: the frame has no zero"
    if float(np.median(levels[:_ASKED] - around)) < 0.0:
        return None, "holes are darker than the foil: what is bright is not where electrons arrive"
    if usual > _MOST * open_beam:
        return None, f"holes at {usual:.4g} counts are brighter than the open beam, said to be {open_beam:.4g}"
    return levels / open_beam, ""


def _level(plain: NDArray[np.float32], hole: HoleDetection, reach: float) -> float:
    """Mean of the middle half of the pixels within ``reach`` radii."""
    radius = max(reach * hole.radius_px, 0.75)
    rows, columns = plain.shape
    left, right = max(0, int(np.ceil(hole.x - radius))), min(columns, int(hole.x + radius) + 1)
    top, bottom = max(0, int(np.ceil(hole.y - radius))), min(rows, int(hole.y + radius) + 1)
    if left >= right or top >= bottom:
        return float(plain[np.clip(round(hole.y), 0, rows - 1), np.clip(round(hole.x), 0, columns - 1)])
    step = max(1, (right - left) // 32)
    y, x = np.ogrid[top:bottom:step, left:right:step]
    inside = np.sort(plain[top:bottom:step, left:right:step][(x - hole.x) ** 2 + (y - hole.y) ** 2 <= radius**2])
    if not len(inside):
        return float(plain[top, left])
    quarter = len(inside) // 4
    return float(inside[quarter : len(inside) - quarter].mean())
