"""Each opening upright and of one size, in the grey levels of its own frame: what the square scorer looks at."""

import cv2
import numpy as np
from numpy.typing import NDArray

from models.squares.located import Located

SIDE = 32  # pixels of a crop
_COVERED = 1.3  # sides of an opening that a crop covers
FACTS = ("area", "fill", "mean", "max", "min", "variance", "skew", "kurtosis", "bright_share")
PUBLISHED = ("mean", "max", "min", "variance", "kurtosis", "skew", "area")
_ROOTS = ("area", "variance")  # facts whose root is nearer to a straight line


def crops(located: Located) -> NDArray[np.float32]:
    """Crops of the openings, shape (n, 1, 32, 32), mean 0 and deviation 1 over all open pixels of the frame."""
    work, mesh = located.work, located.mesh
    every = np.concatenate(located.pixels)
    values = (work.values - every.mean()) / max(float(every.std()), 1e-6)
    span = _COVERED * float(np.sqrt(mesh.nominal_area))
    shrink = min(1.0, SIDE / span)
    if shrink < 1.0:
        values = cv2.resize(values, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    shrink = values.shape[1] / work.values.shape[1]
    zoom = span * shrink / SIDE  # plane pixels per crop pixel
    c, s = np.cos(np.radians(mesh.angle_deg)) * zoom, np.sin(np.radians(mesh.angle_deg)) * zoom
    turn = np.array([[c, -s], [s, c]])
    middle = np.array([(SIDE - 1) / 2, (SIDE - 1) / 2])
    out = np.empty((len(mesh.squares), 1, SIDE, SIDE), np.float32)
    for k, blob in enumerate(mesh.squares):
        at = (blob.box_centre(mesh.angle_deg) + 0.5) * shrink - 0.5
        matrix = np.column_stack([turn, at - turn @ middle])
        cv2.warpAffine(
            values, matrix, (SIDE, SIDE), dst=out[k, 0], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
    return np.clip(out, -6.0, 6.0)


def facts(features: list[dict[str, float]]) -> NDArray[np.float64]:
    """The statistics of each opening and their distance from the frame's median, shape (n, 18), tamed."""
    if not features:
        return np.zeros((0, 2 * len(FACTS)))
    table = np.array([[f[name] for name in FACTS] for f in features], np.float64)
    for k, name in enumerate(FACTS):
        if name in _ROOTS:
            table[:, k] = np.sqrt(np.maximum(table[:, k], 0.0))
    table = np.arcsinh(table)
    return np.concatenate([table, table - np.median(table, axis=0)], axis=1)
