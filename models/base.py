"""The protocols that every finder keeps, classical or learned."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.conditions import Conditions
from models.detections import HoleFinding, ObjectFinding, QualityFinding, SquareFinding

Image = NDArray[Any]  # shape (rows, columns); any real dtype


class Model(Protocol):
    """What every model says about itself, for the decision record."""

    @property
    def name(self) -> str:
        """Name as configs and records show it, such as ``squares-mixture``."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings: equal fingerprints give equal answers."""
        ...


class SquareFinder(Model, Protocol):
    """Finds the mesh openings of a low-mag frame."""

    def find(self, image: Image, pixel_size_angstrom: float | None = None) -> SquareFinding:
        """Squares of ``image`` (rows, columns); an image that holds none gives none and says why."""
        ...


class HoleFinder(Model, Protocol):
    """Finds the foil holes of a medium-mag frame."""

    def find(
        self, image: Image, pixel_size_angstrom: float | None = None, conditions: Conditions | None = None
    ) -> HoleFinding:
        """Holes of ``image`` (rows, columns); an image that holds none gives none and says why.

        ``conditions`` say how it was taken; where they know the open beam, scores may count it.
        """
        ...


class QualityScorer(Model, Protocol):
    """Judges a high-mag micrograph."""

    def judge(
        self, image: Image, pixel_size_angstrom: float | None = None, conditions: Conditions | None = None
    ) -> QualityFinding:
        """Quality of ``image`` (rows, columns), taken under ``conditions`` (``None``: the usual ones, see there)."""
        ...


class ObjectDetector(Model, Protocol):
    """Finds objects of one family, such as gold particles, in a high-mag frame."""

    def detect(self, image: Image, pixel_size_angstrom: float | None = None) -> ObjectFinding:
        """Objects of ``image`` (rows, columns)."""
        ...


def source_fingerprint(*packages: str) -> str:
    """Hash of the source of ``packages`` (names such as ``models.holes``): a classical model is its code.

    A changed constant changes the fingerprint by itself, so a replay notices; line ends do not count.
    """
    root = Path(__file__).resolve().parent
    sha = hashlib.sha256()
    for package in packages:
        folder = root.joinpath(*package.split(".")[1:])
        for file in sorted(folder.glob("*.py")):
            sha.update(file.name.encode() + b"\0" + file.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return sha.hexdigest()[:16]


class BadImageError(ValueError):
    """An image that no model can work with, and why."""


def as_plain(image: Image) -> NDArray[np.float32]:
    """``image`` as a finite, C-ordered float32 array of shape (rows, columns).

    Pixels that are NaN or infinite take the median of the others.

    Raises
    ------
    BadImageError
        If the image is not two-dimensional, is smaller than 16 pixels on a side, or has no finite pixel.
    """
    if image.ndim != 2 or min(image.shape) < 16:
        raise BadImageError(f"image of shape {image.shape}: need (rows, columns), each at least 16 pixels")
    if not (np.issubdtype(image.dtype, np.integer) or np.issubdtype(image.dtype, np.floating)):
        raise BadImageError(f"image of dtype {image.dtype}: need integers or real numbers")
    plain = np.ascontiguousarray(image, dtype=np.float32)
    finite = np.isfinite(plain)
    if not finite.all():
        if not finite.any():
            raise BadImageError("image has no finite pixel")
        plain = np.where(finite, plain, np.float32(np.median(plain[finite])))
    return plain
