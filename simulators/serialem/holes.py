"""What SerialEM's hole finder does with an image here: a foil's lattice of holes, or the one hole in the middle."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.serialem.buffers import ImageBuffer, Point
from simulators.serialem.commands import ScriptError

LEAST_SCORE = 0.2  # of a hole of the lattice that is kept
LEAST_RESPONSE = 0.5  # of the best one: what counts as a hole, too
LEAST_CONTRAST = 5.0  # of the best response, in standard errors: less is noise


@dataclass(slots=True)
class HoleFinder:
    """Parameters of the dialog, and what was found last.

    Parameters
    ----------
    diameter_um, spacing_um, hexagonal
        As `SetHoleFinderParams` left them.
    image
        The image that was searched; None before the first search.
    found
        Centres in SerialEM's image coordinates, from the top left corner.
    vectors
        Lattice vectors in image pixels.
    """

    diameter_um: float = 1.2
    spacing_um: float = 2.5
    hexagonal: bool = False
    image: ImageBuffer | None = None
    found: list[Point] = field(default_factory=list)
    vectors: tuple[Point, ...] = ()

    def find(self, image: ImageBuffer) -> None:
        """Find the lattice of holes in an image."""
        from models.base import BadImageError
        from models.holes import TemplateHoleFinder

        image.matrix_or_refuse()
        self.clear()
        try:
            finding = TemplateHoleFinder().find(image.pixels, image.pixel_nm * 10 or None)
        except BadImageError as error:
            raise ScriptError(f"Hole finder: {error}") from error
        if not finding.holes or finding.lattice is None:
            raise ScriptError(f"Hole finder: no regular array of holes was found {finding.note}".rstrip())
        self.image = image
        self.found = [(hole.x + 0.5, hole.y + 0.5) for hole in finding.holes if hole.score >= LEAST_SCORE]
        self.vectors = (tuple(map(float, finding.lattice.a)), tuple(map(float, finding.lattice.b)))  # type: ignore[assignment]

    def clear(self) -> None:
        """Forget what was found."""
        self.image, self.found, self.vectors = None, [], ()

    def need(self) -> ImageBuffer:
        """The image that was searched; `ScriptError` when there is none."""
        if self.image is None:
            raise ScriptError("There are no hole positions: use FindHoles first")
        return self.image


def centre_hole(image: ImageBuffer, diameter_um: float) -> Point:
    """Centre of the hole that lies nearest to the middle of an image, from the top left corner.

    A disc of the hole's size against the ring around it; bright and dark holes are told apart by which answers more.
    """
    if image.pixel_nm <= 0:
        raise ScriptError("Hole finder: the pixel size of the image is not known")
    radius = 500.0 * diameter_um / image.pixel_nm
    rows, columns = image.pixels.shape[:2]
    if radius < 2 or 2 * radius > min(rows, columns):
        raise ScriptError(f"Hole finder: a hole of {diameter_um:g} um is too small or too large for this image")
    answer = _answer(image.pixels, radius)
    if abs(float(answer.min())) > float(answer.max()):
        answer = -answer
    scatter = float(np.median(np.abs(answer - np.median(answer)))) * 1.4826
    best = float(answer.max())
    if best <= 0 or best < LEAST_CONTRAST * scatter / math.sqrt(math.pi) / radius:
        raise ScriptError("Hole finder: no hole was found in this image")
    around = cv2.dilate(answer, np.ones((2 * round(radius) + 1,) * 2, np.uint8))
    peaks = np.argwhere((answer >= around) & (answer >= LEAST_RESPONSE * best))
    middle = ((rows - 1) / 2, (columns - 1) / 2)
    y, x = min(peaks.tolist(), key=lambda peak: math.dist(peak, middle))
    dx, dy = _vertex(answer[y, max(0, x - 1) : x + 2]), _vertex(answer[max(0, y - 1) : y + 2, x])
    return x + dx + 0.5, y + dy + 0.5


def _answer(pixels: NDArray[Any], radius: float) -> NDArray[np.float32]:
    plain = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), max(0.5, radius / 8))
    reach = math.ceil(1.5 * radius)
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    away = np.hypot(u, v)
    disc = np.clip(radius + 0.5 - away, 0, 1)
    ring = np.clip(1.5 * radius + 0.5 - away, 0, 1) - disc
    kernel = (disc / disc.sum() - ring / ring.sum()).astype(np.float32)
    return np.asarray(cv2.filter2D(plain, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT), np.float32)


def _vertex(three: NDArray[np.float32]) -> float:
    """Where the parabola through three neighbours has its top, from the middle one."""
    if three.size != 3:
        return 0.0
    a, b, c = (float(value) for value in three)
    bend = a - 2 * b + c
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, 0.5 * (a - c) / bend))
