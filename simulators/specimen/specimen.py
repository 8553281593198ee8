"""The grid itself: its truth, and its picture in any view."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulators.specimen import detector, fibres, mesh, noise, optics, particles, projection
from simulators.specimen import materials as m
from simulators.specimen import view as views
from simulators.specimen.micrograph import add_grain, add_replica
from simulators.specimen.objects import KINDS, Objects, in_hole, joined
from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.squares import Square
from simulators.specimen.truth import HoleTruth, ObjectTruth, SquareTruth
from simulators.specimen.view import View

OBJECTS_BELOW_ANGSTROM = 25.0
STRAY = np.float32(0.002)
CAMERA_BLUR_PX = 0.55
_KEPT_HOLES = 256


class Specimen:
    """One grid with a known truth.

    Parameters
    ----------
    settings
        The make of the grid. Two specimens with equal settings are the same grid.
    """

    def __init__(self, settings: SpecimenSettings = SpecimenSettings()) -> None:  # noqa: B008 - frozen
        self.settings = settings
        drawn = float(noise.stream(settings.seed, 1).uniform(-30, 30))
        self.mesh_angle_deg = drawn if settings.mesh_angle_deg is None else settings.mesh_angle_deg
        angle = math.radians(self.mesh_angle_deg)
        self._fibres = fibres.draw(settings)
        self._squares = [
            Square(settings, index, (float(x), float(y)), angle, self._fibres)
            for index, (x, y) in enumerate(mesh.centres(settings))
        ]
        self._places = np.array([(s.x_um, s.y_um) for s in self._squares]).reshape(-1, 2)
        self._truth: tuple[SquareTruth, ...] | None = None
        self._holes: dict[int, tuple[HoleTruth, ...]] = {}
        self._objects: dict[tuple[int, int], Objects] = {}
        self._species = particles.species_of(settings.seed)

    @property
    def squares(self) -> tuple[SquareTruth, ...]:
        """All openings of the grid, row by row."""
        if self._truth is None:
            self._truth = tuple(square.truth() for square in self._squares)
        return self._truth

    def holes(self, square_index: int) -> tuple[HoleTruth, ...]:
        """All whole holes of one square."""
        if square_index not in self._holes:
            self._holes[square_index] = self._squares[square_index].holes()
        return self._holes[square_index]

    def cut_holes(self, square_index: int) -> NDArray[np.float64]:
        """Holes of one square that a bar cuts: drawn but not listed; shape (n, 3), stage position and radius in µm."""
        return self._squares[square_index].cut_holes()

    def square_at(self, x_um: float, y_um: float) -> SquareTruth | None:
        """The square whose opening holds a stage position."""
        for square in self._near(x_um, y_um, 0.0):
            x, y = square.from_stage(x_um, y_um)
            if square.opening(np.array([[x]]), np.array([[y]]))[0, 0] > 0:
                return self.squares[square.index]
        return None

    def hole_at(self, x_um: float, y_um: float) -> HoleTruth | None:
        """The whole hole that holds a stage position."""
        found = self.square_at(x_um, y_um)
        if found is None:
            return None
        for hole in self.holes(found.index):
            if math.hypot(hole.x_um - x_um, hole.y_um - y_um) <= hole.radius_um:
                return hole
        return None

    def image_to_stage(self, view: View) -> tuple[float, float, float, float]:
        """Matrix M, row major, µm per pixel: stage = centre + M @ (pixel - image centre)."""
        return views.image_to_stage(view)

    def stage_to_pixel(self, view: View, x_um: float, y_um: float) -> tuple[float, float]:
        """Image point (x, y) of a stage position."""
        return views.stage_to_pixel(view, x_um, y_um)

    def pixel_to_stage(self, view: View, x: float, y: float) -> tuple[float, float]:
        """Stage position in µm of an image point (x, y)."""
        return views.pixel_to_stage(view, x, y)

    def objects(self, view: View) -> tuple[ObjectTruth, ...]:
        """Objects whose centre is in the frame; none where pixels are too coarse (25 Å) to show any."""
        found, _, _ = self._objects_in(view, margin_px=0.0)
        return tuple(
            ObjectTruth(KINDS[kind], x, y, size)
            for kind, x, y, size in zip(
                found.kind.tolist(),
                found.x_um.tolist(),
                found.y_um.tolist(),
                found.diameter_nm.tolist(),
                strict=True,
            )
        )

    def render(self, view: View) -> NDArray[np.uint16]:
        """Picture of a view in counts of the camera, shape (rows, columns)."""
        s, px = self.settings, view.pixel_size_angstrom
        frame, view = view, _padded(view, s.voltage_kv)
        near = self._near(view.x_um, view.y_um, view.reach_um)
        phase, window, foil = projection.project(near, view)
        fibres.stamp(self._fibres, view, phase)
        kappa = np.float32(m.loss_per_radian(s.voltage_kv))
        loss = kappa * phase
        if px < OBJECTS_BELOW_ANGSTROM:
            found, xs, ys = self._objects_in(view, margin_px=400 / px + 4)
            bare = phase.copy()
            particles.stamp(found, xs, ys, phase, loss, px / 10, s.voltage_kv, self._species)
            if "gold" in s.content and "particles" not in s.content:
                add_replica(phase, loss, foil, view, s)
            centre = self.hole_at(view.x_um, view.y_um)
            add_grain(phase, foil, view, s, centre.crystalline if centre else 0.0)
            loss += kappa * (phase - bare)
        if optics.matters(px, s.voltage_kv, view.defocus_um):
            turn = view.astigmatism_angle_deg
            intensity = optics.expose(phase, loss, px, s.voltage_kv, view.defocus_um, view.astigmatism_um, turn)
        else:
            intensity = np.exp(np.float32(-2) * loss)
        intensity *= window
        intensity += STRAY
        rows, columns = frame.shape
        top, left = (view.shape[0] - rows) // 2, (view.shape[1] - columns) // 2
        if view.drift_angstrom:
            way = float(noise.stream(view.frame_seed, 41).uniform(0, 2 * math.pi))
            intensity = optics.smeared(intensity, view.drift_angstrom / px, way)
        intensity = intensity[top : top + rows, left : left + columns] * illumination(frame)
        if px > 25:
            intensity = np.asarray(cv2.GaussianBlur(intensity, (0, 0), CAMERA_BLUR_PX), dtype=np.float32)
        if s.inverted:
            intensity = np.float32(1.05) - np.minimum(intensity, 1.05)
        return detector.expose(intensity, view.dose_e_per_a2, px, view.frame_seed)

    def _near(self, x_um: float, y_um: float, reach_um: float) -> list[Square]:
        if not len(self._places):
            return []
        away = np.hypot(self._places[:, 0] - x_um, self._places[:, 1] - y_um)
        return [self._squares[i] for i in np.flatnonzero(away < reach_um + self._squares[0].reach_um + 10)]

    def _objects_in(self, view: View, margin_px: float) -> tuple[Objects, NDArray[np.float64], NDArray[np.float64]]:
        parts = []
        if view.pixel_size_angstrom < OBJECTS_BELOW_ANGSTROM and self.settings.content:
            for square in self._near(view.x_um, view.y_um, view.reach_um):
                x, y = square.from_stage(view.x_um, view.y_um)
                t = square.table
                close = np.hypot(t.x - x, t.y - y) < view.reach_um + t.radius + 0.1
                parts += [self._in_hole(square, row) for row in np.flatnonzero(close & ~t.broken).tolist()]
        found = joined(parts)
        xs, ys = views.stage_to_pixel(view, found.x_um, found.y_um)
        rows, columns = view.shape
        inside = (xs > -0.5 - margin_px) & (xs < columns - 0.5 + margin_px)
        inside &= (ys > -0.5 - margin_px) & (ys < rows - 0.5 + margin_px)
        return found.within(inside), xs[inside], ys[inside]

    def _in_hole(self, square: Square, row: int) -> Objects:
        key = (square.index, row)
        found = self._objects.get(key)
        if found is None:
            t = square.table
            x, y = square.to_stage(t.x[row : row + 1], t.y[row : row + 1])
            found = in_hole(
                self.settings, square.index, row, float(x[0]), float(y[0]), float(t.radius[row]), float(t.ice_nm[row])
            )
            while len(self._objects) >= _KEPT_HOLES:  # the oldest goes; two threads may do so at once
                self._objects.pop(next(iter(self._objects)), None)
            self._objects[key] = found
        return found


def _padded(view: View, voltage_kv: float) -> View:
    """The view with a margin about it where waves spread, since Fourier optics joins opposite edges."""
    if not (view.drift_angstrom or optics.matters(view.pixel_size_angstrom, voltage_kv, view.defocus_um)):
        return view
    spread = m.wavelength_angstrom(voltage_kv) * abs(view.defocus_um) * 1e4 / (2 * view.pixel_size_angstrom)
    margin = 8 + min(spread, 400.0 if view.pixel_size_angstrom < 25 else 4000.0) / view.pixel_size_angstrom
    rows, columns = (n + 2 * math.ceil(min(margin, 64.0)) for n in view.shape)
    rows += next(k for k in range(0, 200, 2) if fft.next_fast_len(rows + k) == rows + k)
    columns += next(k for k in range(0, 200, 2) if fft.next_fast_len(columns + k) == columns + k)
    return replace(view, shape=(rows, columns))


def illumination(view: View) -> NDArray[np.float32]:
    """Brightness of the beam over the frame: a shallow fall to the corners, and the edge of the disc."""
    rows, columns = view.shape
    cx, cy = view.centre_px
    y = (np.arange(rows, dtype=np.float32) - np.float32(cy))[:, None]
    x = (np.arange(columns, dtype=np.float32) - np.float32(cx))[None, :]
    r2 = x * x + y * y
    fall = 0.012 if view.pixel_size_angstrom < 25 else 0.05
    light = 1 - np.float32(fall) * r2 / np.float32(cx * cx + cy * cy + 1)
    if view.beam_radius_um is not None:
        r = np.sqrt(r2) * np.float32(view.pixel_size_um / view.beam_radius_um)
        light = light * np.clip((1 - r) / 0.02 + 0.5, 0, 1)
    return np.asarray(light, dtype=np.float32)
