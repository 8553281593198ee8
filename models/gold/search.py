"""One way to gold for the command line, the live session and the benchmarks: detect, cut, sort by size, doubt."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from models.gold.depth import doubt
from models.gold.groups import grouped
from models.gold.records import GoldDetector, GoldFinding
from models.gold.sampling import COARSEST_NM, FINEST_NM, Pixels

LARGEST_NM = 200.0


class GoldError(ValueError):
    """A question about gold that has no answer, and why."""


def find(
    detector: GoldDetector,
    image: Pixels,
    pixel_nm: float,
    sizes_nm: Sequence[float] = (),
    progress: Callable[[float], None] | None = None,
) -> GoldFinding:
    """Gold in an image of shape (rows, columns).

    Parameters
    ----------
    detector
        What looks for it.
    image
        Grey values, gold is dark; an array or a memory map.
    pixel_nm
        Pixel size in nm.
    sizes_nm
        Nominal diameters; when none are given, the diameters themselves say how many sizes there are.
    progress
        Told the share of the work that is done, from 0 to 1.

    Raises
    ------
    GoldError
        When the pixel size or a nominal size is none that gold can be seen at, or the image is too small.
    """
    if not FINEST_NM <= pixel_nm <= COARSEST_NM:
        raise GoldError(f"pixel size {pixel_nm:.4g} nm: gold is looked for at {FINEST_NM:g} to {COARSEST_NM:g} nm")
    for size in sizes_nm:
        if not 1 <= size <= LARGEST_NM:
            raise GoldError(f"size {size:g} nm: gold labels measure 1 to {LARGEST_NM:g} nm")
    if len(image.shape) != 2 or min(image.shape) < 16:
        raise GoldError(f"image of shape {tuple(image.shape)}: need (rows, columns), each at least 16 pixels")
    found = cast("Any", detector).candidates(image, pixel_nm, progress)
    threshold = float(getattr(detector, "threshold_score", 0.0))
    accepted = [one for one in found if one.score >= threshold]
    particles, groups = grouped(accepted, sizes_nm)
    reason = doubt(accepted, len(found) - len(accepted), pixel_nm, sizes_nm, scored=threshold > 0)
    note = "" if accepted else "no gold found"
    return GoldFinding(particles=particles, groups=groups, pixel_nm=pixel_nm, doubt=reason, note=note)
