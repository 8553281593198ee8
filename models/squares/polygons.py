"""Regions of a mask as measured blobs with convex outlines, and the one angle that they share."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Blob:
    """One region of the mask (or several of one mesh opening), in working pixels.

    Attributes
    ----------
    hull
        Convex outline, shape (n, 2), as (x, y).
    area
        Pixels of the region.
    labels
        Labels of the regions that it is made of.
    """

    hull: Points
    area: float
    labels: tuple[int, ...]

    @property
    def hull_area(self) -> float:
        """Area of the convex outline, pixels included to their outer edge."""
        return polygon_area(grown(self.hull))

    @property
    def centre(self) -> Points:
        """Centre of the smallest upright box round the outline."""
        return np.asarray((self.hull.min(axis=0) + self.hull.max(axis=0)) / 2.0)

    def box_centre(self, angle_deg: float) -> Points:
        """Centre of the box at the mesh's angle round the outline, as (x, y)."""
        turn = rotation(-angle_deg)
        turned = self.hull @ turn.T
        return np.asarray((turned.min(axis=0) + turned.max(axis=0)) / 2.0 @ turn)

    def box_size(self, angle_deg: float) -> Points:
        """Sides of the box at the mesh's angle round the outline, pixels included to their outer edge."""
        turned = self.hull @ rotation(-angle_deg).T
        return np.asarray(np.ptp(turned, axis=0) + 1.0)

    def rectangularity(self, angle_deg: float) -> float:
        """Share of the box at the mesh's angle that the region fills."""
        return float(self.area / np.prod(self.box_size(angle_deg)))


def rotation(angle_deg: float) -> Points:
    """Matrix that turns (x, y) clockwise on the screen (y down) by ``angle_deg``."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, -s], [s, c]])


def polygon_area(points: Points) -> float:
    """Area of a polygon, shape (n, 2)."""
    x, y = points[:, 0], points[:, 1]
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def grown(hull: Points, by: float = 0.5) -> Points:
    """Outline moved outwards by ``by`` pixels: from the centres of the outer pixels to their edges."""
    middle = hull.mean(axis=0)
    out = hull - middle
    reach = np.maximum(np.hypot(*out.T), 1e-9)
    return np.asarray(middle + out * (1.0 + by * np.sqrt(2.0) / reach)[:, None])


def blobs_of(labels: NDArray[np.int32], n: int, smallest: float) -> list[Blob]:
    """Regions 1 to n - 1 of a label image that hold at least ``smallest`` pixels."""
    area = np.bincount(labels.ravel(), minlength=n)
    keep = area >= smallest
    keep[0] = False
    contours, _ = cv2.findContours(keep[labels].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline: dict[int, list[NDArray[Any]]] = {}
    for contour in contours:
        x, y = contour[0, 0]
        outline.setdefault(int(labels[y, x]), []).append(contour[:, 0, :])
    return [
        Blob(_hull(np.concatenate(parts)), float(area[label]), (label,)) for label, parts in sorted(outline.items())
    ]


def merged(parts: list[Blob]) -> Blob:
    """One blob of several."""
    if len(parts) == 1:
        return parts[0]
    hull = _hull(np.concatenate([p.hull for p in parts]).astype(np.int32))
    return Blob(hull, sum(p.area for p in parts), tuple(label for p in parts for label in p.labels))


def common_angle(blobs: list[Blob]) -> float:
    """Angle at which the boxes round all blobs have the least summed area (Kim et al. 2023), 0 to 90 degrees."""
    if not blobs:
        return 0.0
    hulls = [b.hull for b in blobs]
    start = np.cumsum([0] + [len(h) for h in hulls])[:-1]
    points = np.concatenate(hulls)

    def summed(angle_deg: float) -> float:
        turned = points @ rotation(-angle_deg).T
        span = np.maximum.reduceat(turned, start) - np.minimum.reduceat(turned, start) + 1.0
        return float(np.prod(span, axis=1).sum())

    coarse = np.arange(0.0, 90.0, 3.0)
    best = float(coarse[int(np.argmin([summed(a) for a in coarse]))])
    fine = minimize_scalar(summed, bounds=(best - 3.0, best + 3.0), method="bounded", options={"xatol": 0.02})
    return float(fine.x % 90.0)


def _hull(points: NDArray[np.int32]) -> Points:
    return np.asarray(cv2.convexHull(points.astype(np.int32))[:, 0, :], np.float64)
