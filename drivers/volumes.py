"""Volume files as arrays that are read where they are needed: MRC, TIFF stacks, OME-Zarr; and how results are written.

Axes are (z, y, x) as the file stores them: section 0 first, row 0 first, nothing is flipped.
"""

import json
import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import tifffile
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from agent.errors import BadFileError, ConfigError
from drivers.images import MRC_MODES, MRC_REFUSED, UNIT_ANGSTROM, imod_bytes_are_unsigned, mrc_header

SUFFIXES = (".mrc", ".rec", ".map", ".st", ".tif", ".tiff", ".zarr")
CHUNK = 64
_AGREE = 0.02


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume on disk.

    Attributes
    ----------
    array
        What slices like an array of shape (z, y, x); nothing is read before it is sliced.
    voxel_nm
        Edge of a voxel; None where the file does not say it, or says a writer's placeholder.
    path
        Where it is.
    """

    array: Any
    voxel_nm: float | None
    path: Path


def open_volume(path: Path) -> Volume:
    """The volume in a file (``.mrc .rec .map .st .tif .tiff``) or folder (``.zarr``).

    Raises
    ------
    BadFileError
        When it cannot be read or is no volume of cubic voxels; the text says what is wrong and what is expected.
    ConfigError
        When a package that it needs is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise BadFileError(f"{path}: no such file; expected a volume ({' '.join(SUFFIXES)})")
    if path.is_dir():
        return _open_zarr(path)
    reader = {".tif": _open_tiff, ".tiff": _open_tiff}.get(path.suffix.lower(), _open_mrc)
    if path.suffix.lower() not in SUFFIXES:
        raise BadFileError(f"{path}: unknown suffix {path.suffix!r}; known are {' '.join(SUFFIXES)}")
    try:
        return reader(path)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _open_mrc(path: Path) -> Volume:
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
    return Volume(array, _mrc_voxel_nm(path, header), path)


def _mrc_voxel_nm(path: Path, header: Any) -> float | None:
    sizes = []
    for cell, samples, count in (("x", "mx", "nx"), ("y", "my", "ny"), ("z", "mz", "nz")):
        if int(header[samples]) not in (int(header[count]), 1) or int(header[samples]) < 1:
            return None
        sizes.append(float(header["cella"][cell]) / int(header[samples]))
    if not all(math.isfinite(s) and s > 0 for s in sizes) or sizes[0] == 1.0:
        return None
    return cubic(path, tuple(s / 10 for s in reversed(sizes)))


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


def _open_tiff(path: Path) -> Volume:
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes, shape = series.axes, series.shape
            planes = [n for axis, n in zip(axes, shape, strict=True) if axis not in "YX"]
            if not axes.endswith("YX") or len([n for n in planes if n > 1]) != 1:
                raise BadFileError(f"{path}: axes {axes} of shape {shape}; expected sections of grey images (z, y, x)")
            voxel = _tiff_voxel_nm(path, file)
            try:
                array = series.asarray(out="memmap") if not series.dataoffset else tifffile.memmap(path, mode="r")
            except (ValueError, ImportError) as error:
                raise BadFileError(f"{path}: cannot be decoded ({error}); `pip install imagecodecs`") from error
            depth = next(n for n in planes if n > 1)
            return Volume(array.reshape(depth, *shape[-2:]), voxel, path)
    except BadFileError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, struct.error, ArithmeticError, AttributeError) as error:
        raise BadFileError(f"{path}: not a TIFF stack, or damaged: {error}") from error


def _tiff_voxel_nm(path: Path, file: tifffile.TiffFile) -> float | None:
    page: Any = file.pages[0]
    ratio = page.tags["XResolution"].value if "XResolution" in page.tags else None
    facts = file.imagej_metadata or {}
    unit = UNIT_ANGSTROM.get(str(facts.get("unit", "")).strip().lower().replace("\\u00b5", "µ"))
    if ratio is None or unit is None or not ratio[0]:
        return None
    across = ratio[1] / ratio[0] * unit / 10
    along = float(facts.get("spacing", 0) or 0) * unit / 10
    return cubic(path, (along or across, across, across))


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ConfigError("OME-Zarr needs the volumes extra: pip install 'cryonaut[volumes]'") from error
    return zarr


def _open_zarr(path: Path) -> Volume:
    zarr = _zarr()
    try:
        node = zarr.open(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds
        raise BadFileError(f"{path}: is no zarr array or group: {' '.join(str(error).split())[:200]}") from error
    if hasattr(node, "shape"):
        if len(node.shape) != 3:
            raise BadFileError(f"{path}: array of shape {node.shape}; expected (z, y, x)")
        return Volume(node, None, path)
    facts = dict(node.attrs)
    scales = facts.get("ome", facts).get("multiscales") or []
    if not scales:
        raise BadFileError(f"{path}: a group without OME multiscales; name the array inside it")
    first = scales[0]["datasets"][0]
    array = node[first["path"]]
    if len(array.shape) != 3:
        raise BadFileError(f"{path}: axes {[a.get('name') for a in scales[0]['axes']]}; expected z, y, x")
    return Volume(array, _ngff_voxel_nm(path, scales[0], first), path)


def _ngff_voxel_nm(path: Path, scale: dict[str, Any], dataset: dict[str, Any]) -> float | None:
    edges = next((t["scale"] for t in dataset.get("coordinateTransformations", ()) if t.get("type") == "scale"), None)
    units = [UNIT_ANGSTROM.get(str(axis.get("unit", "")).lower()) for axis in scale["axes"]]
    if edges is None or None in units:
        return None
    return cubic(path, tuple(float(e) * (u or 0) / 10 for e, u in zip(edges, units, strict=True)))


# ---------------------------------------------------------------------------------------------- writing


def new_mrc(path: Path, shape: tuple[int, ...], voxel_nm: float, dtype: Any = np.uint16) -> Any:
    """A new MRC volume on disk that is filled in place: ``with new_mrc(...) as file: file.data[...] = ...``."""
    file = mrcfile.new_mmap(path, shape=shape, mrc_mode=mrcfile.utils.mode_from_dtype(np.dtype(dtype)), overwrite=True)
    file.voxel_size = voxel_nm * 10
    return file


def write_ome_zarr(
    path: Path,
    array: Any,
    voxel_nm: float,
    *,
    labels: bool = False,
    levels: int = 3,
    say: Callable[[int, int], None] | None = None,
) -> None:
    """Write a volume (z, y, x) as OME-Zarr 0.5 (zarr v3), in chunks of 64, with coarser levels of half the sampling.

    Parameters
    ----------
    path
        New folder, ``.zarr``; one that is there is written over.
    array
        What slices like an array.
    voxel_nm
        Edge of a voxel.
    labels
        Coarser levels take every second voxel instead of means, and the group says that it is a label image.
    levels
        How many, the finest one included.
    say
        Called with how many slabs are done, of how many.
    """
    zarr = _zarr()
    root = zarr.open_group(str(path), mode="w", zarr_format=3)
    datasets = []
    source = array
    for level in range(levels):
        shape = tuple(int(n) for n in source.shape)
        name = f"s{level}"
        target = root.create_array(name, shape=shape, chunks=tuple(min(CHUNK, n) for n in shape), dtype=array.dtype)
        slabs = range(0, shape[0], CHUNK)
        for number, z in enumerate(slabs, start=1):
            target[z : z + CHUNK] = np.asarray(source[z : z + CHUNK])
            if say and not level:
                say(number, len(slabs))
        step = voxel_nm * 2**level
        # the centre of the first coarse voxel lies between the first fine ones where these were averaged
        shift = 0.0 if labels else voxel_nm * (2**level - 1) / 2
        moves = [{"type": "scale", "scale": [step] * 3}, {"type": "translation", "translation": [shift] * 3}]
        datasets.append({"path": name, "coordinateTransformations": moves})
        if min(shape) < 4 or level + 1 == levels:
            break
        source = _Half(target, labels)
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    facts: dict[str, Any] = {"version": "0.5", "multiscales": [{"name": path.stem, "axes": axes, "datasets": datasets}]}
    if labels:
        facts["image-label"] = {}
    root.attrs["ome"] = facts


@dataclass(frozen=True, slots=True)
class _Half:
    """Every second voxel of a volume, or means of 2 x 2 x 2, made as they are asked for."""

    fine: Any
    nearest: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(max(1, n // 2) for n in self.fine.shape)

    def __getitem__(self, at: slice) -> NDArray[Any]:
        low, high, _ = at.indices(self.shape[0])
        part = np.asarray(self.fine[2 * low : 2 * high])
        if self.nearest:
            return np.asarray(part[::2, ::2, ::2][: high - low, : self.shape[1], : self.shape[2]])
        z, y, x = (2 * n for n in (high - low, self.shape[1], self.shape[2]))
        block = part[:z, :y, :x].astype(np.float64).reshape(z // 2, 2, y // 2, 2, x // 2, 2).mean(axis=(1, 3, 5))
        return np.asarray(np.rint(block) if part.dtype.kind in "iu" else block, part.dtype)


def write_json(path: Path, values: Any) -> None:
    """Plain data, written whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(values, indent=1), encoding="utf-8")
    part.replace(path)


def write_star(path: Path, block: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """One loop of a STAR file."""
    names = list(columns)
    lines = [f"data_{block}", "", "loop_", *[f"_{name} #{n}" for n, name in enumerate(names, start=1)]]
    lines += [" ".join(str(value) for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
