"""Squares and holes as Leginon reads them from JSON: the external command's files and the stateless calls."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.leginon.polygons import mean_inside, polygon_area
from drivers.leginon.table import MOST_OF_PITCH, binning, nearest_gaps, shrink
from models.detections import HoleFinding, SquareFinding

Image = NDArray[Any]  # shape (rows, columns)


def square_records(image: Image, finding: SquareFinding) -> list[dict[str, Any]]:
    """Squares, best first: center, vertices, area, brightness, score; pixels (x, y) of the image.

    ``area`` stays below what would make Leginon merge neighbours (`drivers.leginon.table.area_limits`).
    """
    centres = [(square.x, square.y) for square in finding.squares]
    limit = (MOST_OF_PITCH * float(np.median(nearest_gaps(centres)))) ** 2 if len(centres) > 1 else math.inf
    found = sorted(finding.squares, key=lambda square: -square.score)
    return [
        {
            "center": _point(square.x, square.y, image.shape),
            "vertices": [[round(x, 2), round(y, 2)] for x, y in square.vertices],
            "area": round(min(polygon_area(square.vertices), limit), 1),
            "brightness": round(mean_inside(image, square.vertices, (square.x, square.y)), 4),
            "score": round(float(square.score), 4),
        }
        for square in found
    ]


def hole_records(image: Image, finding: HoleFinding, *, shrunk: bool = False) -> list[dict[str, Any]]:
    """Holes, best first: center, score, radius; pixels of the image, or of it as Leginon bins it (``shrunk``)."""
    factor = binning(*image.shape) if shrunk else 1
    records = []
    for hole in sorted(finding.holes, key=lambda hole: -hole.score):
        x, y = _point(hole.x, hole.y, image.shape)
        centre = [round(shrink(x, factor), 3), round(shrink(y, factor), 3)]
        score = round(float(hole.score), 4)
        radius = round(hole.radius_px / factor, 3)
        records.append({"center": centre, "score": score, "prior_score": score, "radius": radius})
    return records


def crop(image: Image, record: dict[str, Any], radii: float = 1.5) -> list[list[float]]:
    """The pixels about a hole, as nested rows; cut off at the image's edge."""
    (x, y), half = record["center"], max(2.0, radii * record["radius"])
    rows, columns = image.shape
    top, bottom = int(np.clip(y - half, 0, rows)), int(np.clip(y + half + 1, 0, rows))
    left, right = int(np.clip(x - half, 0, columns)), int(np.clip(x + half + 1, 0, columns))
    nested: list[list[float]] = image[top:bottom, left:right].tolist()
    return nested


def _point(x: float, y: float, shape: tuple[int, ...]) -> list[float]:
    rows, columns = shape[0], shape[1]
    return [round(min(max(x, 0.0), columns - 1.0), 3), round(min(max(y, 0.0), rows - 1.0), 3)]
