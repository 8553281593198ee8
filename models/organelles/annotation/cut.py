"""From strokes to a label volume: energy, cut, the strokes themselves kept voxel by voxel, and clean-up."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from models.organelles.annotation.cleaning import clean, parts
from models.organelles.annotation.energy import BACKGROUND, STRUCTURE, energy
from models.organelles.annotation.grey import AnnotationError, Grey
from models.organelles.annotation.maxflow import least
from models.organelles.annotation.settings import CutSettings, Structure
from models.organelles.annotation.supervoxels import Regions

__all__ = ["BACKGROUND", "STRUCTURE", "Keep", "annotated", "cut"]
Keep = Literal["all", "dark", "bright"]


def annotated(
    grey: Grey,
    regions: Regions,
    strokes: NDArray[np.uint8],
    settings: CutSettings,
    *,
    rules: Structure | None = None,
    keep: Keep = "all",
) -> NDArray[np.uint8]:
    """Labels (1: structure) by `cut`, of its darker or brighter part where that is asked for, cleaned by ``rules``.

    Raises
    ------
    AnnotationError
        As `cut`; and when the structure has too few grey values to be parted.
    """
    labels = cut(grey, regions, strokes, settings)
    if keep != "all":
        found = parts(labels, grey, settings.components)
        labels = found.keep(labels, grey, 0 if keep == "dark" else len(found.means) - 1)
    return labels if rules is None else clean(labels, rules)


def cut(grey: Grey, regions: Regions, strokes: NDArray[np.uint8], settings: CutSettings) -> NDArray[np.uint8]:
    """Labels (1: structure) of shape (z, y, x) that agree best with strokes and greys.

    A supervoxel that holds strokes of both classes is parted between them: each of its voxels goes to the nearer
    stroke. What is painted keeps its class.

    Parameters
    ----------
    grey, regions
        The volume, and its supervoxels with `CutSettings.bins` bins.
    strokes
        0: unpainted, 1: structure, 2: background; shape of ``grey``.
    settings
        The energy.

    Raises
    ------
    AnnotationError
        When shapes differ or a class has no stroke.
    """
    if not grey.shape == regions.labels.shape == strokes.shape:
        raise AnnotationError(
            f"volume {grey.shape}, supervoxels {regions.labels.shape} and strokes {strokes.shape} differ in shape"
        )
    structure = least(energy(regions, grey, strokes, settings))
    labels = structure.astype(np.uint8)[regions.labels]
    _part(labels, regions, strokes)
    labels[strokes == STRUCTURE] = 1
    labels[strokes == BACKGROUND] = 0
    return labels


def _part(labels: NDArray[np.uint8], regions: Regions, strokes: NDArray[np.uint8]) -> None:
    """Divide supervoxels in which strokes of both classes lie."""
    painted = np.flatnonzero(strokes)
    at, classes = regions.labels.ravel()[painted], strokes.ravel()[painted]
    both = np.intersect1d(at[classes == STRUCTURE], at[classes == BACKGROUND])
    if not len(both):
        return
    wanted = np.zeros(len(regions) + 1, np.int32)  # find_objects numbers from 1
    wanted[both] = np.arange(1, len(both) + 1)
    places = ndimage.find_objects(wanted[regions.labels])
    for number, place in zip(both, places, strict=True):
        inside = regions.labels[place] == number
        ink = strokes[place]
        voxels = np.argwhere(inside)
        far = [cKDTree(np.argwhere(inside & (ink == value))).query(voxels)[0] for value in (STRUCTURE, BACKGROUND)]
        labels[place][inside] = far[0] <= far[1]
