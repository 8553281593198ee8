"""The contrast transfer function, in the convention of CTF programs.

Contrast of a weak object at spatial frequency k and direction θ is −sin(γ), γ = π λ z(θ) k² − π/2 Cs λ³ k⁴ + φ_A + φ_P
with z positive for underfocus, φ_A = arcsin(amplitude contrast) and φ_P the shift of a phase plate; z(θ) = z̄ +
(a / 2) cos 2(θ − θ₀) (Mindell & Grigorieff 2003, eqs. 3-5; Rohou & Grigorieff 2015, eqs. 2-4).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.conditions import Conditions, wavelength_angstrom

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lens:
    """The constants of one microscope, as the phase needs them.

    ``quadratic`` turns defocus in µm times k² into rad, ``quartic`` k⁴ into rad, ``offset`` is the amplitude
    contrast's angle; k in 1/Å.
    """

    quadratic: float
    quartic: float
    offset: float

    @classmethod
    def of(cls, conditions: Conditions) -> "Lens":
        """The lens that took a micrograph."""
        wave = wavelength_angstrom(conditions.voltage_kv)
        return cls(
            quadratic=math.pi * wave * 1e4,
            quartic=0.5 * math.pi * conditions.cs_mm * 1e7 * wave**3,
            offset=math.asin(conditions.amplitude_contrast),
        )

    def phase(self, k: Floats, defocus_um: "Floats | float", shift_rad: float = 0.0) -> Floats:
        """γ in rad at frequencies ``k`` in 1/Å, for defoci that broadcast against them."""
        k2 = k * k
        gamma = self.quadratic * defocus_um * k2 - self.quartic * k2 * k2 + (self.offset + shift_rad)
        return np.asarray(gamma, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Defocus:
    """Defocus in all directions, µm, positive in underfocus.

    Parameters
    ----------
    mean_um
        Mean of the largest and the smallest defocus.
    astigmatism_um
        Largest minus smallest, never negative.
    angle_deg
        Direction of the largest, from image x towards image y (down), 0 to 180.
    shift_deg
        Phase shift of a phase plate.
    """

    mean_um: float
    astigmatism_um: float = 0.0
    angle_deg: float = 0.0
    shift_deg: float = 0.0

    def along(self, theta_rad: Floats) -> Floats:
        """Defocus in µm in the directions ``theta_rad`` (image x towards image y)."""
        turn = np.cos(2 * (theta_rad - math.radians(self.angle_deg)))
        return np.asarray(self.mean_um + 0.5 * self.astigmatism_um * turn, dtype=np.float64)
