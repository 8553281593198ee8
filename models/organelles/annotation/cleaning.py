"""Clean-up of labels: small objects, holes, outlines, greys, and the band in which scores do not count."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.organelles.annotation.grey import AnnotationError, Grey
from models.organelles.annotation.settings import Structure

Mask = NDArray[np.bool_]
_SAMPLE = 200_000
_SEED = 0


def clean(labels: NDArray[np.uint8], rules: Structure) -> NDArray[np.uint8]:
    """Labels without objects and holes below the sizes in ``rules``, and grown by its voxels; voxels touch by faces.

    A background that reaches the volume's border is no hole.
    """
    mask = labels > 0
    if rules.smallest_object > 1:
        mask = _without_small(mask, rules.smallest_object)
    if rules.largest_hole > 0:
        mask = _filled(mask, rules.largest_hole)
    return grown(mask, round(rules.grow)).astype(np.uint8)


def _without_small(mask: Mask, fewest: float) -> Mask:
    objects, count = ndimage.label(mask)
    keep = np.bincount(objects.ravel(), minlength=count + 1) >= fewest
    keep[0] = False
    return np.asarray(keep[objects])


def _filled(mask: Mask, below: float) -> Mask:
    holes, count = ndimage.label(~mask)
    fill = np.bincount(holes.ravel(), minlength=count + 1) < below
    fill[0] = True
    for axis in range(mask.ndim):
        for end in (0, -1):
            at_border = np.unique(np.take(holes, end, axis))
            fill[at_border[at_border > 0]] = False
    return np.asarray(fill[holes])


def grown(mask: Mask, voxels: int) -> Mask:
    """A mask dilated by so many voxels (faces)."""
    return np.asarray(ndimage.binary_dilation(mask, iterations=voxels)) if voxels > 0 else mask


def exclusion_zone(labels: NDArray[np.uint8], rules: Structure) -> Mask:
    """Voxels along the outline where scores do not count: the dilated labels without the eroded ones (faces).

    The volume's border is no outline.
    """
    mask = labels > 0
    outside, inside = round(rules.exclude_outside), round(rules.exclude_inside)
    core = np.asarray(ndimage.binary_erosion(mask, iterations=inside, border_value=1)) if inside > 0 else mask
    return np.asarray(grown(mask, outside) & ~core)


@dataclass(frozen=True, slots=True)
class Parts:
    """A structure parted by grey.

    Attributes
    ----------
    means
        Mean grey of each part, darkest first.
    shares
        Share of the structure's voxels in each.
    of_grey
        Part of each of the 256 grey values, shape (256,).
    """

    means: tuple[float, ...]
    shares: tuple[float, ...]
    of_grey: NDArray[np.intp]

    def keep(self, labels: NDArray[np.uint8], grey: Grey, part: int) -> NDArray[np.uint8]:
        """Labels of one part only."""
        return np.asarray((labels > 0) & (self.of_grey[grey] == part), np.uint8)


def parts(labels: NDArray[np.uint8], grey: Grey, components: int) -> Parts:
    """The greys of a structure as a mixture of Gaussians; a person keeps the one that is the structure.

    Raises
    ------
    AnnotationError
        When the structure has fewer grey values than parts.
    """
    from sklearn.mixture import GaussianMixture

    values = grey[labels > 0]
    if len(np.unique(values)) < max(2, components):
        raise AnnotationError(f"the structure has too few grey values for {components} parts: cut first, then part")
    if len(values) > _SAMPLE:
        values = np.random.default_rng(_SEED).choice(values, _SAMPLE, replace=False)
    mixture = GaussianMixture(components, random_state=_SEED).fit(values.reshape(-1, 1).astype(np.float64))
    order = np.argsort(mixture.means_.ravel())
    rank = np.empty(components, np.intp)
    rank[order] = np.arange(components)
    of_grey = rank[mixture.predict(np.arange(256.0).reshape(-1, 1))]
    shares = np.bincount(of_grey[values], minlength=components) / len(values)
    means = tuple(float(m) for m in mixture.means_.ravel()[order])
    return Parts(means, tuple(float(s) for s in shares), of_grey)
