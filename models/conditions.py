"""How a micrograph was taken: what its pixels alone cannot say, and what a quality scorer needs to know."""

import math

import msgspec

# Energy in keV at rest of an electron; the wavelength is that of a relativistic one.
_REST_KV = 510.99895


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


def wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic wavelength of the electrons in Å: h / sqrt(2 m e U (1 + e U / 2 m c²)).

    0.0197 Å at 300 kV, 0.0251 Å at 200 kV (Reimer & Kohl, *Transmission Electron Microscopy*, 5th ed., eq. 2.12).
    """
    return 12.264259 / math.sqrt(voltage_kv * 1e3 * (1 + voltage_kv / (2 * _REST_KV)))
