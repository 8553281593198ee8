"""How vesicles lie: distances between them, to a surface such as the active zone, and how dense they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from models.vesicles.finder import Vesicle

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a set of vesicles measures.

    Attributes
    ----------
    neighbour_nm
        From each vesicle's surface to that of its nearest neighbour; infinite for a lonely one.
    surface_nm
        From each vesicle's surface to the given surface; NaN where none was given.
    diameter_nm
        Mean and standard deviation of the outer diameters.
    per_um3
        Vesicles per cubic micrometre of the searched volume.
    volume_share
        Share of the searched volume that they fill.
    """

    neighbour_nm: Rows
    surface_nm: Rows
    diameter_nm: tuple[float, float]
    per_um3: float
    volume_share: float


def pattern(
    vesicles: tuple[Vesicle, ...], voxel_nm: float, searched_voxels: int, surface_nm: Rows | None = None
) -> Pattern:
    """Measures of ``vesicles``.

    Parameters
    ----------
    vesicles
        Vesicles of one tomogram.
    voxel_nm
        Edge of a voxel of the file.
    searched_voxels
        Voxels of the region that was searched.
    surface_nm
        Points of a surface in nm as (z, y, x), shape (n, 3), see `surface_points`.
    """
    centres, radii = _nm(vesicles, voxel_nm), np.array([v.radius_nm for v in vesicles])
    near = np.full(len(vesicles), np.inf)
    if len(vesicles) > 1:
        # the nearest surface may belong to a large vesicle that is not the nearest centre: look at a few
        k = min(len(vesicles), 12)
        distance, index = cKDTree(centres).query(centres, k=k)
        near = (distance[:, 1:] - radii[index[:, 1:]]).min(axis=1) - radii
    to_surface = np.full(len(vesicles), np.nan)
    if surface_nm is not None and len(surface_nm) and len(vesicles):
        to_surface = cKDTree(surface_nm).query(centres)[0] - radii
    volume_nm3 = searched_voxels * voxel_nm**3
    filled = float((4 / 3 * np.pi * radii**3).sum())
    spread = (float(2 * radii.mean()), float(2 * radii.std())) if len(radii) else (float("nan"), float("nan"))
    return Pattern(near, to_surface, spread, len(vesicles) / volume_nm3 * 1e9, filled / volume_nm3)


def surface_points(labels: NDArray[np.bool_], voxel_nm: float) -> Rows:
    """Voxels of ``labels`` (z, y, x) that touch what is not, in nm as (z, y, x), shape (n, 3)."""
    inner = ndimage.binary_erosion(labels)
    return np.asarray(np.argwhere(labels & ~inner) * voxel_nm, np.float64)


def _nm(vesicles: tuple[Vesicle, ...], voxel_nm: float) -> Rows:
    return np.array([(v.z, v.y, v.x) for v in vesicles], float).reshape(-1, 3) * voxel_nm
