"""Dark things that are no gold: crumbs, smudges, rods, precipitate, rings and dead pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np

from simulators.specimen.immunogold.texture import Field, smooth_field


def density(rng: np.random.Generator, shape: tuple[int, int], pixel_nm: float, per_um2: float) -> Field:
    """Optical density of dirt, about ``per_um2`` pieces of it, shape (rows, columns)."""
    rows, columns = shape
    out = np.zeros(shape, np.float32)
    for _ in range(int(rng.poisson(per_um2 * rows * columns * pixel_nm**2 * 1e-6))):
        x, y = rng.uniform(0, columns), rng.uniform(0, rows)
        kind = rng.uniform()
        if kind < 0.30:
            patch = _crumb(rng, pixel_nm)
        elif kind < 0.55:
            patch = _smudge(rng, pixel_nm)
        elif kind < 0.72:
            patch = _rod(rng, pixel_nm)
        elif kind < 0.85:
            patch = _ring(rng, pixel_nm)
        else:
            patch = _precipitate(rng, pixel_nm)
        _add(out, patch, round(x), round(y))
    return out


def dead_pixels(rng: np.random.Generator, grey: Field, share: float) -> None:
    """Blacken single pixels and pairs in place, as dust on a scintillator does."""
    rows, columns = grey.shape
    n = int(rng.poisson(share * rows * columns))
    y, x = rng.integers(0, rows, n), rng.integers(0, columns - 1, n)
    grey[y, x] *= np.float32(rng.uniform(0, 0.5))
    pair = rng.uniform(size=n) < 0.3
    grey[y[pair], x[pair] + 1] *= np.float32(0.5)


def silver(rng: np.random.Generator, shape: tuple[int, int], pixel_nm: float, per_um2: float) -> Field:
    """Density of silver-enhanced grains, as pre-embedding labels have: ragged clumps of 10 to 80 nm."""
    rows, columns = shape
    out = np.zeros(shape, np.float32)
    for _ in range(int(rng.poisson(per_um2 * rows * columns * pixel_nm**2 * 1e-6))):
        x, y = rng.uniform(0, columns), rng.uniform(0, rows)
        patch = _blob(rng, rng.uniform(10, 80) / pixel_nm, 0.45)
        _add(out, patch * np.float32(rng.uniform(0.6, 2.5)), round(x), round(y))
    return out


def _blob(rng: np.random.Generator, size_px: float, ragged: float) -> Field:
    """A lump with an outline of its own, 1 inside."""
    half = math.ceil(size_px) + 2
    axis = np.arange(-half, half + 1, dtype=np.float32)
    u, v = axis[None, :], axis[:, None]
    angle = np.arctan2(v, u)
    radius = np.ones_like(angle)
    for n in (2, 3, 4, 5, 7):
        radius += np.float32(ragged * rng.normal() / n**0.7) * np.cos(n * angle + np.float32(rng.uniform(0, 6.3)))
    radius = np.maximum(radius, 0.25) * np.float32(size_px / 2)
    return np.asarray(1 / (1 + np.exp(np.clip((np.hypot(u, v) - radius) * 2, -30, 30))), np.float32)


def _crumb(rng: np.random.Generator, pixel_nm: float) -> Field:
    return _blob(rng, rng.uniform(6, 30) / pixel_nm, rng.uniform(0.25, 0.5)) * np.float32(rng.uniform(0.3, 1.8))


def _smudge(rng: np.random.Generator, pixel_nm: float) -> Field:
    sigma = rng.uniform(3, 14) / pixel_nm
    half = math.ceil(3 * sigma) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32)
    long = rng.uniform(1, 1.8)
    r2 = (axis[None, :] / long) ** 2 + axis[:, None] ** 2
    return np.asarray(np.exp(-r2 / np.float32(2 * sigma**2)) * rng.uniform(0.08, 0.35), np.float32)


def _rod(rng: np.random.Generator, pixel_nm: float) -> Field:
    half = math.ceil(45 / pixel_nm) + 2
    canvas = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    length, angle = rng.uniform(12, 40) / pixel_nm, rng.uniform(0, 2 * math.pi)
    end = (round(half + length * math.cos(angle)), round(half + length * math.sin(angle)))
    cv2.line(canvas, (half, half), end, 1.0, max(1, round(rng.uniform(3, 8) / pixel_nm)), cv2.LINE_AA)
    blurred = cv2.GaussianBlur(canvas, (0, 0), max(1.0 / pixel_nm, 0.5))
    return np.asarray(blurred * np.float32(rng.uniform(0.3, 1.4)), np.float32)


def _ring(rng: np.random.Generator, pixel_nm: float) -> Field:
    outer = rng.uniform(12, 34) / pixel_nm / 2
    half = math.ceil(outer) + 3
    axis = np.arange(-half, half + 1, dtype=np.float32)
    r = np.hypot(axis[None, :], axis[:, None])
    return np.asarray(
        np.exp(-(((r - outer * 0.8) / max(2.2 / pixel_nm, 0.7)) ** 2)) * rng.uniform(0.1, 0.6), np.float32
    )


def _precipitate(rng: np.random.Generator, pixel_nm: float) -> Field:
    """A peppered patch: many specks smaller than gold."""
    half = math.ceil(rng.uniform(20, 70) / pixel_nm)
    shape = (2 * half + 1, 2 * half + 1)
    specks = smooth_field(rng, shape, max(rng.uniform(3, 6) / pixel_nm, 1.0))
    axis = np.linspace(-1, 1, shape[0], dtype=np.float32)
    window = np.clip(1.2 - np.hypot(axis[None, :], axis[:, None]) * 1.2, 0, 1)
    return np.asarray(np.clip(specks - 1.0, 0, 1) * window * np.float32(rng.uniform(0.3, 0.9)), np.float32)


def _add(out: Field, patch: Field, x: int, y: int) -> None:
    half_y, half_x = patch.shape[0] // 2, patch.shape[1] // 2
    top, left = y - half_y, x - half_x
    t, b = max(top, 0), min(top + patch.shape[0], out.shape[0])
    w, e = max(left, 0), min(left + patch.shape[1], out.shape[1])
    if t < b and w < e:
        out[t:b, w:e] += patch[t - top : b - top, w - left : e - left]
