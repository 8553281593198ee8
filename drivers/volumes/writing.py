"""Volumes written as MRC and TIFF."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import tifffile
from numpy.typing import NDArray

from drivers.volumes.base import Edges, Triple, Whole
from drivers.volumes.tiff import SUFFIXES

_BIG = 2**31  # bytes above which a TIFF needs 64-bit offsets


def new_mrc(path: Path, shape: tuple[int, ...], voxel_nm: float, dtype: Any = np.uint16) -> Any:
    """A new MRC volume on disk that is filled in place: ``with new_mrc(...) as file: file.data[...] = ...``."""
    file = mrcfile.new_mmap(path, shape=shape, mrc_mode=mrcfile.utils.mode_from_dtype(np.dtype(dtype)), overwrite=True)
    file.voxel_size = voxel_nm * 10
    return file


def write_tiff(
    path: Path,
    array: Any,
    edges_nm: Edges | None,
    *,
    whole: Whole | None = None,
    say: Callable[[int, int], None] | None = None,
) -> None:
    """Write a volume (z, y, x) as TIFF, bit for bit, one section in memory at a time.

    Parameters
    ----------
    path
        A ``.tif`` file becomes one OME-TIFF; anything else a folder of ``section_0000.tif`` …, of which those that are
        there from an earlier run that was interrupted are kept.
    array
        What slices like an array.
    edges_nm
        Edges of a voxel; only an OME-TIFF holds them.
    whole
        Put the volume back where it was cut from, with 0 around it.
    say
        Called with how many sections are done, of how many.
    """
    low: Triple = whole.low if whole else (0, 0, 0)
    shape = whole.shape if whole else tuple(int(n) for n in array.shape)

    def section(z: int) -> NDArray[Any]:
        inside = 0 <= z - low[0] < array.shape[0]
        if whole is None:
            return np.asarray(array[z])
        plane = np.zeros(shape[1:], array.dtype)
        if inside:
            plane[low[1] : low[1] + array.shape[1], low[2] : low[2] + array.shape[2]] = array[z - low[0]]
        return plane

    def told() -> Iterator[NDArray[Any]]:
        for z in range(shape[0]):
            yield section(z)
            if say:
                say(z + 1, shape[0])

    part = path.with_name(path.name + ".part")
    if path.suffix.lower() in SUFFIXES:
        size = int(np.prod(shape)) * np.dtype(array.dtype).itemsize
        facts: dict[str, Any] = {"axes": "ZYX"}
        if edges_nm:
            for axis, edge in zip("ZYX", edges_nm, strict=True):
                facts |= {f"PhysicalSize{axis}": edge, f"PhysicalSize{axis}Unit": "nm"}
        tifffile.imwrite(part, told(), shape=shape, dtype=array.dtype, ome=True, bigtiff=size > _BIG, metadata=facts)
        part.replace(path)
        return
    path.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(shape[0] - 1)))
    for z in range(shape[0]):
        file = path / f"section_{z:0{digits}d}.tif"
        if not file.exists():
            temporary = path / f".{file.name}.part"
            tifffile.imwrite(temporary, section(z), metadata=None)
            temporary.replace(file)
        if say:
            say(z + 1, shape[0])
