"""The default detector: a compact network on the canonical raster, tile by tile; each hit is fitted on the image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.gold.records import Candidate
from models.gold.refine import refined
from models.gold.sampling import Pixels, Raster, forget, raster_of
from models.gold.tiles import Tile, count, tiles
from models.runtime import OnnxModel, load

HALO = 96  # raster pixels; the network sees about 60, and a particle's neighbours must be seen whole, too
ALIGNED = 8  # tiles begin on multiples of this, so that pooling falls on the same pixels in every tiling
REFERENCE_PX = 8.0
STRIDE = 2
THRESHOLD = 0.55
HESITANT = 0.4  # hits down to this score are counted, to know how sure the network is of the image

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FastDetector:
    """Network ``weights``; hits of at least ``threshold_score`` count; tiles of ``tile_px`` raster pixels."""

    weights: str | Path = "gold-fast"
    threshold_score: float = THRESHOLD
    tile_px: int = 1536
    refine: bool = True
    name: str = "gold-fast"
    network: OnnxModel | None = field(default=None, repr=False)

    @cached_property
    def _network(self) -> OnnxModel:
        return self.network or load(self.weights)

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return self._network.fingerprint

    def candidates(
        self, image: Pixels, pixel_nm: float, progress: Callable[[float], None] | None = None
    ) -> list[Candidate]:
        """Hits down to `HESITANT` in an image (rows, columns); the answer does not depend on the tiles."""
        raster = raster_of(image, pixel_nm)
        side = max(ALIGNED, self.tile_px - self.tile_px % ALIGNED)
        total = count(raster.shape, side)
        found: list[Candidate] = []
        for n, tile in enumerate(tiles(raster.shape, side)):
            found.extend(self._in_tile(raster, tile, pixel_nm))
            forget(image)
            if progress is not None:
                progress((n + 1) / total)
        return apart(found, pixel_nm)

    def _in_tile(self, raster: Raster, tile: Tile, pixel_nm: float) -> list[Candidate]:
        rows = -(-(tile.bottom - tile.top) // ALIGNED) * ALIGNED + 2 * HALO
        columns = -(-(tile.right - tile.left) // ALIGNED) * ALIGNED + 2 * HALO
        window = raster.window(tile.top - HALO, tile.left - HALO, rows, columns)
        answer = self._network.run(window[None, None])
        x, y, diameter, score = peaks(answer["heat"][0, 0], answer["shape"][0], min(HESITANT, self.threshold_score))
        x, y = x + tile.left - HALO, y + tile.top - HALO
        x, y, diameter = raster.to_image(x), raster.to_image(y), diameter * raster.step
        all_rows, all_columns = raster.image.shape[:2]
        seen = (x > -1.5) & (x < all_columns + 0.5) & (y > -1.5) & (y < all_rows + 0.5)  # and not in the mirror
        x, y, diameter, score = x[seen], y[seen], diameter[seen], score[seen]
        if self.refine and len(x):
            sure = score >= self.threshold_score  # the others are only counted
            x[sure], y[sure], diameter[sure] = refined_on(raster.image, x[sure], y[sure], diameter[sure], pixel_nm)
        return own(x, y, diameter, score, tile, raster, pixel_nm)


def peaks(
    heat: NDArray[np.float32], shape: NDArray[np.float32], threshold: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Local maxima of the heat, shape (cells, cells), as x, y and diameter in pixels of the window, and score."""
    logit = float(np.log(threshold / (1 - threshold)))
    top = cv2.dilate(heat, np.ones((3, 3), np.uint8))
    j, i = np.nonzero((heat >= top) & (heat > logit))
    middle = (STRIDE - 1) / 2
    size, dx, dy = (shape[k, j, i].astype(np.float64) for k in range(3))
    x = (i + np.clip(dx, -1.5, 1.5)) * STRIDE + middle
    y = (j + np.clip(dy, -1.5, 1.5)) * STRIDE + middle
    score = 1 / (1 + np.exp(-heat[j, i].astype(np.float64)))
    return x, y, REFERENCE_PX * np.exp(np.clip(size, -2.5, 2.5)), score


def refined_on(image: Pixels, x: Floats, y: Floats, diameter: Floats, pixel_nm: float) -> tuple[Floats, Floats, Floats]:
    """Centres and diameters of hits in pixels of the image, fitted on it."""
    if len(x) == 0:
        return x, y, diameter
    reach = int(np.ceil(float(diameter.max()))) + 8
    top, left = max(0, int(y.min()) - reach), max(0, int(x.min()) - reach)
    part = np.asarray(image[slice(top, int(y.max()) + reach + 1), slice(left, int(x.max()) + reach + 1)], np.float32)
    discs = refined(np.nan_to_num(part), x - left, y - top, diameter, 1.0 / pixel_nm)
    return discs.x + left, discs.y + top, discs.diameter


def own(
    x: Floats, y: Floats, diameter: Floats, score: Floats, tile: Tile, raster: Raster, pixel_nm: float
) -> list[Candidate]:
    """Those whose centre lies in the tile's own part, or within a pixel of it, and in the image."""
    rows, columns = raster.image.shape[:2]
    u, v = (x + 0.5) / raster.step - 0.5, (y + 0.5) / raster.step - 0.5
    slack = 1.0
    inside = (
        (u >= tile.left - 0.5 - slack) & (u < tile.right - 0.5 + slack)
        & (v >= tile.top - 0.5 - slack) & (v < tile.bottom - 0.5 + slack)
        & (x > -0.5) & (x < columns - 0.5) & (y > -0.5) & (y < rows - 0.5)
    )  # fmt: skip
    return [
        Candidate(float(x[k]), float(y[k]), float(diameter[k] * pixel_nm), float(score[k]))
        for k in np.flatnonzero(inside).tolist()
    ]


def apart(found: Sequence[Candidate], pixel_nm: float) -> list[Candidate]:
    """``found`` without those that lie inside a better one, in reading order.

    Particles near a border are seen from both tiles; they are the same to far less than half a radius.
    """
    order = sorted(found, key=lambda c: (-round(c.score, 3), round(c.y), round(c.x), c.y, c.x))
    cells: dict[tuple[int, int], list[Candidate]] = {}
    size = max([c.diameter_nm / pixel_nm for c in found], default=1.0)
    kept = []
    for one in order:
        i, j = int(one.x // size), int(one.y // size)
        near = (c for a in (-1, 0, 1) for b in (-1, 0, 1) for c in cells.get((i + a, j + b), ()))
        radius = one.diameter_nm / pixel_nm / 2
        if all(
            (c.x - one.x) ** 2 + (c.y - one.y) ** 2 > (0.6 * max(radius, c.diameter_nm / pixel_nm / 2)) ** 2
            for c in near
        ):
            cells.setdefault((i, j), []).append(one)
            kept.append(one)
    return sorted(kept, key=lambda c: (c.y, c.x))
