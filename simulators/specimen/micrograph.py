"""What only a micrograph shows: grain of amorphous ice and carbon, and the platinum of a replica."""

from __future__ import annotations

import cv2
import numpy as np

from simulators.specimen import materials as m
from simulators.specimen import noise, replica
from simulators.specimen.noise import Field
from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.view import View, image_to_stage

GRAIN_RAD = 0.15
FOIL_GRAIN = 2.4
PLATINUM_STOP_NM = 9.0


def add_grain(phase: Field, foil: Field, view: View, settings: SpecimenSettings) -> None:
    """Add the random potential of the matter to its phase: its square grows with the thickness.

    ``foil`` is the share of foil, whose atoms make a coarser grain than ice does.
    """
    speckle = noise.grain(settings.seed + 50, (view.x_um, view.y_um), image_to_stage(view), view.shape)
    # 30 nm of ice is 0.7 rad; carbon of the same phase scatters alike
    thirty_nm = 30 * m.ICE_VOLT * m.radian_per_volt_nm(settings.voltage_kv)
    strength = np.float32(GRAIN_RAD) * (1 + np.float32(FOIL_GRAIN - 1) * foil)
    phase += strength * np.sqrt(np.maximum(phase, 0) / np.float32(thirty_nm)) * speckle


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
