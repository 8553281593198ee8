"""Nerve tissue in a stained section or a FIB-SEM slice: cells, their membranes, and what they hold but vesicles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen.immunogold.texture import Field, clouds, smooth_field
from simulators.specimen.vesicles.bodies import along, curve, discs, tube


@dataclass(frozen=True, slots=True)
class Tissue:
    """Density of tissue without vesicles, where vesicles may lie, and things that some would call vesicles.

    Attributes
    ----------
    density
        Shape (rows, columns).
    room_px
        Distance in pixels from what a vesicle must not touch; 0 outside terminals.
    elsewhere_px
        The same in all other cells, where single vesicles lie.
    unsure
        Rows (x, y, diameter in nm): round things too large or too tubular to be sure about.
    """

    density: Field
    room_px: Field
    elsewhere_px: Field
    unsure: list[tuple[float, float, float]]


def tissue(
    rng: np.random.Generator, shape: tuple[int, int], pixel_nm: float, *, stain: float, wall_nm: float, clutter: float
) -> Tissue:
    """Cells with membranes of strength ``stain`` and width ``wall_nm``; ``clutter`` 0 to 1 says how full they are."""
    number, edge_nm, wide = _cells(rng, shape, pixel_nm)
    inside = edge_nm > 0
    kinds = rng.choice(4, size=wide, p=(0.45, 0.3, 0.13, 0.12))  # terminal, other, bare resin, dark glia
    kinds[rng.integers(wide)] = 0
    level = np.array([0.16, 0.14, 0.02, 0.4])[kinds] * rng.uniform(0.6, 1.5, wide) * (0.5 + clutter)
    out = np.where(inside, level[number], 0.03).astype(np.float32)
    living = inside & (kinds != 2)[number]
    grain = clouds(rng, shape, rng.uniform(12, 40) / pixel_nm, 3)
    out += living * np.float32(rng.uniform(0.03, 0.1) * (0.5 + clutter)) * grain
    oblique = np.clip(smooth_field(rng, shape, 500 / pixel_nm), 0, 2)
    spread = np.float32(wall_nm) * (1 + 1.5 * oblique)
    line = np.exp(-(((edge_nm - np.float32(wall_nm)) / spread) ** 2)) / (1 + 0.8 * oblique)
    out += np.float32(stain * rng.uniform(0.8, 1.3)) * np.where((kinds != 2)[number], line, 0)
    if rng.random() < 0.7:  # densities under the membrane
        stretch = np.clip(smooth_field(rng, shape, 400 / pixel_nm) - 0.5, 0, 0.9) * living
        out += np.float32(1.5 * stain) * stretch * np.exp(-np.maximum(edge_nm, 0) / np.float32(rng.uniform(12, 28)))
    taken = np.zeros(shape, np.float32)
    unsure: list[tuple[float, float, float]] = []
    area_um2 = shape[0] * shape[1] * pixel_nm**2 * 1e-6
    for _ in range(int(rng.poisson(1.2 * area_um2 + 0.3))):
        _mitochondrion(rng, out, taken, living, number, pixel_nm, stain, wall_nm)
    for _ in range(int(rng.poisson((1 + 6 * clutter) * area_um2 + 0.3))):
        _reticulum(rng, out, taken, living, number, pixel_nm, stain, wall_nm)
    for _ in range(int(rng.poisson((0.5 + 2.5 * clutter) * area_um2))):
        unsure += _endosome(rng, out, taken, living, number, pixel_nm, stain, wall_nm)
    _tubules(rng, out, living & (kinds != 0)[number], pixel_nm, stain)
    ribosomes = int(rng.poisson(rng.choice([0, 25, 120]) * clutter * area_um2))
    other = living & (kinds != 0)[number]
    discs(rng, out, ribosomes, (5, 11), (0.3 * stain, 0.9 * stain), pixel_nm, lambda x, y: bool(other[y, x]))
    if rng.random() < 0.25:
        gold = int(rng.poisson(6 * area_um2))
        discs(rng, out, gold, (3, 9), (2.0, 3.0), pixel_nm, soft_nm=1.0)
    free = living & (taken < 0.5)
    terminal = free & (kinds == 0)[number]
    return Tissue(out, _room(terminal, edge_nm, pixel_nm), _room(free & ~terminal, edge_nm, pixel_nm), unsure)


def _cells(rng: np.random.Generator, shape: tuple[int, int], pixel_nm: float) -> tuple[NDArray[np.intp], Field, int]:
    """Cell of each pixel, distance in nm from its edge (negative in the cleft), and how many cells there are."""
    rows, columns = shape
    size = rng.uniform(350, 1100) / pixel_nm
    wide = max(3, round((rows + 2 * size) * (columns + 2 * size) / size**2))
    seeds = rng.uniform((-size, -size), (columns + size, rows + size), (wide, 2))
    squeeze = rng.uniform(0.55, 1.0)
    angle = rng.uniform(0, math.pi)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    x = x + np.float32(rng.uniform(20, 90) / pixel_nm) * smooth_field(rng, shape, rng.uniform(250, 600) / pixel_nm)
    y = y + np.float32(rng.uniform(20, 90) / pixel_nm) * smooth_field(rng, shape, rng.uniform(250, 600) / pixel_nm)

    def turned(px: NDArray[np.floating], py: NDArray[np.floating]) -> NDArray[np.float32]:
        u = px * math.cos(angle) + py * math.sin(angle)
        v = (py * math.cos(angle) - px * math.sin(angle)) * squeeze
        return np.stack([u, v]).astype(np.float32)

    at, homes = turned(x, y), turned(seeds[:, 0], seeds[:, 1])
    first, second = np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32)
    number = np.zeros(shape, np.intp)
    for k in range(wide):
        d = np.hypot(at[0] - homes[0, k], at[1] - homes[1, k])
        nearer = d < first
        second = np.where(nearer, first, np.minimum(second, d))
        number[nearer] = k
        first = np.where(nearer, d, first)
    edge = (second - first) / 2 * np.float32(pixel_nm)
    return number, np.asarray(edge - np.float32(rng.uniform(0, 9)), np.float32), wide


def _room(free: NDArray[np.bool_], edge_nm: Field, pixel_nm: float) -> Field:
    room = cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(np.minimum(room, np.maximum(edge_nm / np.float32(pixel_nm) - np.float32(4 / pixel_nm), 0)))


def _spot(rng: np.random.Generator, allowed: NDArray[np.bool_]) -> tuple[float, float] | None:
    rows, columns = allowed.shape
    for _ in range(20):
        x, y = int(rng.integers(columns)), int(rng.integers(rows))
        if allowed[y, x]:
            return float(x), float(y)
    return None


def _mitochondrion(
    rng: np.random.Generator, out: Field, taken: Field, living: NDArray[np.bool_], number: NDArray[np.intp],
    pixel_nm: float, stain: float, wall_nm: float,
) -> None:  # fmt: skip
    at = _spot(rng, living)
    if at is None:
        return
    living = living & (number == number[int(at[1]), int(at[0])])
    rows, columns = out.shape
    a, b, angle = rng.uniform(90, 320), rng.uniform(70, 180), rng.uniform(0, math.pi)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    u, v = (x - at[0]) * np.float32(pixel_nm), (y - at[1]) * np.float32(pixel_nm)
    u, v = u * math.cos(angle) + v * math.sin(angle), v * math.cos(angle) - u * math.sin(angle)
    bent = np.float32(0.15) * smooth_field(rng, (rows, columns), 250 / pixel_nm)
    d = (np.hypot(u / np.float32(a), v / np.float32(b)) - 1 + bent) * np.float32(min(a, b))
    body = 1 / (1 + np.exp(np.clip(d / 2, -30, 30)))
    matrix = np.float32(stain * rng.uniform(0.25, 0.8))
    wave = clouds(rng, (rows, columns), 260 / pixel_nm, 2) * np.float32(40) + (u if rng.random() < 0.5 else v)
    cristae = np.exp(-((np.mod(wave, np.float32(rng.uniform(28, 50))) - 14) ** 2) / np.float32(wall_nm**2))
    walls = np.exp(-(((d + wall_nm) / wall_nm) ** 2)) + np.exp(-(((d + 14 + wall_nm) / wall_nm) ** 2))
    part = living.astype(np.float32)
    out += part * (body * (matrix + np.float32(0.7 * stain) * cristae * (d < -18)) + np.float32(0.8 * stain) * walls)
    np.maximum(taken, np.asarray((d < 5) & living, np.float32), out=taken)


def _reticulum(
    rng: np.random.Generator, out: Field, taken: Field, living: NDArray[np.bool_], number: NDArray[np.intp],
    pixel_nm: float, stain: float, wall_nm: float,
) -> None:  # fmt: skip
    at = _spot(rng, living & (taken < 0.5))
    if at is None:
        return
    living = living & (number == number[int(at[1]), int(at[0])])
    length = rng.uniform(70, 500) / pixel_nm
    d = along(out.shape, curve(rng, np.array(at), length, rng.uniform(0.3, 1.8)), pixel_nm)
    half = float(rng.uniform(13, 28) if rng.random() < 0.75 else rng.uniform(28, 50))
    half = min(half, length * pixel_nm / 3)
    body = tube(d, half, wall_nm, stain * rng.uniform(0.6, 1.2), stain * rng.uniform(-0.1, 0.5))
    out += body * living
    np.maximum(taken, np.asarray((d < half + 3) & living, np.float32), out=taken)


def _endosome(
    rng: np.random.Generator, out: Field, taken: Field, living: NDArray[np.bool_], number: NDArray[np.intp],
    pixel_nm: float, stain: float, wall_nm: float,
) -> list[tuple[float, float, float]]:  # fmt: skip
    at = _spot(rng, living & (taken < 0.5))
    if at is None:
        return []
    living = living & (number == number[int(at[1]), int(at[0])])
    rows, columns = out.shape
    radius, stretch, angle = rng.uniform(55, 130), rng.uniform(0.7, 1.0), rng.uniform(0, math.pi)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    u, v = (x - at[0]) * np.float32(pixel_nm), (y - at[1]) * np.float32(pixel_nm)
    u, v = u * math.cos(angle) + v * math.sin(angle), v * math.cos(angle) - u * math.sin(angle)
    bent = np.float32(0.1) * smooth_field(rng, (rows, columns), 150 / pixel_nm)
    d = np.asarray(np.hypot(u, v / np.float32(stretch)) * (1 + bent), np.float32)
    out += tube(d, radius, wall_nm, stain * rng.uniform(0.6, 1.2), stain * rng.uniform(-0.1, 0.6)) * living
    np.maximum(taken, np.asarray((d < radius + 3) & living, np.float32), out=taken)
    return [(at[0], at[1], 2 * radius * math.sqrt(stretch))] if radius < 75 else []


def _tubules(rng: np.random.Generator, out: Field, allowed: NDArray[np.bool_], pixel_nm: float, stain: float) -> None:
    """Microtubules: bundles along the slab, and the small rings of those that cross it."""
    rows, columns = out.shape
    if rng.random() < 0.4:
        way = rng.uniform(0, math.pi)
        for _ in range(int(rng.integers(2, 12))):
            start = np.array([rng.uniform(0, columns), rng.uniform(0, rows)])
            length = max(rows, columns)
            ahead = np.arange(-length, length, 8.0)
            turn = way + rng.normal(0, 0.06)
            points = start + ahead[:, None] * np.array([math.cos(turn), math.sin(turn)])
            d = along((rows, columns), points, pixel_nm)
            out += tube(d, 12.5, 3.0, stain * rng.uniform(0.15, 0.45), 0.0) * allowed
    if rng.random() < 0.4:
        for _ in range(int(rng.poisson(25 * rows * columns * pixel_nm**2 * 1e-6))):
            at = _spot(rng, allowed)
            if at is None:
                continue
            half = math.ceil(20 / pixel_nm)
            t, b = max(int(at[1]) - half, 0), min(int(at[1]) + half + 1, rows)
            w, e = max(int(at[0]) - half, 0), min(int(at[0]) + half + 1, columns)
            r = np.hypot((np.arange(t, b) - at[1])[:, None], (np.arange(w, e) - at[0])[None, :]) * pixel_nm
            out[t:b, w:e] += tube(np.asarray(r, np.float32), 12.0, 2.8, stain * rng.uniform(0.4, 0.9), 0.0)
