"""What one micrograph looks like in a handful of robust numbers, from real space and from its power spectrum."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

Plane = NDArray[np.float32]

_BINNED = 512  # longer side of the real-space copy
_PATCH = 256  # side of the pieces whose spectra are averaged
_MOST_PATCHES = 36


def real_space(plain: Plane) -> dict[str, float]:
    """Numbers from real space.

    Parameters
    ----------
    plain
        Finite micrograph, shape (rows, columns).

    Returns
    -------
    dict
        ``mean`` and ``deviation`` in counts of the image; ``saturated`` and ``floor``: shares of pixels at the
        highest and the lowest count; ``dark_share``: share of the area far darker than the rest;
        ``unevenness``: deviation of the slow background over that of the binned image; ``noise_share``:
        deviation between neighbouring binned pixels over that of the binned image.
    """
    factor = min(1.0, _BINNED / max(plain.shape))
    small = cv2.resize(plain, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else plain
    deviation = float(plain[::2, ::2].std())
    median = float(np.median(small))
    soft = cv2.GaussianBlur(small, (0, 0), 2.0)
    slow = cv2.GaussianBlur(small, (0, 0), 0.06 * max(small.shape))
    rest = soft - slow
    noise = 1.4826 * float(np.median(np.abs(rest - np.median(rest)))) + 1e-12
    spread = float(soft.std()) + 1e-12
    return {
        "mean": float(plain.mean(dtype=np.float64)),
        "median": median,
        "deviation": deviation,
        "saturated": float((plain >= plain.max()).mean()),
        "floor": float((plain <= plain.min()).mean()),
        "dark_share": float((soft < np.median(soft) - max(5.0 * noise, 0.0)).mean()),
        "unevenness": float(slow.std()) / spread,
        "noise_share": noise / spread,
    }


def power_spectrum(plain: Plane) -> NDArray[np.float64]:
    """Mean power spectrum of evenly spaced pieces, shape (256, 129): rows of the full, columns of half the plane.

    The method is Welch's (IEEE Trans. Audio Electroacoust. 15, 70, 1967), in two dimensions, with a Hann window.
    """
    side = min(_PATCH, *plain.shape)
    rows, columns = plain.shape
    n_y = min(int(np.sqrt(_MOST_PATCHES)), max(1, 2 * rows // side - 1))
    n_x = min(int(np.sqrt(_MOST_PATCHES)), max(1, 2 * columns // side - 1))
    window = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    total = np.zeros((side, side // 2 + 1))
    for top in np.linspace(0, rows - side, n_y).astype(int):
        for left in np.linspace(0, columns - side, n_x).astype(int):
            piece = plain[top : top + side, left : left + side]
            total += np.abs(fft.rfft2((piece - piece.mean()) * window, workers=1)) ** 2
    return np.asarray(total / (n_y * n_x))


def spectral(plain: Plane) -> dict[str, float]:
    """Numbers from the power spectrum.

    Returns
    -------
    dict
        ``slope``: of log power against log frequency between 1/32 and 1/4 per pixel (0 for white noise, about
        -3 for a smooth image); ``rings``: strength of oscillations of the radial profile (Thon rings), in
        units of its own scatter; ``spots``: how far the brightest spots stand out of their ring in log power
        (ice crystals); ``high_share``: log power near the edge relative to the middle.
    """
    power = power_spectrum(plain)
    side = power.shape[0]
    fy = fft.fftfreq(side)[:, None]
    fx = fft.rfftfreq(side)[None, :]
    radius = np.hypot(fy, fx)
    # The axes carry streaks of stitched or padded frames.
    clear = (np.abs(fy) > 1.5 / side) & (np.abs(fx) > 1.5 / side) & (radius < 0.5)
    log_power = np.log(power + 1e-12 * power.max() + 1e-30)
    ring = np.rint(radius * side).astype(int)
    n = side // 2
    count = np.bincount(ring[clear], minlength=n)[:n]
    profile = np.bincount(ring[clear], log_power[clear], minlength=n)[:n] / np.maximum(count, 1)
    k = np.arange(n)
    first = max(4, side // 32)
    band = (k >= first) & (k <= side // 4)
    frequency = np.log(k[band] / side)
    scale = float(frequency.var()) if band.any() else 0.0
    slope = float(np.cov(frequency, profile[band], bias=True)[0, 1]) / scale if scale > 0 else 0.0
    wide = (k >= first) & (k < max(n - 4, first + 2))
    detail = profile[wide] - cv2.GaussianBlur(profile[wide][None, :], (0, 0), 8.0)[0]
    scatter = float(np.median(np.abs(np.diff(profile[wide])))) + 1e-6
    residual = np.where(clear, log_power - profile[np.minimum(ring, n - 1)], 0.0)
    outer = clear & (radius > 0.08)
    return {
        "slope": slope,
        "rings": float(detail.std()) / scatter,
        "ring_height": float(detail.std()),
        "spots": float(np.sort(residual[outer])[-8:].mean()),
        "high_share": float(profile[-8:].mean() - profile[band].mean()),
    }
