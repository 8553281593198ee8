"""TIFF stacks: one file of many sections, or a folder of numbered single sections."""

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from defusedxml import ElementTree
from numpy.typing import NDArray

from agent.errors import BadFileError
from drivers.images import UNIT_ANGSTROM
from drivers.volumes.base import Edges, Lazy, Triple, Volume

SUFFIXES = (".tif", ".tiff")
_NUMBERED = re.compile(r".*?(\d+)\D*\.tiff?$", re.IGNORECASE)
_ERRORS = (ValueError, IndexError, KeyError, TypeError, struct.error, ArithmeticError, AttributeError)


def open_tiff(path: Path) -> Volume:
    """The volume in a TIFF file of many sections (any axes with one besides Y and X)."""
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes, shape = series.axes, series.shape
            planes = [n for axis, n in zip(axes, shape, strict=True) if axis not in "YX"]
            if not axes.endswith("YX") or len([n for n in planes if n > 1]) != 1:
                raise BadFileError(f"{path}: axes {axes} of shape {shape}; expected sections of grey images (z, y, x)")
            edges = _edges_nm(file)
            try:
                array = series.asarray(out="memmap") if not series.dataoffset else tifffile.memmap(path, mode="r")
            except (ValueError, ImportError) as error:
                raise BadFileError(f"{path}: cannot be decoded ({error}); `pip install imagecodecs`") from error
            depth = next(n for n in planes if n > 1)
            return Volume(array.reshape(depth, *shape[-2:]), edges, path)
    except BadFileError:
        raise
    except _ERRORS as error:
        raise BadFileError(f"{path}: not a TIFF stack, or damaged: {error}") from error


def sections(folder: Path) -> list[Path]:
    """The numbered TIFF files of a folder in the order of their numbers; empty where there are none.

    Raises
    ------
    BadFileError
        When a number is missing or there twice: which.
    """
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        found = _NUMBERED.match(path.name)
        if found and path.is_file() and not path.name.startswith("."):
            number = int(found[1])
            if number in numbered:
                raise BadFileError(f"{folder}: section {number} is there twice: {numbered[number].name}, {path.name}")
            numbered[number] = path
    if not numbered:
        return []
    missing = [n for n in range(min(numbered), max(numbered) + 1) if n not in numbered]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
        raise BadFileError(f"{folder}: {len(missing)} of {len(numbered) + len(missing)} sections missing: {shown}")
    return [numbered[n] for n in sorted(numbered)]


def open_sections(folder: Path, files: list[Path]) -> Volume:
    """A folder of single sections; all have the size and type of the first, which is checked as each is read."""
    first = _section(files[0])
    with tifffile.TiffFile(files[0]) as file:
        edges = _edges_nm(file)
    shape = (len(files), *first.shape)

    def fetch(low: Triple, high: Triple) -> NDArray[Any]:
        out = np.empty(tuple(b - a for a, b in zip(low, high, strict=True)), first.dtype)
        for z in range(low[0], high[0]):
            plane = _section(files[z])
            if plane.shape != first.shape or plane.dtype != first.dtype:
                raise BadFileError(
                    f"{files[z]}: {plane.shape} of {plane.dtype}; the first section has {first.shape} of {first.dtype}"
                )
            out[z - low[0]] = plane[low[1] : high[1], low[2] : high[2]]
        return out

    return Volume(Lazy((shape[0], shape[1], shape[2]), first.dtype, folder, fetch), edges, folder)


def _section(path: Path) -> NDArray[Any]:
    try:
        plane = tifffile.imread(path)
    except (*_ERRORS, OSError, RuntimeError) as error:
        raise BadFileError(f"{path}: not a TIFF section, or truncated: {error}") from error
    if plane.ndim != 2:
        raise BadFileError(f"{path}: shape {plane.shape}; expected one grey section")
    return np.asarray(plane)


def _edges_nm(file: tifffile.TiffFile) -> Edges | None:
    return _from_ome(file.ome_metadata) if file.ome_metadata else _from_tags(file)


def _from_ome(text: str) -> Edges | None:
    pixels = next((e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("}Pixels")), None)
    if pixels is None:
        return None
    edges = []
    for axis in "ZYX":
        unit = UNIT_ANGSTROM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").lower())
        value = pixels.get(f"PhysicalSize{axis}", pixels.get("PhysicalSizeX", "") if axis == "Z" else "")
        if not value or unit is None:
            return None
        edges.append(float(value) * unit / 10)
    return edges[0], edges[1], edges[2]


def _from_tags(file: tifffile.TiffFile) -> Edges | None:
    page: Any = file.pages[0]
    facts = file.imagej_metadata or {}
    unit = UNIT_ANGSTROM.get(str(facts.get("unit", "")).strip().lower().replace("\\u00b5", "µ"))
    edges = []
    for tag in ("XResolution", "YResolution"):
        ratio = page.tags[tag].value if tag in page.tags else None
        if ratio is None or unit is None or not ratio[0]:
            return None
        edges.append(ratio[1] / ratio[0] * unit / 10)
    along = float(facts.get("spacing", 0) or 0) * unit / 10 if unit else 0.0
    return along or edges[0], edges[1], edges[0]
