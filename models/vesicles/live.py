"""Vesicles in the frames of a running session, behind the protocol of all detectors; and when not to believe them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.base import Image
from models.detections import MarkedObject, ObjectFinding
from models.vesicles.discs import Disc
from models.vesicles.frames import FrameDetector

PIXEL_NM = (0.08, 6.0)  # beyond these a vesicle is a few pixels, or does not fit into a frame
LARGE_NM = 65.0
SMALL, LARGE = "under 65 nm", "65 nm and more"
MOST_OBJECTS = 5_000
_DIAMETER_NM = (28.0, 85.0)
_FEW = 8  # fewer hits than this say nothing about the frame
_SURE = 0.6
_WEAK_SHARE = 1.5  # hesitant hits for each accepted one


@dataclass(frozen=True)
class LiveVesicles:
    """Vesicles of high-mag frames in two groups: ``under 65 nm`` (synaptic ones) and ``65 nm and more``."""

    name: str = "vesicles"
    detector: FrameDetector = field(default_factory=FrameDetector)

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return self.detector.fingerprint

    def detect(self, image: Image, pixel_size_angstrom: float | None = None) -> ObjectFinding:
        """Vesicles of a frame, best first, with outer diameters; none, and why, where the frame cannot be judged."""
        if pixel_size_angstrom is None:
            return ObjectFinding(note="the frame has no pixel size: vesicles cannot be told by their size")
        reason = unfit(tuple(image.shape), pixel_size_angstrom / 10)
        if reason:
            return ObjectFinding(note=reason)
        found = self.detector.candidates(image, pixel_size_angstrom / 10)
        sure = sorted((d for d in found if d.score >= self.detector.threshold_score), key=lambda d: -d.score)
        objects = tuple(
            MarkedObject(
                x=round(d.x, 2), y=round(d.y, 2), diameter_nm=round(d.diameter_nm, 2), group=group(d),
                score=round(d.score, 3),
            )
            for d in sure[:MOST_OBJECTS]
        )  # fmt: skip
        return ObjectFinding(
            objects=objects,
            counts=dict(sorted(Counter(group(d) for d in sure).items(), reverse=True)),
            doubt=doubt(sure, len(found) - len(sure)),
            note="" if sure else "no vesicles found",
        )


def group(disc: Disc) -> str:
    """Which of the two groups a vesicle belongs to."""
    return SMALL if disc.diameter_nm < LARGE_NM else LARGE


def unfit(shape: tuple[int, ...], pixel_nm: float) -> str:
    """Why vesicles cannot be looked for in an image of this shape at this pixel size, or nothing."""
    if len(shape) != 2 or min(shape) < 16:
        return f"image of shape {shape}: need (rows, columns), each at least 16 pixels"
    if not PIXEL_NM[0] <= pixel_nm <= PIXEL_NM[1]:
        return f"pixel size {pixel_nm:.4g} nm: vesicles are looked for at {PIXEL_NM[0]:g} to {PIXEL_NM[1]:g} nm"
    return ""


def doubt(sure: Sequence[Disc], hesitant: int) -> str:
    """Why the answer should not be trusted, or nothing.

    Parameters
    ----------
    sure
        Vesicles that count.
    hesitant
        Hits that were nearly accepted.
    """
    reasons = []
    if len(sure) >= _FEW:
        middle = float(np.median([d.diameter_nm for d in sure]))
        if not _DIAMETER_NM[0] <= middle <= _DIAMETER_NM[1]:
            reasons.append(
                f"half of the vesicles measure {middle:.0f} nm or so, no usual ones: is the pixel size right?"
            )
        certain = float(np.mean([d.score >= _SURE for d in sure]))
        if certain < 0.5:
            reasons.append(
                f"only {certain:.0%} of the hits are sure: these may be no vesicles such as the network knows"
            )
    if hesitant >= _FEW and hesitant > _WEAK_SHARE * len(sure):
        reasons.append(f"{hesitant} more places were nearly taken for vesicles: texture may look like them here")
    return "; ".join(reasons)
