"""Networks of organelles at work: what their manifest says, and one block of a volume at a time.

A network sees a block with ``context`` voxels more on each side and answers for the block only (valid convolutions).
Its pooling makes it see every ``step`` voxels alike, so blocks start at multiples of that: then the answer for a voxel
does not depend on the block that it is in. Outside the volume it is mirrored.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.organelles.blocks import Corner, mirrored
from models.organelles.normalise import KINDS, Kind, Normaliser
from models.runtime import Manifest, ModelError, OnnxModel

Edges = tuple[float, float, float]
_SAME_SIZE = 0.05  # voxel edges that differ by less need no resampling


@dataclass(frozen=True, slots=True)
class Described:
    """What the manifest of a network of organelles says.

    Attributes
    ----------
    structures
        What each map shows, such as ``mito``.
    context
        Voxels that it needs around a block on each side.
    step
        Blocks start at multiples of it.
    voxel_nm
        Edge of the voxels that it is made for.
    normalisation
        Of grey values, see `models.organelles.normalise`.
    thresholds
        Probability from which a voxel belongs to each structure.
    """

    structures: tuple[str, ...]
    context: int
    step: int
    voxel_nm: float
    normalisation: Kind
    thresholds: tuple[float, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> "Described":
        """The description in a manifest.

        Raises
        ------
        ModelError
            When it is no network of this family, or a value makes no sense; which key.
        """
        found = manifest.settings
        try:
            names = tuple(str(name) for name in found["structures"])
            own, usual = found.get("thresholds") or {}, found.get("threshold", 0.5)
            return cls(
                names,
                int(found["context"]),
                int(found.get("step", 8)),
                float(found["voxel_size_nm"]),
                KINDS[KINDS.index(found["normalisation"])],
                tuple(float(own.get(name, usual)) for name in names),
            )
        except KeyError as error:
            raise ModelError(f"{manifest.name}: is no network of organelles: its manifest says no {error}") from error
        except (TypeError, ValueError) as error:
            raise ModelError(f"{manifest.name}: the manifest's settings make no sense: {error}") from error


@dataclass(frozen=True, slots=True)
class Source:
    """A volume on a network's grid, normalised, read where it is needed.

    Attributes
    ----------
    array
        Anything that slices like an array (z, y, x).
    edges_nm
        Edges of its voxels (z, y, x).
    grid_nm
        Edge of the network's voxels.
    tables
        What normalises it.
    """

    array: Any
    edges_nm: Edges
    grid_nm: float
    tables: Normaliser

    @property
    def factors(self) -> Edges:
        """Voxels of the file for each voxel of the grid, per axis; 1 where the file's own will do."""
        z, y, x = (self.grid_nm / e for e in self.edges_nm)
        near = [1.0 if abs(f - 1) < _SAME_SIZE else f for f in (z, y, x)]
        return near[0], near[1], near[2]

    @property
    def grid_edges_nm(self) -> Edges:
        """Edges of a voxel of the grid."""
        z, y, x = (e * f for e, f in zip(self.edges_nm, self.factors, strict=True))
        return z, y, x

    @property
    def shape(self) -> Corner:
        """Voxels of the grid."""
        z, y, x = (max(1, round(n / f)) for n, f in zip(self.array.shape, self.factors, strict=True))
        return z, y, x

    def read(self, low: Corner, high: Corner) -> NDArray[np.float32]:
        """Normalised voxels of the grid from ``low`` to ``high``; outside of it the volume is mirrored."""
        axes = [mirrored(a, b, n) for a, b, n in zip(low, high, self.shape, strict=True)]
        part = self._inside([int(a.min()) for a in axes], [int(a.max()) + 1 for a in axes])
        return np.ascontiguousarray(part[np.ix_(*(a - a.min() for a in axes))])

    def _inside(self, low: list[int], high: list[int]) -> NDArray[np.float32]:
        blur = [0.5 * math.sqrt(max(f**2 - 1, 0.0)) for f in self.factors]
        margin = [0 if f == 1 else math.ceil(4 * b) + 2 for f, b in zip(self.factors, blur, strict=True)]
        first, last = [], []
        for axis, (f, m, n) in enumerate(zip(self.factors, margin, self.array.shape, strict=True)):
            first.append(max(0, math.floor(low[axis] * f) - m))
            last.append(min(int(n), math.ceil(high[axis] * f) + m))
        at = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        part = self.tables.apply(np.asarray(self.array[at]), (first[0], first[1], first[2]))
        for axis, (f, b) in enumerate(zip(self.factors, blur, strict=True)):
            if f == 1:
                continue
            if b > 0:
                part = ndimage.gaussian_filter1d(part, b, axis, mode="nearest", radius=math.ceil(4 * b))
            place = np.clip((np.arange(low[axis], high[axis]) + 0.5) * f - 0.5, 0, self.array.shape[axis] - 1)
            whole = np.minimum(np.floor(place).astype(int), max(int(self.array.shape[axis]) - 2, 0))
            share = (place - whole).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
            lower = np.take(part, whole - first[axis], axis)
            upper = np.take(part, np.minimum(whole + 1 - first[axis], part.shape[axis] - 1), axis)
            part = lower + (upper - lower) * share
        return np.asarray(part, np.float32)


def predicted(source: Source, model: OnnxModel, described: Described, low: Corner, high: Corner) -> NDArray[np.float32]:
    """Probabilities of a block, shape (structures, z, y, x).

    Parameters
    ----------
    source
        The volume on the network's grid.
    model, described
        The network.
    low, high
        Corners; the low one is a multiple of ``step``.

    Raises
    ------
    ModelError
        When the network fails, or answers in another shape than its manifest says.
    """
    step, context = described.step, described.context
    if any(a % step for a in low):
        raise ModelError(f"block at {low}: blocks start at multiples of {step}")
    size = tuple(step * math.ceil((b - a) / step) for a, b in zip(low, high, strict=True))
    wide_low = (low[0] - context, low[1] - context, low[2] - context)
    wide_high = tuple(a + n + context for a, n in zip(low, size, strict=True))
    part = source.read(wide_low, (wide_high[0], wide_high[1], wide_high[2]))
    answer = next(iter(model.run(part[None, None]).values()))
    wanted = (1, len(described.structures), *size)
    if answer.shape != wanted:
        raise ModelError(
            f"{model.name}: answered {answer.shape} to a block of {part.shape}; its manifest promises {wanted}"
        )
    inner = answer[0][(slice(None), *(slice(0, b - a) for a, b in zip(low, high, strict=True)))]
    return np.asarray(inner, np.float32)
