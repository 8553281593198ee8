"""Volumes copied, cut, put in another format and normalised, block by block.

Functions that a worker is given take names of files and plain numbers, and give plain facts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.cluster import Cluster
from agent.errors import BadFileError
from drivers.organelles.jobs import Facts, Journal, Progress, carry_out
from drivers.volumes import NewVolume, Volume, open_volume
from drivers.volumes.base import Edges, Triple, Whole
from models.organelles.blocks import Block, blocks, slices
from models.organelles.normalise import Normaliser
from models.organelles.numbers import NUMBERS

CHUNK = int(NUMBERS["objects"]["chunk"])  # voxels


def opened(path: str) -> Volume:
    """A volume, opened once by each worker as long as it stays the same."""
    return _opened(path, stamp(Path(path)))


@lru_cache(maxsize=4)
def _opened(path: str, changed: float) -> Volume:
    return open_volume(Path(path))


def stamp(path: Path) -> float:
    """When a volume was last changed, as far as its own file, or the head of its folder, says."""
    heads = [path / name for name in ("zarr.json", ".zattrs", ".zarray", ".zgroup", "attributes.json")]
    head = next((h for h in heads if h.exists()), path)
    return head.stat().st_mtime


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to grey values on the way.

    Attributes
    ----------
    invert
        Dark becomes bright: integers are taken from the largest value of their type, floats change sign.
    nan
        Value for voxels that are not finite; None: they are refused.
    """

    invert: bool = False
    nan: float | None = None

    def __call__(self, part: NDArray[Any], path: str, low: Triple) -> NDArray[Any]:
        """Changed voxels.

        Raises
        ------
        BadFileError
            When some are not finite; the first is named.
        """
        if part.dtype.kind == "f":
            broken = ~np.isfinite(part)
            if broken.any():
                if self.nan is None:
                    z, y, x = (int(a + b) for a, b in zip(np.argwhere(broken)[0], low, strict=True))
                    raise BadFileError(
                        f"{path}: voxel (z {z}, y {y}, x {x}) is not a number, as are {int(broken.sum())} in its block:"
                        " give them a value with --nan VALUE"
                    )
                part = np.where(broken, np.asarray(self.nan, part.dtype), part)
        if not self.invert:
            return part
        return np.iinfo(part.dtype).max - part if part.dtype.kind == "u" else -part


def copy_block(source: str, out: str, low: Triple, block: Block, change: Change) -> Facts:
    """Voxels of ``block``, which begins ``low`` into the source, written to their place."""
    (z0, y0, x0), (z1, y1, x1) = block
    place = ((z0 + low[0], y0 + low[1], x0 + low[2]), (z1 + low[0], y1 + low[1], x1 + low[2]))
    part = change(opened(source).array[slices(place)], source, place[0])
    target(out)[slices(block)] = part
    return {}


def target(path: str) -> Any:
    """The finest level of a volume that a worker writes to."""
    return _target(path, stamp(Path(path) / "s0"))


@lru_cache(maxsize=8)
def _target(path: str, changed: float) -> Any:
    return NewVolume(Path(path), (1.0, 1.0, 1.0)).level()


def begin(
    journal: Journal, of: Facts, new: Sequence[NewVolume], shape: Triple, dtype: Any, chunk: int, restart: bool = False
) -> None:
    """Open a journal with the volumes that its blocks fill; where these are gone, nothing is done yet."""
    chunks = (chunk, chunk, chunk)
    going_on = journal.begin(of, restart=restart)
    if going_on and not all(one.fits(shape, dtype, chunks) for one in new):
        going_on = journal.begin(of, restart=True)
    for one in new:
        if not going_on:
            one.begin(shape, dtype, chunks)


def copy(
    source: Volume,
    out: Path,
    edges_nm: Edges,
    *,
    box: Block | None = None,
    change: Change | None = None,
    levels: int = 3,
    cluster: Cluster | None = None,
    say: Progress | None = None,
) -> None:
    """A volume, or a box of it, as OME-Zarr: grey values bit for bit, offset and the whole's size kept.

    An earlier run that was interrupted goes on.

    Parameters
    ----------
    source
        What is copied.
    out
        New ``.zarr`` folder.
    edges_nm
        Edges of a voxel.
    box
        Low and high corner in voxels; None: all.
    change
        Of the grey values.
    levels
        Of the pyramid.
    cluster
        Where to work.
    say
        Called with how many blocks are done, of how many.
    """
    change = change or Change()
    low, high = box or ((0, 0, 0), source.shape)
    size: Triple = (high[0] - low[0], high[1] - low[1], high[2] - low[2])
    before = source.whole or Whole(source.shape, (0, 0, 0))
    whole = Whole(
        before.shape, (before.low[0] + low[0], before.low[1] + low[1], before.low[2] + low[2])
    )  # a crop of a crop is one of the whole
    z, y, x = (o + e * n for o, e, n in zip(source.offset_nm, edges_nm, low, strict=True))
    new = NewVolume(out, edges_nm, (z, y, x), whole=whole if whole.shape != size else None)
    journal = Journal(out.with_name(out.name + ".work"))
    of: Facts = {"source": str(source.path.resolve()), "changed": stamp(source.path), "box": [low, high]}
    of |= {"edges": edges_nm}
    of |= {"change": [change.invert, change.nan]}
    begin(journal, of, [new], size, source.array.dtype.newbyteorder("="), CHUNK)
    every = blocks(size, (CHUNK, CHUNK, CHUNK) if _random_access(source) else (CHUNK, size[1], size[2]))
    arguments = [(str(source.path), str(out), low, block, change) for block in every]
    carry_out(journal, copy_block, arguments, cluster or Cluster(), say)
    new.finish(levels)
    journal.end()


def _random_access(source: Volume) -> bool:
    """Whether small blocks can be read without reading whole sections: a folder of sections must not be read often."""
    return not (source.path.is_dir() and any(source.path.glob("*.tif*")))


# ---------------------------------------------------------------------------------------------- grey values


def save_normaliser(path: Path, tables: Normaliser) -> None:
    """Tables in a file that every worker reads once."""
    part = path.with_suffix(".part.npz")
    np.savez(part, kind=tables.kind, xs=tables.xs, ys=tables.ys, kernel=tables.kernel, maps=tables.maps)
    part.replace(path)


@lru_cache(maxsize=4)
def load_normaliser(path: str) -> Normaliser:
    """Tables that `save_normaliser` wrote."""
    with np.load(path) as file:
        z, y, x = (int(n) for n in file["kernel"])
        return Normaliser(str(file["kind"]), file["xs"], file["ys"], (z, y, x), file["maps"])  # type: ignore[arg-type]


def normalise_block(source: str, tables: str, out: str, block: Block) -> Facts:
    """Normalised voxels of a block times 255, written to their place."""
    part = load_normaliser(tables).apply(opened(source).array[slices(block)], block[0])
    target(out)[slices(block)] = np.rint(np.clip(part, 0, 1) * 255).astype(np.uint8)
    return {}


def normalise(
    source: Volume,
    out: Path,
    edges_nm: Edges,
    tables: Normaliser,
    of: Facts,
    *,
    cluster: Cluster | None = None,
    say: Progress | None = None,
) -> None:
    """A volume with other grey values, 8 bits, as OME-Zarr; ``of`` says which in the journal."""
    new = NewVolume(out, edges_nm, source.offset_nm, whole=source.whole)
    journal = Journal(out.with_name(out.name + ".work"))
    of = of | {"source": str(source.path.resolve()), "changed": stamp(source.path)}
    begin(journal, of, [new], source.shape, np.uint8, CHUNK)
    file = journal.folder / "tables.npz"
    save_normaliser(file, tables)
    arguments = [
        (str(source.path), str(file), str(out), block) for block in blocks(source.shape, (CHUNK, CHUNK, CHUNK))
    ]
    carry_out(journal, normalise_block, arguments, cluster or Cluster(), say)
    new.finish(facts={"normalised": of})
    journal.end()
