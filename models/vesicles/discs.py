"""What is found in a frame: discs, each vesicle once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

SAME = 0.55  # of the larger radius: discs with closer centres are one vesicle seen twice


@dataclass(frozen=True, slots=True)
class Disc:
    """A vesicle in a frame: centre in pixels of the image, outer diameter in nm, score from 0 to 1."""

    x: float
    y: float
    diameter_nm: float
    score: float


def apart(found: Sequence[Disc], pixel_nm: float) -> list[Disc]:
    """``found`` without those whose centre lies in a better one, in reading order."""
    if not found:
        return []
    order = sorted(found, key=lambda d: (-round(d.score, 3), round(d.y), round(d.x), d.y, d.x))
    at = np.array([(d.x, d.y) for d in order])
    radius = np.array([d.diameter_nm for d in order]) / 2 / pixel_nm
    tree = cKDTree(at)
    keep = np.ones(len(order), bool)
    for i in range(len(order)):
        if not keep[i]:
            continue
        for j in tree.query_ball_point(at[i], SAME * float(radius.max())):
            if j > i and keep[j]:
                gap = float(np.hypot(*(at[i] - at[j])))
                keep[j] = gap > SAME * max(radius[i], radius[j])
    return sorted((d for d, kept in zip(order, keep, strict=True) if kept), key=lambda d: (d.y, d.x))
