"""When an image is not one that a detector was made for: said in one line, instead of confident nonsense."""

from collections.abc import Sequence

import numpy as np

from models.gold.records import Candidate

PIXEL_NM = (0.28, 3.3)
DIAMETER_NM = (4.0, 30.0)
SURE = 0.7
FEW = 6  # fewer hits than this say nothing about the image
WEAK_SHARE = 1.0  # hesitant hits for each accepted one
SIZE_OFF = 1.3


def doubt(
    accepted: Sequence[Candidate], hesitant: int, pixel_nm: float, sizes_nm: Sequence[float], scored: bool
) -> str:
    """Why the answer should not be trusted, or nothing.

    Parameters
    ----------
    accepted
        Particles that count.
    hesitant
        Hits that were nearly accepted.
    pixel_nm
        Pixel size in nm.
    sizes_nm
        Nominal sizes that the person named; empty when none were.
    scored
        Whether the detector's scores are probabilities.
    """
    reasons = []
    low, high = PIXEL_NM
    if not low <= pixel_nm <= high:
        reasons.append(f"pixel size {pixel_nm:.3g} nm is outside {low:g}-{high:g} nm: wrong magnification?")
    if len(accepted) >= FEW:
        diameters = np.array([one.diameter_nm for one in accepted])
        middle = float(np.median(diameters))
        if not DIAMETER_NM[0] <= middle <= DIAMETER_NM[1]:
            reasons.append(
                f"half of the particles measure {middle:.1f} nm or so, no usual gold: is the pixel size right?"
            )
        if sizes_nm:
            away = np.abs(np.log(diameters[:, None] / np.asarray(sizes_nm, float)[None, :])).min(axis=1)
            if float(np.median(away)) > np.log(SIZE_OFF):
                named = ", ".join(f"{size:g}" for size in sizes_nm)
                reasons.append(f"the particles measure {middle:.1f} nm, not {named} nm: is the pixel size right?")
        sure = float(np.mean([one.score >= SURE for one in accepted]))
        if scored and sure < 0.5:
            reasons.append(f"only {sure:.0%} of the hits are sure: this may be no immunogold such as the network knows")
    if scored and hesitant >= FEW and hesitant > WEAK_SHARE * len(accepted):
        reasons.append(
            f"{hesitant} more spots were nearly taken for gold: texture or another label may look like it here"
        )
    return "; ".join(reasons)
