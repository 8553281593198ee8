"""What hides the ice: lumps darker than anything within it, and foil where the frame reaches over a hole's edge."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE = 512  # longer side of the copy that is looked at
_SOFT_PX = 1.5
_SEED, _GROW = 6.0, 2.5  # depth in units of the noise at which a lump is begun, and to which it reaches
_SEED_SPREAD = 3.0  # and in units of all that varies: mottled ice is no collection of lumps
_LEAST_PX = 25
_LEAST_ANGSTROM = 300.0  # diameter of a lump: smaller dark things are particles
_BORDER_PX = 3  # stitched and shifted frames have dark rims
_MOTTLE_PX = 4.0
_WAVE_ANGSTROM = 80.0
_PATCH_PX = 20.0  # over which grain is averaged
_FOIL_RATIO = 1.6  # by how much the grain of foil is stronger than that of ice
_FOIL_LEAST, _FOIL_MOST = 0.06, 0.94
_FOIL_BORDER, _FOIL_SHADE = 0.25, 0.12  # shares of the border and of the frame that foil takes, seen as a shade


@dataclass(frozen=True, slots=True)
class Cover:
    """What covers a micrograph, on a copy of at most 512 pixels a side.

    Parameters
    ----------
    dirt
        Lumps, shape of the copy.
    foil
        Foil, told from ice by its stronger grain, or by its shade along a good part of the border.
    ratio
        Contrast of the grain of the two grounds; 1 when there is one.
    mottle
        Slow variation of the ice in units of its grain: about 0.3 to 0.5 in vitreous ice with particles, more where
        ice has crystallised (or the specimen itself is lumpy all over).
    waves
        The same variation at 80 to 240 Å as a share of the mean intensity; ``None`` without pixel size. Vitreous ice
        has less than 0.005, with particles and vesicles, too; a tenth of crystalline ice makes 0.01.
    depth
        How dark the darkest lump is, as share of the mean where the image is counts; 0 without lumps.
    """

    dirt: Mask
    foil: Mask
    ratio: float
    mottle: float
    waves: float | None
    depth: float

    @property
    def dirt_share(self) -> float:
        """Share of the frame under lumps."""
        return float(self.dirt.mean())

    @property
    def foil_share(self) -> float:
        """Share of the frame on foil."""
        return float(self.foil.mean())

    def clean(self) -> Plane:
        """Weight 1 where ice is to be seen and 0 where lumps are, with soft edges; shape of the copy."""
        grown = cv2.dilate(self.dirt.astype(np.uint8), np.ones((9, 9), np.uint8))
        return np.asarray(1 - cv2.GaussianBlur(grown.astype(np.float32), (0, 0), 3.0), dtype=np.float32)


def shrunk(plain: Plane) -> Plane:
    """The image with at most 512 pixels a side, each the mean of those it stands for."""
    factor = SIDE / max(plain.shape)
    if factor >= 1:
        return plain
    return np.asarray(cv2.resize(plain, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.float32)


def cover(small: Plane, pixel_size_angstrom: float | None = None) -> Cover:
    """Lumps and foil of a micrograph.

    Parameters
    ----------
    small
        The micrograph or its shrunk copy, shape (rows, columns).
    pixel_size_angstrom
        Of this copy; lumps are then told from particles by their size, else by their darkness alone.
    """
    least = _LEAST_PX
    if pixel_size_angstrom is not None:
        least = max(_LEAST_PX, round(np.pi / 4 * (_LEAST_ANGSTROM / pixel_size_angstrom) ** 2))
    soft = np.asarray(cv2.GaussianBlur(small, (0, 0), _SOFT_PX), np.float32)
    ground = background(soft)
    rest = soft - ground
    fine = soft - cv2.GaussianBlur(soft, (0, 0), 8.0)
    # lumps are dark: the brighter half shows how much the ice itself varies, even where they hide a half of it
    noise, spread = _scatter(fine), 1.4826 * float(np.median(rest[rest > 0])) if (rest > 0).any() else 0.0
    dirt = _lumps(rest, noise, spread, least)
    depth = float(-rest[dirt].min()) / max(float(np.median(soft)), 1e-9) if dirt.any() else 0.0
    dirt, shade = _without_shade(dirt)
    foil, ratio = _foil(small, dirt | shade)
    foil = foil | shade
    mottle = _mottle(small, dirt | foil, _MOTTLE_PX) / noise
    waves, middle = None, float(np.median(soft))
    if pixel_size_angstrom is not None and middle > 0 and _WAVE_ANGSTROM < 60 * pixel_size_angstrom:
        waves = _mottle(small, dirt | foil, _WAVE_ANGSTROM / pixel_size_angstrom) / middle
    return Cover(dirt & ~foil, foil, ratio, mottle, waves, depth if np.median(soft) > 0 else 0.0)


def background(soft: Plane) -> Plane:
    """Quadratic surface through the brightness of most of the frame, lumps not counted (Tukey's biweight)."""
    rows, columns = soft.shape
    size = (min(64, columns), min(64, rows))
    copy = cv2.resize(soft, size, interpolation=cv2.INTER_AREA)
    design = _quadratic(size[1], size[0])
    values = copy.ravel().astype(np.float64)
    # begun at the most common brightness, so that a lump of nearly half the frame is a lump all the same
    off = values - _mode(values)
    above = off[off > 0]
    width = 3 * float(np.median(above)) + 1e-12 if len(above) else 1.0
    weight = np.exp(-0.5 * (off / width) ** 2)
    surface = np.full_like(values, np.median(values))
    for _ in range(12):
        root = np.sqrt(weight)
        surface = design @ np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0]
        off = values - surface
        counted = np.abs(off[weight > 0.3])
        scale = 4.685 * 1.4826 * float(np.median(counted if len(counted) > 100 else np.abs(off))) + 1e-12
        # lumps are dark: what is darker than the surface loses its weight sooner
        share = np.where(off < 0, 1.5, 1.0) * off / scale
        weight = np.maximum(np.where(np.abs(share) < 1, (1 - share**2) ** 2, 0.0), 1e-6)
    wide = surface.reshape(size[1], size[0]).astype(np.float32)
    return np.asarray(cv2.resize(wide, (columns, rows), interpolation=cv2.INTER_CUBIC), np.float32)


def _mode(values: NDArray[np.float64]) -> float:
    """The half-sample mode (Bickel & Frühwirth 2006): the middle of the ever narrower half that holds most."""
    sorted_ = np.sort(values)
    while len(sorted_) > 8:
        half = (len(sorted_) + 1) // 2
        width = sorted_[half - 1 :] - sorted_[: len(sorted_) - half + 1]
        begin = int(np.argmin(width))
        sorted_ = sorted_[begin : begin + half]
    return float(sorted_.mean())


def _quadratic(rows: int, columns: int) -> NDArray[np.float64]:
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    parts = [np.ones_like(x), x, y, x * x, x * y, y * y]
    return np.stack([part.ravel() for part in parts], axis=1)


def _scatter(values: Plane) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) + 1e-12


def _lumps(rest: Plane, noise: float, spread: float, least: int) -> Mask:
    dark = (rest < -max(_GROW * noise, 0.8 * _SEED_SPREAD * spread * _GROW / _SEED)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    deepest = np.asarray(ndimage.minimum(rest, labels, np.arange(count)), dtype=np.float64)
    kept = (deepest < -max(_SEED * noise, _SEED_SPREAD * spread)) & (stats[:, cv2.CC_STAT_AREA] >= least)
    rows, columns = rest.shape
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    rim = (right <= _BORDER_PX) | (bottom <= _BORDER_PX) | (left >= columns - _BORDER_PX) | (top >= rows - _BORDER_PX)
    kept &= ~rim
    kept[0] = False
    return np.asarray(kept[labels], dtype=np.bool_)


def _without_shade(dirt: Mask) -> tuple[Mask, Mask]:
    """Lumps, and foil among them: large dark regions that run along a quarter of the frame's border or more."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dirt.astype(np.uint8), connectivity=8)
    rows, columns = dirt.shape
    rim = np.concatenate(
        [labels[_BORDER_PX], labels[-1 - _BORDER_PX], labels[:, _BORDER_PX], labels[:, -1 - _BORDER_PX]]
    )
    along = np.bincount(rim, minlength=count) / len(rim)
    foil = (along >= _FOIL_BORDER) & (stats[:, cv2.CC_STAT_AREA] >= _FOIL_SHADE * rows * columns)
    foil[0] = False
    shade = np.asarray(foil[labels], dtype=np.bool_)
    return dirt & ~shade, shade


def _mottle(small: Plane, hidden: Mask, width_px: float) -> float:
    seen = ~cv2.dilate(hidden.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(np.bool_)
    if seen.mean() < 0.05:
        return 0.0
    slow = cv2.GaussianBlur(small, (0, 0), width_px) - cv2.GaussianBlur(small, (0, 0), 3 * width_px)
    return _scatter(slow[seen])


def _foil(small: Plane, dirt: Mask) -> tuple[Mask, float]:
    """Ground with the stronger grain, where a frame shows two; split by Otsu's threshold on its logarithm."""
    none = np.zeros(small.shape, np.bool_)
    if min(small.shape) < 4 * _PATCH_PX:
        return none, 1.0
    grain = cv2.GaussianBlur(small, (0, 0), 1.0) - cv2.GaussianBlur(small, (0, 0), 3.0)
    limit = 4 * _scatter(grain)
    seen = 1 - cv2.dilate(dirt.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(np.float32)
    energy = cv2.GaussianBlur(np.minimum(grain * grain, limit * limit) * seen, (0, 0), _PATCH_PX)
    weight = cv2.GaussianBlur(seen, (0, 0), _PATCH_PX)
    level = np.log(energy / np.maximum(weight, 1e-3) + 1e-30)
    low, high = np.percentile(level, (1, 99))
    if not high > low:
        return none, 1.0
    grey = np.clip((level - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    cut, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    strong = grey > cut
    share = float(strong.mean())
    if not _FOIL_LEAST < share < _FOIL_MOST:
        return none, 1.0
    ratio = float(np.exp(0.5 * (np.median(level[strong]) - np.median(level[~strong]))))
    # two grounds have a step between them; one uneven ground has all shades
    middle = float(np.mean((grey > 0.3 * 255) & (grey < 0.7 * 255)))
    if ratio < _FOIL_RATIO or middle > 0.35:
        return none, ratio
    # foil stops electrons: a brighter ground with more grain has more shot noise, and the other is a lump
    soft = cv2.GaussianBlur(small, (0, 0), 3.0)
    if float(np.median(soft[strong])) > float(np.median(soft[~strong])) + 0.25 * _scatter(grain):
        return none, ratio
    return np.asarray(strong, dtype=np.bool_), ratio


def chance(value: float, middle: float, width: float) -> float:
    """A soft step from 0 to 1 about ``middle``."""
    return float(special.expit((value - middle) / width))
