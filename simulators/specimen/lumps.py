"""Lumps of contamination as phase: domes with outlines of their own, and six-sided plates."""

from __future__ import annotations

import math

import numpy as np

from simulators.specimen.contamination import Dirt
from simulators.specimen.noise import Field
from simulators.specimen.squares import Floats
from simulators.specimen.view import View, stage_to_pixel


def stamp_dirt(
    dirt: Dirt, stage_um: tuple[Floats, Floats], view: View, corner: tuple[int, int], phase: Field, per_nm: float
) -> None:
    """Add lumps to a phase map, each with an outline of its own.

    Parameters
    ----------
    dirt, stage_um
        The lumps and their places on the stage (x, y).
    view, corner, phase
        The frame, and the part of it to draw on with its first (row, column).
    per_nm
        Phase of a nanometre of ice.
    """
    px = view.pixel_size_um
    xs, ys = stage_to_pixel(view, *stage_um)
    xs, ys = xs - corner[1], ys - corner[0]
    rows, columns = phase.shape
    reach = 1.5 * dirt.radius / px + 1
    seen = (dirt.radius > 0.6 * px) & (xs > -reach) & (xs < columns + reach) & (ys > -reach) & (ys < rows + reach)
    for k in np.flatnonzero(seen).tolist():
        x, y, radius = float(xs[k]), float(ys[k]), float(dirt.radius[k]) / px
        far = 1.5 * radius + 1
        top, bottom = max(0, math.floor(y - far)), min(rows, math.ceil(y + far) + 1)
        left, right = max(0, math.floor(x - far)), min(columns, math.ceil(x + far) + 1)
        if top >= bottom or left >= right:
            continue
        v = (np.arange(top, bottom, dtype=np.float32) - np.float32(y))[:, None]
        u = (np.arange(left, right, dtype=np.float32) - np.float32(x))[None, :]
        r2 = (u * u + v * v) / np.float32(radius**2)
        if radius > 2.5:
            r2 = r2 * _lobes(int(dirt.lobes[k]), bool(dirt.crystal[k]), u, v)
        dome = np.clip(1 - r2, 0, 1) ** np.float32(0.35)
        if dirt.crystal[k]:
            dome = np.minimum(dome * 2.5, 1)
        phase[top:bottom, left:right] += np.float32(per_nm * dirt.thickness_nm[k]) * dome


def _lobes(seed: int, crystal: bool, u: Field, v: Field) -> Field:
    angle = np.arctan2(v, u)
    if crystal:
        turn = (seed % 1000) / 1000 * math.pi
        fold = np.abs(np.mod(angle - turn, math.pi / 3) - math.pi / 6)
        return np.asarray((np.cos(fold) / math.cos(math.pi / 6) * 0.9) ** 2, dtype=np.float32)
    out = np.ones_like(angle)
    for n in (2, 3, 4, 5, 7):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        weight, turn = 0.22 / n**0.5 * (seed % 997) / 997, (seed >> 10) % 628 / 100
        out += np.float32(weight) * np.cos(n * angle + np.float32(turn))
    return np.asarray(np.maximum(out, 0.45), dtype=np.float32)
