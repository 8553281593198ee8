"""What each square is worth, from summary statistics relative to the other squares of the frame.

The statistics are those of Kim et al. (IUCrJ 10, 90, 2023, section "Square scoring"): area, mean, maximum,
minimum, variance, kurtosis and skew. Operators like whole, evenly grey, medium-bright squares; a square that is
bright is empty, one that mixes bright and grey is torn, one that is dark or small is thick.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detections import SquareLabel
from models.squares.located import Located

Judgement = tuple[float, SquareLabel, dict[str, float]]

_BRIGHT_STEP, _PARTED = 1.15, 4.2  # empty openings are brighter than film: ratio, and in median deviations
_EMPTY, _TORN = 0.8, 0.12  # share of bright pixels


def bright_level(pixels: list[NDArray[np.float32]]) -> float | None:
    """Level above which a pixel of an opening shows no film, or None when the openings have one level only.

    Parameters
    ----------
    pixels
        Working counts well inside each square, one array of shape (n,) per square.
    """
    values = np.concatenate(pixels)
    byte = np.clip(values[:: max(1, len(values) // 200_000)], 0, 255).astype(np.uint8)
    level: float | None = None
    # Thin and thick ice may make two levels below that of vacuum: go on while the upper one splits again.
    upper = byte
    for _ in range(2):
        split = _split(upper, byte.size)
        if split is None:
            break
        level, upper = split
    if level is None:
        return None
    share = np.array([float((p > level).mean()) for p in pixels])
    torn = ((share > _TORN) & (share < _EMPTY)).sum()
    # Bright squares in the majority and none torn: that is the film, and the others are thick.
    return level if torn > 0.05 * len(pixels) or (share > _EMPTY).mean() < 0.5 else None


def _split(byte: NDArray[np.uint8], whole: int) -> tuple[float, NDArray[np.uint8]] | None:
    """Level that parts a clearly brighter population, and its pixels; None when there is but one."""
    split, _ = cv2.threshold(byte[None, :], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    low, high = byte[byte <= split], byte[byte > split]
    if len(low) < 10 or len(high) < 0.01 * whole:
        return None
    film, open_ = float(np.median(low)), float(np.median(high))
    # Median deviations: dark ice on the film must not pass for noise.
    noise = 0.74 * float(np.median(np.abs(low - film)) + np.median(np.abs(high - open_)))
    if open_ < _BRIGHT_STEP * film or open_ - film < _PARTED * noise:
        return None
    return (film + 2.0 * open_) / 3.0, high


def statistics(pixels: list[NDArray[np.float32]], bright: float | None) -> list[dict[str, float]]:
    """Summary statistics of the counts in each square, one array of shape (n,) for each; extremes are percentiles."""
    size = np.array([len(p) for p in pixels])
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    values = np.concatenate(pixels).astype(np.float64)
    of = np.repeat(np.arange(len(pixels)), size)
    mean = np.add.reduceat(values, start) / size
    centred = values - mean[of]
    square = centred * centred
    spread = np.sqrt(np.add.reduceat(square, start) / size)
    unit = np.maximum(spread, 1e-6)
    ordered = np.sort(of * 65536 + np.clip(np.rint(values * 64.0), 0, 65535).astype(np.int64))
    level = (ordered - of * 65536) / 64.0
    low, high = start + np.rint(0.01 * (size - 1)).astype(int), start + np.rint(0.99 * (size - 1)).astype(int)
    over = values > (np.inf if bright is None else bright)
    columns = {
        "mean": mean,
        "max": level[high],
        "min": level[low],
        "variance": spread**2,
        "skew": np.add.reduceat(square * centred, start) / size / unit**3,
        "kurtosis": np.add.reduceat(square * square, start) / size / unit**4 - 3.0,
        "bright_share": np.add.reduceat(over.astype(np.float64), start) / size,
    }
    return [{name: float(column[k]) for name, column in columns.items()} for k in range(len(pixels))]


def judge(located: Located) -> list[Judgement]:
    """Score, label and reasons of each opening of a frame."""
    squares, pixels, mesh = located.mesh.squares, located.pixels, located.mesh
    if not squares:
        return []
    bright = bright_level(pixels)
    stats = statistics(pixels, bright)
    film = [s["mean"] for s in stats if s["bright_share"] < _TORN]
    usual = float(np.median(film)) if film else float(np.median([s["mean"] for s in stats]))
    deviation = float(np.median([np.sqrt(s["variance"]) for s in stats])) / max(usual, 1e-6)
    answers: list[Judgement] = []
    for blob, stat, cut in zip(squares, stats, located.cut, strict=True):
        features = {
            "area": blob.area / mesh.nominal_area,
            "fill": blob.rectangularity(mesh.angle_deg),
            "mean": stat["mean"] / max(usual, 1e-6),
            "max": stat["max"] / max(usual, 1e-6),
            "min": stat["min"] / max(usual, 1e-6),
            "variance": stat["variance"] / max(usual, 1e-6) ** 2,
            "skew": stat["skew"],
            "kurtosis": stat["kurtosis"],
            "bright_share": stat["bright_share"],
        }
        score = _score(features, deviation)
        answers.append((score * (0.5 if cut else 1.0), _label(features, bool(cut)), features))
    return answers


def _score(features: dict[str, float], deviation: float) -> float:
    whole = float(np.clip(min(features["area"], 1.0) * min(features["fill"] / 0.85, 1.0), 0.0, 1.0))
    even = float(np.exp(-max(0.0, np.sqrt(features["variance"]) - deviation) / 0.25))
    medium = float(np.exp(-(((features["mean"] - 1.0) / 0.35) ** 2)))
    film = (1.0 - features["bright_share"]) ** 2
    return round(float(np.clip(whole * (0.3 + 0.7 * even) * (0.2 + 0.8 * medium) * (0.1 + 0.9 * film), 0, 1)), 6)


def _label(features: dict[str, float], cut: bool) -> SquareLabel:
    if cut:
        return "partial"
    if features["area"] < 0.3 and features["mean"] < 0.75:
        return "dark"
    if features["bright_share"] > _EMPTY:
        return "empty"
    if features["bright_share"] > _TORN or features["fill"] < 0.6:
        return "broken"
    if features["area"] < 0.6 or features["mean"] < 0.7:
        return "thick"
    if features["mean"] > 1.35:
        return "thin"
    return "good"
