"""Vesicles of high-mag frames: a compact network on a raster of 2.5 nm, tile by tile.

A vesicle is a ring or a disc of a known size: the frame's pixel size says at which scale to look. The network sees
about 90 raster pixels (225 nm) in each direction, a vesicle with its neighbours, and says for every 10 nm whether a
centre lies there, and the outer diameter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.gold.network import Cells, NetworkDetector
from models.gold.sampling import Greys, Pixels, Raster, forget, greys
from models.gold.tiles import Tile, count, tiles
from models.vesicles.discs import Disc, apart

RASTER_NM = 2.5
NEAR = 0.06  # pixel sizes this close to the raster's are taken as they are
CELLS = Cells(stride=4, halo=112, aligned=16, reference_px=16.0, most_offset=1.0, least_size=-1.5, most_size=2.2)
THRESHOLD = 0.45
HESITANT = 0.25  # hits down to this score are counted, to know how sure the network is of the frame


def raster_of(image: Pixels, pixel_nm: float, *, dark: bool = True) -> Raster:
    """The image on the network's raster; as it is, where its pixel size is close enough.

    Where matter is bright (``dark`` false) grey values are turned round.
    """
    step = RASTER_NM / pixel_nm
    seen = greys(image)
    return Raster(image, 1.0 if abs(step - 1) <= NEAR else step, seen if dark else Greys(seen.median, -seen.spread))


@dataclass(frozen=True)
class FrameDetector(NetworkDetector):
    """Network ``weights``; hits of at least ``threshold_score`` count; tiles of ``tile_px`` raster pixels."""

    weights: str | Path = "vesicles-frames"
    name: str = "vesicles-frames"
    threshold_score: float = THRESHOLD
    tile_px: int = 2048

    def candidates(
        self, image: Pixels, pixel_nm: float, *, dark: bool = True, progress: Callable[[float], None] | None = None
    ) -> list[Disc]:
        """Hits down to `HESITANT` in an image (rows, columns); the answer does not depend on the tiles."""
        raster = raster_of(image, pixel_nm, dark=dark)
        side = CELLS.side(self.tile_px)
        total = count(raster.shape, side)
        found: list[Disc] = []
        for n, tile in enumerate(tiles(raster.shape, side)):
            found.extend(self._in_tile(raster, tile, pixel_nm))
            forget(image)
            if progress is not None:
                progress((n + 1) / total)
        return apart(found, pixel_nm)

    def _in_tile(self, raster: Raster, tile: Tile, pixel_nm: float) -> list[Disc]:
        window = CELLS.window(raster, tile.top, tile.left, tile.bottom - tile.top, tile.right - tile.left)
        x, y, diameter, score = CELLS.peaks(self._maps(window), min(HESITANT, self.threshold_score))
        u, v = x + tile.left - CELLS.halo, y + tile.top - CELLS.halo
        mine = (u >= tile.left - 0.5) & (u < tile.right - 0.5) & (v >= tile.top - 0.5) & (v < tile.bottom - 0.5)
        x, y = raster.to_image(u), raster.to_image(v)
        mine &= (x >= -0.5) & (x < raster.image.shape[1] - 0.5) & (y >= -0.5) & (y < raster.image.shape[0] - 0.5)
        size = diameter * raster.step * pixel_nm
        return [Disc(float(x[k]), float(y[k]), float(size[k]), float(score[k])) for k in np.flatnonzero(mine)]
