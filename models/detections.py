"""What the vision models give back: plain frozen records in pixels of the image they were shown.

Image coordinates are ``(x, y)`` pixels, x right, y down, and the centre of the first pixel is ``(0, 0)``;
arrays are ``image[y, x]``.
"""

from typing import Literal

import msgspec

SquareLabel = Literal["good", "thick", "thin", "empty", "broken", "dark", "partial", "unknown"]
HoleLabel = Literal["good", "thick", "thin", "empty", "dirty", "broken", "partial", "unknown"]
MicrographLabel = Literal[
    "good", "thick", "empty", "dirty", "crystalline", "edge", "broken", "dark", "saturated", "unknown"
]
Symmetry = Literal["square", "hexagonal", "oblique"]


class SquareDetection(msgspec.Struct, frozen=True, kw_only=True):
    """One mesh opening.

    ``vertices`` is its convex polygon; ``features`` holds the summary statistics that the score was made of
    (mean, max, min, variance, kurtosis, skew, area as fractions of the frame's own, so they read as reasons).
    """

    x: float
    y: float
    vertices: tuple[tuple[float, float], ...]
    score: float  # 0 (never go there) to 1 (go there first)
    area_px: float
    label: SquareLabel = "unknown"
    touches_edge: bool = False
    features: dict[str, float] = {}


class SquareFinding(msgspec.Struct, frozen=True, kw_only=True):
    """All squares of one low-mag frame, best score first; ``note`` says why there are none or what is odd."""

    squares: tuple[SquareDetection, ...]
    angle_deg: float | None = None  # the mesh's common angle, 0 <= angle < 90 (square) or 60 (hexagonal)
    pitch_px: float | None = None
    note: str = ""


class Lattice(msgspec.Struct, frozen=True, kw_only=True):
    """Hole ``(i, j)`` sits at ``origin + i * a + j * b``; all in pixels as ``(x, y)``."""

    origin: tuple[float, float]
    a: tuple[float, float]
    b: tuple[float, float]
    symmetry: Symmetry
    residual_px: float  # rms distance of the holes used from their lattice points


class HoleDetection(msgspec.Struct, frozen=True, kw_only=True):
    """One hole of the foil; ``inferred`` marks a hole known from the lattice alone."""

    x: float
    y: float
    radius_px: float
    score: float
    label: HoleLabel = "unknown"
    inferred: bool = False
    index: tuple[int, int] | None = None  # (i, j) on the lattice
    features: dict[str, float] = {}


class GridSighting(msgspec.Struct, frozen=True, kw_only=True):
    """How what an earlier low-mag frame showed lies on a new one of the same place: turned, then shifted.

    A pixel at ``p`` from the middle of the earlier frame is at ``R(turn_deg) @ p + (dx, dy)`` from the middle of the
    new one, (x, y) in pixels; ``correlation`` (Pearson's) is that of both where they overlap.
    """

    turn_deg: float
    dx: float
    dy: float
    correlation: float
    note: str = ""


class HoleFinding(msgspec.Struct, frozen=True, kw_only=True):
    """All holes of one medium-mag frame, best score first; ``note`` says why there are none or what is odd."""

    holes: tuple[HoleDetection, ...]
    lattice: Lattice | None = None
    note: str = ""


class QualityFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What one high-mag micrograph is worth."""

    score: float  # 0 to 1
    label: MicrographLabel
    features: dict[str, float] = {}
    note: str = ""


class MarkedObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object of a high-mag frame, such as a gold particle; ``group`` names its kind, such as ``12 nm``."""

    x: float
    y: float
    diameter_nm: float | None = None
    group: str = ""
    score: float = 1.0


class ObjectFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector found in one high-mag frame.

    ``counts`` has all objects by group, also where ``objects`` was cut short; ``doubt`` says why the frame may be none
    that the detector knows, ``note`` what is odd else.
    """

    objects: tuple[MarkedObject, ...] = ()
    counts: dict[str, int] = {}
    doubt: str = ""
    note: str = ""
