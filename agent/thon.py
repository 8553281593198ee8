"""Pictures of a CTF fit as microscopists know them: power spectrum on the left, fit on the right, profile below."""

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.drawing import DARK, FONT, GREY, WHITE, Colour, Picture, stretch, text
from models.conditions import Conditions
from models.quality.agreement import Profile
from models.quality.ctf import RESOLVED_AT
from models.quality.optics import Defocus, Lens
from models.quality.spectrum import Spectrum

Plane = NDArray[np.float32]

ORANGE: Colour = (255, 168, 38)
BLUE: Colour = (96, 170, 255)
_TICKS_ANGSTROM = (30, 20, 15, 12, 10, 8, 7, 6, 5, 4.5, 4, 3.5, 3.2, 3, 2.8, 2.6, 2.4)
_SMALLEST = 24


def fit_of(features: Mapping[str, float]) -> tuple[Defocus, Lens, float] | None:
    """Defocus, lens and fit resolution (Å) from the features of a finding; ``None`` where no fit was to be trusted."""
    if features.get("ctf_confidence", 0.0) < 0.5 or not {"defocus_um", "ctf_resolution_angstrom"} <= set(features):
        return None
    defocus = Defocus(
        features["defocus_um"],
        features.get("astigmatism_um", 0.0),
        features.get("astigmatism_angle_deg", 0.0),
        features.get("phase_shift_deg", 0.0),
    )
    usual = Conditions()
    conditions = Conditions(
        voltage_kv=features.get("voltage_kv", usual.voltage_kv),
        cs_mm=features.get("cs_mm", usual.cs_mm),
        amplitude_contrast=features.get("amplitude_contrast", usual.amplitude_contrast),
    )
    return defocus, Lens.of(conditions), features["ctf_resolution_angstrom"]


def reach_of(spectrum: Spectrum, resolution_angstrom: float | None) -> float:
    """Frequency in 1/Å at the edge of a picture: somewhat beyond the last ring, and never beyond what is known."""
    if resolution_angstrom is None:
        return min(spectrum.reach, 0.25)
    return min(spectrum.reach, max(1.25 / resolution_angstrom, 0.12))


def half_and_half(
    spectrum: Spectrum, side: int, fit: tuple[Defocus, Lens, float] | None, reach: float | None = None
) -> Picture:
    """Flattened power spectrum; its right half is the fit where there is one, with a circle at the fit resolution.

    Parameters
    ----------
    spectrum
        Power of a micrograph.
    side
        Width and height in pixels.
    fit
        Defocus, lens and fit resolution, as `fit_of` gives them.
    reach
        Frequency in 1/Å at the middle of an edge.
    """
    reach = min(reach or reach_of(spectrum, fit[2] if fit else None), spectrum.reach)
    flat = flattened(spectrum.picture(side, reach))
    n = flat.shape[0]
    if n < _SMALLEST:
        return np.full((side, side, 3), 30, np.uint8)
    grey = stretch(flat, 2, 99.3)
    middle = n // 2
    if fit is not None:
        defocus, lens, resolution = fit
        y, x = (np.indices(flat.shape, dtype=np.float64) - middle) * (reach / middle)
        k, theta = np.hypot(x, y), np.arctan2(y, x)
        gamma = lens.phase(k, defocus.along(theta), math.radians(defocus.shift_deg))
        # fades where a ring is narrower than two pixels of the picture
        width = np.abs(2 * lens.quadratic * defocus.mean_um * k) / math.pi * (reach / middle)
        model = 0.5 - 0.5 * np.cos(2 * gamma) * np.clip(2 - 4 * width, 0, 1)
        fade = np.clip(1.5 - k * resolution, 0.25, 1)
        right = np.clip(40 + 190 * (0.5 + (model - 0.5) * fade), 0, 255).astype(np.uint8)
        grey[:, middle:] = right[:, middle:]
    colour = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    picture = np.asarray(cv2.resize(colour, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
    if fit is not None:
        radius = 1 / fit[2] / reach * side / 2
        if radius < 0.74 * side:
            _dashed_circle(picture, side / 2, radius, ORANGE)
        cv2.line(picture, (side // 2, 0), (side // 2, side), (70, 70, 70), 1, cv2.LINE_AA)
    return picture


def flattened(power: Plane) -> Plane:
    """Logarithm of the power, its slow radial decay taken off, and rings of all radii brought to like contrast."""
    log = np.log(np.maximum(power, 1e-12 * float(power.max()) + 1e-30))
    n = log.shape[0]
    middle = n // 2
    y, x = np.indices(log.shape) - middle
    ring = np.rint(np.hypot(x, y)).astype(int)
    count = np.bincount(ring.ravel())
    radial = np.bincount(ring.ravel(), log.ravel()) / np.maximum(count, 1)
    blur = max(2.0, n / 28)
    slow = cv2.GaussianBlur(radial.reshape(1, -1), (0, 0), blur, borderType=cv2.BORDER_REPLICATE).ravel()
    square = ((radial - slow) ** 2).reshape(1, -1)
    swing = cv2.GaussianBlur(square, (0, 0), 2 * blur, borderType=cv2.BORDER_REPLICATE).ravel()
    noise = float(np.std(log - radial[ring])) * 0.25
    flat = (log - slow[ring]) / np.sqrt(swing + noise**2)[ring]
    flat[ring < 0.02 * n] = 0.0
    return np.asarray(cv2.GaussianBlur(flat.astype(np.float32), (0, 0), max(0.8, n / 500)), np.float32)


def plot(profile: Profile, resolution_angstrom: float, width: int, height: int) -> Picture:
    """Elliptical average, fit and their local cross-correlation against frequency; ticks are in Å."""
    picture = np.full((height, width, 3), DARK, np.uint8)
    left, right, top, bottom = 16, width - 16, 40, height - 42
    k = profile.k
    last = min(float(k[-1]), max(1.3 / resolution_angstrom, 0.12))
    shown = k <= last
    k = k[shown]
    if len(k) < 4:
        return picture

    def across(value: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return np.asarray(left + (np.asarray(value) - k[0]) / (last - k[0]) * (right - left), dtype=np.float64)

    scale = 1 / np.maximum(_envelope(profile.model[shown], profile.rings[shown]), 1e-9)
    low, high = -1.9, 1.9

    def up(value: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(bottom - (np.clip(value, low, high) - low) / (high - low) * (bottom - top), dtype=np.float64)

    for angstrom in _TICKS_ANGSTROM:
        if k[0] < 1 / angstrom < last:
            x = round(float(across(1 / angstrom)))
            cv2.line(picture, (x, top), (x, bottom), (48, 52, 58), 1)
            cv2.putText(picture, f"{angstrom:g}", (x - 8, bottom + 18), FONT, 0.42, GREY, 1, cv2.LINE_AA)
    text(picture, "resolution in A", right - 110, height - 10, 11, GREY, left=True)
    agreed = bottom - np.clip(profile.correlation[shown], 0, 1) * (bottom - top)
    level = round(bottom - RESOLVED_AT * (bottom - top))
    for x in range(left, right, 12):
        cv2.line(picture, (x, level), (min(x + 5, right), level), (60, 84, 120), 1)
    _curve(picture, across(k), agreed, BLUE, 1)
    _curve(picture, across(k), up(profile.rings[shown] * scale), WHITE, 1)
    _curve(picture, across(k), up(profile.model[shown] * scale), ORANGE, 2)
    at = round(float(across(1 / resolution_angstrom)))
    if left < at < right:
        cv2.line(picture, (at, top - 4), (at, bottom), ORANGE, 1, cv2.LINE_AA)
    x = 16
    words: tuple[tuple[str, Colour], ...] = (
        ("spectrum", WHITE),
        ("fit", ORANGE),
        ("cross-correlation (0 to 1)", BLUE),
    )
    for word, colour in words:
        x += text(picture, word, x, 24, 13, colour, left=True) + 22
    return picture


def _envelope(model: NDArray[np.float64], rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Amplitude of the fit along k, so that rings of all sizes fill the plot; noise does not grow beyond it."""
    top = np.maximum.accumulate(np.abs(model)[::-1])[::-1]
    noise = float(np.std(np.diff(rings))) * 0.7
    return np.asarray(np.maximum(top, max(noise, 0.02 * float(top.max()))), dtype=np.float64)


def _curve(picture: Picture, x: NDArray[np.float64], y: NDArray[np.float64], colour: Colour, thickness: int) -> None:
    points = np.rint(np.stack([x, y], axis=1) * 16).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(picture, [points], False, colour, thickness, cv2.LINE_AA, 4)


def _dashed_circle(picture: Picture, middle: float, radius: float, colour: Colour) -> None:
    for begin in range(0, 360, 10):
        centre = (round(middle * 16), round(middle * 16))
        axes = (round(radius * 16), round(radius * 16))
        cv2.ellipse(picture, centre, axes, 0, begin, begin + 5, colour, 1, cv2.LINE_AA, 4)
