"""The mesh: which blobs stand on the grid's lattice, which belong together, and which are no squares.

The lattice bends with stage errors and montage seams, so a blob takes its index from the nearest blobs that
already have one, and its expected place likewise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.holes.anchors import Anchors
from models.holes.lattice import LatticeFit, fit_lattice
from models.squares.polygons import Blob, common_angle, merged

_WHOLE = 0.5  # of the nominal area: large enough to carry the lattice
LEAST = 0.13  # of the nominal area: smaller ones are dust, cracks and glows
_OFF = 0.36  # of the pitch: further from its place, a blob is no square


@dataclass(frozen=True, slots=True)
class Mesh:
    """Squares of a frame with what they share.

    Attributes
    ----------
    squares
        One blob per mesh opening.
    angle_deg
        Angle of the openings' sides.
    nominal_area
        Area of a whole opening, in working pixels.
    lattice
        Lattice of the openings, or None where too few are seen.
    """

    squares: list[Blob]
    angle_deg: float
    nominal_area: float
    lattice: LatticeFit | None


def nominal_area(blobs: list[Blob]) -> float:
    """Area of a whole opening: half of all open pixels lie in larger blobs, half in smaller ones."""
    area = np.sort(np.array([b.area for b in blobs]))
    weight = np.cumsum(area) / area.sum()
    return float(area[int(np.searchsorted(weight, 0.5))])


def build_mesh(blobs: list[Blob], inside: NDArray[np.bool_]) -> Mesh:
    """Squares among ``blobs`` (not empty); ``inside`` says which blobs the frame does not cut."""
    nominal = nominal_area(blobs)
    carriers = [k for k, b in enumerate(blobs) if inside[k] and _WHOLE * nominal <= b.area <= 2.0 * nominal]
    angle = common_angle([blobs[k] for k in carriers] or blobs)
    centres = np.array([b.box_centre(angle) for b in blobs])
    fit = fit_lattice(centres[carriers]) if len(carriers) >= 3 else None
    if fit is None or fit.member.sum() < max(3, 0.4 * len(carriers)):
        kept = [b for b in blobs if b.area >= 0.3 * nominal]
        return Mesh(kept, angle, nominal, None)
    seeds = Anchors.of(fit, centres[carriers])
    index, off = seeds.locate(centres)
    reach = max(0.55 * np.sqrt(nominal), _OFF * fit.pitch)
    cells: dict[tuple[int, int], list[int]] = {}
    for k in range(len(blobs)):
        if off[k] <= reach or blobs[k].area >= _WHOLE * nominal:
            cells.setdefault((int(index[k, 0]), int(index[k, 1])), []).append(k)
    whole = [merged([blobs[k] for k in members]) for members in cells.values()]
    whole = [blob for blob in whole if blob.area >= LEAST * nominal]
    if not whole:
        return Mesh([], angle, nominal, fit)
    _, off_place = seeds.locate(np.array([blob.box_centre(angle) for blob in whole]))
    kept = [blob for blob, away in zip(whole, off_place, strict=True) if away <= _OFF * fit.pitch]
    return Mesh(kept, angle, nominal, fit)
