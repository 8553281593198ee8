"""Vesicles of high-mag frames: a compact network on a raster of 2.5 nm, tile by tile.

A vesicle is a ring or a disc of a known size: the frame's pixel size says at which scale to look. The network sees
about 90 raster pixels (225 nm) in each direction, a vesicle with its neighbours, and says for every 10 nm whether a
centre lies there, and the outer diameter.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.gold.sampling import Greys, Pixels, Raster, forget, greys
from models.gold.tiles import Tile, count, tiles
from models.runtime import OnnxModel, load
from models.vesicles.discs import Disc, apart

RASTER_NM = 2.5
NEAR = 0.06  # pixel sizes this close to the raster's are taken as they are
HALO = 112  # raster pixels, more than the network sees
ALIGNED = 16  # tiles begin on multiples of this, so that the network's cells fall on the same pixels in every tiling
STRIDE = 4  # raster pixels per cell of the answer
REFERENCE_PX = 16.0  # diameters are said as the logarithm of their ratio to this
THRESHOLD = 0.45
HESITANT = 0.25  # hits down to this score are counted, to know how sure the network is of the frame

Floats = NDArray[np.float64]


def raster_of(image: Pixels, pixel_nm: float, *, dark: bool = True) -> Raster:
    """The image on the network's raster; as it is, where its pixel size is close enough.

    Where matter is bright (``dark`` false) grey values are turned round.
    """
    step = RASTER_NM / pixel_nm
    seen = greys(image)
    return Raster(image, 1.0 if abs(step - 1) <= NEAR else step, seen if dark else Greys(seen.median, -seen.spread))


@dataclass(frozen=True)
class FrameDetector:
    """Network ``weights``; hits of at least ``threshold_score`` count; tiles of ``tile_px`` raster pixels."""

    weights: str | Path = "vesicles-frames"
    threshold_score: float = THRESHOLD
    tile_px: int = 2048
    name: str = "vesicles-frames"
    network: OnnxModel | None = field(default=None, repr=False)

    @cached_property
    def _network(self) -> OnnxModel:
        return self.network or load(self.weights)

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return self._network.fingerprint

    def candidates(
        self, image: Pixels, pixel_nm: float, *, dark: bool = True, progress: Callable[[float], None] | None = None
    ) -> list[Disc]:
        """Hits down to `HESITANT` in an image (rows, columns); the answer does not depend on the tiles."""
        raster = raster_of(image, pixel_nm, dark=dark)
        side = max(ALIGNED, self.tile_px - self.tile_px % ALIGNED)
        total = count(raster.shape, side)
        found: list[Disc] = []
        for n, tile in enumerate(tiles(raster.shape, side)):
            found.extend(self._in_tile(raster, tile, pixel_nm))
            forget(image)
            if progress is not None:
                progress((n + 1) / total)
        return apart(found, pixel_nm)

    def _in_tile(self, raster: Raster, tile: Tile, pixel_nm: float) -> list[Disc]:
        rows = -(-(tile.bottom - tile.top) // ALIGNED) * ALIGNED + 2 * HALO
        columns = -(-(tile.right - tile.left) // ALIGNED) * ALIGNED + 2 * HALO
        window = raster.window(tile.top - HALO, tile.left - HALO, rows, columns)
        answer = self._network.run(window[None, None])
        x, y, diameter, score = peaks(answer["heat"][0, 0], answer["shape"][0], min(HESITANT, self.threshold_score))
        u, v = x + tile.left - HALO, y + tile.top - HALO
        mine = (u >= tile.left - 0.5) & (u < tile.right - 0.5) & (v >= tile.top - 0.5) & (v < tile.bottom - 0.5)
        x, y = raster.to_image(u), raster.to_image(v)
        mine &= (x >= -0.5) & (x < raster.image.shape[1] - 0.5) & (y >= -0.5) & (y < raster.image.shape[0] - 0.5)
        size = diameter * raster.step * pixel_nm
        return [Disc(float(x[k]), float(y[k]), float(size[k]), float(score[k])) for k in np.flatnonzero(mine)]


def peaks(
    heat: NDArray[np.float32], shape: NDArray[np.float32], threshold: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Local maxima of the heat (cells, cells), as x, y and diameter in pixels of the window, and score."""
    logit = float(np.log(threshold / (1 - threshold)))
    top = cv2.dilate(heat, np.ones((3, 3), np.uint8))
    j, i = np.nonzero((heat >= top) & (heat > logit))
    middle = (STRIDE - 1) / 2
    size, dx, dy = (shape[k, j, i].astype(np.float64) for k in range(3))
    x = (i + np.clip(dx, -1.0, 1.0)) * STRIDE + middle
    y = (j + np.clip(dy, -1.0, 1.0)) * STRIDE + middle
    score = 1 / (1 + np.exp(-heat[j, i].astype(np.float64)))
    return x, y, REFERENCE_PX * np.exp(np.clip(size, -1.5, 2.2)), score
