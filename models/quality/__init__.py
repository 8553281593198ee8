"""Quality of high-mag micrographs."""

from models.quality.scorer import SimpleQualityScorer

__all__ = ["SimpleQualityScorer"]
