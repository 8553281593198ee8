"""Projections of particles, gold and vesicles at a pixel size, as phase in rad."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen import materials as m
from simulators.specimen import noise
from simulators.specimen.noise import Field
from simulators.specimen.objects import GOLD6, GOLD12, PARTICLE, Objects

POSES = 60
GOLD_STOP_NM = 7.0

# name: (diameter in nm, share of views along the axis)
SPECIES: tuple[tuple[float, float], ...] = ((14.5, 0.7), (12.0, 0.5), (13.0, 0.0), (17.0, 0.0), (11.0, 0.0))


def species_of(seed: int) -> int:
    """Which particle a grid holds."""
    return int(noise.stream(seed, 31).integers(0, len(SPECIES)))


@lru_cache(maxsize=16)
def _atoms(species: int) -> NDArray[np.float64]:
    """Points of equal weight that make up the particle, shape (n, 3) in nm, axis along z."""
    rng = noise.stream(4242, species)
    if species in (0, 1):  # stacked rings of globular subunits: seven-fold and wide, or a slim barrel
        fold, radius, heights, size = (7, 4.6, (-5.1, -1.9, 1.9, 5.1), 1.35) if species == 0 else (
            7, 3.9, (-5.4, -1.9, 1.9, 5.4), 1.15,
        )  # fmt: skip
        angle = np.arange(fold) * 2 * math.pi / fold
        centres = [
            (radius * np.cos(angle + 0.2 * n), radius * np.sin(angle + 0.2 * n), np.full(fold, h))
            for n, h in enumerate(heights)
        ]
        middle = np.concatenate([np.stack(c, axis=1) for c in centres])
        shape = rng.normal(0, size, (220, 3))
        turn = np.tile(angle, len(heights))
        c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
        x = middle[:, :1] + c * shape[:, 0] - s * shape[:, 1]
        y = middle[:, 1:2] + s * shape[:, 0] + c * shape[:, 1]
        z = middle[:, 2:] + shape[:, 2]
        return np.stack([x, y, z], axis=-1).reshape(-1, 3)
    if species == 2:  # a hollow shell of 24 subunits
        n = np.arange(24) + 0.5
        polar, around = np.arccos(1 - 2 * n / 24), np.pi * (1 + 5**0.5) * n
        unit = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=1)
        return np.concatenate([5.0 * u + rng.normal(0, 0.95, (260, 3)) for u in unit])
    parts, spread, size = ((18, 3.6, 2.3), (9, 2.2, 1.9))[species - 3]
    walk = rng.normal(0, spread, (parts, 3)) * np.array([1.0, 0.8, 0.65])
    walk -= walk.mean(axis=0)
    return np.concatenate([w + rng.normal(0, size * rng.uniform(0.6, 1.1), (300, 3)) for w in walk])


def _turn(rng: np.random.Generator, along_axis: float) -> NDArray[np.float64]:
    if rng.uniform() < along_axis:
        tilt, spin = rng.normal(0, 0.12), rng.uniform(0, 2 * math.pi)
    else:
        tilt, spin = math.acos(rng.uniform(-1, 1)), rng.uniform(0, 2 * math.pi)
    c, s = math.cos(tilt), math.sin(tilt)
    a, b = math.cos(spin), math.sin(spin)
    around, over = np.array([[a, -b, 0], [b, a, 0], [0, 0, 1]]), np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return np.asarray(around @ over, dtype=np.float64)


@lru_cache(maxsize=512)
def particle(species: int, pose: int, pixel_nm: float, voltage_kv: float) -> Field:
    """Phase of one pose, square array with the particle in its middle."""
    atoms = _atoms(species) @ _turn(noise.stream(777, species, pose), SPECIES[species][1]).T
    half = math.ceil((SPECIES[species][0] * 0.75 + 1.5) / pixel_nm)
    edges = (np.arange(2 * half + 2) - half - 0.5) * pixel_nm
    counts, _, _ = np.histogram2d(atoms[:, 1], atoms[:, 0], bins=(edges, edges))
    volume = _volume_per_point(species)
    projected = counts * volume / pixel_nm**2
    smooth = cv2.GaussianBlur(projected.astype(np.float32), (0, 0), max(0.6 / pixel_nm, 0.4))
    return np.asarray(smooth * np.float32(m.radian_per_volt_nm(voltage_kv) * m.PROTEIN_EXCESS_VOLT), dtype=np.float32)


def _volume_per_point(species: int) -> float:
    """Protein volume in nm³ per point, at 1.21 nm³ per kDa."""
    kilodalton = (800.0, 700.0, 480.0, 2200.0, 380.0)[species]
    return kilodalton * 1.21 / len(_atoms(species))


def _sphere(radius_px: float, dx: float, dy: float, pixel_nm: float) -> Field:
    """Chord in nm through a sphere whose centre lies (dx, dy) pixels from the middle pixel."""
    half = math.ceil(radius_px + 1.5)
    axis = np.arange(-half, half + 1, dtype=np.float32)
    r2 = (axis[None, :] - np.float32(dx)) ** 2 + (axis[:, None] - np.float32(dy)) ** 2
    if radius_px < 2.5:  # too few pixels for a chord: the volume of the sphere in a soft dot
        dot = np.exp(-r2 / np.float32(2 * (0.45 * radius_px + 0.35) ** 2))
        return np.asarray(dot * np.float32(4 / 3 * math.pi * radius_px**3 * pixel_nm) / dot.sum(), dtype=np.float32)
    return np.asarray(2 * pixel_nm * np.sqrt(np.maximum(radius_px**2 - r2, 0)), dtype=np.float32)


def _vesicle(diameter_nm: float, pose: int, pixel_nm: float, dx: float, dy: float) -> Field:
    """Extra lipid along the beam in nm: two leaflets of head groups, a little out of round, some filled."""
    rng = noise.stream(pose, 5)
    outer = diameter_nm / 2
    half = math.ceil(1.25 * outer / pixel_nm) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32) * np.float32(pixel_nm)
    u, v = axis[None, :] - np.float32(dx * pixel_nm), axis[:, None] - np.float32(dy * pixel_nm)
    angle = np.arctan2(v, u)
    bulge = (
        1
        + rng.normal(0, 0.035) * np.cos(2 * angle + rng.uniform(0, 6))
        + rng.normal(0, 0.02) * np.cos(3 * angle + rng.uniform(0, 6))
    )
    r2 = (u * u + v * v) / (bulge * bulge)

    def shell(radius: float, width: float) -> Field:
        out = np.sqrt(np.maximum(radius**2 - r2, 0)) - np.sqrt(np.maximum((radius - width) ** 2 - r2, 0))
        return np.asarray(2 * out, dtype=np.float32)

    density = shell(outer, 1.3) + shell(outer - 3.6, 1.3) + np.float32(0.35) * shell(outer - 1.3, 2.3)
    studs = cv2.GaussianBlur(rng.standard_normal(r2.shape, dtype=np.float32), (0, 0), 1.0 / pixel_nm)
    studs *= np.float32(1.0 / max(float(studs.std()), 1e-6))
    density = density * (1 + np.float32(0.35) * studs)
    if rng.uniform() < 0.5:
        lumps = cv2.GaussianBlur(rng.standard_normal(r2.shape, dtype=np.float32), (0, 0), 1.6 / pixel_nm)
        lumps *= np.float32(1.0 / max(float(lumps.std()), 1e-6))
        density = density + np.float32(2.2) * np.maximum(lumps, 0) * (r2 < (outer - 5.5) ** 2)
    return np.asarray(density, dtype=np.float32)


def stamp(
    objects: Objects, xs: NDArray[np.float64], ys: NDArray[np.float64], phase: Field, loss: Field,
    pixel_nm: float, voltage_kv: float, species: int,
) -> None:  # fmt: skip
    """Add all objects at pixels (xs, ys) to the phase and the extra loss of a frame."""
    rows, columns = phase.shape
    unit = m.radian_per_volt_nm(voltage_kv)
    for kind, x, y, size, pose in zip(
        objects.kind.tolist(), xs.tolist(), ys.tolist(), objects.diameter_nm.tolist(), objects.pose.tolist(),
        strict=True,
    ):  # fmt: skip
        i, j = round(x), round(y)
        dx, dy = x - i, y - j
        dark: Field | None = None
        if kind == PARTICLE:
            patch = particle(species, pose % POSES, pixel_nm, voltage_kv)
            if abs(dx) + abs(dy) > 0.05:
                shift = np.array([[1, 0, dx], [0, 1, dy]])
                patch = cv2.warpAffine(patch, shift, patch.shape[::-1])  # type: ignore[assignment]
        elif kind in (GOLD6, GOLD12):
            chord = _sphere(size / 2 / pixel_nm, dx, dy, pixel_nm)
            patch = chord * np.float32(unit * m.GOLD_VOLT)
            dark = chord * np.float32(0.5 / GOLD_STOP_NM)
        else:
            patch = _vesicle(size, pose, pixel_nm, dx, dy) * np.float32(unit * m.LIPID_EXCESS_VOLT)
        half = patch.shape[0] // 2
        top, left = j - half, i - half
        t, b = max(top, 0), min(top + patch.shape[0], rows)
        w, e = max(left, 0), min(left + patch.shape[1], columns)
        if t >= b or w >= e:
            continue
        inside = (slice(t - top, b - top), slice(w - left, e - left))
        phase[t:b, w:e] += patch[inside]
        if dark is not None:
            loss[t:b, w:e] += dark[inside]
