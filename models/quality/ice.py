"""How thick the ice is: from the electrons that it takes out of the image.

Transmission: d = Λ ln(I₀ / I), I₀ through an empty hole; Λ counts all that the aperture stops (Rice et al. 2018,
J. Struct. Biol. 204, 38, eq. 2). Energy filter: d = Λ ln(I_unfiltered / I_filtered), Λ the mean free path of inelastic
scattering (the same, eq. 1). Both Λ depend on voltage, aperture and slit; a site measures its own once.
"""

import math

import numpy as np
from numpy.typing import NDArray

from models.conditions import speed_squared

# Inelastic mean free path in nm at 300 kV with a slit of 15 eV, measured in a Titan Krios (Rice et al. 2018).
_INELASTIC_AT_300_KV_NM = 395.0


class NoThicknessError(ValueError):
    """Intensities from which no thickness follows, and why."""


def inelastic_mean_free_path_nm(voltage_kv: float) -> float:
    """Default of Λ for pairs with and without energy filter: 395 nm at 300 kV, scaled to other voltages."""
    return _INELASTIC_AT_300_KV_NM * speed_squared(voltage_kv) / speed_squared(300.0)


def thickness_nm(intensity: float, open_beam: float, path_nm: float) -> float:
    """Thickness from transmission; negative where the image is brighter than its reference.

    Parameters
    ----------
    intensity, open_beam
        Mean pixel values of the image and of the same exposure through an empty hole.
    path_nm
        Mean free path.

    Raises
    ------
    NoThicknessError
        If an intensity is not positive.
    """
    if not (intensity > 0 and open_beam > 0 and math.isfinite(intensity) and math.isfinite(open_beam)):
        raise NoThicknessError(f"intensity {intensity:g} of {open_beam:g} in the open beam: both must be above 0")
    return path_nm * math.log(open_beam / intensity)


def thickness_from_pair_nm(unfiltered: float, filtered: float, path_nm: float) -> float:
    """Thickness from the mean pixel values of two exposures of the same dose, without and with the energy slit.

    Raises
    ------
    NoThicknessError
        If an intensity is not positive.
    """
    return thickness_nm(filtered, unfiltered, path_nm)


def typical_intensity(image: NDArray[np.floating], clean: NDArray[np.floating] | None = None) -> float:
    """Mean pixel value where the frame shows ice (``clean`` above one half); of the whole frame when none is."""
    if clean is not None and float((clean > 0.5).mean()) > 0.02:
        return float(image[clean > 0.5].mean(dtype=np.float64))
    return float(image.mean(dtype=np.float64))
