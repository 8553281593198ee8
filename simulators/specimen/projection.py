"""The grid along the beam: phase that its materials give, seen in one view.

Slow fields (distances from edges, ice) are computed on a coarse raster and enlarged; edges are then cut at full
resolution, so a 4096 x 4096 micrograph costs little more than its noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen import ice, mesh, noise
from simulators.specimen import materials as m
from simulators.specimen.lumps import stamp_dirt
from simulators.specimen.noise import Field
from simulators.specimen.squares import Square
from simulators.specimen.view import Matrix, View, image_to_stage

FROST_BELOW_UM = 0.016
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


def fields(square: Square, x: Field, y: Field, pixel_um: float) -> Fields:
    """Slow fields at points about the centre of a square (µm, mesh axes), ``pixel_um`` apart."""
    seed, shift = square.settings.seed, square.ice.shift
    opening = mesh.inner_distance(square.hexagonal, x, y, square.apothem_um, square.rounding_um)
    opening = opening + np.float32(square.rough_um) * noise.sample(seed + 9, 2.9, x, y, 60.0, shift)
    thick = square.ice.at(x, y, opening)
    film = square.damage.film(x, y, opening)
    table = square.table
    i, j, dx, dy = square.lattice.nearest(x, y)
    row = table.rows(i, j)
    radius: NDArray[np.floating]
    inside: NDArray[np.floating]
    lean_x: NDArray[np.floating]
    lean_y: NDArray[np.floating]
    crystal: NDArray[np.floating]
    if len(table.x):
        radius = np.where(row >= 0, table.radius[row], -1.0).astype(np.float32)
        inside = table.ice_nm[row].astype(np.float32)
        lean_x, lean_y = table.lean_x[row], table.lean_y[row]
        crystal = table.crystalline[row].astype(np.float32)
    else:
        radius, inside = np.full_like(x, -1.0), thick
        lean_x = lean_y = crystal = np.zeros_like(x)
    away = np.hypot(dx, dy).astype(np.float32)
    hole = radius - away
    if pixel_um < 0.06:
        hole = hole + np.float32(0.02 * square.foil_rough) * noise.sample(seed + 8, 3.2, x, y, 9.0, shift)
    share = np.minimum(away / np.maximum(radius, 1e-3), 1.2)
    lean = (lean_x * dx + lean_y * dy).astype(np.float32) / np.maximum(radius, 1e-3)
    hole_ice = inside * np.clip(1 + lean, 0.3, 2.0) + np.minimum(0.4 * inside, 45.0) * share**4
    if pixel_um < 0.06 and square.crystalline > 0:
        depth = np.minimum(crystal * 0.9, 0.27) * np.minimum(inside, 60.0)
        hole_ice = np.maximum(hole_ice + depth * _mottle(seed, x, y, pixel_um), 0.2 * hole_ice)
    extra = _foil_grain(square, x, y, pixel_um)
    collar = np.exp(np.minimum(hole, 0) / np.float32(0.1)) * np.minimum(inside * 0.35 + 5, 26)
    film_ice = ice.on_foil(thick) + collar * (radius > 0)
    if square.damage.torn or square.damage.cracks or square.damage.punctures:
        near = np.exp(-np.maximum(film, 0) / np.float32(square.damage.curl_um * 0.3)) * (film < 12)
        wave = noise.sample(seed + 6, 3.0, x, y, 45.0, shift)
        extra = extra + np.float32(120.0) * near * np.maximum(wave + 0.4, 0)
        if square.damage.rags_um:
            rag = square.damage.rag(x, y, opening)
            extra = extra + np.clip(rag, 0, 3) * np.float32(260.0) * (1 + 0.4 * wave)
    as_field = [np.asarray(f, dtype=np.float32) for f in (opening, film, hole, hole_ice, film_ice, extra)]
    return Fields(*as_field)


def _mottle(seed: int, x: Field, y: Field, pixel_um: float) -> Field:
    """Crystals that grew into each other: dark grains of some ten nanometres, patches of a few hundred."""
    coarse = noise.sample(seed + 12, 2.2, x, y, 14.0)
    if pixel_um > 0.012:
        return coarse
    grains = noise.sample(seed + 13, -22.0, x, y, 1.5)
    small = noise.sample(seed + 14, -16.0, x, y, 0.8)
    rough = np.float32(0.5) * coarse + np.exp(np.float32(0.8) * grains) - 1 + np.float32(0.4) * small
    return np.asarray(rough, dtype=np.float32)


def _foil_grain(square: Square, x: Field, y: Field, pixel_um: float) -> Field:
    """Uneven foil in nm: carbon is smooth with broad stains, gold is grains of 50 to 200 nm."""
    seed, shift = square.settings.seed, square.ice.shift
    gold = square.settings.foil == "gold"
    stains = noise.sample(seed + 20, 2.6, x, y, 70.0, shift) * np.float32(0.8 * square.foil_rough)
    if pixel_um > 0.5:
        return stains
    weight = min(1.0, 0.08 / pixel_um) * (11.0 if gold else 0.7 * square.foil_rough)
    grains = noise.sample(seed + 21, 1.0 if gold else 1.3, x, y, 26.0, shift)
    return np.asarray(stains + np.float32(weight) * grains, dtype=np.float32)


def _step(distance: Field, soft_um: float) -> Field:
    return np.asarray(np.clip(np.float32(0.5) + distance * np.float32(1 / soft_um), 0, 1), dtype=np.float32)


def _shadow(distance: Field, soft_um: float) -> Field:
    """Light past a thick bar, which is never sharp: a smooth step that starts at the edge."""
    t = np.clip(distance * np.float32(1 / soft_um) + np.float32(0.2), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def compose(square: Square, f: Fields, pixel_um: float) -> tuple[Field, Field, Field]:
    """Phase in rad of what lies in the opening, share of each pixel in the opening, share covered by foil."""
    kv = square.settings.voltage_kv
    unit = np.float32(m.radian_per_volt_nm(kv))
    gold = square.settings.foil == "gold"
    foil_nm = m.GOLD_FOIL_NM if gold else m.CARBON_FOIL_NM
    foil_volt = m.GOLD_VOLT if gold else m.CARBON_VOLT
    soft = max(pixel_um, 1e-4)
    film = _step(f.film, soft)
    pitch, diameter = square.settings.hole_pitch_um, square.settings.hole_diameter_um
    ice_unit = unit * np.float32(m.ICE_VOLT)
    solid = ice_unit * f.film_ice + unit * np.float32(foil_volt) * np.maximum(
        np.float32(foil_nm) + f.extra_foil, np.float32(0.4 * foil_nm)
    )
    open_ = ice_unit * f.hole_ice
    seen = float(np.clip(2.2 - 2.4 * pixel_um / (pitch - 0.4 * diameter), 0, 1))
    hole = _step(f.hole, soft)
    if seen < 1:
        cell = pitch**2 * (math.sqrt(3) / 2 if square.settings.lattice == "hexagonal" else 1.0)
        share = np.float32(math.pi * diameter**2 / 4 / cell)
        hole = np.float32(seen) * hole + np.float32(1 - seen) * share
        kappa = np.float32(-2 * m.loss_per_radian(square.settings.voltage_kv))
        mixed = (1 - hole) * np.exp(kappa * solid) + hole * np.exp(kappa * open_)
        phase = np.log(np.maximum(mixed, 1e-9)) / kappa
    else:
        phase = solid + hole * (open_ - solid)
    if soft > 0.02 and not bool((film >= 1).all()):
        kappa = np.float32(-2 * m.loss_per_radian(square.settings.voltage_kv))
        phase = np.log(np.maximum(1 - film + film * np.exp(kappa * phase), 1e-9)) / kappa
    else:
        phase = phase * film
    foil = film * (1 - hole)
    return np.asarray(phase, dtype=np.float32), _shadow(f.opening, max(soft, square.soft_um)), foil


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


def holes_seen(square: Square, view: View) -> NDArray[np.intp]:
    """Rows of the hole table whose hole may touch the frame."""
    x, y = square.from_stage(view.x_um, view.y_um)
    t = square.table
    return np.flatnonzero(np.hypot(t.x - x, t.y - y) < view.reach_um + 1.5 * t.radius + 0.1)


def project(squares: list[Square], view: View) -> tuple[Field, Field, Field]:
    """Phase (rad), window (0 behind bars, 1 in openings) and share of foil, each of the shape of the frame."""
    matrix = image_to_stage(view)
    phase = np.zeros(view.shape, np.float32)
    window = np.zeros(view.shape, np.float32)
    foil = np.zeros(view.shape, np.float32)
    slant = np.float32(1 / math.cos(math.radians(view.tilt_deg)))
    for square in squares:
        patch = _patch(square, view, matrix)
        if patch is None:
            continue
        rows, columns = patch[0].stop - patch[0].start, patch[1].stop - patch[1].start
        fine = view.pixel_size_um < 0.004
        step = max(1.0, max(rows, columns) / _COARSE) if fine else 1.0
        x, y = local_points(square, view, patch, step)
        slow = fields(square, x, y, view.pixel_size_um * step)
        if step > 1:
            slow = slow.enlarged(columns, rows)
        part, share, solid = compose(square, slow, view.pixel_size_um)
        corner = (patch[0].start, patch[1].start)
        per_nm = m.radian_per_volt_nm(square.settings.voltage_kv) * m.ICE_VOLT
        stamp_dirt(square.dirt, square.to_stage(square.dirt.x, square.dirt.y), view, corner, part, per_nm)
        if view.pixel_size_um < FROST_BELOW_UM:
            for row in holes_seen(square, view).tolist():
                frost = square.frost(row)
                stamp_dirt(frost, square.to_stage(frost.x, frost.y), view, corner, part, per_nm)
        np.copyto(foil[patch], solid, where=share > window[patch])
        np.copyto(phase[patch], part * slant, where=share > window[patch])
        np.maximum(window[patch], share, out=window[patch])
    return phase, window, foil
