"""The default detector: a compact network on the canonical raster, tile by tile; each hit is fitted on the image."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.gold.likeness import Weigher, facts
from models.gold.network import Cells, Floats, NetworkDetector, Seen
from models.gold.records import Candidate
from models.gold.refine import Discs, refined
from models.gold.sampling import Pixels, Raster, forget, raster_of
from models.gold.tiles import Tile, count, tiles

# the network sees about 60 raster pixels, and a particle's neighbours must be seen whole, too
CELLS = Cells(stride=2, halo=96, aligned=8, reference_px=8.0, most_offset=1.5, least_size=-2.5, most_size=2.5)
THRESHOLD = 0.55
HESITANT = 0.4  # hits down to this score are counted, to know how sure the network is of the image
LOOKED_AT = 0.15  # hits down to this score of the network are fitted and compared with the others
SOLID = 0.5  # from this score of the network on a hit's pixels are its own

Found = TypeVar("Found", bound=Candidate)


class _Hit(Candidate, frozen=True):
    """A hit with its fit: ground, depth, softness, misfit; and whether the fit was believed."""

    fit: tuple[float, float, float, float]
    held: bool


@dataclass(frozen=True)
class FastDetector(NetworkDetector):
    """Network ``weights``; hits of at least ``threshold_score`` count; tiles of ``tile_px`` raster pixels."""

    weights: str | Path = "gold-fast"
    name: str = "gold-fast"
    threshold_score: float = THRESHOLD
    tile_px: int = 1536

    @cached_property
    def _weigher(self) -> Weigher | None:
        kept = self._network.manifest.settings.get("likeness")
        return None if kept is None else Weigher.from_settings(kept)

    def candidates(
        self, image: Pixels, pixel_nm: float, progress: Callable[[float], None] | None = None
    ) -> list[Candidate]:
        """Hits down to `HESITANT` in an image (rows, columns); the answer does not depend on the tiles."""
        score, discs = self.hits(image, pixel_nm, progress)
        if self._weigher is not None:
            score = self._weigher.score(facts(score, discs, pixel_nm))
        kept = np.flatnonzero(score >= min(HESITANT, self.threshold_score)).tolist()
        nm = discs.diameter * pixel_nm
        return [Candidate(float(discs.x[k]), float(discs.y[k]), float(nm[k]), float(score[k])) for k in kept]

    def hits(
        self, image: Pixels, pixel_nm: float, progress: Callable[[float], None] | None = None
    ) -> tuple[Floats, Discs]:
        """Whatever the network takes for gold, however unsure: its scores (n,), and the fits, in pixels."""
        raster = raster_of(image, pixel_nm)
        side = CELLS.side(self.tile_px)
        total = count(raster.shape, side)
        found: list[_Hit] = []
        with ThreadPoolExecutor(1) as fitter:  # one tile is fitted while the network looks at the next one
            fitting: Future[list[_Hit]] | None = None
            for n, tile in enumerate(tiles(raster.shape, side)):
                seen = self._seen(raster, tile)
                if fitting is not None:
                    found.extend(fitting.result())
                    forget(image)
                fitting = fitter.submit(_fitted_in, raster, tile, pixel_nm, seen)
                if progress is not None:
                    progress((n + 1) / total)
            found.extend(fitting.result() if fitting is not None else ())
        forget(image)
        kept = apart(found, pixel_nm)
        table = np.array([(h.x, h.y, h.diameter_nm / pixel_nm, *h.fit, h.held, h.score) for h in kept]).reshape(-1, 9)
        x, y, diameter, ground, depth, softness, misfit, held, score = table.T
        return score, Discs(x, y, diameter, ground, depth, softness, misfit, held > 0)

    def _seen(self, raster: Raster, tile: Tile) -> Seen:
        """What the network sees in a tile and its halo: x, y and diameter in pixels of the image, and score."""
        window = CELLS.window(raster, tile.top, tile.left, tile.bottom - tile.top, tile.right - tile.left)
        x, y, diameter, score = CELLS.peaks(self._maps(window), min(LOOKED_AT, self.threshold_score))
        x, y = x + tile.left - CELLS.halo, y + tile.top - CELLS.halo
        x, y, diameter = raster.to_image(x), raster.to_image(y), diameter * raster.step
        seen = in_image(x, y, raster, 1.0)  # and not in the mirror
        return x[seen], y[seen], diameter[seen], score[seen]


def _fitted_in(raster: Raster, tile: Tile, pixel_nm: float, seen: Seen) -> list[_Hit]:
    """The hits of a tile with their fits."""
    x, y, diameter, score = seen
    discs = fitted(raster.image, x, y, diameter, pixel_nm, score >= SOLID)
    return [
        _Hit(
            float(discs.x[k]), float(discs.y[k]), float(discs.diameter[k] * pixel_nm), float(score[k]),
            (float(discs.ground[k]), float(discs.depth[k]), float(discs.softness[k]), float(discs.misfit[k])),
            bool(discs.held[k]),
        )
        for k in np.flatnonzero(own(discs.x, discs.y, tile, raster)).tolist()
    ]  # fmt: skip


def fitted(
    image: Pixels, x: Floats, y: Floats, diameter: Floats, pixel_nm: float, solid: NDArray[np.bool_] | None = None
) -> Discs:
    """Discs fitted to the part of the image that hits lie in, places and lengths in pixels of the image."""
    if len(x) == 0:
        return refined(np.zeros((1, 1)), x, y, diameter, 1.0)
    reach = int(np.ceil(float(diameter.max()))) + 8
    top, left = max(0, int(y.min()) - reach), max(0, int(x.min()) - reach)
    part = np.asarray(image[slice(top, int(y.max()) + reach + 1), slice(left, int(x.max()) + reach + 1)], np.float32)
    discs = refined(np.nan_to_num(part), x - left, y - top, diameter, 1.0 / pixel_nm, solid)
    return replace(discs, x=discs.x + left, y=discs.y + top)


def in_image(x: Floats, y: Floats, raster: Raster, beyond: float) -> NDArray[np.bool_]:
    """Whether points lie in the image or at most ``beyond`` pixels outside of it."""
    rows, columns = raster.image.shape[:2]
    low = -0.5 - beyond
    return np.asarray((x > low) & (x < columns - 0.5 + beyond) & (y > low) & (y < rows - 0.5 + beyond))


def own(x: Floats, y: Floats, tile: Tile, raster: Raster) -> NDArray[np.bool_]:
    """Whether centres lie in the tile's own part, or within a pixel of it, and in the image."""
    u, v = (x + 0.5) / raster.step - 0.5, (y + 0.5) / raster.step - 0.5
    slack = 1.0
    inside = (
        (u >= tile.left - 0.5 - slack) & (u < tile.right - 0.5 + slack)
        & (v >= tile.top - 0.5 - slack) & (v < tile.bottom - 0.5 + slack)
    )  # fmt: skip
    return np.asarray(inside & in_image(x, y, raster, 0.0))


def apart(found: Sequence[Found], pixel_nm: float) -> list[Found]:
    """``found`` without those that lie inside a better one, in reading order.

    Particles near a border are seen from both tiles; they are the same to far less than half a radius.
    """
    order = sorted(found, key=lambda c: (-round(c.score, 3), round(c.y), round(c.x), c.y, c.x))
    cells: dict[tuple[int, int], list[Found]] = {}
    size = max([c.diameter_nm / pixel_nm for c in found], default=1.0)
    kept: list[Found] = []
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
