"""Vitreous ice with all that it holds but vesicles: membranes, tubes, filaments, protein, gold, dirt; and the lens."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulators.specimen.immunogold.texture import Field, clouds, grain, smooth_field
from simulators.specimen.vesicles.bodies import along, curve, discs, tube


def surroundings(
    rng: np.random.Generator, shape: tuple[int, int], pixel_nm: float, clutter: float
) -> tuple[Field, NDArray[np.bool_], list[tuple[float, float, float]]]:
    """Density (a membrane's line is about 1), what vesicles keep away from, and round things one may not be sure of."""
    rows, columns = shape
    area_um2 = rows * columns * pixel_nm**2 * 1e-6
    out = np.zeros(shape, np.float32)
    taken = np.zeros(shape, bool)
    unsure: list[tuple[float, float, float]] = []
    out += np.float32(rng.uniform(0.05, 0.3)) * clouds(rng, shape, rng.uniform(200, 900) / pixel_nm, 2)
    out += np.float32(rng.uniform(0.05, 0.35) * (0.4 + clutter)) * np.maximum(grain(rng, shape, 2.5 / pixel_nm), 0)
    out += np.float32(rng.uniform(0.05, 0.3) * (0.4 + clutter)) * np.maximum(grain(rng, shape, 5 / pixel_nm) - 1, 0)
    for _ in range(int(rng.poisson(0.4 + 1.5 * clutter * area_um2))):  # cells and large liposomes
        x, y, radius = rng.uniform(0, columns), rng.uniform(0, rows), rng.uniform(60, 900)
        v, u = np.mgrid[:rows, :columns].astype(np.float32)
        d = np.hypot(u - np.float32(x), v - np.float32(y)) * np.float32(pixel_nm)
        d *= 1 + np.float32(rng.uniform(0.02, 0.15)) * smooth_field(rng, shape, 300 / pixel_nm)
        out += np.float32(rng.uniform(0.8, 1.6)) * _bilayer(d - np.float32(radius))
        taken |= np.abs(d - radius) < 6
        if radius < 75:
            unsure.append((x, y, 2 * radius))
    for _ in range(int(rng.poisson(0.3 + 2.0 * clutter * area_um2))):
        points = curve(
            rng, np.array([rng.uniform(0, columns), rng.uniform(0, rows)]), rng.uniform(150, 900) / pixel_nm,
            rng.uniform(0.2, 1.2),
        )  # fmt: skip
        d, half = along(shape, points, pixel_nm), rng.uniform(14, 45)
        out += np.float32(rng.uniform(0.7, 1.3)) * _bilayer(d - np.float32(half)) + np.float32(0.15) * (d < half)
        taken |= d < half + 3
    for _ in range(int(rng.poisson((0.3 + 1.5 * clutter) * area_um2))):
        ahead = np.arange(-2 * max(shape), 2 * max(shape), 8.0)[:, None]
        turn = rng.uniform(0, math.pi)
        start = np.array([rng.uniform(0, columns), rng.uniform(0, rows)])
        d = along(shape, start + ahead * np.array([math.cos(turn), math.sin(turn)]), pixel_nm)
        out += tube(d, 12.5, 2.6, rng.uniform(0.5, 1.2), 0.25) if rng.random() < 0.6 else tube(d, 4, 2, 0.6, 0.2)
    if rng.random() < 0.35:
        discs(rng, out, int(rng.poisson(8 * area_um2)), (2.5, 8), (4, 9), pixel_nm, soft_nm=0.8)
    for _ in range(int(rng.poisson((0.2 + 2 * clutter) * area_um2))):  # ice that settled on the foil, dark and ragged
        x, y, radius = rng.uniform(0, columns), rng.uniform(0, rows), float(np.exp(rng.uniform(2.7, 5.0)))
        v, u = np.mgrid[:rows, :columns].astype(np.float32)
        d = np.hypot(u - np.float32(x), v - np.float32(y)) * np.float32(pixel_nm)
        d += np.float32(0.25 * radius) * smooth_field(rng, shape, max(radius, 25) / pixel_nm)
        out += np.float32(rng.uniform(1, 4)) * np.clip(1.2 - d / np.float32(radius), 0, 1)
        taken |= d < radius
    if rng.random() < 0.15:  # the edge of the foil
        field = smooth_field(rng, shape, 1500 / pixel_nm)
        level = np.quantile(field[::8, ::8], rng.uniform(0.6, 0.95))
        carbon = np.asarray(1 / (1 + np.exp(np.clip(-(field - level) * 200, -30, 30))), np.float32)
        out += carbon * np.float32(rng.uniform(0.8, 2.5)) + carbon * np.float32(0.3) * grain(rng, shape, 1.0 / pixel_nm)
        taken |= carbon > 0.3
    return out, taken, unsure


def _bilayer(distance_nm: Field) -> Field:
    return np.asarray(np.exp(-((distance_nm + 1.9) ** 2) / 2.5) + np.exp(-((distance_nm - 1.9) ** 2) / 2.5), np.float32)


def through_lens(density: Field, pixel_nm: float, defocus_um: float, flipped: bool, envelope_nm: float) -> Field:
    """Density through the contrast transfer of a weak phase object at 300 kV with 8 % amplitude contrast.

    ``flipped`` turns negative transfer round, as processing packages do; ``envelope_nm`` is the sigma of the point
    spread that remains.
    """
    rows, columns = (fft.next_fast_len(n + 64, real=True) for n in density.shape)
    padded = np.pad(density, ((32, rows - density.shape[0] - 32), (32, columns - density.shape[1] - 32)), "reflect")
    k = np.hypot(fft.fftfreq(rows, pixel_nm)[:, None], fft.rfftfreq(columns, pixel_nm)[None, :])
    wavelength = 1.97e-3
    chi = math.pi * wavelength * defocus_um * 1e3 * k**2 - math.pi / 2 * 2.7e6 * wavelength**3 * k**4
    transfer = np.sin(chi + math.asin(0.08))
    if flipped:
        transfer = np.abs(transfer)
    transfer = transfer * np.exp(-2 * (math.pi * envelope_nm * k) ** 2)
    seen = fft.irfft2(fft.rfft2(padded) * transfer.astype(np.float32), s=(rows, columns))
    return np.asarray(seen[32 : 32 + density.shape[0], 32 : 32 + density.shape[1]], np.float32)
