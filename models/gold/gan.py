"""The seed's method: a generator paints a mask of the particles, blobs of the mask become centres and areas.

Source: Gold Digger, Jerez et al., Sci Rep 11, 7771 (2021): pix2pix (Isola et al., CVPR 2017) with a U-Net-256.
What differs: the network runs in eval mode, tiles overlap, no pixel of the image is left out, the diameter is fitted on
the image instead of a flood fill that leaks, and sizes are found by a mixture model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.gold.fast import apart
from models.gold.network import NetworkDetector
from models.gold.records import Candidate
from models.gold.refine import refined
from models.gold.sampling import CANONICAL_NM, Pixels, Raster, raster_of
from models.gold.tiles import Tile, count, tiles

TILE = 256
KEPT = 192  # the middle of each tile that is kept
PAINTED = 0.5  # green of the mask, from 0 to 1
LEAST_PX = 6
GREEN = 1
SHOWN = 6.0  # spreads of grey about the median that the network is shown as black and white


@dataclass(frozen=True)
class GanDetector(NetworkDetector):
    """A generator exported by ``cryonaut train gold --arch gan``; ``weights`` is its name or manifest file."""

    weights: str | Path = "gold-gan"
    name: str = "gold-gan"
    batch: int = 4

    def candidates(
        self, image: Pixels, pixel_nm: float, progress: Callable[[float], None] | None = None
    ) -> list[Candidate]:
        """Particles of an image (rows, columns)."""
        raster = raster_of(image, pixel_nm)
        mask = np.zeros(raster.shape, np.uint8)
        total, done = count(raster.shape, KEPT), 0
        waiting: list[Tile] = []
        for tile in tiles(raster.shape, KEPT):
            waiting.append(tile)
            done += 1
            if len(waiting) == self.batch or done == total:
                self._paint(raster, waiting, mask)
                waiting = []
                if progress is not None:
                    progress(done / total)
        return apart(_blobs(mask, raster, pixel_nm), pixel_nm)

    def _paint(self, raster: Raster, waiting: list[Tile], mask: NDArray[np.uint8]) -> None:
        edge = (TILE - KEPT) // 2
        shown = np.stack([raster.window(t.top - edge, t.left - edge, TILE, TILE) for t in waiting])
        painted = next(iter(self._network.run(as_shown(shown)).values()))
        for tile, green in zip(waiting, painted[:, GREEN], strict=True):
            own = green[edge : edge + tile.bottom - tile.top, edge : edge + tile.right - tile.left]
            mask[tile.top : tile.bottom, tile.left : tile.right] = own > 2 * PAINTED - 1


def as_shown(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Windows (n, rows, columns) of a raster as the generator takes them: (n, 3, rows, columns), from -1 to 1."""
    grey = np.clip(windows / np.float32(SHOWN), -1, 1).astype(np.float32)
    return np.repeat(grey[:, None], 3, axis=1)


def _blobs(mask: NDArray[np.uint8], raster: Raster, pixel_nm: float) -> list[Candidate]:
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    number, _, table, centres = cv2.connectedComponentsWithStats(opened, connectivity=4)
    keep = [k for k in range(1, number) if table[k, cv2.CC_STAT_AREA] >= LEAST_PX]
    if not keep:
        return []
    area = table[keep, cv2.CC_STAT_AREA].astype(np.float64)
    x, y = (raster.to_image(centres[keep, k].astype(np.float64)) for k in (0, 1))
    side = np.sqrt(area) * raster.step  # the mask shows squares as wide as the particle
    whole = np.asarray(raster.image[0 : raster.image.shape[0], 0 : raster.image.shape[1]])
    discs = refined(np.asarray(whole, np.float32), x, y, side, CANONICAL_NM / pixel_nm)
    return [
        Candidate(float(a), float(b), float(d * pixel_nm), 1.0)
        for a, b, d in zip(discs.x, discs.y, discs.diameter, strict=True)
    ]
