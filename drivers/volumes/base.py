"""What a volume on disk is, whatever its format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadFileError, CryonautError

Edges = tuple[float, float, float]  # of a voxel in nm, (z, y, x)
Triple = tuple[int, int, int]
_AGREE = 0.02


@dataclass(frozen=True, slots=True)
class Whole:
    """What a crop is cut from, in voxels (z, y, x), so that it can be put back."""

    shape: Triple
    low: Triple


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume on disk.

    Attributes
    ----------
    array
        What slices like an array of shape (z, y, x); nothing is read before it is sliced.
    edges_nm
        Edges of a voxel (z, y, x); None where the file does not say them, or says a writer's placeholder.
    path
        Where it is.
    offset_nm
        Position of its first voxel's centre.
    whole
        What it is a crop of; None where it is whole, or the format cannot say it.
    """

    array: Any
    edges_nm: Edges | None
    path: Path
    offset_nm: Edges = (0.0, 0.0, 0.0)
    whole: Whole | None = None

    @property
    def voxel_nm(self) -> float | None:
        """Edge of a cubic voxel.

        Raises
        ------
        BadFileError
            When its edges differ by more than 2 %.
        """
        return None if self.edges_nm is None else cubic(self.path, self.edges_nm)

    @property
    def shape(self) -> Triple:
        """Voxels as (z, y, x)."""
        z, y, x = (int(n) for n in self.array.shape)
        return z, y, x


def cubic(path: Path, edges_nm: tuple[float, ...]) -> float:
    """Edge of a cubic voxel from its three edges (z, y, x) in nm.

    Raises
    ------
    BadFileError
        When they differ by more than 2 %.
    """
    if max(edges_nm) > (1 + _AGREE) * min(edges_nm):
        shown = " x ".join(f"{edge:g}" for edge in edges_nm)
        raise BadFileError(f"{path}: voxels of {shown} nm (z, y, x); cubic ones are expected: resample first")
    return float(np.mean(edges_nm))


@dataclass(frozen=True, slots=True)
class Lazy:
    """Voxels that are fetched when they are sliced; what goes wrong then is one line about the file.

    Attributes
    ----------
    shape, dtype
        As of an array.
    path
        The file, for the words.
    fetch
        Gives the voxels from a low to a high corner.
    """

    shape: Triple
    dtype: Any
    path: Path
    fetch: Callable[[Triple, Triple], NDArray[Any]]

    ndim = 3

    def __getitem__(self, at: Any) -> NDArray[Any]:
        """Voxels at slices, numbers or an Ellipsis, as of an array; steps are taken after reading."""
        at = at if isinstance(at, tuple) else (at,)
        if Ellipsis in at:
            gap = at.index(Ellipsis)
            at = (*at[:gap], *[slice(None)] * (4 - len(at)), *at[gap + 1 :])
        at = (*at, *[slice(None)] * (3 - len(at)))
        low: list[int] = []
        high: list[int] = []
        rest: list[Any] = []
        for item, n in zip(at, self.shape, strict=True):
            if isinstance(item, slice):
                start, stop, step = item.indices(n)
                if step < 1:
                    raise IndexError("steps are positive")
                low.append(start)
                high.append(max(start, stop))
                rest.append(slice(None, None, step))
            else:
                place = int(item) + (n if item < 0 else 0)
                if not 0 <= place < n:
                    raise IndexError(f"{item} of {n}")
                low.append(place)
                high.append(place + 1)
                rest.append(0)
        try:
            part = self.fetch((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        except CryonautError:
            raise
        except Exception as error:  # each library has its own kinds
            said = " ".join(str(error).split())[:200]
            place_said = " ".join(f"{a}:{b}" for a, b in zip(low, high, strict=True))
            raise BadFileError(f"{self.path}: damaged or truncated, voxels {place_said} (z y x): {said}") from error
        return np.asarray(part[tuple(rest)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it."""
        return np.asarray(self[:], dtype)
