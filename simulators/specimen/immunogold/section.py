"""A resin section: stained membranes, vesicles, densities and mitochondria on mottled grey."""

from __future__ import annotations

import cv2
import numpy as np

from simulators.specimen.immunogold.texture import Field, clouds, grain, random_line, smooth_field


def density(rng: np.random.Generator, shape: tuple[int, int], pixel_nm: float, hardness: float) -> Field:
    """Optical density of a section without gold, shape (rows, columns); see `replica.density`."""
    out = np.full(shape, 0.3, np.float32)
    out += np.float32(0.04 + 0.04 * hardness) * clouds(rng, shape, rng.uniform(300, 900) / pixel_nm)
    stain = np.float32(rng.uniform(0.15, 0.35) * (0.6 + 0.6 * hardness))
    for _ in range(int(rng.integers(2, 6))):
        d = random_line(rng, shape, rng.uniform(250, 900) / pixel_nm, 0.0).distance * np.float32(pixel_nm)
        wide, gap = np.float32(rng.uniform(2.5, 4)), np.float32(rng.uniform(0, 6))
        out += stain * (np.exp(-(((d - gap) / wide) ** 2)) + np.exp(-(((d + gap) / wide) ** 2)))
        if rng.uniform() < 0.6:  # a postsynaptic density lies along a stretch of the membrane
            stretch = np.clip(smooth_field(rng, shape, 350 / pixel_nm) - 0.4, 0, 1)
            out += (
                np.float32(1.6) * stain * stretch * np.exp(-np.abs(d - 12) / np.float32(rng.uniform(8, 18))) * (d > 0)
            )
    _vesicles(rng, out, pixel_nm, float(stain))
    if rng.uniform() < 0.6:
        _mitochondrion(rng, out, pixel_nm, float(stain))
    mottle = np.float32(rng.uniform(0.03, 0.08) * (0.5 + hardness))
    out += mottle * clouds(rng, shape, rng.uniform(10, 25) / pixel_nm, 2)
    out += np.float32(0.02 + 0.02 * hardness) * grain(rng, shape, rng.uniform(0.8, 1.8) / pixel_nm)
    return np.asarray(np.clip(out, 0.02, 4.0), np.float32)


def _vesicles(rng: np.random.Generator, out: Field, pixel_nm: float, stain: float) -> None:
    rows, columns = out.shape
    area_um2 = rows * columns * pixel_nm**2 * 1e-6
    crowd = smooth_field(rng, (rows, columns), 500 / pixel_nm) > 0.3
    n = int(rng.poisson(area_um2 * rng.uniform(10, 90)))
    layer = np.zeros_like(out)
    for _ in range(n):
        x, y = int(rng.integers(0, columns)), int(rng.integers(0, rows))
        if not crowd[y, x]:
            continue
        axes = tuple(max(1, round(rng.normal(19, 3) / pixel_nm)) for _ in range(2))
        dark = float(stain * rng.uniform(0.6, 1.3))
        if rng.uniform() < 0.04:  # a dense core
            cv2.circle(layer, (x, y), max(1, round(rng.uniform(8, 16) / pixel_nm)), dark * 1.5, -1)
        cv2.ellipse(layer, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, dark, max(1, round(6 / pixel_nm)))
    out += cv2.GaussianBlur(layer, (0, 0), max(2.0 / pixel_nm, 0.5))


def _mitochondrion(rng: np.random.Generator, out: Field, pixel_nm: float, stain: float) -> None:
    rows, columns = out.shape
    body = np.zeros_like(out)
    centre = (int(rng.integers(0, columns)), int(rng.integers(0, rows)))
    axes = tuple(max(2, round(rng.uniform(100, 280) / pixel_nm)) for _ in range(2))
    cv2.ellipse(body, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    body = np.asarray(cv2.GaussianBlur(body, (0, 0), max(4 / pixel_nm, 0.5)), np.float32)
    rim = body * (1 - body) * 4
    wave = clouds(rng, (rows, columns), 160 / pixel_nm) * 3
    out += body * np.float32(stain) * (np.float32(0.5) + np.float32(0.7) * np.clip(np.sin(wave * 4), -0.2, 1))
    out += rim * np.float32(stain)
