"""A large image as PNG tiles of 512 pixels at halving scales, made when asked for, the same greys in all of them."""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from models.gold.sampling import SAMPLE, Pixels

SIDE = 512
KEPT = 256
MOST_READ = 1 << 25  # pixels of the image that one tile may need to read; coarser levels skip rows


@dataclass
class Pyramid:
    """Tiles of an image of shape (rows, columns); level 0 is the image itself, each next one half as large.

    ``greys`` are those shown as black and white; by default the image's own.
    """

    image: Pixels
    greys: tuple[float, float] | None = None
    _kept: "OrderedDict[tuple[int, int, int], bytes]" = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        self.rows, self.columns = self.image.shape[:2]
        self.levels = max(1, int(np.ceil(np.log2(max(self.rows, self.columns) / SIDE))) + 1)
        self.black, self.white = self.greys or limits(self.image)

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        """A tile as PNG, or None where there is none."""
        if not 0 <= level < self.levels:
            return None
        step = 1 << level
        top, left = row * SIDE * step, column * SIDE * step
        if not (0 <= top < self.rows and 0 <= left < self.columns):
            return None
        key = (level, row, column)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = self._made(step, top, left)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made

    def _made(self, step: int, top: int, left: int) -> bytes:
        bottom, right = min(self.rows, top + SIDE * step), min(self.columns, left + SIDE * step)
        skip = max(1, int(np.ceil((bottom - top) * (right - left) / MOST_READ)))
        # whole bins, so that a tile's edge is where its neighbour begins
        rows, columns = -(-(bottom - top) // step), -(-(right - left) // step)
        out = np.zeros((rows, columns), np.float32)
        strip = max(1, (MOST_READ // 8) // max(1, right - left) // step) * step
        for first in range(top, bottom, strip):
            last = min(bottom, first + strip)
            part = np.asarray(
                self.image[slice(first, last, skip if skip < step else 1), slice(left, right)], np.float32
            )
            size = (columns, -(-(last - first) // step))
            at = (first - top) // step
            out[at : at + size[1]] = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        grey = (out - np.float32(self.black)) * np.float32(255 / (self.white - self.black))
        ok, code = cv2.imencode(
            ".png", np.clip(np.nan_to_num(grey), 0, 255).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        return code.tobytes() if ok else b""


def limits(image: Pixels) -> tuple[float, float]:
    """Grey values shown as black and white: all but the outermost 0.2 % on either side."""
    rows, columns = image.shape[:2]
    step = max(1, int(np.sqrt(rows * columns / SAMPLE)))
    parts: list[NDArray[np.float32]] = [
        np.asarray(image[y : y + 1, 0:columns], np.float32)[:, ::step] for y in range(0, rows, step)
    ]
    sample = np.concatenate(parts)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, (0.2, 99.8)))
    return (low, high) if high > low else (low - 1, low + 1)
