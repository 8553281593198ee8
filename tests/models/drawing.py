"""Tiny frames with a known truth: squares on a mesh, holes in a foil."""

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

SQUARE = (np.array([1.0, 0.0]), np.array([0.0, 1.0]))
HEXAGONAL = (np.array([1.0, 0.0]), np.array([0.5, np.sqrt(3) / 2]))


def turned(vector: Points, angle_deg: float) -> Points:
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])


def lattice_points(
    shape: tuple[int, int],
    pitch: float,
    angle_deg: float = 0.0,
    kind: tuple[Points, Points] = SQUARE,
    margin: float = 0.0,
    tilt: float = 1.0,
) -> Points:
    """Lattice points in a frame (rows, columns), at least ``margin`` inside it; ``tilt`` squeezes y."""
    a, b = (turned(v * pitch, angle_deg) * np.array([1.0, tilt]) for v in kind)
    middle = np.array([shape[1] / 2 + 0.31 * pitch, shape[0] / 2 + 0.17 * pitch])
    n = int(max(shape) / (pitch * tilt)) + 2
    i, j = np.meshgrid(np.arange(-n, n + 1), np.arange(-n, n + 1))
    points = middle + i.reshape(-1, 1) * a + j.reshape(-1, 1) * b
    inside = (points > margin).all(axis=1) & (points < np.array(shape[::-1]) - 1 - margin).all(axis=1)
    return points[inside]


def foil(
    shape: tuple[int, int],
    centres: Points,
    radius: float,
    *,
    contrast: float = 30.0,
    noise: float = 6.0,
    seed: int = 1,
) -> NDArray[np.float32]:
    """Foil at 100 counts with round holes at ``centres``; negative contrast makes them dark."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    image = np.full(shape, 100.0, np.float32)
    for cx, cy in centres:
        r = np.hypot(x - cx, y - cy)
        image += contrast * np.clip(radius - r + 0.5, 0, 1)
    image += np.random.default_rng(seed).normal(0, noise, shape)
    return image.astype(np.float32)


def mesh(
    shape: tuple[int, int],
    centres: Points,
    side: float,
    angle_deg: float,
    *,
    levels: Points | float = 100.0,
    noise: float = 3.0,
    seed: int = 1,
) -> NDArray[np.float32]:
    """Bars at 10 counts with square openings of ``side`` at ``centres``, each at its level of ``levels``."""
    zoom = 4
    image = np.full((shape[0] * zoom, shape[1] * zoom), 10.0, np.float32)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2
    corners = np.array([turned(c, angle_deg) for c in corners])
    for centre, level in zip(centres, np.broadcast_to(levels, len(centres)), strict=True):
        polygon = np.rint(((centre + corners) + 0.5) * zoom).astype(np.int32)
        cv2.fillConvexPoly(image, polygon, float(level))
    image = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)
    image += np.random.default_rng(seed).normal(0, noise, shape)
    return np.asarray(image, np.float32)


def hits(found: Points, truth: Points, within: float) -> tuple[int, int, int]:
    """Hits, misses and false alarms of ``found`` against ``truth``, one to one."""
    left = list(range(len(found)))
    hit = 0
    for point in truth:
        if not left:
            break
        gap = [float(np.hypot(*(found[k] - point))) for k in left]
        best = int(np.argmin(gap))
        if gap[best] <= within:
            hit += 1
            left.pop(best)
    return hit, len(truth) - hit, len(left)
