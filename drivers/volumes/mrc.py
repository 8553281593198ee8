"""MRC volumes, mapped into memory."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from agent.errors import BadFileError
from drivers.images import MRC_MODES, MRC_REFUSED, imod_bytes_are_unsigned, mrc_header
from drivers.volumes.base import Edges, Volume

SUFFIXES = (".mrc", ".rec", ".map", ".st")


def open_mrc(path: Path) -> Volume:
    """The volume in an MRC file."""
    with path.open("rb") as file:
        raw = file.read(HEADER_DTYPE.itemsize)
    header = mrc_header(raw) if len(raw) == HEADER_DTYPE.itemsize else None
    if header is None:
        raise BadFileError(f"{path}: not an MRC file, or truncated; expected sizes and a data mode in its header")
    columns, rows, sections, mode = (int(header[name]) for name in ("nx", "ny", "nz", "mode"))
    if mode not in MRC_MODES:
        raise BadFileError(f"{path}: MRC mode {mode} ({MRC_REFUSED[mode]}); expected one of {sorted(MRC_MODES)}")
    dtype = np.dtype(MRC_MODES[mode]).newbyteorder(header.dtype["nx"].byteorder)
    if mode == 0 and imod_bytes_are_unsigned(header):
        dtype = np.dtype("u1")
    start = HEADER_DTYPE.itemsize + max(int(header["nsymbt"]), 0)
    claimed = start + rows * columns * sections * dtype.itemsize
    size = path.stat().st_size
    if min(rows, columns, sections) < 1 or size < claimed:
        raise BadFileError(
            f"{path}: truncated: the header claims {sections} x {rows} x {columns} voxels of {dtype.name}"
            f" ({claimed} bytes), the file holds {size}"
        )
    array = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=(sections, rows, columns))
    return Volume(array, _edges_nm(header), path)


def _edges_nm(header: Any) -> Edges | None:
    sizes = []
    for cell, samples, count in (("x", "mx", "nx"), ("y", "my", "ny"), ("z", "mz", "nz")):
        if int(header[samples]) not in (int(header[count]), 1) or int(header[samples]) < 1:
            return None
        sizes.append(float(header["cella"][cell]) / int(header[samples]))
    if not all(math.isfinite(s) and s > 0 for s in sizes) or sizes[0] == 1.0:
        return None
    x, y, z = (s / 10 for s in sizes)
    return z, y, x
