"""What only a micrograph shows: grain of amorphous ice and carbon, and the platinum of a replica."""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy import fft

from simulators.specimen import materials as m
from simulators.specimen import noise, replica
from simulators.specimen.noise import Field
from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.view import View, image_to_stage

GRAIN_RAD = 0.15
FOIL_GRAIN = 2.4
PLATINUM_STOP_NM = 9.0


# Lattice spacings of hexagonal ice in Å and the strength of their reflections relative to (100)
# (Dowell & Rinfret, Nature 188, 1144, 1960; cubic ice shares 3.67, 2.25 and 1.92 Å).
REFLECTIONS = ((3.90, 1.0), (3.67, 1.0), (3.44, 0.8), (2.67, 0.4), (2.25, 0.8), (2.07, 0.6), (1.92, 0.5))
CRYSTAL_GAIN = 4.0
_CRYSTALLITE_ANGSTROM = 180.0
_ORIENTATIONS = 5


def add_grain(phase: Field, foil: Field, view: View, settings: SpecimenSettings, crystalline: float = 0.0) -> None:
    """Add the random potential of the matter to its phase: its square grows with the thickness.

    ``foil`` is the share of foil, whose atoms make a coarser grain than ice does; ``crystalline`` is the share of
    the ice that has a lattice, whose rings and spots stand out of the grain.
    """
    speckle = noise.grain(settings.seed + 50, (view.x_um, view.y_um), image_to_stage(view), view.shape)
    if crystalline > 0 and view.pixel_size_angstrom < REFLECTIONS[0][0] / 2:
        speckle = _with_lattice(speckle, view, settings.seed, crystalline)
    # 30 nm of ice is 0.7 rad; carbon of the same phase scatters alike
    thirty_nm = 30 * m.ICE_VOLT * m.radian_per_volt_nm(settings.voltage_kv)
    strength = np.float32(GRAIN_RAD) * (1 + np.float32(FOIL_GRAIN - 1) * foil)
    phase += strength * np.sqrt(np.maximum(phase, 0) / np.float32(thirty_nm)) * speckle


def _with_lattice(speckle: Field, view: View, seed: int, crystalline: float) -> Field:
    """Grain with more power at the reflections of ice: thin rings, brighter along a few six-fold directions."""
    rows, columns = speckle.shape
    ky = fft.fftfreq(rows, view.pixel_size_angstrom).astype(np.float32)[:, None]
    kx = fft.rfftfreq(columns, view.pixel_size_angstrom).astype(np.float32)[None, :]
    k = np.sqrt(kx * kx + ky * ky)
    width = np.float32(0.5 / _CRYSTALLITE_ANGSTROM)
    ring = np.zeros_like(k)
    for spacing, strength in REFLECTIONS:
        ring += np.float32(strength) * np.exp(-(((k - np.float32(1 / spacing)) / width) ** 2))
    sixth = np.mod(np.arctan2(ky, kx + np.float32(1e-9)), np.float32(math.pi / 3))
    turns = noise.stream(seed, 51, round(view.x_um), round(view.y_um)).uniform(0, math.pi / 3, _ORIENTATIONS)
    toward = np.full_like(k, 0.5)
    for turn in turns:
        away = np.abs(sixth - np.float32(turn))
        away = np.minimum(away, np.float32(math.pi / 3) - away)
        toward += np.float32(3.0) * np.exp(-((away / np.float32(0.03)) ** 2))
    spectrum = fft.rfft2(speckle, workers=2)
    spectrum *= 1 + np.float32(CRYSTAL_GAIN * crystalline) * ring * toward
    return np.asarray(fft.irfft2(spectrum, s=(rows, columns), workers=2), dtype=np.float32)


def add_replica(phase: Field, loss: Field, foil: Field, view: View, settings: SpecimenSettings) -> None:
    """Put a shadowed replica into the holes: metal turns the phase and, mostly, stops electrons."""
    a, b, c, d = image_to_stage(view)
    rows, columns = view.shape
    step = max(1.0, 12.0 / view.pixel_size_angstrom)
    n_rows, n_columns = int(np.ceil(rows / step)), int(np.ceil(columns / step))
    py = (np.arange(n_rows) + 0.5) * (rows / n_rows) - 0.5 - (rows - 1) / 2
    px = (np.arange(n_columns) + 0.5) * (columns / n_columns) - 0.5 - (columns - 1) / 2
    x = (view.x_um + a * px[None, :] + b * py[:, None]).astype(np.float32)
    y = (view.y_um + c * px[None, :] + d * py[:, None]).astype(np.float32)
    metal = cv2.resize(replica.platinum_nm(settings.seed, x, y), (columns, rows), interpolation=cv2.INTER_LINEAR)
    metal = metal * (1 - foil) * (phase > 0)
    phase += np.float32(0.25 * m.radian_per_volt_nm(settings.voltage_kv) * m.GOLD_VOLT) * metal
    loss += np.float32(0.5 / PLATINUM_STOP_NM) * metal
