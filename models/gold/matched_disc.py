"""A matched disc on a median background: what people build for gold before they train a network, as a second peer.

The median of a neighbourhood is the ground; what is darker than it is compared with discs of all sizes, each against
a ring around it. Where a disc stands out from the noise more than its neighbours do, there is a particle.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.base import source_fingerprint
from models.gold.fast import apart, fitted, in_image, own
from models.gold.records import Candidate
from models.gold.sampling import CANONICAL_NM, Pixels, Raster, forget, raster_of
from models.gold.tiles import Tile, count, tiles

HALO = 48  # raster pixels: half the median's window, the largest disc and its ring
MEDIAN_PX = 45  # twice the widest gold that is looked for
TILE = 1024
DIAMETERS_NM = tuple(5.0 * 1.19**k for k in range(10))  # 5 to 24 nm
RING_PX = 2.5
LEVELS = 8.0  # grey levels that the median sees for one spread of the image
SAMPLES = 9  # windows that tell the noise

Field = NDArray[np.float32]


@dataclass(frozen=True)
class MatchedDetector:
    """Discs that take at least ``least_depth`` of the ground's brightness and stand out from the noise."""

    least_depth: float = 0.35
    least_snr: float = 8.0
    name: str = "gold-matched"

    @property
    def fingerprint(self) -> str:
        """Hash of the code and its settings."""
        return f"{source_fingerprint('models.gold')}-{self.least_depth:g}-{self.least_snr:g}"

    def candidates(
        self, image: Pixels, pixel_nm: float, progress: Callable[[float], None] | None = None
    ) -> list[Candidate]:
        """Dark discs of an image (rows, columns); the answer does not depend on the tiles."""
        raster = raster_of(image, pixel_nm)
        noise = _noise(raster)
        total = count(raster.shape, TILE)
        found: list[Candidate] = []
        for n, tile in enumerate(tiles(raster.shape, TILE)):
            found.extend(self._in_tile(raster, tile, pixel_nm, noise))
            forget(image)
            if progress is not None:
                progress((n + 1) / total)
        return apart(found, pixel_nm)

    def _in_tile(self, raster: Raster, tile: Tile, pixel_nm: float, noise: float) -> list[Candidate]:
        top, left = tile.top - HALO, tile.left - HALO
        window = raster.window(top, left, tile.bottom - tile.top + 2 * HALO, tile.right - tile.left + 2 * HALO)
        ground, lack = darker(window)
        depth, size, snr = discs(lack, noise)
        bright = np.maximum(ground * np.float32(raster.greys.spread) + np.float32(raster.greys.median), 1e-3)
        depth *= np.float32(raster.greys.spread) / bright
        peak = depth >= cv2.dilate(depth, np.ones((5, 5), np.uint8))
        j, i = np.nonzero(peak & (depth > self.least_depth) & (snr > self.least_snr))
        x, y = (raster.to_image(at.astype(np.float64)) for at in (i + left, j + top))
        seen = in_image(x, y, raster, 1.0)
        found = fitted(raster.image, x[seen], y[seen], size[j, i][seen].astype(np.float64) * raster.step, pixel_nm)
        score = np.clip(depth[j, i][seen], 0, 1)
        return [
            Candidate(float(found.x[k]), float(found.y[k]), float(found.diameter[k] * pixel_nm), float(score[k]))
            for k in np.flatnonzero(own(found.x, found.y, tile, raster)).tolist()
        ]


def darker(window: Field) -> tuple[Field, Field]:
    """The median around each pixel, and how much darker than it the pixel is; both in spreads."""
    levels = np.clip(window * np.float32(LEVELS) + 200, 0, 255).astype(np.uint8)
    ground = (cv2.medianBlur(levels, MEDIAN_PX).astype(np.float32) - 200) * np.float32(1 / LEVELS)
    return np.asarray(ground, np.float32), np.asarray(ground - np.clip(window, -25, 7), np.float32)


def discs(lack: Field, noise: float) -> tuple[Field, Field, Field]:
    """The disc that fits each pixel best: its depth, its diameter in pixels, how far it stands out from the noise."""
    best, size, clear = (np.zeros_like(lack) for _ in range(3))
    for diameter in (nm / CANONICAL_NM for nm in DIAMETERS_NM):
        kernel = _kernel(diameter)
        depth = cv2.filter2D(lack, -1, kernel)
        better = depth > best
        best[better], size[better] = depth[better], diameter
        clear[better] = depth[better] * np.float32(1 / (noise * float(np.sqrt((kernel**2).sum()))))
    return best, size, clear


def _kernel(diameter: float) -> Field:
    """Mean within a disc less the mean within the ring around it."""
    half = int(np.ceil(diameter / 2 + RING_PX)) + 1
    axis = np.arange(-half, half + 1)
    r = np.hypot(axis[:, None], axis[None, :])
    inner = np.clip(diameter / 2 - r + 0.5, 0, 1)
    ring = np.clip(diameter / 2 + RING_PX - r + 0.5, 0, 1) * (1 - np.clip(diameter / 2 + 0.5 - r + 0.5, 0, 1))
    return np.asarray(inner / inner.sum() - ring / ring.sum(), np.float32)


def _noise(raster: Raster) -> float:
    """Noise of single pixels in spreads: the median deviation from a small median, over windows spread evenly."""
    rows, columns = raster.shape
    side = min(128, rows, columns)
    steps = int(np.sqrt(SAMPLES))
    parts = []
    for top in np.linspace(0, rows - side, steps).astype(int).tolist():
        for left in np.linspace(0, columns - side, steps).astype(int).tolist():
            window = raster.window(top, left, side, side)
            parts.append(np.abs(window - cv2.GaussianBlur(window, (0, 0), 1.5)).ravel())
    return max(1.4826 * float(np.median(np.concatenate(parts))), 0.02)
