"""Quality of high-mag micrographs."""

from models.quality.ctf_scorer import CtfQualityScorer
from models.quality.scorer import SimpleQualityScorer

__all__ = ["CtfQualityScorer", "SimpleQualityScorer"]
