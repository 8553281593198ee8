"""Strokes and labels in files, on the grid of the volume that they belong to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadFileError, ConfigError
from drivers.volumes import NewVolume, Volume, cubic, new_mrc, open_volume, write_tiff

KINDS = (".zarr", ".tif", ".tiff", ".mrc")
CHUNK = 64


def check_target(path: Path) -> None:
    """Refuse a file that labels could not be written to, before the work is done.

    Raises
    ------
    ConfigError
        With the way out.
    """
    if path.suffix.lower() not in KINDS:
        raise ConfigError(f"{path}: labels are written as {', '.join(KINDS)}")
    if not path.resolve().parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.resolve().parent}")


def read_strokes(path: Path, shape: tuple[int, ...], box: Any) -> NDArray[np.uint8]:
    """The strokes inside a box: 0, 1 (structure) and 2 (background).

    Raises
    ------
    BadFileError
        When the shape is another, or there are other values.
    """
    array = open_volume(path).array
    if tuple(array.shape) != tuple(shape):
        raise BadFileError(f"{path}: strokes of {tuple(array.shape)} voxels (z, y, x); the volume has {tuple(shape)}")
    z, y, x = (slice(*side) for side in box)
    strokes = np.asarray(array[z, y, x])
    if strokes.size and (strokes.min() < 0 or strokes.max() > 2 or not np.isin(np.unique(strokes), (0, 1, 2)).all()):
        raise BadFileError(f"{path}: values from {strokes.min()} to {strokes.max()}; strokes are 1 and 2, 0 elsewhere")
    return strokes.astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Placed:
    """A box of labels inside a volume of zeros, made slab by slab as it is asked for."""

    labels: NDArray[np.uint8]
    box: Any
    shape: tuple[int, int, int]

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Of its voxels."""
        return self.labels.dtype

    def __getitem__(self, at: int | slice) -> NDArray[np.uint8]:
        if isinstance(at, int):
            return np.asarray(self[at : at + 1][0])
        low, high, _ = at.indices(self.shape[0])
        out = np.zeros((high - low, *self.shape[1:]), np.uint8)
        (z0, z1), (y0, y1), (x0, x1) = self.box
        first, last = max(low, z0), min(high, z1)
        if first < last:
            out[first - low : last - low, y0:y1, x0:x1] = self.labels[first - z0 : last - z0]
        return out


def write_labels(
    path: Path, labels: NDArray[np.uint8], box: Any, volume: Volume, edges_nm: Any, facts: dict[str, Any]
) -> None:
    """Write the labels of a box on the grid of its whole volume; outside they are 0.

    Parameters
    ----------
    path
        ``.zarr`` (OME-Zarr, with ``facts`` in its attribute ``cryonaut``), ``.tif`` or ``.mrc``.
    labels, box
        What was annotated, and where it lies: first and one past the last voxel along z, y, x.
    volume, edges_nm
        What was annotated in, and the edges of its voxels.
    facts
        What was annotated and where, as plain data.
    """
    placed = Placed(labels, box, volume.shape)
    if path.suffix == ".zarr":
        new = NewVolume(path, edges_nm, volume.offset_nm, labels=True, whole=volume.whole)
        target = new.begin(placed.shape, np.uint8, (CHUNK, CHUNK, CHUNK))
        for z in range(0, placed.shape[0], CHUNK):
            target[z : z + CHUNK] = placed[z : z + CHUNK]
        new.finish(facts=facts)
    elif path.suffix == ".mrc":
        with new_mrc(path, placed.shape, cubic(path, edges_nm), np.uint8) as file:
            for z in range(0, placed.shape[0], CHUNK):
                file.data[z : z + CHUNK] = placed[z : z + CHUNK]
    else:
        write_tiff(path, placed, edges_nm)


def write_results(volume: Volume, facts: Any, labels: NDArray[np.uint8]) -> None:
    """Write the labels of an annotation where its facts say, and the mask of where scores count where one is wanted."""
    from models.organelles.annotation import exclusion_zone

    about = {"structure": facts.structure, "box": [list(side) for side in facts.box], "volume": facts.volume}
    write_labels(Path(facts.out), labels, facts.box, volume, facts.edges_nm, about)
    if facts.metric_mask and facts.rules is not None:
        counts = (~exclusion_zone(labels, facts.rules)).astype(np.uint8)
        write_labels(Path(facts.metric_mask), counts, facts.box, volume, facts.edges_nm, about)
