"""Bodies as they show in a slab of any thickness: vesicles as shells, tubes along curves, discs.

A section, the depth that a FIB-SEM sees and a projection through ice differ in how thick a slab is summed over; a
vesicle that lies half outside the slab shows as a cap. Lengths are in nm, densities are matter (dark).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen.immunogold.texture import Field

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wall:
    """How a membrane looks: half the distance of its two dark lines (0: one line), their width, the whole thickness."""

    leaflet_nm: float = 1.9
    line_nm: float = 1.1

    @property
    def thickness_nm(self) -> float:
        """From its outside to its inside."""
        return 2 * (self.leaflet_nm + 1.2 * self.line_nm)


@dataclass(frozen=True, slots=True)
class Ball:
    """A vesicle: outer radius, place in depth (0: the middle of the slab), what its membrane, lumen and core hold."""

    radius_nm: float
    depth_nm: float = 0.0
    membrane: float = 1.0
    lumen: float = 0.0
    core: float = 0.0
    core_nm: float = 0.0
    stretch: float = 1.0
    angle: float = 0.0
    wobble: float = 0.0

    def shown_nm(self, slab_nm: float) -> float:
        """Radius of its outline in a slab: the full one where the slab holds its equator, else that of the cap."""
        beyond = max(0.0, abs(self.depth_nm) - slab_nm / 2)
        return math.sqrt(max(self.radius_nm**2 - beyond**2, 0.0))


def profile(ball: Ball, wall: Wall, slab_nm: float, step_nm: float = 0.75) -> tuple[Rows, Rows]:
    """Density summed through the slab (nm) over the distance from the axis, as (distances, sums)."""
    reach = ball.radius_nm + 4
    r = np.arange(0, reach, step_nm)
    low, high = max(-reach, -slab_nm / 2 - ball.depth_nm), min(reach, slab_nm / 2 - ball.depth_nm)
    if high <= low:
        return r, np.zeros_like(r)
    n = max(4, math.ceil((high - low) / 1.0))
    z = low + (np.arange(n) + 0.5) * (high - low) / n
    s = np.sqrt(r[:, None] ** 2 + z[None, :] ** 2)
    d = s - (ball.radius_nm - wall.thickness_nm / 2)
    lines = sum(np.exp(-((d - side * wall.leaflet_nm) ** 2) / (2 * wall.line_nm**2)) for side in (-1, 1))
    inside = 1 / (1 + np.exp(np.clip(d / 0.8, -30, 30)))
    rho = ball.membrane * lines + ball.lumen * inside
    if ball.core:
        rho = rho + ball.core / (1 + np.exp(np.clip((s - ball.core_nm) / 1.5, -30, 30)))
    return r, np.asarray(rho.sum(axis=1) * (high - low) / n)


def stamp(
    out: Field, x: float, y: float, ball: Ball, wall: Wall, slab_nm: float, pixel_nm: float, ripples: Rows
) -> None:
    """Add a vesicle at pixel (x, y); ``ripples`` are three amplitudes and three phases of its outline's wobble."""
    r, values = profile(ball, wall, slab_nm)
    half = math.ceil((ball.radius_nm * max(ball.stretch, 1 / ball.stretch) * 1.25 + 5) / pixel_nm)
    left, top = round(x) - half, round(y) - half
    t, b = max(top, 0), min(top + 2 * half + 1, out.shape[0])
    w, e = max(left, 0), min(left + 2 * half + 1, out.shape[1])
    if t >= b or w >= e:
        return
    v, u = np.meshgrid((np.arange(t, b) - y) * pixel_nm, (np.arange(w, e) - x) * pixel_nm, indexing="ij")
    cos, sin = math.cos(ball.angle), math.sin(ball.angle)
    k = math.sqrt(ball.stretch)
    a, c = (u * cos + v * sin) / k, (v * cos - u * sin) * k
    rho = np.hypot(a, c)
    if ball.wobble:
        way = np.arctan2(c, a)
        rho = rho * (1 + ball.wobble * sum(ripples[i] * np.cos((i + 2) * way + ripples[3 + i]) for i in range(3)))
    out[t:b, w:e] += np.interp(rho, r, values, right=0.0).astype(np.float32)


def along(shape: tuple[int, int], points: Rows, pixel_nm: float) -> Field:
    """Distance in nm of each pixel from a curve through ``points`` (n, 2) in pixels (x, y)."""
    canvas = np.full(shape, 255, np.uint8)
    cv2.polylines(canvas, [np.rint(points * 8).astype(np.int32).reshape(-1, 1, 2)], False, 0, 1, cv2.LINE_8, 3)
    reach = cv2.distanceTransform(canvas, cv2.DIST_L2, 5)  # without bounds where the curve lies outside
    return np.minimum(np.asarray(reach, np.float32), np.float32(1e4)) * np.float32(pixel_nm)


def curve(rng: np.random.Generator, start: Rows, length_px: float, bend: float, step_px: float = 6.0) -> Rows:
    """A path from ``start`` that turns by about ``bend`` radians over its length, points (n, 2)."""
    n = max(3, round(length_px / step_px))
    turn = np.cumsum(rng.normal(0, 1, n)) * bend / math.sqrt(n) + rng.uniform(0, 2 * math.pi)
    return np.asarray(start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=1) * step_px, axis=0))


def tube(distance_nm: Field, half_nm: float, wall_nm: float, wall: float, lumen: float) -> Field:
    """Density of a tube of outer half-width ``half_nm`` at a distance from its axis."""
    line = np.exp(-(((distance_nm - np.float32(half_nm - wall_nm)) / np.float32(wall_nm)) ** 2))
    inside = 1 / (1 + np.exp(np.clip((distance_nm - np.float32(half_nm - wall_nm)) * 1.2, -30, 30)))
    return np.asarray(np.float32(wall) * line + np.float32(lumen) * inside, np.float32)


def discs(
    rng: np.random.Generator, out: Field, count: int, radius_nm: tuple[float, float], strength: tuple[float, float],
    pixel_nm: float, allowed: Callable[[int, int], bool] = lambda x, y: True, soft_nm: float = 2.0,
) -> None:  # fmt: skip
    """Add round densities, such as ribosomes or gold, at random places that are ``allowed``."""
    rows, columns = out.shape
    for _ in range(count):
        x, y = rng.uniform(0, columns), rng.uniform(0, rows)
        if not allowed(int(x), int(y)):
            continue
        radius, value = rng.uniform(*radius_nm), rng.uniform(*strength)
        half = math.ceil((radius + 3 * soft_nm) / pixel_nm)
        t, b = max(int(y) - half, 0), min(int(y) + half + 1, rows)
        w, e = max(int(x) - half, 0), min(int(x) + half + 1, columns)
        d = np.hypot((np.arange(t, b) - y)[:, None], (np.arange(w, e) - x)[None, :]) * pixel_nm - radius
        out[t:b, w:e] += (value / (1 + np.exp(np.clip(d / (soft_nm / 2), -30, 30)))).astype(np.float32)
