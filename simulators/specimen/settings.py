"""What one wants of a grid: mesh, foil, ice and content, all drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CONTENTS = ("particles", "gold", "vesicles")


@dataclass(frozen=True, slots=True)
class SpecimenSettings:
    """The make of one grid.

    Parameters
    ----------
    seed
        Everything random about the grid follows from it.
    grid_radius_um
        Usable radius of the grid; beyond it lies the opaque rim.
    mesh, mesh_pitch_um, bar_um, mesh_angle_deg
        Shape of the openings, their spacing, the width of a bar between two of them, and the angle of the
        mesh to the stage (``None``: drawn from the seed).
    foil, lattice, hole_diameter_um, hole_pitch_um
        Material of the perforated foil and its holes; R2/2 means 2 µm holes, 4 µm pitch.
    ice
        Overall ice of the grid; it varies over the grid, over each square and from hole to hole.
    content
        What lies in the ice: any of ``"particles"``, ``"gold"``, ``"vesicles"``.
    inverted
        Bright where electrons are stopped, as some cameras store it.
    voltage_kv
        Acceleration voltage.
    """

    seed: int = 0
    grid_radius_um: float = 1000.0
    mesh: Literal["square", "hexagonal"] = "square"
    mesh_pitch_um: float = 127.0
    bar_um: float = 35.0
    mesh_angle_deg: float | None = None
    foil: Literal["carbon", "gold"] = "carbon"
    lattice: Literal["square", "hexagonal"] = "square"
    hole_diameter_um: float = 2.0
    hole_pitch_um: float = 4.0
    ice: Literal["mixed", "good", "thick", "poor"] = "mixed"
    content: tuple[str, ...] = ("particles",)
    inverted: bool = False
    voltage_kv: float = 300.0

    def __post_init__(self) -> None:
        """Refuse what no grid can be."""
        if not 0 < self.bar_um < self.mesh_pitch_um:
            raise ValueError(f"bar_um {self.bar_um} must lie between 0 and mesh_pitch_um {self.mesh_pitch_um}")
        if not 0 < self.hole_diameter_um < self.hole_pitch_um:
            raise ValueError(
                f"hole_diameter_um {self.hole_diameter_um} must lie between 0 and hole_pitch_um {self.hole_pitch_um}"
            )
        unknown = set(self.content) - set(CONTENTS)
        if unknown:
            raise ValueError(f"content {sorted(unknown)} is none of {CONTENTS}")
