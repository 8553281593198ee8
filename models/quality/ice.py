"""How thick the ice is: from the electrons that it takes out of the image.

Transmission: d = Λ ln(I₀ / I), I₀ through an empty hole; Λ counts all that the aperture stops (Rice et al. 2018,
J. Struct. Biol. 204, 38, eq. 2). Energy filter: d = Λ ln(I_unfiltered / I_filtered), Λ the mean free path of inelastic
scattering (the same, eq. 1). Both Λ depend on voltage, aperture and slit; a site measures its own once.
"""

import math

import numpy as np
from numpy.typing import NDArray

# Mean free path in nm of what leaves the image, without energy filter. At 300 kV it follows from the amplitude contrast
# of 0.07 that ice shows; at other voltages it goes as the speed of the electrons squared (Reimer & Kohl,
# Transmission Electron Microscopy, 5th ed., section 6.1).
_AT_300_KV_NM = 303.0
# Inelastic mean free path in nm at 300 kV with a slit of 15 eV, measured in a Titan Krios (Rice et al. 2018).
_INELASTIC_AT_300_KV_NM = 395.0
_REST_KV = 510.99895


class NoThicknessError(ValueError):
    """Intensities from which no thickness follows, and why."""


def speed_squared(voltage_kv: float) -> float:
    """(v / c)² of electrons."""
    gamma = 1 + voltage_kv / _REST_KV
    return 1 - 1 / gamma**2


def mean_free_path_nm(voltage_kv: float) -> float:
    """Default of Λ for transmission without an energy filter: 303 nm at 300 kV, 243 nm at 200 kV, 151 nm at 100 kV."""
    return _AT_300_KV_NM * speed_squared(voltage_kv) / speed_squared(300.0)


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
