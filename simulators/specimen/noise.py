"""Randomness that stays in its place: seeded streams, smooth fields and grain fixed to the stage."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

TILE = 512
_BLOCK = 256


def stream(seed: int, *keys: int) -> np.random.Generator:
    """Generator of its own for each thing of a grid, so that truth does not depend on the order of calls."""
    words = [value & 0xFFFFFFFF for value in (seed, *keys)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


@lru_cache(maxsize=48)
def tile(seed: int, exponent: float) -> Field:
    """Periodic random field, shape (512, 512), mean 0, deviation 1.

    Power goes as frequency^-exponent; a negative exponent ``-n`` gives a field whose waves are about n cells long.
    """
    white = np.fft.rfft2(stream(seed, 77, int(exponent * 100)).standard_normal((TILE, TILE)))
    k = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :])
    k[0, 0] = 1.0
    if exponent < 0:
        weight = np.exp(-((k * -exponent - 1) ** 2) / 0.18)
    else:
        weight = k ** (-exponent / 2)
    weight[0, 0] = 0
    field = np.fft.irfft2(white * weight, s=(TILE, TILE))
    field -= field.mean()
    return np.ascontiguousarray(field / field.std(), dtype=np.float32)


def sample(
    seed: int,
    exponent: float,
    x: Field,
    y: Field,
    period_um: float,
    shift: tuple[float, float] = (0.0, 0.0),
    smooth: bool = False,
) -> Field:
    """Values of a ``tile`` that repeats every ``period_um``, at the points ``x, y`` in µm (same shape).

    ``smooth`` interpolates by cubics, for fields whose slope is looked at.
    """
    scale = TILE / period_um
    wide = max(float(np.abs(x).max(initial=0)), float(np.abs(y).max(initial=0))) * scale > 30000 - TILE
    u = x * np.float32(scale) + np.float32(shift[0] * TILE % TILE)
    v = y * np.float32(scale) + np.float32(shift[1] * TILE % TILE)
    if wide or smooth:  # OpenCV wraps cubics at the border only, and indices up to 32767
        u, v = np.mod(u, TILE), np.mod(v, TILE)
    how = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    return cv2.remap(tile(seed, exponent), u, v, how, borderMode=cv2.BORDER_WRAP)  # type: ignore[return-value]


def value(seed: int, exponent: float, x_um: float, y_um: float, period_um: float) -> float:
    """``sample`` at one point, with 64-bit precision of the place."""
    field, u, v = tile(seed, exponent), x_um / period_um * TILE, y_um / period_um * TILE
    i, j = math.floor(u), math.floor(v)
    du, dv = u - i, v - j
    a, b = field[j % TILE, i % TILE], field[j % TILE, (i + 1) % TILE]
    c, d = field[(j + 1) % TILE, i % TILE], field[(j + 1) % TILE, (i + 1) % TILE]
    return float((a * (1 - du) + b * du) * (1 - dv) + (c * (1 - du) + d * du) * dv)


def grain(
    seed: int,
    centre_um: tuple[float, float],
    matrix: tuple[float, float, float, float],
    shape: tuple[int, int],
) -> Field:
    """White noise fixed to the stage, of deviation 1 per Å² of area, for a frame.

    Cells of the stage, ``2^(n/2)`` Å wide and a little finer than a pixel, each hold one random number that
    depends on its place only, so frames that overlap see the same grain.

    Parameters
    ----------
    seed
        Which noise.
    centre_um
        Stage position of the image centre.
    matrix
        Image to stage, µm per pixel, row major.
    shape
        (rows, columns) of the frame.

    Returns
    -------
    Field
        Shape (rows, columns).
    """
    a, b, c, d = matrix
    pixel = math.sqrt(abs(a * d - b * c)) * 1e4
    level = math.floor(2 * math.log2(pixel))
    cell = 2 ** (level / 2)
    rows, columns = shape
    cx, cy = centre_um[0] * 1e4 / cell, centre_um[1] * 1e4 / cell
    half_x = (abs(a) * columns + abs(b) * rows) * 0.5e4 / cell + 2
    half_y = (abs(c) * columns + abs(d) * rows) * 0.5e4 / cell + 2
    i0, i1 = math.floor((cx - half_x) / _BLOCK), math.floor((cx + half_x) / _BLOCK)
    j0, j1 = math.floor((cy - half_y) / _BLOCK), math.floor((cy + half_y) / _BLOCK)
    canvas = np.empty(((j1 - j0 + 1) * _BLOCK, (i1 - i0 + 1) * _BLOCK), np.float32)
    for j in range(j0, j1 + 1):
        for i in range(i0, i1 + 1):
            block = stream(seed, 91, level, i, j).standard_normal((_BLOCK, _BLOCK), dtype=np.float32)
            y, x = (j - j0) * _BLOCK, (i - i0) * _BLOCK
            canvas[y : y + _BLOCK, x : x + _BLOCK] = block
    s = 1e4 / cell
    px, py = (columns - 1) / 2, (rows - 1) / 2
    to_canvas = np.array(
        [
            [a * s, b * s, cx - i0 * _BLOCK - (a * px + b * py) * s],
            [c * s, d * s, cy - j0 * _BLOCK - (c * px + d * py) * s],
        ]
    )
    out = cv2.warpAffine(
        canvas,
        to_canvas,
        (columns, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    return np.multiply(out, np.float32(1 / cell), dtype=np.float32)
