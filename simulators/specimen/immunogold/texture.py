"""Random fields and lines in nanometres, the stuff that backgrounds are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], period_px: float) -> Field:
    """Gaussian field of about unit variance whose features are ``period_px`` apart, shape (rows, columns)."""
    cell = max(period_px / 2, 1.0)
    rows, columns = (math.ceil(n / cell) + 4 for n in shape)
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    shift_y, shift_x = rng.uniform(0, 1, 2)
    matrix = np.array([[1 / cell, 0, 1 + shift_x], [0, 1 / cell, 1 + shift_y]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(coarse, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(fine, dtype=np.float32) * np.float32(1.25)


def clouds(rng: np.random.Generator, shape: tuple[int, int], period_px: float, octaves: int = 3) -> Field:
    """Field with detail of several sizes, the coarsest ``period_px``."""
    out = np.zeros(shape, np.float32)
    for k in range(octaves):
        out += smooth_field(rng, shape, period_px / 2**k) * np.float32(0.5**k)
    return out


@dataclass(frozen=True, slots=True)
class Line:
    """A curve through the image: ``distance`` in pixels, signed, and ``facing``, how far its slope looks to the light.

    Both have shape (rows, columns); ``facing`` lies between -1 and 1.
    """

    distance: Field
    facing: Field


def random_line(rng: np.random.Generator, shape: tuple[int, int], period_px: float, light_rad: float) -> Line:
    """A level line of a smooth random field."""
    field = smooth_field(rng, shape, period_px)
    field += np.float32(rng.uniform(0.03, 0.15)) * smooth_field(rng, shape, period_px / 5)
    level = float(np.quantile(field[::8, ::8], rng.uniform(0.1, 0.9)))
    gy, gx = np.gradient(field)
    slope = np.hypot(gx, gy) + np.float32(0.3 / period_px)
    facing = (gx * np.float32(math.cos(light_rad)) + gy * np.float32(math.sin(light_rad))) / slope
    return Line(np.asarray((field - np.float32(level)) / slope), np.asarray(facing))


def grain(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> Field:
    """White noise smoothed to ``sigma_px``, unit variance."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if sigma_px > 0.3:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), np.float32)
        noise /= np.float32(max(float(noise[::3, ::3].std()), 1e-6))
    return noise
