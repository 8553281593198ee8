"""The perforated foil: which hole is nearest to a point, and how far its edge is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Lattice:
    """Hole lattice of one square, in µm about the centre of the square.

    A foil lies a little stretched and bent over each square: ``bend`` (1/µm) moves a point at (x, y) by
    ``bend · (x y, x y)``, so rows are not quite straight.
    """

    hexagonal: bool
    pitch_um: float
    angle_rad: float
    x0_um: float
    y0_um: float
    stretch: float
    bend_x: float
    bend_y: float

    def nearest(self, x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
        """Lattice indices (i, j) of the nearest hole and the vector from its centre, in lattice axes (µm)."""
        xy = x * y
        u, v = self._turned(x - self.x0_um - self.bend_x * xy, y - self.y0_um - self.bend_y * xy)
        one, two = self.pitch_um, self.pitch_um * (math.sqrt(3) / 2 if self.hexagonal else self.stretch)
        j = np.rint(v / two)
        if not self.hexagonal:
            i = np.rint(u / one)
            return i.astype(np.int32), j.astype(np.int32), u - i * one, v - j * two
        below = np.floor(v / two)
        best: tuple[Array, Array, Array, Array] | None = None
        for row in (below, below + 1):
            offset = 0.5 * np.mod(row, 2)
            column = np.rint(u / one - offset)
            du, dv = u - (column + offset) * one, v - row * two
            if best is None:
                best = column, row, du, dv
            else:
                closer = du * du + dv * dv < best[2] * best[2] + best[3] * best[3]
                best = (
                    np.where(closer, column, best[0]),
                    np.where(closer, row, best[1]),
                    np.where(closer, du, best[2]),
                    np.where(closer, dv, best[3]),
                )
        assert best is not None  # noqa: S101 - two rows were tried
        return best[0].astype(np.int32), best[1].astype(np.int32), best[2], best[3]

    def position(self, i: Array, j: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres of holes (i, j): where ``nearest`` gives the vector (0, 0), found by fixed point."""
        one, two = self.pitch_um, self.pitch_um * (math.sqrt(3) / 2 if self.hexagonal else self.stretch)
        offset = 0.5 * np.mod(j, 2) if self.hexagonal else 0.0
        u, v = (i + offset) * one, j * two
        c, s = math.cos(self.angle_rad), math.sin(self.angle_rad)
        x0, y0 = self.x0_um + c * u - s * v, self.y0_um + s * u + c * v
        x, y = x0, y0
        for _ in range(12):
            xy = x * y
            x, y = x0 + self.bend_x * xy, y0 + self.bend_y * xy
        return x, y

    def cells(self, reach_um: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """All index pairs whose hole may lie within ``reach_um`` of the centre, as two flat arrays."""
        n = math.ceil((reach_um + math.hypot(self.x0_um, self.y0_um)) / (self.pitch_um * 0.84)) + 1
        j, i = np.mgrid[-n : n + 1, -n : n + 1].astype(np.int32)
        return i.ravel(), j.ravel()

    def _turned(self, x: Array, y: Array) -> tuple[Array, Array]:
        c, s = math.cos(self.angle_rad), math.sin(self.angle_rad)
        return c * x + s * y, c * y - s * x
