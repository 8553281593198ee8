"""The grid along the beam: phase that its materials give, seen in one view.

Slow fields (distances from edges, ice) are computed on a coarse raster and enlarged; edges are then cut at full
resolution, so a 4096 x 4096 micrograph costs little more than its noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from simulators.specimen import ice, mesh, noise
from simulators.specimen import materials as m
from simulators.specimen.noise import Field
from simulators.specimen.squares import Square
from simulators.specimen.view import Matrix, View, image_to_stage

BAR_PHASE = 60.0
_COARSE = 400


@dataclass(frozen=True, slots=True)
class Fields:
    """Slow fields of one square, all of one shape: µm from an edge (positive inside), nm of ice and of foil."""

    opening: Field
    film: Field
    hole: Field
    hole_ice: Field
    film_ice: Field
    extra_foil: Field

    def enlarged(self, columns: int, rows: int) -> Fields:
        """The same fields on a finer raster."""

        def grown(field: Field) -> Field:
            return cv2.resize(field, (columns, rows), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]

        return Fields(
            grown(self.opening), grown(self.film), grown(self.hole),
            grown(self.hole_ice), grown(self.film_ice), grown(self.extra_foil),
        )  # fmt: skip


def fields(square: Square, x: Field, y: Field) -> Fields:
    """Slow fields at points about the centre of a square (µm, mesh axes)."""
    opening = mesh.inner_distance(square.hexagonal, x, y, square.apothem_um, square.rounding_um)
    shift = square.ice.shift
    opening = opening + np.float32(square.rough_um) * noise.sample(
        square.settings.seed + 9, 2.2, x, y, 60.0, shift
    )
    thick = square.ice.at(x, y, opening)
    film = square.damage.film(x, y, opening)
    table = square.table
    i, j, dx, dy = square.lattice.nearest(x, y)
    row = table.rows(i, j)
    known = row >= 0
    away = np.hypot(dx, dy)
    if not len(table.x):
        return Fields(opening, film, np.full_like(x, -1.0), thick, ice.on_foil(thick), np.zeros_like(x))
    radius = np.where(known, table.radius[row], -1.0).astype(np.float32)
    hole = (radius - away).astype(np.float32)
    share = np.minimum(away / np.maximum(radius, 1e-3), 1.2).astype(np.float32)
    inside = table.ice_nm[row].astype(np.float32)
    rise = np.minimum(0.45 * inside, 45.0) * share**4
    extra = np.zeros_like(x)
    if square.damage.torn or square.damage.cracks or square.damage.punctures:
        near = np.exp(-np.maximum(film, 0) / np.float32(square.damage.curl_um * 0.4)) * (film < 12)
        wave = noise.sample(square.settings.seed + 6, 2.0, x, y, 70.0, shift)
        extra = np.float32(70.0) * near * np.maximum(wave + 0.3, 0)
        if square.damage.rags_um:
            rag = square.damage.rag(x, y, opening)
            extra = extra + np.clip(rag, 0, 3) * np.float32(260.0)
    return Fields(opening, film, hole, inside + rise, ice.on_foil(thick), extra.astype(np.float32))


def _step(distance: Field, soft_um: float) -> Field:
    return np.clip(np.float32(0.5) + distance * np.float32(1 / soft_um), 0, 1)


def compose(square: Square, f: Fields, pixel_um: float) -> tuple[Field, Field]:
    """Phase in rad of what lies in the opening, and the share of each pixel that the opening covers."""
    kv = square.settings.voltage_kv
    unit = np.float32(m.radian_per_volt_nm(kv))
    gold = square.settings.foil == "gold"
    foil_nm = m.GOLD_FOIL_NM if gold else m.CARBON_FOIL_NM
    foil_volt = m.GOLD_VOLT if gold else m.CARBON_VOLT
    soft = max(pixel_um, 1e-4)
    film = _step(f.film, soft)
    pitch, diameter = square.settings.hole_pitch_um, square.settings.hole_diameter_um
    ice_unit = unit * np.float32(m.ICE_VOLT)
    solid = ice_unit * f.film_ice + unit * np.float32(foil_volt) * (np.float32(foil_nm) + f.extra_foil)
    open_ = ice_unit * f.hole_ice
    seen = float(np.clip(2.2 - 2.4 * pixel_um / (pitch - 0.4 * diameter), 0, 1))
    hole = _step(f.hole, soft)
    if seen < 1:
        cell = pitch**2 * (math.sqrt(3) / 2 if square.settings.lattice == "hexagonal" else 1.0)
        share = np.float32(math.pi * diameter**2 / 4 / cell)
        hole = np.float32(seen) * hole + np.float32(1 - seen) * share
        kappa = np.float32(-2 * m.LOSS_PER_RADIAN)
        mixed = (1 - hole) * np.exp(kappa * solid) + hole * np.exp(kappa * open_)
        phase = np.log(np.maximum(mixed, 1e-9)) / kappa
    else:
        phase = solid + hole * (open_ - solid)
    if soft > 0.02 and not bool((film >= 1).all()):
        kappa = np.float32(-2 * m.LOSS_PER_RADIAN)
        phase = np.log(np.maximum(1 - film + film * np.exp(kappa * phase), 1e-9)) / kappa
    else:
        phase = phase * film
    return np.asarray(phase, dtype=np.float32), _step(f.opening, max(soft, 0.05))


def _patch(square: Square, view: View, matrix: Matrix) -> tuple[slice, slice] | None:
    """Rows and columns of the frame that the opening can touch."""
    a, b, c, d = matrix
    det = a * d - b * c
    cx, cy = view.centre_px
    dx, dy = square.x_um - view.x_um, square.y_um - view.y_um
    x, y = cx + (d * dx - b * dy) / det, cy + (a * dy - c * dx) / det
    half = square.reach_um / view.pixel_size_um + 2
    rows, columns = view.shape
    top, bottom = max(0, math.floor(y - half)), min(rows, math.ceil(y + half))
    left, right = max(0, math.floor(x - half)), min(columns, math.ceil(x + half))
    if top >= bottom or left >= right:
        return None
    return slice(top, bottom), slice(left, right)


def local_points(square: Square, view: View, patch: tuple[slice, slice], step: float) -> tuple[Field, Field]:
    """Points about the centre of a square for the pixels of a patch, one in ``step``."""
    a, b, c, d = image_to_stage(view)
    cos, sin = math.cos(square.angle_rad), math.sin(square.angle_rad)
    a, b, c, d = cos * a + sin * c, cos * b + sin * d, cos * c - sin * a, cos * d - sin * b
    x0, y0 = square.from_stage(view.x_um, view.y_um)
    cx, cy = view.centre_px
    n_rows = math.ceil((patch[0].stop - patch[0].start) / step)
    n_columns = math.ceil((patch[1].stop - patch[1].start) / step)
    row_step = (patch[0].stop - patch[0].start) / n_rows
    column_step = (patch[1].stop - patch[1].start) / n_columns
    py = patch[0].start + (np.arange(n_rows) + 0.5) * row_step - 0.5 - cy
    px = patch[1].start + (np.arange(n_columns) + 0.5) * column_step - 0.5 - cx
    x = (x0 + a * px)[None, :] + (b * py)[:, None]
    y = (y0 + c * px)[None, :] + (d * py)[:, None]
    return x.astype(np.float32), y.astype(np.float32)


def project(squares: list[Square], view: View) -> tuple[Field, Field]:
    """Phase (rad) and window (0 behind bars, 1 in openings) of a view, each of the shape of the frame."""
    matrix = image_to_stage(view)
    phase = np.zeros(view.shape, np.float32)
    window = np.zeros(view.shape, np.float32)
    slant = np.float32(1 / math.cos(math.radians(view.tilt_deg)))
    for square in squares:
        patch = _patch(square, view, matrix)
        if patch is None:
            continue
        rows, columns = patch[0].stop - patch[0].start, patch[1].stop - patch[1].start
        fine = view.pixel_size_um < 0.004
        step = max(1.0, max(rows, columns) / _COARSE) if fine else 1.0
        x, y = local_points(square, view, patch, step)
        slow = fields(square, x, y)
        if step > 1:
            slow = slow.enlarged(columns, rows)
        part, share = compose(square, slow, view.pixel_size_um)
        stamp_dirt(square, view, patch, part)
        np.copyto(phase[patch], part * slant, where=share > window[patch])
        np.maximum(window[patch], share, out=window[patch])
    return phase, window


def stamp_dirt(square: Square, view: View, patch: tuple[slice, slice], phase: Field) -> None:
    """Add the lumps of a square to the phase of its patch, each with an outline of its own."""
    dirt, px = square.dirt, view.pixel_size_um
    big = np.flatnonzero(dirt.radius > 0.6 * px)
    if not len(big):
        return
    a, b, c, d = image_to_stage(view)
    det = a * d - b * c
    cx, cy = view.centre_px
    sx, sy = square.to_stage(dirt.x[big], dirt.y[big])
    dx, dy = sx - view.x_um, sy - view.y_um
    xs = cx + (d * dx - b * dy) / det - patch[1].start
    ys = cy + (a * dy - c * dx) / det - patch[0].start
    rows, columns = phase.shape
    per_nm = m.radian_per_volt_nm(square.settings.voltage_kv) * m.ICE_VOLT
    for k, x, y in zip(big.tolist(), xs.tolist(), ys.tolist(), strict=True):
        radius = dirt.radius[k] / px
        reach = 1.5 * radius + 1
        top, bottom = max(0, math.floor(y - reach)), min(rows, math.ceil(y + reach) + 1)
        left, right = max(0, math.floor(x - reach)), min(columns, math.ceil(x + reach) + 1)
        if top >= bottom or left >= right:
            continue
        v = (np.arange(top, bottom, dtype=np.float32) - np.float32(y))[:, None]
        u = (np.arange(left, right, dtype=np.float32) - np.float32(x))[None, :]
        r2 = (u * u + v * v) / np.float32(radius**2)
        if radius > 2.5:
            r2 = r2 * _lobes(int(dirt.lobes[k]), bool(dirt.crystal[k]), u, v)
        dome = np.sqrt(np.clip(1 - r2, 0, 1))
        phase[top:bottom, left:right] += np.float32(per_nm * dirt.thickness_nm[k]) * dome


def _lobes(seed: int, crystal: bool, u: Field, v: Field) -> Field:
    angle = np.arctan2(v, u)
    if crystal:
        turn = (seed % 1000) / 1000 * math.pi
        fold = np.abs(np.mod(angle - turn, math.pi / 3) - math.pi / 6)
        return np.asarray((np.cos(fold) / math.cos(math.pi / 6) * 0.9) ** 2, dtype=np.float32)
    out = np.ones_like(angle)
    for n in (2, 3, 4, 5, 7):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        weight, turn = 0.22 / n**0.5 * (seed % 997) / 997, (seed >> 10) % 628 / 100
        out += np.float32(weight) * np.cos(n * angle + np.float32(turn))
    return np.asarray(np.maximum(out, 0.45), dtype=np.float32)
