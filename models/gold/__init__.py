"""Gold labels in high-mag frames: detectors behind one protocol, sizes, and what their pattern says."""

from models.gold.fast import FastDetector
from models.gold.gan import GanDetector
from models.gold.matched_disc import MatchedDetector
from models.gold.records import Candidate, GoldDetector, GoldFinding, GoldParticle, SizeGroup
from models.gold.search import GoldError, find
from models.gold.tac import TacDetector

__all__ = [
    "Candidate", "FastDetector", "GanDetector", "GoldDetector", "GoldError", "GoldFinding", "GoldParticle",
    "MatchedDetector", "SizeGroup", "TacDetector", "find",
]  # fmt: skip
