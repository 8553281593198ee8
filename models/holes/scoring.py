"""What each hole is worth, from simple statistics relative to the other holes of the frame."""

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detections import HoleLabel
from models.holes.prepare import Working
from models.holes.sites import Site

_DIRTY = 0.06  # share of a hole's pixels that is far darker than the hole
_APART, _BRIGHTER = 5.0, 0.25  # in deviations, in usual contrasts: how far empty holes lie above those with ice
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
    raw = [_measure(work, s, radius) for s in sites]
    level = np.array([m["mean"] for m in raw])
    ring = np.array([m["ring"] for m in raw])
    spread = np.array([m["spread"] for m in raw])
    sure = np.array([not s.inferred for s in sites])
    if not sure.any():
        sure[:] = True
    step = sign * (level - ring)
    usual_step = max(float(np.median(step[sure])), 1e-3)
    usual_level, usual_spread = float(np.median(level[sure])), max(float(np.median(spread[sure])), 1e-3)
    usual_match = max(float(np.median([s.correlation for s in sites if not s.inferred] or [1.0])), 1e-3)
    clean = sure & np.array([m["dark_share"] < _DIRTY and m["seen"] > 0.5 for m in raw])
    empty_above = _gap(step[clean], usual_step) if sign > 0 else None
    answers: list[tuple[float, HoleLabel, dict[str, float]]] = []
    for k, (site, m) in enumerate(zip(sites, raw, strict=True)):
        features = {
            "mean": float((level[k] - usual_level) / max(usual_step, 1e-3)),
            "step": float(step[k] / usual_step),
            "spread": float(spread[k] / usual_spread),
            "dark_share": m["dark_share"],
            "correlation": site.correlation,
            "seen": m["seen"],
        }
        label = _label(site, features, usual_match, empty_above is not None and step[k] > empty_above)
        answers.append((_score(site, features, label), label, features))
    return answers


def _measure(work: Working, site: Site, radius: float) -> dict[str, float]:
    """Mean, spread and dark share in the hole, mean of its ring, and the share of the hole that is seen."""
    reach = int(np.ceil(1.5 * radius)) + 1
    shrink = max(1, reach // 16)
    rows, columns = work.values.shape
    left, right = max(0, int(site.x) - reach), min(columns, int(site.x) + reach + 2)
    top, bottom = max(0, int(site.y) - reach), min(rows, int(site.y) + reach + 2)
    values = work.values[top:bottom:shrink, left:right:shrink]
    seen = work.seen[top:bottom:shrink, left:right:shrink] > 0
    y, x = np.mgrid[top:bottom:shrink, left:right:shrink]
    r = np.hypot(x - site.x, y - site.y)
    in_hole, in_ring = (r <= 0.8 * radius) & seen, (r > 1.15 * radius) & (r <= 1.45 * radius) & seen
    outside_y, outside_x = np.mgrid[
        int(site.y) - reach : int(site.y) + reach + 2 : shrink,
        int(site.x) - reach : int(site.x) + reach + 2 : shrink,
    ]
    whole = max(1, int((np.hypot(outside_x - site.x, outside_y - site.y) <= 0.98 * radius).sum()))
    shown = int(((r <= 0.98 * radius) & seen).sum())
    if in_hole.sum() < 3:
        return {"mean": 0.0, "ring": 0.0, "spread": 0.0, "dark_share": 0.0, "seen": 0.0}
    inner = values[in_hole]
    mean = float(np.median(inner))
    ring = float(np.median(values[in_ring])) if in_ring.any() else mean
    noise = 1.4826 * float(np.median(np.abs(inner - mean))) + 1e-6
    dark = float((inner < mean - max(4.0 * noise, 0.3)).mean())
    return {
        "mean": mean,
        "ring": ring,
        "spread": float(inner.std()),
        "dark_share": dark,
        "seen": float(min(1.0, shown / whole)),
    }


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
    if apart < _APART * 0.5 * float(grey.std() + bright.std()) or apart < _BRIGHTER * usual_step:
        return None
    return float(np.median(bright) + np.median(grey)) / 2.0


def _label(site: Site, features: dict[str, float], usual_match: float, bright: bool) -> HoleLabel:
    if features["seen"] < 0.97:
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


def _score(site: Site, features: dict[str, float], label: HoleLabel) -> float:
    clean = float(np.exp(-features["dark_share"] / 0.05))
    even = float(np.exp(-max(0.0, features["spread"] - 1.3) / 0.7))
    medium = float(np.exp(-((features["mean"] / 1.5) ** 2)))
    round_ = float(np.clip(site.correlation / 0.8, 0.0, 1.0))
    score = clean * even * (0.2 + 0.8 * medium) * (0.3 + 0.7 * round_) * min(1.0, features["seen"])
    if label == "empty":
        score *= 0.3
    if label == "partial":
        score *= 0.5
    if site.inferred:
        score *= 0.5
    return round(float(np.clip(score, 0.0, 1.0)), 6)
