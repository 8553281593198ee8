"""Supervoxels: small regions of like grey that a cut treats as one, and what is known of each and of their contacts."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.organelles.annotation.grey import AnnotationError, Grey
from models.organelles.annotation.settings import CutSettings

Labels = NDArray[np.int32]
Rows = NDArray[np.float64]
Edges = tuple[float, float, float]
Progress = Callable[[float], None]  # share that is done, 0 to 1
_BLOCK = 64  # voxels: SLIC works on blocks of about this edge, so that memory is bounded and cores share the work
_SLAB = 16


def relative(edges: Edges) -> Edges:
    """Edges in units of the edge of a cube of the same volume."""
    mean = math.prod(edges) ** (1 / 3)
    z, y, x = (edge / mean for edge in edges)
    return z, y, x


def edge_of(shape: tuple[int, ...], settings: CutSettings) -> float:
    """Mean edge of the supervoxels of a box in voxels: as many as wanted, and none above the largest edge."""
    return float(np.clip((math.prod(shape) / settings.supervoxels) ** (1 / 3), 2.0, settings.largest_edge))


def supervoxels(
    grey: Grey,
    settings: CutSettings,
    *,
    edges: Edges = (1.0, 1.0, 1.0),
    workers: int = 2,
    progress: Progress | None = None,
) -> Labels:
    """Supervoxels of a volume by SLIC (Achanta et al., IEEE TPAMI 34, 2274, 2012), numbered from 0.

    Parameters
    ----------
    grey
        Volume of shape (z, y, x).
    settings
        How many, how compact, how many iterations.
    edges
        Edges of a voxel (z, y, x) in any unit, for distances within supervoxels.
    workers
        Threads.
    progress
        Called after each block with the share that is done; what it raises ends the work.

    Raises
    ------
    AnnotationError
        When scikit-image is not installed.
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise AnnotationError("supervoxels need the volumes extra: pip install 'cryonaut[volumes]'") from error
    edge = edge_of(grey.shape, settings)
    places = blocks(grey.shape)
    out = np.empty(grey.shape, np.int32)

    def one(place: tuple[slice, ...]) -> tuple[tuple[slice, ...], NDArray[Any]]:
        part = grey[place].astype(np.float32)
        span = float(part.max() - part.min())
        wanted = max(1, round(part.size / edge**3))
        if span == 0 or wanted == 1:
            return place, np.zeros(part.shape, np.int32)
        # scikit-image brings the block's greys to 0..1; its compactness is the inverse of a grey on that scale
        found = slic(
            part,
            n_segments=wanted,
            compactness=settings.compactness / span,
            spacing=relative(edges),
            max_num_iter=settings.iterations,
            channel_axis=None,
            start_label=0,
            enforce_connectivity=True,
        )
        return place, found

    first = 0
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for number, (place, found) in enumerate(pool.map(one, places), start=1):
            out[place] = found + first
            first += int(found.max()) + 1
            if progress:
                try:
                    progress(0.9 * number / len(places))
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    out = _numbered(out, first)
    _across(grey, out, edge, settings.compactness, relative(edges), workers)
    out = _numbered(out, first)
    if progress:
        progress(1.0)
    return out


def _across(grey: Grey, labels: Labels, edge: float, compactness: float, edges: Edges, workers: int) -> None:
    """Let supervoxels reach over the borders of blocks: near them, each voxel goes to the nearest centre of all.

    Nearest as SLIC means it, in grey and place together. Without this, borders of blocks would be the smoothest
    boundaries there are, and cuts would follow them.
    """
    reach = max(1, round(edge / 2))
    near = [np.zeros(n, bool) for n in grey.shape]
    for place in blocks(grey.shape):
        for axis, side in enumerate(place):
            if side.start:
                near[axis][max(0, side.start - reach) : side.start + reach] = True
    if not any(axis.any() for axis in near):
        return
    regions = regions_of(grey, labels, 1)
    step = np.array(edges) / edge
    tree = cKDTree(np.hstack([regions.means[:, None] / compactness, regions.centres * step]))
    for k in range(0, grey.shape[0], _SLAB):
        band = near[0][k : k + _SLAB, None, None] | near[1][None, :, None] | near[2][None, None, :]
        at = np.argwhere(band)
        if len(at):
            part = labels[k : k + _SLAB]
            features = np.hstack([grey[k : k + _SLAB][band][:, None] / compactness, (at + np.array([k, 0, 0])) * step])
            part[band] = tree.query(features, workers=workers)[1]


def blocks(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Blocks of about 64 voxels that cover a volume once, none of them thin."""
    sides = []
    for n in shape:
        count = max(1, round(n / _BLOCK))
        cuts = [round(k * n / count) for k in range(count + 1)]
        sides.append([slice(a, b) for a, b in pairwise(cuts)])
    return [(z, y, x) for z in sides[0] for y in sides[1] for x in sides[2]]


def _numbered(labels: Labels, most: int) -> Labels:
    """The same regions without gaps in their numbers."""
    used = np.zeros(most, bool)
    used[labels.ravel()] = True
    new = (np.cumsum(used) - 1).astype(np.int32)
    for k in range(0, labels.shape[0], _SLAB):
        labels[k : k + _SLAB] = new[labels[k : k + _SLAB]]
    return labels


@dataclass(frozen=True, slots=True)
class Regions:
    """What is known of supervoxels.

    Attributes
    ----------
    labels
        Number of the supervoxel at each voxel, shape (z, y, x).
    sizes, means
        Voxels and mean grey of each, shape (n,).
    centres
        Their centres as (z, y, x), shape (n, 3).
    histograms
        Voxels of each in each of the grey bins, shape (n, bins).
    contacts
        Pairs that share faces, the smaller number first, shape (m, 2).
    faces
        Shared faces of voxels of each pair, shape (m,).
    edges
        Edges of a voxel (z, y, x), in units of the edge of a cube of the same volume.
    """

    labels: Labels
    sizes: Rows
    means: Rows
    centres: Rows
    histograms: Rows
    contacts: NDArray[np.int64]
    faces: Rows
    edges: Edges = (1.0, 1.0, 1.0)

    def __len__(self) -> int:
        """How many supervoxels there are."""
        return len(self.sizes)


def bin_of(grey: NDArray[np.uint8], bins: int) -> NDArray[np.intp]:
    """Bin of each grey value: ``bins`` of equal width over 0 to 255."""
    return np.asarray(grey, np.intp) * bins >> 8


def regions_of(grey: Grey, labels: Labels, bins: int, edges: Edges = (1.0, 1.0, 1.0)) -> Regions:
    """Sizes, greys, centres and contacts of supervoxels; slab by slab, so that memory stays bounded."""
    n = int(labels.max()) + 1
    sizes, greys, centres, histograms = np.zeros(n), np.zeros(n), np.zeros((n, 3)), np.zeros((n, bins))
    y, x = (np.arange(s, dtype=np.float64) for s in grey.shape[1:])
    codes: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.int64]] = []
    for k in range(0, grey.shape[0], _SLAB):
        part, ids = grey[k : k + _SLAB], labels[k : k + _SLAB]
        flat = ids.ravel()
        here = np.bincount(flat, minlength=n)
        sizes += here
        greys += np.bincount(flat, part.ravel(), n)
        z = np.arange(k, k + len(part), dtype=np.float64)
        for axis, place in enumerate((z[:, None, None], y[None, :, None], x[None, None, :])):
            centres[:, axis] += np.bincount(flat, np.broadcast_to(place, part.shape).ravel(), n)
        histograms += np.bincount(flat * bins + bin_of(part.ravel(), bins), minlength=n * bins).reshape(n, bins)
        below = labels[k : k + _SLAB + 1]  # with the first plane of the next slab
        for a, b in (  # a face counts as one, whatever its area
            (below[:-1], below[1:]),
            (ids[:, :-1], ids[:, 1:]),
            (ids[:, :, :-1], ids[:, :, 1:]),
        ):
            differ = a != b
            low, high = np.minimum(a[differ], b[differ]), np.maximum(a[differ], b[differ])
            code, count = np.unique(low.astype(np.int64) * n + high, return_counts=True)
            codes.append(code)
            counts.append(count)
    code, back = np.unique(np.concatenate(codes), return_inverse=True)
    faces = np.bincount(back, np.concatenate(counts), len(code)).astype(np.float64)
    pairs = np.stack([code // n, code % n], axis=1)
    return Regions(labels, sizes, greys / sizes, centres / sizes[:, None], histograms, pairs, faces, relative(edges))
