"""The classical quality scorer: robust statistics, one rule per label, a score from the same numbers."""

import numpy as np

from models.base import Image, as_plain, source_fingerprint
from models.conditions import Conditions
from models.detections import MicrographLabel, QualityFinding
from models.quality.statistics import real_space, spectral

_SATURATED = 0.02  # share of pixels at the highest count
_DARK_COUNTS = 1.0  # mean of an unsigned image below which no beam came through
_DIRTY = 0.028  # share of the area covered by something dark
_EMPTY_HIGH = 0.12  # fall of log power towards high frequency below which nothing scatters
_SPOTS = 3.0  # log power by which crystal reflections stand out
_UNEVEN = 0.75  # share of the slow background in all contrast
_THICK_NOISE = 0.12  # fine contrast below which the image is mere shadow


class SimpleQualityScorer:
    """Judges a micrograph without training; gives its numbers as reasons.

    The same image gives the same answer, whatever its number type; offset and gain change ``mean`` and
    ``deviation`` only.
    """

    @property
    def name(self) -> str:
        """Name as configs and records show it."""
        return "quality-simple"

    @property
    def fingerprint(self) -> str:
        """Hash of the code: there are no weights and no settings."""
        return source_fingerprint("models.quality")

    def judge(
        self, image: Image, pixel_size_angstrom: float | None = None, conditions: Conditions | None = None
    ) -> QualityFinding:
        """Quality of ``image`` (rows, columns).

        Parameters
        ----------
        image
            High-mag micrograph, any real dtype, shape (rows, columns).
        pixel_size_angstrom, conditions
            Not needed: this scorer knows no optics.

        Raises
        ------
        BadImageError
            When the array is no image at all (see ``models.base.as_plain``).
        """
        plain = as_plain(image)
        low, high = float(plain.min()), float(plain.max())
        if not high > low:
            label: MicrographLabel = "dark" if high <= _DARK_COUNTS else "unknown"
            return QualityFinding(
                score=0.0, label=label, features={"mean": high, "deviation": 0.0}, note="image is constant"
            )
        numbers = {**real_space(plain), **spectral(plain)}
        label, note = _label(numbers, counts=bool(np.issubdtype(image.dtype, np.unsignedinteger)))
        return QualityFinding(
            score=_score(numbers, label),
            label=label,
            features={k: round(float(v), 6) for k, v in numbers.items()},
            note=note,
        )


def _label(n: dict[str, float], *, counts: bool) -> tuple[MicrographLabel, str]:
    if n["saturated"] > _SATURATED:
        return "saturated", f"{n['saturated']:.1%} of the pixels are at the highest count"
    if n["floor"] > 0.5 or (counts and n["mean"] < _DARK_COUNTS):
        return "dark", "hardly any beam came through"
    if n["spots"] > _SPOTS:
        return "crystalline", f"reflections stand out by {n['spots']:.1f} in log power"
    if n["dark_share"] > _DIRTY:
        return "dirty", f"{n['dark_share']:.1%} of the area is covered by something dark"
    if n["noise_share"] < _THICK_NOISE or (n["unevenness"] > _UNEVEN and n["rings"] < 2.5):
        return "thick", "slow shadows outweigh the fine contrast"
    if -n["high_share"] < _EMPTY_HIGH:
        return "empty", "the power spectrum is flat: nothing scatters"
    return "good", ""


def _score(n: dict[str, float], label: MicrographLabel) -> float:
    clean = float(np.exp(-n["dark_share"] / 0.04))
    even = float(np.clip(1.2 - n["unevenness"], 0.0, 1.0))
    signal = float(np.clip(-n["high_share"] / 1.0, 0.0, 1.0))
    rings = float(np.clip((n["rings"] - 1.2) / 1.8, 0.0, 1.0))
    score = clean * (0.3 + 0.7 * even) * (0.1 + 0.9 * signal) * (0.4 + 0.6 * rings)
    limit = {"good": 1.0, "dirty": 0.5, "thick": 0.4, "empty": 0.3, "crystalline": 0.2}.get(label, 0.05)
    return round(float(np.clip(score, 0.0, limit)), 6)
