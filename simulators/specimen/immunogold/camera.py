"""From density to grey values: focus, underfocus fringes, shot noise, camera blur, montage seams, 8 bits."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen.immunogold.texture import Field, smooth_field


def blurred(image: Field, sigma_px: float) -> Field:
    """Gaussian blur; below 0.2 pixels nothing."""
    if sigma_px < 0.2:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), np.float32)


def focus_map(rng: np.random.Generator, shape: tuple[int, int], pixel_nm: float, share: float) -> Field:
    """Weight 0 (in focus) to 1 (out of focus); about ``share`` of the area is out of focus."""
    field = smooth_field(rng, shape, 900 / pixel_nm)
    level = float(np.quantile(field[::8, ::8], 1 - share)) if share > 0 else 1e6
    return np.asarray(1 / (1 + np.exp(-np.clip((field - np.float32(level)) * 8, -30, 30))), np.float32)


def focused(image: Field, sharp_px: float, soft_px: float, weight: Field | None, fringe: float) -> Field:
    """``image`` through the lens: sharp in places, soft in others, with an underfocus fringe of strength ``fringe``."""
    out = blurred(image, sharp_px)
    if weight is not None:
        out = out + weight * (blurred(image, soft_px) - out)
    if fringe > 0:
        wide = max(2.2 * sharp_px, 1.2)
        out = out + np.float32(fringe) * (blurred(out, wide * 0.6) - blurred(out, wide * 1.3))
    return np.asarray(out, np.float32)


def seams(rng: np.random.Generator, shape: tuple[int, int], tile_px: int, step: float) -> Field:
    """Gain of a montage's tiles: each its own, with a little vignetting; steps of about ``step`` at the seams."""
    rows, columns = shape
    gain = np.ones(shape, np.float32)
    first_y, first_x = int(rng.integers(0, tile_px)), int(rng.integers(0, tile_px))
    ys = [0, *range(first_y or tile_px, rows, tile_px), rows]
    xs = [0, *range(first_x or tile_px, columns, tile_px), columns]
    for top, bottom in itertools.pairwise(ys):
        for left, right in itertools.pairwise(xs):
            v = np.linspace(-1, 1, bottom - top, dtype=np.float32)[:, None]
            u = np.linspace(-1, 1, right - left, dtype=np.float32)[None, :]
            edge = 1 - np.float32(rng.uniform(0, step)) * (u * u + v * v) / 2
            gain[top:bottom, left:right] = np.float32(1 + rng.normal(0, step)) * edge
    return gain


SHARP, SOFT = 0.35, 0.94  # of the noise's amplitude: as it falls, and through the camera's blur


def coarse_noise(blur_px: float) -> float:
    """Variance of `noisy` of strength 1 in detail much coarser than ``blur_px``, where white noise has 1."""
    if blur_px <= 0.3:
        return 1.0
    kernel = cv2.getGaussianKernel(2 * math.ceil(4 * blur_px) + 1, blur_px)
    return (SHARP + SOFT / float((kernel**2).sum())) ** 2


def noisy(rng: np.random.Generator, image: Field, noise: float, blur_px: float) -> Field:
    """Shot noise of relative strength ``noise`` at full brightness, partly smoothed by the camera."""
    raw = rng.standard_normal(image.shape, dtype=np.float32)
    if blur_px > 0.3:
        soft = blurred(raw, blur_px)
        raw = np.float32(SHARP) * raw + soft * np.float32(SOFT / max(float(soft[::3, ::3].std()), 1e-6))
    return np.asarray(image + np.float32(noise) * np.sqrt(np.maximum(image, 0.02)) * raw, np.float32)


def to_grey(image: Field, black: float, white: float, jpeg: int | None) -> NDArray[np.uint8]:
    """8-bit grey values between ``black`` and ``white``, perhaps through a JPEG of quality ``jpeg``."""
    grey = np.clip((image - np.float32(black)) * np.float32(255 / (white - black)), 0, 255).astype(np.uint8)
    if jpeg is not None:
        _, code = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, jpeg])
        return np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), np.uint8)
    return np.asarray(grey)
