"""An annotation project: a folder with one box of a volume as greys, the strokes on it, and the labels they gave.

``annotation.json`` says what is annotated and how; ``grey.npy``, ``strokes.npy`` and ``labels.npy`` are arrays of uint8
of one shape (z, y, x), mapped, so that a page holds no more of them than it shows; ``pieces.npy`` and ``regions.npz``
are the supervoxels, made once.
"""

import os
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.errors import CryonautError
from models.organelles.annotation import AnnotationSettings, Keep, Structure

FILE = "annotation.json"
Bytes = NDArray[np.uint8]


class AnnotationProjectError(CryonautError):
    """A project that cannot be used: which, and why."""


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is annotated and how.

    Attributes
    ----------
    volume, box
        File of the volume, and the part of it: first and one past the last voxel along z, y, x.
    edges_nm
        Edges of a voxel (z, y, x).
    out, metric_mask
        Where labels go, and the mask of where scores count (empty: nowhere).
    settings
        Numbers of the method.
    structure
        Whose clean-up is done; empty: none.
    keep
        Part of the structure by its greys.
    """

    volume: str
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    edges_nm: tuple[float, float, float]
    out: str
    settings: AnnotationSettings
    metric_mask: str = ""
    structure: str = ""
    keep: Keep = "all"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the box (z, y, x)."""
        z, y, x = (high - low for low, high in self.box)
        return z, y, x

    @property
    def rules(self) -> Structure | None:
        """Clean-up for voxels of this size."""
        edge = float(np.prod(self.edges_nm)) ** (1 / 3)
        return self.settings.structure(self.structure, edge) if self.structure else None


def read_facts(folder: Path) -> Facts:
    """What a project's folder says.

    Raises
    ------
    AnnotationProjectError
        When there is no project, or it cannot be read.
    """
    file = folder / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=Facts)
    except OSError as error:
        raise AnnotationProjectError(f"{file}: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise AnnotationProjectError(f"{file}: is no annotation project of this version: {error}") from error


def write_facts(folder: Path, facts: Facts) -> None:
    """Keep what a project is about; whole or not at all."""
    write_whole(folder / FILE, msgspec.json.format(msgspec.json.encode(facts), indent=1))


def write_whole(file: Path, body: bytes) -> None:
    """Write a file beside and rename it.

    Raises
    ------
    AnnotationProjectError
        When it cannot be written; what was there is then as it was.
    """
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as out:
            out.write(body)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as error:
        raise AnnotationProjectError(f"{file}: cannot be written: {error.strerror or error}") from error


def mapped(folder: Path, name: str, shape: tuple[int, int, int]) -> Bytes:
    """An array of a project, mapped for reading and writing; one that is not there yet is zeros.

    Raises
    ------
    AnnotationProjectError
        When it has another shape, or cannot be read.
    """
    file = folder / f"{name}.npy"
    try:
        if not file.exists():
            return np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        array = np.lib.format.open_memmap(file, mode="r+")
    except (OSError, ValueError) as error:
        raise AnnotationProjectError(f"{file}: cannot be read: {error}") from error
    if array.shape != shape or array.dtype != np.uint8:
        raise AnnotationProjectError(f"{file}: {array.dtype} of {array.shape}; the project has {shape}")
    return array
