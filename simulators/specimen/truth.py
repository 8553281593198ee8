"""What is really there: squares, holes and objects, in stage coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SquareState = Literal["good", "thick", "thin", "empty", "broken", "dark"]
HoleState = Literal["good", "thick", "thin", "empty", "dirty", "broken"]
ObjectKind = Literal["particle", "gold6", "gold12", "vesicle"]


@dataclass(frozen=True, slots=True)
class SquareTruth:
    """One mesh opening.

    Parameters
    ----------
    index
        Place in ``Specimen.squares``.
    x_um, y_um
        Centre on the stage.
    vertices_um
        Outline of the opening as (x, y) stage points, counted around; ice on the bars has narrowed it already.
    state
        ``empty`` has foil and no ice, ``broken`` has lost foil, ``dark`` lets next to nothing through.
    ice_nm
        Ice at the centre.
    quality
        Mean of the qualities of its holes, 0 to 1.
    """

    index: int
    x_um: float
    y_um: float
    vertices_um: tuple[tuple[float, float], ...]
    state: SquareState
    ice_nm: float
    quality: float


@dataclass(frozen=True, slots=True)
class HoleTruth:
    """One hole of the foil that lies wholly inside its opening.

    Parameters
    ----------
    square, index
        Its square, and its place in ``Specimen.holes(square)``.
    x_um, y_um, radius_um
        Centre on the stage, and radius.
    state
        ``broken``: the foil or the ice here is gone by tearing.
    ice_nm
        Ice at the centre of the hole.
    crystalline, contamination
        Share of the hole that is crystalline, and that is covered, 0 to 1.
    quality
        Probability that a micrograph taken here is good, 0 to 1.
    """

    square: int
    index: int
    x_um: float
    y_um: float
    radius_um: float
    state: HoleState
    ice_nm: float
    crystalline: float
    contamination: float
    quality: float


@dataclass(frozen=True, slots=True)
class ObjectTruth:
    """One thing in the ice: where its centre is on the stage, and how wide it is."""

    kind: ObjectKind
    x_um: float
    y_um: float
    diameter_nm: float
