"""A platinum-shadowed freeze-fracture replica: fracture faces, folds, steps with shadows, and membrane proteins.

Metal comes from one side, so slopes that face it are dark and those behind it are bright.
"""

from __future__ import annotations

import cv2
import numpy as np

from simulators.specimen.immunogold.texture import Field, clouds, grain, random_line, smooth_field


def density(rng: np.random.Generator, shape: tuple[int, int], pixel_nm: float, hardness: float) -> Field:
    """Optical density of a replica without gold, shape (rows, columns).

    Parameters
    ----------
    rng
        Source of everything random.
    shape
        (rows, columns).
    pixel_nm
        Pixel size in nm.
    hardness
        0 (smooth faces) to 1 (torn, folded, crowded).
    """
    light = float(rng.uniform(0, 2 * np.pi))
    out = np.full(shape, 0.25, np.float32)
    out += np.float32(0.05 + 0.06 * hardness) * clouds(rng, shape, rng.uniform(350, 900) / pixel_nm)
    out += np.float32(0.015 + 0.025 * hardness) * smooth_field(rng, shape, rng.uniform(40, 120) / pixel_nm)
    for _ in range(int(rng.integers(1, 3 + round(3 * hardness)))):
        _step(rng, out, pixel_nm, light)
    for _ in range(int(rng.integers(0, 2 + round(3 * hardness)))):
        _fold(rng, out, pixel_nm, light)
    if rng.uniform() < 0.3 + 0.4 * hardness:
        _tear(rng, out, pixel_nm)
    _relief(rng, out, pixel_nm, light, hardness)
    _proteins(rng, out, pixel_nm, light, hardness)
    out += np.float32(0.02 + 0.02 * hardness) * grain(rng, shape, rng.uniform(0.9, 1.8) / pixel_nm)
    return np.asarray(np.clip(out, 0.02, 4.0), np.float32)


def _step(rng: np.random.Generator, out: Field, pixel_nm: float, light: float) -> None:
    """Edge of a fracture face: a shadow on one side, a bright rim on the other."""
    shape: tuple[int, int] = (out.shape[0], out.shape[1])
    line = random_line(rng, shape, rng.uniform(350, 1100) / pixel_nm, light)
    d = line.distance * np.float32(pixel_nm)
    tall = np.clip(smooth_field(rng, shape, rng.uniform(150, 500) / pixel_nm) + 0.5, 0, 2)
    wide = np.float32(rng.uniform(6, 40))
    dark = np.exp(-np.abs(d) / wide) * (d > 0) * np.clip(line.facing, 0, 1) ** np.float32(1.5)
    bright = np.exp(-np.abs(d) / np.float32(rng.uniform(3, 9))) * (d < 0) * np.clip(-line.facing, 0, 1)
    out += tall * (np.float32(rng.uniform(0.3, 1.6)) * dark - np.float32(rng.uniform(0.1, 0.3)) * bright)
    out += np.float32(rng.uniform(0.05, 0.25)) * tall * np.exp(-((d / np.float32(rng.uniform(1.5, 3.5))) ** 2))
    out += np.float32(rng.normal(0, 0.06)) * np.tanh(d / np.float32(4))


def _fold(rng: np.random.Generator, out: Field, pixel_nm: float, light: float) -> None:
    """A fold: a thick dark ridge, often with a sheet lying double along it."""
    shape: tuple[int, int] = (out.shape[0], out.shape[1])
    line = random_line(rng, shape, rng.uniform(400, 1200) / pixel_nm, light)
    d = line.distance * np.float32(pixel_nm)
    tall = np.clip(smooth_field(rng, shape, rng.uniform(120, 400) / pixel_nm) + 0.4, 0, 1.8)
    wide = np.float32(rng.uniform(3, 22)) * (1 + np.float32(0.4) * smooth_field(rng, shape, 150 / pixel_nm))
    ridge = np.exp(-((d / np.maximum(wide, 2)) ** 2))
    out += np.float32(rng.uniform(0.5, 3.0)) * tall * ridge * (np.float32(0.65) + np.float32(0.35) * line.facing)
    if rng.uniform() < 0.5:
        width = np.float32(rng.uniform(40, 180))
        sheet = 1 / (1 + np.exp(-np.clip(d / 4, -30, 30))) / (1 + np.exp(np.clip((d - width) / 4, -30, 30)))
        out += np.float32(rng.uniform(0.1, 0.5)) * sheet * (np.float32(1) + np.float32(0.3) * clouds(
            rng, shape, 90 / pixel_nm))  # fmt: skip


def _tear(rng: np.random.Generator, out: Field, pixel_nm: float) -> None:
    """Bare film where the replica is torn away: bright, with a dark edge on one side."""
    shape: tuple[int, int] = (out.shape[0], out.shape[1])
    field = clouds(rng, shape, rng.uniform(250, 700) / pixel_nm)
    level = float(np.quantile(field[::8, ::8], rng.uniform(0.95, 0.995)))
    inside = 1 / (1 + np.exp(-np.clip((field - np.float32(level)) * np.float32(40), -30, 30)))
    edge = np.exp(-(((field - np.float32(level)) / np.float32(0.05)) ** 2))
    out += (np.float32(0.04) - out) * inside * np.float32(rng.uniform(0.5, 0.95))
    out += np.float32(rng.uniform(0, 0.8)) * edge


def _relief(rng: np.random.Generator, out: Field, pixel_nm: float, light: float, hardness: float) -> None:
    """Fine waves of the faces, seen by their slope, in patches smooth and rough."""
    shape: tuple[int, int] = (out.shape[0], out.shape[1])
    rough = np.clip(smooth_field(rng, shape, rng.uniform(200, 600) / pixel_nm) * np.float32(0.6) + 0.7, 0.2, 2)
    for period_nm, strength in ((rng.uniform(6, 10), 0.035), (rng.uniform(12, 24), 0.05)):
        waves = smooth_field(rng, shape, period_nm / pixel_nm)
        step = max(0.2 * period_nm / pixel_nm, 0.5)
        shift = np.array([[1, 0, step * np.cos(light)], [0, 1, step * np.sin(light)]], np.float32)
        ahead = cv2.warpAffine(waves, shift, shape[::-1], borderMode=cv2.BORDER_REFLECT)
        out += rough * (ahead - waves) * np.float32(strength * (0.5 + hardness) * rng.uniform(0.4, 1.4))


def _proteins(rng: np.random.Generator, out: Field, pixel_nm: float, light: float, hardness: float) -> None:
    """Intramembrane particles: small bumps, each bright towards the light's lee, some in dense fields; and pits."""
    rows, columns = out.shape
    shape = (rows, columns)
    area_um2 = rows * columns * pixel_nm**2 * 1e-6
    crowd = smooth_field(rng, shape, rng.uniform(250, 600) / pixel_nm) > rng.uniform(0.6, 1.8)
    for size_nm in (2.2, 3.2, 4.4):
        bumps = np.zeros(shape, np.float32)
        everywhere = rng.poisson(area_um2 * rng.uniform(20, 140))
        dense = rng.poisson(area_um2 * rng.uniform(600, 4500))
        y = rng.integers(0, rows, everywhere + dense)
        x = rng.integers(0, columns, everywhere + dense)
        keep = (np.arange(everywhere + dense) < everywhere) | crowd[y, x]
        y, x = y[keep], x[keep]
        bumps[y, x] += np.clip(rng.lognormal(0, 0.4, len(y)), 0.3, 2.5).astype(np.float32)
        _shade(out, bumps, size_nm / pixel_nm, light, (0.15 + 0.25 * hardness) * float(rng.uniform(0.3, 1.3)))
    pits = np.zeros(shape, np.float32)
    n = rng.poisson(area_um2 * rng.uniform(0, 12))
    pits[rng.integers(0, rows, n), rng.integers(0, columns, n)] = rng.normal(0, 1, n)
    _shade(out, pits, rng.uniform(6, 12) / pixel_nm, light, 0.25)


def _shade(out: Field, points: Field, sigma_px: float, light: float, strength: float) -> None:
    """Add bumps at ``points`` as their slope towards the light."""
    sigma = max(sigma_px, 0.5)
    smooth = cv2.GaussianBlur(points, (0, 0), sigma) * np.float32(2 * np.pi * sigma**2)
    step = max(sigma * 0.8, 0.5)
    shift = np.array([[1, 0, step * np.cos(light)], [0, 1, step * np.sin(light)]], np.float32)
    ahead = cv2.warpAffine(smooth, shift, smooth.shape[::-1])
    out += np.float32(strength) * (ahead - np.float32(0.85) * smooth)
