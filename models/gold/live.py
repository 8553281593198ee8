"""Gold in the frames of a running session: the default detector behind the protocol of all detectors."""

from collections import Counter
from dataclasses import dataclass, field

from models.base import Image
from models.detections import MarkedObject, ObjectFinding
from models.gold.fast import FastDetector
from models.gold.records import GoldDetector
from models.gold.search import GoldError, find
from models.gold.tac import TacDetector

MOST_OBJECTS = 5_000


@dataclass(frozen=True)
class LiveGold:
    """Gold of the nominal ``sizes_nm``; without them each frame says by itself how many sizes it holds."""

    sizes_nm: tuple[float, ...] = ()
    name: str = "gold"
    detector: GoldDetector = field(default_factory=FastDetector)

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings."""
        sizes = "-".join(f"{size:g}" for size in self.sizes_nm)
        return f"{self.detector.fingerprint}{'-' if sizes else ''}{sizes}"

    def detect(self, image: Image, pixel_size_angstrom: float | None = None) -> ObjectFinding:
        """Gold particles of a high-mag frame, best first; none, and why, where the frame cannot be judged."""
        if pixel_size_angstrom is None:
            return ObjectFinding(note="the frame has no pixel size: gold cannot be told by its size")
        try:
            found = find(self.detector, image, pixel_size_angstrom / 10, self.sizes_nm)
        except GoldError as error:
            return ObjectFinding(note=str(error))
        objects = tuple(
            MarkedObject(
                x=round(p.x, 2), y=round(p.y, 2), diameter_nm=round(p.diameter_nm, 2), group=p.group,
                score=round(p.score, 3),
            )
            for p in found.particles[:MOST_OBJECTS]
        )  # fmt: skip
        return ObjectFinding(
            objects=objects,
            counts=dict(sorted(Counter(p.group for p in found.particles).items())),
            doubt=found.doubt,
            note=found.note,
        )


@dataclass(frozen=True)
class ClassicalGold(LiveGold):
    """The published rules (threshold, area, circularity) in the place of a network that cannot be loaded."""

    detector: GoldDetector = field(default_factory=TacDetector)
