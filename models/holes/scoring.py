"""What each hole is worth, from simple statistics relative to the other holes of the frame."""

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detections import HoleLabel
from models.holes.discs import measure
from models.holes.prepare import Working
from models.holes.sites import Site

_DIRTY = 0.06  # share of a hole's pixels that is far darker than the hole
_APART, _BRIGHTER = 5.0, 0.25  # in deviations, in usual contrasts: how far empty holes lie above those with ice
_COVERED, _SPECK = 1.6, 0.03  # loss of worth for each share that is covered, from what noise alone would be on
_BAR, _DIMMED, _UNEVEN, _HALF_DARK = (
    1.25,
    0.8,
    1.3,
    2.0,
)  # radii; of the usual step and spread: a hole that a bar reaches into
WHOLE = 0.97  # share that the frame shows from which a hole is whole
CUT = 0.5  # what a hole is worth that a bar or torn film cuts
_ROUND = 0.55  # correlation of a whole hole relative to the frame's usual


def judge(
    work: Working, sites: list[Site], radius: float, sign: int
) -> list[tuple[float, HoleLabel, dict[str, float]]]:
    """Score, label and reasons of each hole.

    Parameters
    ----------
    work
        Frame.
    sites
        Holes, in working pixels.
    radius
        Of the holes, in working pixels.
    sign
        1 when the holes are brighter than the foil.
    """
    discs = measure(work, np.array([[s.x, s.y] for s in sites], np.float64).reshape(-1, 2), radius)
    level, ring, spread = discs.mean, discs.ring, discs.spread
    sure = np.array([not s.inferred for s in sites])
    if not sure.any():
        sure[:] = True
    step = sign * (level - ring)
    usual_step = max(float(np.median(step[sure])), 1e-3)
    usual_level, usual_spread = float(np.median(level[sure])), max(float(np.median(spread[sure])), 1e-3)
    usual_match = max(float(np.median([s.correlation for s in sites if not s.inferred] or [1.0])), 1e-3)
    foil = np.array([s.foil_px for s in sites])
    # At the frame's edge a bar is too thin to be known as one: there, a hole that is half dark is enough.
    dim = (step < _DIMMED * usual_step) | (sign * (level - usual_level) < (_DIMMED - 1.0) * 2.0 * usual_step)
    cut = dim & (spread > np.where(foil < _BAR * radius, _UNEVEN, _HALF_DARK) * usual_spread)
    cut &= (discs.dark_share < _DIRTY) | (foil < _BAR * radius)
    clean = sure & (foil >= _BAR * radius) & (discs.dark_share < _DIRTY) & (discs.seen > 0.5)
    empty_above = _gap(step[clean], usual_step) if sign > 0 else None
    answers: list[tuple[float, HoleLabel, dict[str, float]]] = []
    for k, site in enumerate(sites):
        features = {
            "mean": float((level[k] - usual_level) / max(usual_step, 1e-3)),
            "step": float(step[k] / usual_step),
            "spread": float(spread[k] / usual_spread),
            "dark_share": float(discs.dark_share[k]),
            "correlation": site.correlation,
            "seen": float(discs.seen[k]),
        }
        if site.quality is not None:
            features["promise"] = site.quality
        bright = empty_above is not None and step[k] > empty_above
        label: HoleLabel = "partial" if cut[k] else _label(site, features, usual_match, bright)
        score = _score(site, features, label) if site.quality is None else _promised(site, features, cut[k])
        answers.append((score, label, features))
    return answers


def _gap(level: NDArray[np.float64], usual_step: float) -> float | None:
    """Contrast that parts bright (empty) from grey (ice) holes, or None when all are of one kind."""
    if len(level) < 4:
        return None
    low, high = float(level.min()), float(level.max())
    if not high > low:
        return None
    byte = np.clip((level - low) / (high - low) * 255, 0, 255).astype(np.uint8)[None, :]
    split, _ = cv2.threshold(byte, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    grey, bright = level[byte[0] <= split], level[byte[0] > split]
    if len(grey) < 2 or len(bright) == 0:
        return None
    apart = float(np.median(bright) - np.median(grey))
    if len(bright) > len(grey):
        return None  # most are bright: that is the usual ice, and the others are thick
    if apart < _APART * 0.5 * float(grey.std() + bright.std()) or apart < _BRIGHTER * usual_step:
        return None
    return float(np.median(bright) + np.median(grey)) / 2.0


def _label(site: Site, features: dict[str, float], usual_match: float, bright: bool) -> HoleLabel:
    if features["seen"] < WHOLE:
        return "partial"
    if features["dark_share"] > _DIRTY:
        return "dirty"
    if site.inferred:
        return "unknown"
    if bright:
        return "empty"
    if features["step"] < 0.35:
        return "thick"
    if site.correlation < _ROUND * usual_match:
        return "broken"
    if features["mean"] > 1.0:
        return "thin"
    return "good"


def free(dark_share: float) -> float:
    """What dirt leaves of a hole's worth: nothing where it covers six tenths."""
    return max(0.0, 1.0 - _COVERED * max(0.0, dark_share - _SPECK))


def _promised(site: Site, features: dict[str, float], cut: bool) -> float:
    """Score where a network says how good a micrograph would be; what is not seen counts for less."""
    score = (site.quality or 0.0) * min(1.0, features["seen"]) * (CUT if cut else free(features["dark_share"]))
    return round(score * (0.5 if site.inferred else 1.0), 6)


def _score(site: Site, features: dict[str, float], label: HoleLabel) -> float:
    clean = float(np.exp(-features["dark_share"] / 0.05))
    even = float(np.exp(-max(0.0, features["spread"] - 1.3) / 0.7))
    medium = float(np.exp(-((features["mean"] / 1.5) ** 2)))
    round_ = float(np.clip(site.correlation / 0.8, 0.0, 1.0))
    score = clean * even * (0.2 + 0.8 * medium) * (0.3 + 0.7 * round_) * min(1.0, features["seen"])
    if label == "empty":
        score *= 0.3
    if label == "partial":
        score *= CUT
    if site.inferred:
        score *= 0.5
    return round(float(np.clip(score, 0.0, 1.0)), 6)
