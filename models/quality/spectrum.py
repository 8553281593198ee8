"""The power spectrum of a micrograph: where its Thon rings, ice rings and crystal spots are.

One Fourier transform of the whole frame, averaged into sectors of a polar raster that is fine enough for the narrowest
Thon rings and no finer, whatever the pixel size. (Averages over tiles, as Welch made them, blur rings that are narrower
than one over the tile; the polar average keeps them and has the same noise.)
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

Plane = NDArray[np.float32]
Floats = NDArray[np.float64]

SECTORS = 48  # of half a turn
FINEST_ANGSTROM = 2.3  # no frequency beyond this is looked at
_LONGEST_ANGSTROM = 2600.0  # one over the width of a ring bin: 4 bins for a ring of 4 µm defocus at 3 Å
_TAPER = 0.04  # share of each side over which the frame fades out
_AXES = 2.5  # frequency steps along the axes that stitched and padded frames fill with streaks


@dataclass(frozen=True, slots=True)
class Polar:
    """Mean power by direction and frequency.

    Parameters
    ----------
    power
        Mean power of each bin, shape (sectors, bins); 0 where the bin holds no pixel.
    count
        Independent Fourier pixels in each bin, same shape.
    k
        Frequency of the middle of each bin in 1/Å (1/px where the pixel size is unknown), shape (bins,).
    theta
        Direction of the middle of each sector in rad, image x towards image y, in (-π/2, π/2), shape (sectors,).
    """

    power: Floats
    count: Floats
    k: Floats
    theta: Floats

    def radial(self) -> tuple[Floats, Floats]:
        """Mean power over all directions and the count of each bin, both of shape (bins,)."""
        count = self.count.sum(axis=0)
        return (self.power * self.count).sum(axis=0) / np.maximum(count, 1), count


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Half-plane of the power, rows as `scipy.fft.fftfreq` orders them, and what it takes to read it.

    ``step_y``, ``step_x`` are the frequency steps (1/Å, or 1/px without pixel size) of rows and columns; ``rows``
    holds the row's signed index for each row kept.
    """

    power: Plane
    rows: NDArray[np.intp]
    step_y: float
    step_x: float
    nyquist: float

    def polar(self) -> Polar:
        """The spectrum averaged into sectors and rings."""
        bins_wide = max(self.step_y, self.step_x)
        finest = self.reach
        # in 1/px there is no length to compare with: four steps of a 4096-pixel frame
        width = max(bins_wide, 1 / _LONGEST_ANGSTROM if self.nyquist != 0.5 else 1e-3)
        n = max(8, int(finest / width))
        ky = (self.rows * self.step_y).astype(np.float32)[:, None]
        kx = (np.arange(self.power.shape[1]) * self.step_x).astype(np.float32)[None, :]
        ring = (np.sqrt(kx * kx + ky * ky) * np.float32(1 / width)).astype(np.int32)
        theta = np.arctan2(ky, np.maximum(kx, np.float32(1e-9)))
        sector = ((theta + np.float32(math.pi / 2)) * np.float32(SECTORS / math.pi)).astype(np.int32)
        np.clip(sector, 0, SECTORS - 1, out=sector)
        clear = (np.abs(ky) > _AXES * self.step_y) & (kx > _AXES * self.step_x) & (ring < n)
        where = (sector * n + ring)[clear]
        count = np.bincount(where, minlength=SECTORS * n).astype(np.float64)
        power = np.bincount(where, weights=self.power[clear], minlength=SECTORS * n) / np.maximum(count, 1)
        return Polar(
            power=power.reshape(SECTORS, n),
            count=count.reshape(SECTORS, n),
            k=np.asarray((np.arange(n) + 0.5) * width, dtype=np.float64),
            theta=np.asarray((np.arange(SECTORS) + 0.5) * (math.pi / SECTORS) - math.pi / 2, dtype=np.float64),
        )

    @property
    def reach(self) -> float:
        """Finest frequency that is known in every direction."""
        return min(float(np.abs(self.rows).max()) * self.step_y, float(self.power.shape[1] - 1) * self.step_x)

    def picture(self, side: int, reach: float | None = None) -> Plane:
        """Mean power as a square picture with zero frequency in its middle pixel, shape (side + 1, side + 1).

        ``reach`` is the frequency at the middle of an edge, at most and by default `reach` of the spectrum.
        """
        reach = min(reach or self.reach, self.reach)
        half = max(side // 2, 1)
        order = np.argsort(self.rows, kind="stable")
        rows, plane = self.rows[order], self.power[order]
        at = np.arange(-half, half + 1) * (reach / half)
        per_y, per_x = reach / half / self.step_y, reach / half / self.step_x
        blurred = cv2.blur(plane, (max(1, round(per_x)), max(1, round(per_y))), borderType=cv2.BORDER_REPLICATE)
        map_x = np.abs(at)[None, :].repeat(len(at), axis=0) / self.step_x
        sign = np.where(at < 0, -1.0, 1.0)[None, :]  # the other half: power is the same at -k
        map_y = sign * at[:, None] / self.step_y - rows[0]
        how = cv2.INTER_LINEAR
        out = cv2.remap(
            blurred, map_x.astype(np.float32), map_y.astype(np.float32), how, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(out, dtype=np.float32)


def spectrum(plain: Plane, pixel_size_angstrom: float | None, clean: Plane | None = None) -> Spectrum:
    """Power spectrum of a micrograph out to 2.3 Å or its Nyquist frequency.

    Parameters
    ----------
    plain
        Finite micrograph, shape (rows, columns).
    pixel_size_angstrom
        Its pixel size; without one frequencies are in 1/px.
    clean
        Weight of each pixel, 1 where the frame shows ice and 0 where dirt or foil hides it, same shape or smaller
        (it is enlarged); ``None``: all counts.
    """
    rows, columns = plain.shape
    image = plain - np.float32(plain.mean(dtype=np.float64))
    if clean is not None:
        if clean.shape != plain.shape:
            clean = np.asarray(cv2.resize(clean, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)
        share = float(clean.mean())
        image -= np.float32(float((image * clean).mean()) / max(share, 1e-6))
        image *= clean
    image *= _fade(rows)[:, None]
    image *= _fade(columns)[None, :]
    transform = fft.rfft2(image, workers=2, overwrite_x=True)
    px = pixel_size_angstrom or 1.0
    nyquist = 0.5 / px
    finest = min(nyquist, 1 / FINEST_ANGSTROM) if pixel_size_angstrom else nyquist
    step_y, step_x = 1 / (rows * px), 1 / (columns * px)
    last_y, last_x = min(int(finest / step_y), (rows - 1) // 2), min(int(finest / step_x), columns // 2)
    kept = np.concatenate([np.arange(0, last_y + 1), np.arange(-last_y, 0)])
    part = transform[kept, : last_x + 1]
    power = part.real * part.real + part.imag * part.imag
    power *= np.float32(1 / (rows * columns))
    return Spectrum(np.asarray(power, np.float32), kept, step_y, step_x, nyquist)


def _fade(n: int) -> Plane:
    """Weight of a side of ``n`` pixels that fades to 0 at both ends, as a Tukey window."""
    at = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
    share = np.clip(at / max(1.0, _TAPER * n), 0, 1)
    return np.asarray(0.5 - 0.5 * np.cos(math.pi * share), dtype=np.float32)
