"""What a gold detector gives back, and the protocol that all of them keep."""

from typing import Protocol

import msgspec

from models.base import Image, Model
from models.gold.sampling import Pixels


class GoldParticle(msgspec.Struct, frozen=True, kw_only=True):
    """One particle: centre in pixels of the image, diameter in nm (at half depth), score from 0 to 1, size group."""

    x: float
    y: float
    diameter_nm: float
    score: float
    group: str = ""


class SizeGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Particles of one kind of gold: a name such as ``12 nm``, mean and spread of their diameters, and their number."""

    name: str
    mean_nm: float
    spread_nm: float
    count: int


class GoldFinding(msgspec.Struct, frozen=True, kw_only=True):
    """All particles of one image, best score first.

    ``doubt`` says why the image is not one that the detector was made for; empty when nothing is odd. ``note`` is what
    else a person should know.
    """

    particles: tuple[GoldParticle, ...]
    groups: tuple[SizeGroup, ...]
    pixel_nm: float
    doubt: str = ""
    note: str = ""


class Candidate(msgspec.Struct, frozen=True):
    """A particle as a detector reports it: pixels of the image, diameter in nm, score from 0 to 1."""

    x: float
    y: float
    diameter_nm: float
    score: float


class GoldDetector(Model, Protocol):
    """Finds gold particles of any size; `models.gold.find` sorts what it gives into sizes."""

    def candidates(self, image: Image | Pixels, pixel_nm: float) -> list[Candidate]:
        """Particles of an image of shape (rows, columns), in any order, each once."""
        ...
