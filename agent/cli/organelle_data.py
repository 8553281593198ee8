"""Annotated volumes named in a YAML file, to train organelle networks on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.cli.annotate import parse_box
from agent.errors import BadFileError, ConfigError
from drivers.volumes import Volume, open_volume
from models.organelles.normalise import BadGreyError, Kind, normaliser

AGREE = 0.02  # of voxel edges


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One volume: its file, a label file for each structure, and where the labels hold.

    Attributes
    ----------
    raw, labels
        Files; relative ones stand beside the YAML file.
    name
        For tables; by default that of the file.
    mask
        File that is not 0 where the annotation holds.
    metric_masks
        By structure, files that are not 0 where scores count (``cryonaut annotate --metric-mask``).
    box
        Part of the volume that is annotated, ``z0:z1,y0:y1,x0:x1`` in voxels.
    """

    raw: str
    labels: dict[str, str]
    name: str = ""
    mask: str = ""
    metric_masks: dict[str, str] = {}
    box: str = ""


class Entries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to learn from, and what to validate and measure on."""

    training: list[Entry]
    held_out: list[Entry] = []


@dataclass(frozen=True, slots=True)
class Read:
    """A volume in memory: grey values, labels, mask, where scores count."""

    name: str
    raw: NDArray[np.uint8]
    labels: dict[str, NDArray[Any]]
    mask: NDArray[np.bool_] | None = None
    counted: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def read(path: Path, voxel_nm: float, kind: Kind) -> tuple[list[Read], list[Read]]:
    """Volumes to learn from, and held-out ones, normalised as ``kind`` says, each by its own grey values.

    Raises
    ------
    ConfigError
        When the YAML file cannot be read, or names what is not there.
    BadFileError
        When a file does not fit: another shape, another voxel size, grey values that cannot be normalised.
    """
    try:
        entries = msgspec.yaml.decode(path.read_bytes(), type=Entries)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not entries.training:
        raise ConfigError(f"{path}: names no volume under `training`")
    first, second = (
        [_read(path.parent, one, voxel_nm, kind) for one in some] for some in (entries.training, entries.held_out)
    )
    return first, second


def _read(folder: Path, entry: Entry, voxel_nm: float, kind: Kind) -> Read:
    file = folder / entry.raw
    volume = open_volume(file)
    _check_voxels(file, volume, voxel_nm)
    box = parse_box(entry.box, volume.shape) if entry.box else tuple((0, n) for n in volume.shape)
    part = tuple(slice(*side) for side in box)

    def beside(name: str) -> NDArray[Any]:
        other = open_volume(folder / name)
        if other.shape != volume.shape:
            raise BadFileError(f"{folder / name}: {other.shape} voxels (z, y, x); {file} has {volume.shape}")
        return np.asarray(other.array[part])

    return Read(
        entry.name or file.stem,
        _grey(file, volume, part, kind),
        {structure: beside(name) for structure, name in entry.labels.items()},
        beside(entry.mask) != 0 if entry.mask else None,
        {structure: beside(name) != 0 for structure, name in entry.metric_masks.items()},
    )


def _check_voxels(file: Path, volume: Volume, voxel_nm: float) -> None:
    found = volume.voxel_nm
    if found is not None and abs(found / voxel_nm - 1) > AGREE:
        raise BadFileError(
            f"{file}: voxels of {found:g} nm; the recipe is for {voxel_nm:g} nm: set voxel_nm in --config to {found:g},"
            " or bring the volume to that size"
        )


def _grey(file: Path, volume: Volume, part: tuple[slice, ...], kind: Kind) -> NDArray[np.uint8]:
    """A part of a volume, normalised by the grey values of the whole, in 256 steps."""
    try:
        how = normaliser(volume.array, kind)
    except BadGreyError as error:
        raise BadFileError(f"{file}: {error}") from error
    z, y, x = (s.start for s in part)
    grey = how.apply(np.asarray(volume.array[part]), (z, y, x))
    return np.rint(grey * 255).astype(np.uint8)
