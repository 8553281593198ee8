"""One square of the grid: its opening, foil, ice, damage and dirt, and the table of its holes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators.specimen import contamination, damage, ice, mesh, noise
from simulators.specimen.fibres import Fibre
from simulators.specimen.foil import Lattice
from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.truth import HoleState, HoleTruth, SquareState, SquareTruth

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HoleTable:
    """All holes of one square, cut ones included, as arrays of shape (n,); places in µm about its centre.

    ``grid[j - j0, i - i0]`` is the row of hole (i, j), or -1; ``listed`` are those wholly in the opening.
    """

    x: Floats
    y: Floats
    radius: Floats
    ice_nm: Floats
    crystalline: Floats
    contamination: Floats
    frost: Floats
    clumped: NDArray[np.bool_]
    lean_x: Floats
    lean_y: Floats
    broken: NDArray[np.bool_]
    listed: NDArray[np.bool_]
    grid: NDArray[np.int32]
    i0: int
    j0: int

    def rows(self, i: NDArray[np.int32], j: NDArray[np.int32]) -> NDArray[np.int32]:
        """Row of each hole (i, j), -1 where there is none."""
        high, wide = self.grid.shape
        known = (i >= self.i0) & (i < self.i0 + wide) & (j >= self.j0) & (j < self.j0 + high)
        found = self.grid[np.clip(j - self.j0, 0, high - 1), np.clip(i - self.i0, 0, wide - 1)]
        return np.where(known, found, -1).astype(np.int32)


class Square:
    """One square; everything about it follows from the settings, its index and its place."""

    def __init__(
        self,
        settings: SpecimenSettings,
        index: int,
        mesh_xy: tuple[float, float],
        angle_rad: float,
        over: tuple[Fibre, ...] = (),
    ) -> None:
        self.settings, self.index, self.angle_rad = settings, index, angle_rad
        self.over = over
        c, s = math.cos(angle_rad), math.sin(angle_rad)
        self.x_um, self.y_um = c * mesh_xy[0] - s * mesh_xy[1], s * mesh_xy[0] + c * mesh_xy[1]
        rng = noise.stream(settings.seed, 7, index)
        half = (settings.mesh_pitch_um - settings.bar_um) / 2
        thick = ice.on_grid_nm(settings, *mesh_xy) * math.exp(rng.normal(0, 0.22))
        rubble = noise.value(settings.seed + 2, 2.6, *mesh_xy, 900.0)
        flooded = max(0.0, math.log(thick / 150)) if thick > 150 else 0.0
        self.hexagonal = settings.mesh == "hexagonal"
        self.apothem_um = half * (1 - min(0.24 * flooded * rng.uniform(0.7, 1.2), 0.62)) - rng.uniform(0, 0.5)
        self.rounding_um = half * float(np.clip(rng.normal(0.12, 0.05) + 0.35 * flooded, 0.03, 1.0))
        self.rough_um = float(rng.uniform(0.08, 0.3) + 0.4 * min(flooded, 1.5))
        broken = {"mixed": 0.10, "good": 0.025, "thick": 0.03, "poor": 0.3}[settings.ice]
        hurt = float(np.clip(broken * math.exp(1.3 * rubble), 0, 0.9)) * (0.2 if flooded > 1 else 1.0)
        self.damage = damage.draw(settings.seed, index, half, hurt)
        dirty = {"mixed": 1.0, "good": 0.5, "thick": 1.2, "poor": 2.0}[settings.ice]
        dirt = contamination.draw(settings.seed, index, half, dirty * math.exp(rng.normal(0.1, 0.9)))
        self.dirt = dirt.kept(self._on_film(dirt.x, dirt.y))
        self.soft_um = float(np.clip(math.exp(rng.normal(0.7, 0.8)), 0.4, 8.0) + 1.5 * min(flooded, 1.0))
        dry = settings.ice in ("mixed", "poor") and rng.uniform() < 0.04
        thick = 2.0 if dry else thick
        # deep ice lies as a meniscus: a middle that thins out, and banks along the bars
        middle = thick if thick < 300 else 300 + 0.35 * (thick - 300)
        slope, way = abs(rng.normal(0, 0.009)), rng.uniform(0, 2 * math.pi)
        self.ice = ice.SquareIce(
            centre_nm=middle,
            slope_x=slope * math.cos(way),
            slope_y=slope * math.sin(way),
            dome=float(rng.normal(0.0, 0.25) if rng.uniform() < 0.75 else rng.normal(0.9, 0.5)),
            wave=float(rng.uniform(0.05, 0.3)),
            rim_nm=0.0 if dry else float(min(thick, 300) * rng.uniform(0.2, 1.5) + 1500 * flooded),
            rim_um=float(rng.uniform(1.5, 4.0) + 7.0 * min(flooded, 2.0)),
            shift=(float(rng.uniform()), float(rng.uniform())),
            seed=settings.seed,
        )
        turn = noise.stream(settings.seed, 5).uniform(0, math.pi / 2) - angle_rad
        p = settings.hole_pitch_um
        self.lattice = Lattice(
            hexagonal=settings.lattice == "hexagonal",
            pitch_um=p * (1 + rng.normal(0, 0.002)),
            angle_rad=turn + rng.normal(0, 0.006),
            x0_um=float(rng.uniform(-p / 2, p / 2)),
            y0_um=float(rng.uniform(-p / 2, p / 2)),
            stretch=1 + float(rng.normal(0, 0.004)),
            bend_x=float(rng.normal(0, 1.2e-4)),
            bend_y=float(rng.normal(0, 1.2e-4)),
        )
        self.crystalline = float(np.clip(rng.beta(0.5, 6), 0, 1)) if settings.ice != "good" else 0.0
        self.frostiness = 0.3 * dirty * float(np.exp(rng.normal(0, 1.2)))
        self.foil_rough = float(rng.uniform(0.5, 1.5))

    @property
    def reach_um(self) -> float:
        """Radius of a disc about the centre that holds the opening."""
        return self.apothem_um * (1.16 if self.hexagonal else math.sqrt(2)) + 2.0

    def to_stage(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Stage positions of points about the centre."""
        c, s = math.cos(self.angle_rad), math.sin(self.angle_rad)
        return self.x_um + c * x - s * y, self.y_um + s * x + c * y

    def from_stage(self, x_um: float, y_um: float) -> tuple[float, float]:
        """The point about the centre at a stage position."""
        c, s = math.cos(self.angle_rad), math.sin(self.angle_rad)
        dx, dy = x_um - self.x_um, y_um - self.y_um
        return c * dx + s * dy, c * dy - s * dx

    def _on_film(self, x: Floats, y: Floats) -> NDArray[np.bool_]:
        if not len(x):
            return np.zeros(0, bool)
        flat = [v[None].astype(np.float32) for v in (x, y, self.opening(x, y))]
        return np.asarray(self.damage.film(*flat)[0] > 0)

    def opening(self, x: Floats, y: Floats) -> Floats:
        """Distance from the bars in µm, positive inside, without the roughness of the edge."""
        near = mesh.inner_distance(
            self.hexagonal, x.astype(np.float32), y.astype(np.float32), self.apothem_um, self.rounding_um
        )
        return near.astype(np.float64)

    @cached_property
    def table(self) -> HoleTable:
        """The holes of this square."""
        rng = noise.stream(self.settings.seed, 17, self.index)
        i, j = self.lattice.cells(self.reach_um + self.settings.hole_pitch_um)
        x, y = self.lattice.position(i, j)
        opening = self.opening(x, y)
        radius = self.settings.hole_diameter_um / 2 * (1 + rng.normal(0, 0.012, len(x)))
        near = opening > -radius - 0.5
        flat = (x[None].astype(np.float32), y[None].astype(np.float32), opening[None].astype(np.float32))
        local = self.ice.at(*flat)[0].astype(np.float64)
        thick = local * np.exp(rng.normal(0, 0.13, len(x)) * np.minimum(1, 70 / np.maximum(local, 1)))
        emptied = rng.uniform(size=len(x)) < 0.012 * np.exp(-thick / 100) + 0.9 / (
            1 + np.exp(np.minimum((thick - 9.0) / 2.0, 50.0))
        )
        thick = np.where(emptied, 0.0, thick)
        film = self.damage.film(*flat)[0]
        patch = noise.sample(self.settings.seed + 4, 2.6, *flat[:2], 150.0, self.ice.shift)[0]
        crystal = np.clip(self.crystalline + 0.35 * patch * (self.crystalline > 0.03) - 0.1, 0, 1)
        crystal = np.where(thick > 0, crystal * (rng.uniform(size=len(x)) < 0.85), 0.0)
        frost = self.frostiness * np.exp(rng.normal(0, 0.7, len(x)))
        clumped = rng.uniform(size=len(x)) < min(0.05 * self.frostiness / 0.3, 0.3)
        side, strength = rng.uniform(0, 2 * math.pi), np.abs(rng.normal(0, 0.14))
        lean = np.array([[math.cos(side)], [math.sin(side)]]) * strength + rng.normal(0, 0.05, (2, len(x)))
        cover = self.dirt.cover(x[near], y[near], radius[near])
        for fibre in self.over:
            reach = fibre.distance(*self.to_stage(x[near], y[near]))
            cover = np.maximum(cover, np.clip(0.5 - 0.5 * reach / radius[near], 0, 1))
        rows = np.full((int(j.max() - j.min()) + 1, int(i.max() - i.min()) + 1), -1, np.int32)
        rows[j[near] - j.min(), i[near] - i.min()] = np.arange(int(near.sum()), dtype=np.int32)
        return HoleTable(
            x=x[near],
            y=y[near],
            radius=radius[near],
            ice_nm=thick[near],
            crystalline=crystal[near].astype(np.float64),
            contamination=np.minimum(
                cover + contamination.frost_cover(frost[near], clumped[near]) * (thick[near] > 0), 1.0
            ),
            frost=frost[near],
            clumped=clumped[near],
            lean_x=lean[0][near],
            lean_y=lean[1][near],
            broken=(film < radius)[near],
            listed=(opening > radius + self.rough_um)[near],
            grid=rows,
            i0=int(i.min()),
            j0=int(j.min()),
        )

    def frost(self, row: int) -> contamination.Dirt:
        """Small lumps in and around hole ``row`` of the table."""
        t = self.table
        place = float(t.x[row]), float(t.y[row])
        lumps = contamination.frost(
            self.settings.seed, self.index, row, place, float(t.radius[row]), float(t.frost[row]), bool(t.clumped[row])
        )
        held = self._on_film(lumps.x, lumps.y)
        if t.ice_nm[row] == 0:  # nothing spans this hole
            held &= np.hypot(lumps.x - place[0], lumps.y - place[1]) > t.radius[row]
        return lumps.kept(held)

    def holes(self) -> tuple[HoleTruth, ...]:
        """Truth of each hole that lies wholly inside the opening."""
        t = self.table
        rows = np.flatnonzero(t.listed)
        xs, ys = self.to_stage(t.x[rows], t.y[rows])
        out = []
        for index, row in enumerate(rows.tolist()):
            thick, crystal, dirt = (
                float(t.ice_nm[row]),
                float(t.crystalline[row]),
                float(t.contamination[row]),
            )
            state = self._state(thick, dirt, bool(t.broken[row]))
            good = 0.0 if state in ("broken", "empty") else ice.quality(thick, crystal, dirt)
            out.append(
                HoleTruth(
                    self.index, index, float(xs[index]), float(ys[index]), float(t.radius[row]),
                    state, thick, crystal, dirt, good,
                )
            )  # fmt: skip
        return tuple(out)

    def cut_holes(self) -> NDArray[np.float64]:
        """Holes that a bar cuts: drawn, but not listed; shape (n, 3), stage position and radius in µm."""
        t = self.table
        rows = np.flatnonzero(~t.listed & ~t.broken)
        return np.column_stack([*self.to_stage(t.x[rows], t.y[rows]), t.radius[rows]])

    @staticmethod
    def _state(ice_nm: float, dirt: float, broken: bool) -> HoleState:
        if broken:
            return "broken"
        if dirt > 0.25:
            return "dirty"
        if ice_nm < 3:
            return "empty"
        if ice_nm < 15:
            return "thin"
        return "good" if ice_nm < 110 else "thick"

    def truth(self) -> SquareTruth:
        """Truth of the square."""
        t = self.table
        rows = np.flatnonzero(t.listed)
        lost = float(t.broken[rows].mean()) if len(rows) else 0.0
        values = [0.0 if t.broken[r] else ice.quality(t.ice_nm[r], t.crystalline[r], t.contamination[r]) for r in rows]
        state: SquareState = ice.state_of(self.ice.centre_nm)
        if state != "dark" and (self.damage.torn or lost > 0.3):
            state = "broken"
        edge = mesh.outline(self.hexagonal, self.apothem_um, self.rounding_um)
        ex, ey = self.to_stage(edge[:, 0], edge[:, 1])
        return SquareTruth(
            index=self.index,
            x_um=self.x_um,
            y_um=self.y_um,
            vertices_um=tuple(zip(ex.tolist(), ey.tolist(), strict=True)),
            state=state,
            ice_nm=self.ice.centre_nm,
            quality=float(np.mean(values)) if values else 0.0,
        )
