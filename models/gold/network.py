"""Detectors that are a network on a raster: their weights, windows with a halo, and maps of cells read as points."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.gold.sampling import Raster
from models.runtime import OnnxModel, load

Floats = NDArray[np.float64]
Seen = tuple[Floats, Floats, Floats, Floats]  # x, y, diameter, score
Maps = tuple[NDArray[np.float32], NDArray[np.float32]]  # heat (cells, cells), shape (3, cells, cells)


@dataclass(frozen=True)
class NetworkDetector:
    """Exported weights under a name, loaded when they are first needed; or a ``network`` that is there already."""

    weights: str | Path
    name: str
    network: OnnxModel | None = field(default=None, repr=False)

    @cached_property
    def _network(self) -> OnnxModel:
        return self.network or load(self.weights)

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return self._network.fingerprint

    def _maps(self, window: NDArray[np.float32]) -> Maps:
        """Heat and shape of a window (rows, columns)."""
        answer = self._network.run(window[None, None])
        return answer["heat"][0, 0], answer["shape"][0]


@dataclass(frozen=True, slots=True)
class Cells:
    """How a network looks at a raster, and how it speaks: heat in logits, logarithm of the diameter and offset.

    Attributes
    ----------
    stride
        Raster pixels per cell of its maps.
    halo
        Raster pixels around a window, more than it sees.
    aligned
        Sides of windows are multiples of this, so that its cells fall on the same pixels in every tiling.
    reference_px
        Diameters are said as the logarithm of their ratio to this.
    most_offset
        Cells by which a centre may lie beside its cell's middle.
    least_size, most_size
        Logarithms of diameters that are believed.
    """

    stride: int
    halo: int
    aligned: int
    reference_px: float
    most_offset: float
    least_size: float
    most_size: float

    def side(self, most: int) -> int:
        """The largest side of tiles that is no more than ``most`` raster pixels."""
        return max(self.aligned, most - most % self.aligned)

    def window(self, raster: Raster, top: int, left: int, rows: int, columns: int) -> NDArray[np.float32]:
        """A part of the raster with its halo; at its lower and right end it may be longer, to be aligned."""
        high, wide = (-(-n // self.aligned) * self.aligned + 2 * self.halo for n in (rows, columns))
        return raster.window(top - self.halo, left - self.halo, high, wide)

    def peaks(self, maps: tuple[NDArray[Any], NDArray[Any]], threshold: float) -> Seen:
        """Local maxima of the heat, as x, y and diameter in pixels of the window, halo included, and score."""
        heat, shape = maps
        logit = float(np.log(threshold / (1 - threshold)))
        top = cv2.dilate(heat, np.ones((3, 3), np.uint8))
        j, i = np.nonzero((heat >= top) & (heat > logit))
        middle = (self.stride - 1) / 2
        size, dx, dy = (shape[k, j, i].astype(np.float64) for k in range(3))
        x = (i + np.clip(dx, -self.most_offset, self.most_offset)) * self.stride + middle
        y = (j + np.clip(dy, -self.most_offset, self.most_offset)) * self.stride + middle
        score = 1 / (1 + np.exp(-heat[j, i].astype(np.float64)))
        return x, y, self.reference_px * np.exp(np.clip(size, self.least_size, self.most_size)), score
