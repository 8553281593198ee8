"""The energy of a labelling of supervoxels: what each costs as background or structure, and what boundaries cost.

E(A) = sum over supervoxels (grey_weight D + distance_weight P) + boundary_weight * sum over contacts that A parts (B)
(Gallusser et al. 2023). D: minus the logarithm of the smoothed grey histogram of a class's strokes, as a mean over the
supervoxel's voxels. P: log(1 + mean distance to the nearest stroke of the class). B: as Boykov & Jolly (ICCV 2001),
exp(-(grey difference)^2 / (2 mean (grey difference)^2)) over the distance of the centres.

Two things differ from the authors' program: contacts are pairs that share faces, and B is weighted with their number
(over its mean), where the program takes all pairs whose bounding boxes touch, alike; and its second division of the
grey difference by 2 * 50^2 (5000), after which the greys no longer matter, is left out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.organelles.annotation.grey import AnnotationError, Grey
from models.organelles.annotation.settings import CutSettings
from models.organelles.annotation.supervoxels import Regions, Rows, bin_of

STRUCTURE, BACKGROUND = 1, 2  # values of strokes; 0 is unpainted
CLASSES = (BACKGROUND, STRUCTURE)  # columns of the unary costs
_SAMPLES_ACROSS = 2.0  # of distance along a supervoxel's edge


@dataclass(frozen=True, slots=True)
class Energy:
    """Costs of a labelling.

    Attributes
    ----------
    unary
        Cost of each supervoxel as background and as structure, shape (n, 2).
    contacts
        Pairs, shape (m, 2).
    boundaries
        What it costs to part each pair, shape (m,).
    """

    unary: Rows
    contacts: NDArray[np.int64]
    boundaries: Rows

    def of(self, structure: NDArray[np.bool_]) -> float:
        """Energy of a labelling, shape (n,): True is structure."""
        chosen = self.unary[np.arange(len(self.unary)), structure.astype(int)]
        apart = structure[self.contacts[:, 0]] != structure[self.contacts[:, 1]]
        return float(chosen.sum() + self.boundaries[apart].sum())


def energy(regions: Regions, grey: Grey, strokes: NDArray[np.uint8], settings: CutSettings) -> Energy:
    """Energy of supervoxels for strokes of the same shape (0: unpainted, 1: structure, 2: background).

    Raises
    ------
    AnnotationError
        When a class has no stroke.
    """
    painted = np.flatnonzero(strokes)
    classes = strokes.ravel()[painted]
    for value, name in ((STRUCTURE, "the structure"), (BACKGROUND, "the background")):
        if not (classes == value).any():
            raise AnnotationError(f"no stroke on {name}: paint at least one on it and one on the other")
    nearest = _distance_cost(regions, strokes, painted, classes)
    greys = _grey_cost(regions, grey, painted, classes, settings)
    unary = settings.grey_weight * greys + settings.distance_weight * nearest
    return Energy(unary, regions.contacts, settings.boundary_weight * boundary_cost(regions))


def histogram_cost(counts: Rows, smoothing: float) -> Rows:
    """Minus the logarithm of a smoothed histogram."""
    smooth = counts + smoothing
    return np.asarray(-np.log(smooth / smooth.sum()))


def _grey_cost(
    regions: Regions, grey: Grey, painted: NDArray[np.intp], classes: NDArray[np.uint8], settings: CutSettings
) -> Rows:
    bins = regions.histograms.shape[1]
    inks = bin_of(grey.ravel()[painted], bins)
    at = regions.labels.ravel()[painted]
    costs = [
        histogram_cost(np.bincount(inks[classes == value], minlength=bins).astype(float), settings.smoothing)
        for value in CLASSES
    ]
    dear = settings.seed_cost * (1 + max(float(cost.max()) for cost in costs))
    total = np.stack([regions.histograms @ cost for cost in costs], axis=1)
    for column, (value, cost) in enumerate(zip(CLASSES, costs, strict=True)):
        own = np.where(classes == value, 0.0, dear) - cost[inks]  # a painted voxel costs nothing, or very much
        total[:, column] += np.bincount(at, own, len(regions))
    return np.asarray(total / regions.sizes[:, None])


def _distance_cost(
    regions: Regions, strokes: NDArray[np.uint8], painted: NDArray[np.intp], classes: NDArray[np.uint8]
) -> Rows:
    """log(1 + mean distance) of each supervoxel, the mean taken over a lattice of its voxels and its centre."""
    edge = float(np.cbrt(regions.sizes.mean()))
    step = max(1, int(edge / _SAMPLES_ACROSS))
    lattice = [np.arange(step // 2, n, step) if n > step // 2 else np.arange(n) for n in strokes.shape]
    at = regions.labels[np.ix_(*lattice)].ravel()
    points = np.stack([axis.ravel() for axis in np.meshgrid(*lattice, indexing="ij")], axis=1)
    if step > 1:  # small ones may hold no point of the lattice
        at = np.concatenate([at, np.arange(len(regions))])
        points = np.concatenate([points, regions.centres])
    weight = np.bincount(at, minlength=len(regions))
    points = points * np.array(regions.edges)
    places = np.stack(np.unravel_index(painted, strokes.shape), axis=1) * np.array(regions.edges)
    columns = []
    for value in CLASSES:
        far, _ = cKDTree(places[classes == value]).query(points)
        columns.append(np.log1p(np.bincount(at, far, len(regions)) / weight))
    return np.stack(columns, axis=1)


def boundary_cost(regions: Regions) -> Rows:
    """What it costs to part each pair of neighbours, before the weight."""
    if not len(regions.contacts):
        return np.zeros(0)
    a, b = regions.contacts.T
    square = (regions.means[a] - regions.means[b]) ** 2
    alike = np.exp(-square / (2 * max(float(square.mean()), 1e-9)))
    apart = np.linalg.norm((regions.centres[a] - regions.centres[b]) * np.array(regions.edges), axis=1)
    return np.asarray(regions.faces / regions.faces.mean() * alike / np.maximum(apart, 1e-9))
