"""Grain of a micrograph: amorphous ice and carbon, fixed to the stage."""

from __future__ import annotations

import numpy as np

from simulators.specimen import materials as m
from simulators.specimen import noise
from simulators.specimen.noise import Field
from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.view import View, image_to_stage

GRAIN_RAD = 0.055
FOIL_GRAIN = 1.7


def add_grain(phase: Field, foil: Field, view: View, settings: SpecimenSettings) -> None:
    """Add the random potential of the matter to its phase: its square grows with the thickness.

    ``foil`` is the share of foil, whose atoms make a coarser grain than ice does.
    """
    speckle = noise.grain(settings.seed + 50, (view.x_um, view.y_um), image_to_stage(view), view.shape)
    # 30 nm of ice is 0.7 rad; carbon of the same phase scatters alike
    thirty_nm = 30 * m.ICE_VOLT * m.radian_per_volt_nm(settings.voltage_kv)
    strength = np.float32(GRAIN_RAD) * (1 + np.float32(FOIL_GRAIN - 1) * foil)
    phase += strength * np.sqrt(np.maximum(phase, 0) / np.float32(thirty_nm)) * speckle
