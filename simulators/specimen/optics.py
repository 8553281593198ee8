"""The lens: from the wave behind the specimen to the intensity at the camera.

Phase aberration χ(k) = π λ z(θ) k² − π/2 Cs λ³ k⁴, with z positive for underfocus. Matter multiplies the wave by
exp(iφ − κφ), the lens by exp(iχ) (Kirkland, *Advanced Computing in Electron Microscopy*, section 3.1); the contrast
of a weak object is then −2 φ sin(χ + φ_A), tan φ_A = κ: dark in underfocus, with the zeros that CTF programs
assume (Rohou & Grigorieff 2015, eq. 2). Envelopes for energy spread
and source size after Frank, *Three-Dimensional Electron Microscopy*, chapter 2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulators.specimen import materials as m
from simulators.specimen.noise import Field

CS_MM = 2.7
_FOCAL_SPREAD_ANGSTROM = 45.0
_SOURCE_RAD = 2.0e-5
_BLUR_A2 = 40.0


def chi(
    kx: NDArray[np.float32],
    ky: NDArray[np.float32],
    voltage_kv: float,
    defocus_um: float,
    astigmatism_um: float = 0.0,
    angle_deg: float = 0.0,
) -> NDArray[np.float32]:
    """Phase aberration in rad at spatial frequencies in 1/Å (arrays that broadcast)."""
    lam = m.wavelength_angstrom(voltage_kv)
    turn = math.radians(2 * angle_deg)
    x2, y2 = kx * kx, ky * ky
    k2: Field = x2 + y2
    # z k² with z = defocus + astigmatism cos 2(θ - θ0), written without angles
    quadratic: Field = np.float32(defocus_um * 1e4) * k2
    if astigmatism_um:
        stretch: Field = np.float32(math.cos(turn)) * (x2 - y2) + np.float32(2 * math.sin(turn)) * (kx * ky)
        quadratic += np.float32(astigmatism_um * 1e4) * stretch
    out = np.float32(math.pi * lam) * quadratic - np.float32(0.5 * math.pi * CS_MM * 1e7 * lam**3) * (k2 * k2)
    return np.asarray(out, dtype=np.float32)


def matters(pixel_angstrom: float, voltage_kv: float, defocus_um: float) -> bool:
    """Whether the lens changes anything that the pixels can show."""
    nyquist = 0.5 / pixel_angstrom
    return (
        math.pi * m.wavelength_angstrom(voltage_kv) * abs(defocus_um) * 1e4 * nyquist**2 > 0.05 or pixel_angstrom < 25
    )


def expose(
    phase: Field,
    loss: Field,
    pixel_angstrom: float,
    voltage_kv: float,
    defocus_um: float,
    astigmatism_um: float = 0.0,
    angle_deg: float = 0.0,
) -> Field:
    """Intensity (1 without specimen) of a wave with this phase (rad) and ``-ln`` amplitude ``loss``."""
    rows, columns = phase.shape
    wave = np.empty((rows, columns), np.complex64)
    modulus = np.exp(-loss)
    np.multiply(np.cos(phase), modulus, out=wave.real)
    np.multiply(np.sin(phase), modulus, out=wave.imag)
    wave = fft.fft2(wave, workers=2, overwrite_x=True)
    ky = fft.fftfreq(rows, pixel_angstrom).astype(np.float32)[:, None]
    kx = fft.fftfreq(columns, pixel_angstrom).astype(np.float32)[None, :]
    lam = m.wavelength_angstrom(voltage_kv)
    for start in range(0, rows, 256):  # in strips: the transfer function of a large frame would not fit the cache
        strip = slice(start, min(start + 256, rows))
        ky_part = ky[strip]
        k2 = kx * kx + ky_part * ky_part
        aberration = chi(kx, ky_part, voltage_kv, defocus_um, astigmatism_um, angle_deg)
        slope = np.float32(lam * defocus_um * 1e4) - np.float32(CS_MM * 1e7 * lam**3) * k2
        damping = (
            np.float32((math.pi * lam * _FOCAL_SPREAD_ANGSTROM) ** 2 / 2) * k2 * k2
            + np.float32((math.pi * _SOURCE_RAD / lam) ** 2) * k2 * slope * slope
            + np.float32(_BLUR_A2 / 4) * k2
        )
        envelope = np.exp(-damping)
        transfer = np.empty(aberration.shape, np.complex64)
        np.multiply(np.cos(aberration), envelope, out=transfer.real)
        np.multiply(np.sin(aberration), envelope, out=transfer.imag)
        wave[strip] *= transfer
    wave = fft.ifft2(wave, workers=2, overwrite_x=True)
    return np.asarray(wave.real * wave.real + wave.imag * wave.imag, dtype=np.float32)


def smeared(intensity: Field, length_px: float, angle_rad: float) -> Field:
    """The image blurred along one direction, as drift during the exposure does (sinc in Fourier space)."""
    rows, columns = intensity.shape
    ky = fft.fftfreq(rows).astype(np.float32)[:, None]
    kx = fft.rfftfreq(columns).astype(np.float32)[None, :]
    along = np.float32(length_px) * (np.float32(math.cos(angle_rad)) * kx + np.float32(math.sin(angle_rad)) * ky)
    spectrum = fft.rfft2(intensity, workers=2) * np.sinc(along).astype(np.float32)
    return np.asarray(fft.irfft2(spectrum, s=(rows, columns), workers=2), dtype=np.float32)
