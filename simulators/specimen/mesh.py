"""The metal mesh: where its openings are and what shape they have."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simulators.specimen import noise
from simulators.specimen.noise import Field
from simulators.specimen.settings import SpecimenSettings


def centres(settings: SpecimenSettings) -> NDArray[np.float64]:
    """Centres of all openings in mesh coordinates (µm, not yet turned), shape (n, 2), row by row."""
    pitch = settings.mesh_pitch_um
    n = math.ceil(settings.grid_radius_um / pitch * 1.2) + 1
    j, i = np.mgrid[-n : n + 1, -n : n + 1]
    if settings.mesh == "square":
        points = np.stack([(i + 0.5) * pitch, (j + 0.5) * pitch], axis=-1).reshape(-1, 2)
    else:
        points = np.stack([(i + 0.5 * (j % 2)) * pitch, j * pitch * math.sqrt(3) / 2], axis=-1).reshape(-1, 2)
    apothem = (pitch - settings.bar_um) / 2
    inside = np.hypot(points[:, 0], points[:, 1]) < max(settings.grid_radius_um - 0.5 * apothem, 0.72 * pitch)
    kept = np.asarray(points[inside], dtype=np.float64)
    bent = [_bent(settings, float(x), float(y)) for x, y in kept]
    return np.asarray(kept + np.array(bent).reshape(-1, 2), dtype=np.float64)


def _bent(settings: SpecimenSettings, x_um: float, y_um: float) -> tuple[float, float]:
    """How far handling has pushed a place of the mesh, in µm: bars of a real grid are not quite straight."""
    push = 0.012 * settings.mesh_pitch_um
    dx, dy = (noise.value(settings.seed + k, 3.4, x_um, y_um, 14 * settings.mesh_pitch_um) for k in (60, 61))
    return push * dx, push * dy


def inner_distance(hexagonal: bool, x: Field, y: Field, apothem_um: float, rounding_um: float) -> Field:
    """Distance from the bars, positive inside the opening, for points about its centre (µm, mesh axes).

    Sides meet in corners rounded by a smooth maximum, max(a, b) + max(r - |a - b|, 0)² / 4r.
    """
    if hexagonal:
        half, high = np.float32(0.5), np.float32(math.sqrt(3) / 2)
        sides = [np.abs(x), np.abs(half * x + high * y), np.abs(half * x - high * y)]
    else:
        sides = [np.abs(x), np.abs(y)]
    far = sides[0]
    r = np.float32(max(rounding_um, 1e-3))
    for side in sides[1:]:
        far = np.maximum(far, side) + np.maximum(r - np.abs(far - side), 0) ** 2 / (4 * r)
    return np.asarray(np.float32(apothem_um) - far, dtype=np.float32)


def outline(hexagonal: bool, apothem_um: float, rounding_um: float, rays: int = 32) -> NDArray[np.float64]:
    """Outline of an opening about its centre, found along rays by bisection, shape (rays, 2)."""
    angle = (np.arange(rays) + 0.5) * 2 * np.pi / rays
    ux, uy = np.cos(angle), np.sin(angle)
    low, high = np.zeros(rays), np.full(rays, 2 * apothem_um)
    for _ in range(30):
        mid = (low + high) / 2
        inside = (
            inner_distance(
                hexagonal,
                (mid * ux).astype(np.float32),
                (mid * uy).astype(np.float32),
                apothem_um,
                rounding_um,
            )
            > 0
        )
        low, high = np.where(inside, mid, low), np.where(inside, high, mid)
    return np.stack([low * ux, low * uy], axis=1)
