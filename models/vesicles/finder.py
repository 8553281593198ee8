"""Vesicles of a tomogram: maps, spheres, refinement, flags, in one call or step by step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models import runtime
from models.vesicles.network import BLOCK, Progress, Source, open_source, probability
from models.vesicles.refine import Refined, outside, refine
from models.vesicles.seeds import Rows, Spheres, cones, tips

_FLAG = 3.5  # robust standard deviations
_FEWEST_FOR_FLAGS = 20
_LEAST_FIT = 0.08


class Vesicle(msgspec.Struct, frozen=True, kw_only=True):
    """One vesicle.

    Attributes
    ----------
    number
        Its value in the label volume, from 1.
    z, y, x
        Centre in voxels of the file; the centre of the first voxel is (0, 0, 0).
    radius_nm
        Outer radius.
    thickness_nm
        Of its membrane; None where it could not be measured.
    fit
        How well its membrane agrees with that of the others, -1 to 1; None where there were too few to compare.
    score
        Mean probability inside, 0 to 1.
    outlier
        Why a person should look at it, or empty.
    """

    number: int
    z: float
    y: float
    x: float
    radius_nm: float
    thickness_nm: float | None = None
    fit: float | None = None
    score: float = 1.0
    outlier: str = ""


@dataclass(frozen=True, slots=True)
class VesicleFinding:
    """All vesicles of a tomogram, best first, with a ``note`` on what is odd."""

    vesicles: tuple[Vesicle, ...]
    voxel_nm: float
    note: str = ""


class TomogramVesicleFinder:
    """Finds vesicles with a network and fits each as a sphere.

    Parameters
    ----------
    weights
        Name of weights of this package, or the manifest of others.
    block
        Blocks that the network works on, multiples of 8; the answer does not depend on it.
    """

    def __init__(self, weights: Any = "vesicles-tomogram", block: tuple[int, int, int] = BLOCK) -> None:
        self.weights = weights
        self.block = block

    @property
    def model(self) -> runtime.OnnxModel:
        """The network."""
        return runtime.load(self.weights)

    def find(
        self,
        volume: Any,
        voxel_nm: float | None,
        *,
        dark: bool = True,
        region: NDArray[np.bool_] | None = None,
        progress: Progress | None = None,
    ) -> VesicleFinding:
        """Vesicles of ``volume`` (z, y, x), an array or what slices like one.

        Parameters
        ----------
        volume
            The tomogram.
        voxel_nm
            Edge of its voxels.
        dark
            Whether membranes are dark.
        region
            Same shape as ``volume``: vesicles whose centre lies outside are left out.
        progress
            Called with how many blocks are done, of how many.

        Raises
        ------
        BadVolumeError
            When the volume cannot be searched (see `open_source`).
        ModelError
            When the network cannot be used.
        """
        source = open_source(volume, voxel_nm, dark=dark)
        maps = np.zeros((2, *source.shape), np.uint8)
        for _ in probability(source, self.model, maps, size=self.block, progress=progress):
            pass
        return finding(source, maps, region=region)


def finding(source: Source, maps: NDArray[np.uint8], *, region: NDArray[np.bool_] | None = None) -> VesicleFinding:
    """Vesicles from probability maps (2, z, y, x) on the grid of ``source``."""
    spheres = cones(maps, tips(maps[1]))
    spheres = Spheres(spheres.centres, spheres.radii + outside(maps, spheres), spheres.scores)
    refined = refine(source, spheres)
    spheres = refined.spheres
    flags = outliers(refined)
    found: list[Vesicle] = []
    for i in np.argsort(-spheres.scores, kind="stable"):
        z, y, x = ((c + 0.5) * source.factor - 0.5 for c in spheres.centres[i])
        if region is not None and not _inside(region, (z, y, x)):
            continue
        thick, fit = refined.thickness[i] * source.grid_nm, refined.fit[i]
        found.append(
            Vesicle(
                number=len(found) + 1,
                z=round(float(z), 3),
                y=round(float(y), 3),
                x=round(float(x), 3),
                radius_nm=round(float(spheres.radii[i] * source.grid_nm), 3),
                thickness_nm=round(float(thick), 2) if np.isfinite(thick) else None,
                fit=round(float(fit), 3) if np.isfinite(fit) else None,
                score=round(float(spheres.scores[i]), 4),
                outlier=flags[i],
            )
        )
    note = "" if found else "no vesicles found"
    return VesicleFinding(tuple(found), source.voxel_nm, note)


def _inside(region: NDArray[np.bool_], point: tuple[float, float, float]) -> bool:
    at = tuple(int(np.clip(round(p), 0, n - 1)) for p, n in zip(point, region.shape, strict=True))
    return bool(region[at])


def outliers(refined: Refined) -> list[str]:
    """Why each vesicle is unlike the others, or empty: robust distances, and nothing is thrown away.

    The published pipeline drops by Mahalanobis distance with a plain covariance, which true vesicles fail too; here the
    centre and spread are medians and each flag names its property.
    """
    n = len(refined.spheres)
    flags: list[list[str]] = [[] for _ in range(n)]
    for name, values in (("radius", refined.spheres.radii), ("membrane", refined.thickness)):
        known = np.isfinite(values)
        if known.sum() < _FEWEST_FOR_FLAGS:
            continue
        middle = float(np.median(values[known]))
        spread = 1.4826 * float(np.median(np.abs(values[known] - middle)))
        for i in map(int, np.flatnonzero(known)):
            off = (values[i] - middle) / max(spread, 0.05 * middle, 1e-6)
            if abs(off) > _FLAG:
                flags[i].append(f"{name} {'large' if off > 0 else 'small'} ({off:+.1f} deviations)")
    for i in range(n):
        if np.isfinite(refined.fit[i]) and refined.fit[i] < _LEAST_FIT:
            flags[i].append(f"membrane hardly seen (fit {refined.fit[i]:.2f})")
    return ["; ".join(flag) for flag in flags]


def paint(
    vesicles: tuple[Vesicle, ...], voxel_nm: float, out: NDArray[np.int32], say: Callable[[int], None] | None = None
) -> None:
    """Write each vesicle's number into the voxels of ``out`` (z, y, x) that it holds; between two the nearer wins."""
    centres: Rows = np.array([(v.z, v.y, v.x) for v in vesicles]).reshape(-1, 3)
    radii = np.array([v.radius_nm for v in vesicles]) / voxel_nm
    tree = cKDTree(centres) if len(vesicles) else None
    for i, vesicle in enumerate(vesicles):
        radius, centre = float(radii[i]), centres[i]
        low = np.maximum(np.ceil(centre - radius).astype(int), 0)
        high = np.minimum(np.floor(centre + radius).astype(int) + 1, out.shape)
        if (high <= low).any() or tree is None:
            continue
        axes = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
        grid = np.meshgrid(*axes, indexing="ij", sparse=True)
        own = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))) / radius
        mine = own <= 1
        for j in tree.query_ball_point(centre, radius + float(radii.max())):
            if j != i:
                rival = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centres[j], strict=True))) / radii[j]
                mine &= (own < rival) | ((own == rival) & (i < j))
        part = out[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
        part[mine] = vesicle.number
        if say:
            say(i + 1)
