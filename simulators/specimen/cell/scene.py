"""The inside of a cell taking shape: how dark each voxel is, what it belongs to, and how much room is left."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulators.specimen.cell.settings import STRUCTURES, CellSettings
from simulators.specimen.cell.shapes import FAR_NM, Box, Rows, Volume, membrane

WHOLE: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, slots=True)
class Pore:
    """A nuclear pore: centre (z, y, x) in nm, unit normal of the envelope, diameter from membrane to membrane."""

    centre_nm: tuple[float, float, float]
    normal: tuple[float, float, float]
    diameter_nm: float


@dataclass(frozen=True, slots=True)
class Pit:
    """A coated pit or vesicle: centre (z, y, x) in nm, radius of its membrane, depth below the plasma membrane.

    ``open`` tells pits, which are joined to the plasma membrane, from vesicles, which are not.
    """

    centre_nm: tuple[float, float, float]
    radius_nm: float
    depth_nm: float
    open: bool


@dataclass(slots=True)
class Scene:
    """What has been built so far.

    Attributes
    ----------
    settings
        Of the region.
    rng
        Where everything random comes from, in the order of building.
    stain
        Darkness, 0 bare resin to 1, (z, y, x).
    room_nm
        Signed distance from whatever stands nearest (an estimate, exact enough to keep things apart).
    cytosol
        Where nothing but cytosol is.
    labels
        For each structure numbers of its objects from 1, 0 elsewhere.
    pores, pits
        What can be measured, and how large it is.
    """

    settings: CellSettings
    rng: np.random.Generator
    stain: Volume
    room_nm: Volume
    cytosol: NDArray[np.bool_]
    labels: dict[str, NDArray[np.uint16]]
    pores: list[Pore] = field(default_factory=list)
    pits: list[Pit] = field(default_factory=list)

    @classmethod
    def empty(cls, settings: CellSettings, rng: np.random.Generator) -> "Scene":
        """Nothing but resin."""
        shape = settings.shape
        labels = {name: np.zeros(shape, np.uint16) for name in STRUCTURES}
        return cls(settings, rng, np.zeros(shape, np.float32), np.full(shape, FAR_NM), np.ones(shape, bool), labels)

    @property
    def size_nm(self) -> Rows:
        """Edges of the region."""
        return np.array(self.settings.shape) * self.settings.voxel_nm

    def at(self, point_nm: Rows) -> tuple[int, int, int] | None:
        """Voxel of a point; None outside."""
        z, y, x = (round(float(p) / self.settings.voxel_nm) for p in point_nm)
        inside = all(0 <= i < n for i, n in zip((z, y, x), self.settings.shape, strict=True))
        return (z, y, x) if inside else None

    def occupy(self, box: Box, distance_nm: Volume) -> None:
        """Let nothing else be built here."""
        np.minimum(self.room_nm[box], distance_nm, out=self.room_nm[box])
        self.cytosol[box] &= distance_nm > 0

    def fill(self, box: Box, distance_nm: Volume, content: Volume | float, *, wall: float = 1.0) -> None:
        """Put a membrane-bound compartment here: its content inside, its membrane where the distance is 0."""
        here = self.stain[box]
        here[...] = np.where(distance_nm < 0, np.float32(content), here)
        self.wall(box, distance_nm, wall)
        self.occupy(box, distance_nm)

    def wall(self, box: Box, distance_nm: Volume, strength: float = 1.0) -> None:
        """Draw a membrane: it darkens what is there, and never beyond black."""
        here = self.stain[box]
        here += np.float32(self.settings.stain.membranes * strength) * membrane(distance_nm) * (1 - here)

    def mark(self, name: str, box: Box, inside: NDArray[np.bool_]) -> None:
        """Give these voxels the next number of a structure, where no other object of it is."""
        labels = self.labels[name]
        part = labels[box]
        free = inside & (part == 0)
        if free.any():
            part[free] = int(labels.max()) + 1
