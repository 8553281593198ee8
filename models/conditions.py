"""How a micrograph was taken: what its pixels alone cannot say, and what a quality scorer needs to know."""

import math

import msgspec

# Energy in keV at rest of an electron; the wavelength is that of a relativistic one.
_REST_KV = 510.99895
# Mean free path in nm of what leaves the image, without energy filter. At 300 kV it follows from the amplitude contrast
# of 0.07 that ice shows; at other voltages it goes as the speed of the electrons squared (Reimer & Kohl,
# Transmission Electron Microscopy, 5th ed., section 6.1).
_AT_300_KV_NM = 303.0


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Optics and reference of one micrograph; a driver or the settings know them.

    Parameters
    ----------
    voltage_kv
        Acceleration voltage.
    cs_mm
        Spherical aberration.
    amplitude_contrast
        Share of amplitude contrast, 0 to 1; 0.07 to 0.1 for ice.
    phase_shift_deg
        Of a phase plate; 0 without one. ``None``: there is one, and its shift is to be fitted.
    open_beam
        Mean pixel value, in the image's own counts, that the same exposure gives through an empty hole.
    mean_free_path_nm
        Of scattering out of the image, for the thickness from transmission. ``None``: the table by voltage.
    vitreous
        The specimen lies in ice that ought to be vitreous; false for replicas and sections.
    """

    voltage_kv: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.07
    phase_shift_deg: float | None = 0.0
    open_beam: float | None = None
    mean_free_path_nm: float | None = None
    vitreous: bool = True

    @property
    def path_nm(self) -> float:
        """Mean free path for the thickness from transmission, in nm: the site's own, else by voltage."""
        return self.mean_free_path_nm or mean_free_path_nm(self.voltage_kv)


def wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic wavelength of the electrons in Å: h / sqrt(2 m e U (1 + e U / 2 m c²)).

    0.0197 Å at 300 kV, 0.0251 Å at 200 kV (Reimer & Kohl, *Transmission Electron Microscopy*, 5th ed., eq. 2.12).
    """
    return 12.264259 / math.sqrt(voltage_kv * 1e3 * (1 + voltage_kv / (2 * _REST_KV)))


def speed_squared(voltage_kv: float) -> float:
    """(v / c)² of electrons."""
    gamma = 1 + voltage_kv / _REST_KV
    return 1 - 1 / gamma**2


def mean_free_path_nm(voltage_kv: float) -> float:
    """Default of Λ for transmission without an energy filter: 303 nm at 300 kV, 243 nm at 200 kV, 151 nm at 100 kV."""
    return _AT_300_KV_NM * speed_squared(voltage_kv) / speed_squared(300.0)
