"""Threshold, area and circularity: what people do in ImageJ, with the rules of the published macro.

Source: TACAlgorithm of Jerez et al., Sci Rep 11, 7771 (2021). An 8-bit threshold of 92 and less is gold; areas of
71 to 158 pixels at 1.126 nm are 12 nm gold, and 12 to 45 are taken for 6 nm gold; circularity 4 pi A / P² of 0.75 and
more; holes are filled; the centroid is the particle.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.base import source_fingerprint
from models.gold.records import Candidate
from models.gold.sampling import SAMPLE, Pixels

THRESHOLD = 92
AREAS_NM2 = ((12 * 1.126**2, 45 * 1.126**2), (71 * 1.126**2, 158 * 1.126**2))
CIRCULARITY = 0.75


@dataclass(frozen=True, slots=True)
class TacDetector:
    """The rules as published; areas scale with the pixel size, other grey values are stretched to 8 bits."""

    threshold: int = THRESHOLD
    areas_nm2: tuple[tuple[float, float], ...] = AREAS_NM2
    circularity: float = CIRCULARITY
    name: str = "gold-tac"

    @property
    def fingerprint(self) -> str:
        """Hash of the code and its settings."""
        return f"{source_fingerprint('models.gold')}-{self.threshold}-{self.circularity:g}"

    def candidates(
        self, image: Pixels, pixel_nm: float, progress: Callable[[float], None] | None = None
    ) -> list[Candidate]:
        """Round dark spots of the right areas; the whole image is looked at at once, as ImageJ does."""
        grey = eight_bits(np.asarray(image[0 : image.shape[0], 0 : image.shape[1]]), image)
        dark = (grey <= self.threshold).astype(np.uint8)
        outlines, _ = cv2.findContours(dark, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        found = []
        for outline in outlines:
            area, perimeter = _area_and_perimeter(outline)
            nm2 = area * pixel_nm**2
            if not any(low <= nm2 <= high for low, high in self.areas_nm2):
                continue
            roundness = 4 * pi * area / perimeter**2 if perimeter else 1.0
            if roundness >= self.circularity:
                x, y = _centroid(outline)
                found.append(Candidate(x, y, 2 * sqrt(nm2 / pi), min(1.0, roundness)))
        if progress is not None:
            progress(1.0)
        return found


def eight_bits(part: NDArray[Any], image: Pixels) -> NDArray[np.uint8]:
    """``part`` in 8 bits: as it is, or stretched from the 0.1 % to the 99.9 % grey value of the whole image."""
    if part.dtype == np.uint8:
        return part
    rows, columns = image.shape[:2]
    step = max(1, int(np.sqrt(rows * columns / SAMPLE)))
    sample = np.concatenate([np.asarray(image[y : y + 1, 0:columns])[:, ::step] for y in range(0, rows, step)])
    low, high = (float(v) for v in np.nanpercentile(sample.astype(np.float64), (0.1, 99.9)))
    scaled = (part.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-9))
    return np.asarray(np.clip(np.nan_to_num(scaled), 0, 255), np.uint8)


def _area_and_perimeter(outline: NDArray[Any]) -> tuple[float, float]:
    """Number of pixels inside and on the outline (Pick's theorem), and ImageJ's perimeter of their border."""
    inner, steps = cv2.contourArea(outline), len(outline)
    area = inner + steps / 2 + 1
    return area, cv2.arcLength(outline, True) + pi if steps > 1 else pi


def _centroid(outline: NDArray[Any]) -> tuple[float, float]:
    x, y, w, h = cv2.boundingRect(outline)
    filled = np.zeros((h, w), np.uint8)
    cv2.drawContours(filled, [outline - np.array([x, y])], -1, 1, -1)
    m = cv2.moments(filled, binaryImage=True)
    return x + m["m10"] / m["m00"], y + m["m01"] / m["m00"]
