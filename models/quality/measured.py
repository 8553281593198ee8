"""Everything that is measured on one micrograph, in one record: what the scorer weighs and pictures show."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.base import Image, as_plain
from models.conditions import Conditions
from models.quality import ctf, ice
from models.quality.cover import Cover, cover, shrunk
from models.quality.crystal import Lattice, lattice
from models.quality.spectrum import Spectrum, spectrum
from models.quality.statistics import real_space, spectral

Plane = NDArray[np.float32]

COARSEST_CTF_ANGSTROM = 6.5  # pixels beyond this show no rings


@dataclass(frozen=True, slots=True)
class Measured:
    """What one micrograph shows.

    Parameters
    ----------
    small
        Its copy with at most 512 pixels a side.
    cover
        Lumps and foil.
    spectrum
        Power, in 1/Å where the pixel size is known.
    fit
        The CTF; ``None`` without pixel size, or where pixels are too coarse or too few.
    lattice
        Crystalline ice; ``None`` where pixels are too coarse to show it.
    thickness_nm, transmission
        Of the ice; ``None`` without a reference intensity.
    numbers
        Plain statistics (`models.quality.statistics`).
    counts
        Whether the pixels are unsigned counts.
    conditions
        How it was taken.
    full_px
        Longer side of the micrograph.
    """

    small: Plane
    cover: Cover
    spectrum: Spectrum
    fit: ctf.CtfFit | None
    lattice: Lattice | None
    thickness_nm: float | None
    transmission: float | None
    numbers: dict[str, float]
    counts: bool
    conditions: Conditions
    full_px: int

    @property
    def scale(self) -> float:
        """Pixels of the micrograph in one pixel of the copy, along a side."""
        return self.full_px / float(max(self.small.shape))

    def features(self) -> dict[str, float]:
        """The numbers that go into the record, by name; those that are not known are absent."""
        out = {
            "contamination": self.cover.dirt_share,
            "foil": self.cover.foil_share,
            "grain_ratio": self.cover.ratio,
            "mottle": self.cover.mottle,
            **self.numbers,
        }
        if self.cover.waves is not None and self.counts:
            out["ice_waves"] = self.cover.waves
        if self.fit is not None:
            f = self.fit
            out |= {
                "ctf_resolution_angstrom": f.resolution_angstrom,
                "ctf_confidence": f.confidence,
                "ctf_correlation": f.correlation,
                "ctf_significance": f.significance,
                "defocus_um": f.defocus.mean_um,
                "astigmatism_um": f.defocus.astigmatism_um,
                "astigmatism_angle_deg": f.defocus.angle_deg,
                "phase_shift_deg": f.defocus.shift_deg,
                "voltage_kv": self.conditions.voltage_kv,
                "cs_mm": self.conditions.cs_mm,
                "amplitude_contrast": self.conditions.amplitude_contrast,
            }
        if self.lattice is not None:
            out |= {"ice_ring": self.lattice.ring, "ice_spots": float(self.lattice.spots)}
        if self.thickness_nm is not None and self.transmission is not None:
            out |= {"ice_thickness_nm": self.thickness_nm, "transmission": self.transmission}
        return {key: round(float(value), 6) for key, value in out.items()}


def measure(image: Image, pixel_size_angstrom: float | None = None, conditions: Conditions | None = None) -> Measured:
    """Measure a micrograph.

    Parameters
    ----------
    image
        High-mag micrograph, any real dtype, shape (rows, columns); not constant.
    pixel_size_angstrom
        Its pixel size; without it there is no CTF fit and no ring of ice.
    conditions
        Optics and reference intensity; ``None``: 300 kV, 2.7 mm, 7 % and no reference.

    Raises
    ------
    BadImageError
        When the array is no image at all (see ``models.base.as_plain``).
    """
    conditions = conditions or Conditions()
    plain = as_plain(image)
    small = shrunk(plain)
    scale = max(plain.shape) / max(small.shape)
    covered = cover(small, pixel_size_angstrom * scale if pixel_size_angstrom else None)
    clean = covered.clean() if covered.dirt.any() else None
    power = spectrum(plain, pixel_size_angstrom, clean)
    fit, crystals = None, None
    if pixel_size_angstrom is not None and pixel_size_angstrom < COARSEST_CTF_ANGSTROM:
        polar = power.polar()
        crystals = lattice(power, polar)
        fit = ctf.fit(polar, conditions, crystals.spoiled if crystals is not None else None)
    thickness, transmission = None, None
    if conditions.open_beam is not None and conditions.open_beam > 0:
        ground = 1 - covered.foil.astype(np.float32)
        seen = ground * (1 if clean is None else clean)
        through = ice.typical_intensity(small, seen)
        if through > 0:
            transmission = through / conditions.open_beam
            thickness = ice.thickness_nm(through, conditions.open_beam, conditions.path_nm)
    return Measured(
        small=small,
        cover=covered,
        spectrum=power,
        fit=fit,
        lattice=crystals,
        thickness_nm=thickness,
        transmission=transmission,
        numbers={**real_space(plain), **spectral(plain)},
        counts=bool(np.issubdtype(image.dtype, np.unsignedinteger)),
        conditions=conditions,
        full_px=max(plain.shape),
    )
