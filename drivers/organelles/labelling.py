"""Numbered objects of a volume on disk: a threshold, components across blocks, small ones left out."""

import csv
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from agent.cluster import Cluster
from drivers.organelles.jobs import Facts, Journal, Progress, carry_out
from drivers.organelles.preparing import begin, opened, stamp, target
from drivers.volumes import NewVolume, Volume, open_volume
from drivers.volumes.base import Edges
from models.organelles.blocks import Block, blocks, read_mirrored, slices, taken
from models.organelles.components import (
    Objects,
    Parts,
    faces_of,
    labelled,
    merged,
    neighbours,
    parts_of,
    touching,
)
from models.organelles.numbers import NUMBERS

BLOCK = int(NUMBERS["objects"]["chunk"])
SMALLEST = int(NUMBERS["objects"]["smallest"])  # voxels
Mode = Literal["labels", "filled", "mask"]


def _mask(path: str, level: float, block: Block, mode: Mode) -> NDArray[np.bool_]:
    """Voxels of a block that belong to objects; for ``filled`` those that do not."""
    part = np.asarray(opened(path).array[slices(block)])
    return part < level if mode == "filled" else part >= level


def find_block(path: str, level: float, mode: Mode, folder: str, number: int, block: Block) -> Facts:
    """Components of one block, with its outer planes, in a file of the job's folder."""
    volume = opened(path)
    labels, count = labelled(_mask(path, level, block, mode))
    parts = parts_of(labels, count, block[0], volume.shape)
    file = Path(folder) / f"parts-{number:07d}.npz"
    columns: dict[str, Any] = {f"face{n}": plane for n, plane in enumerate(faces_of(labels))}
    columns |= {name: getattr(parts, name) for name in ("voxels", "first", "sums", "low", "high")}
    part_file = file.with_name(f".{file.name}.part.npz")
    np.savez_compressed(part_file, **columns)
    part_file.replace(file)
    return {"parts": count}


def write_block(path: str, level: float, mode: Mode, out: str, table: str, start: int, block: Block) -> Facts:
    """The block's components again, each with the number of its object."""
    labels, count = labelled(_mask(path, level, block, mode))
    names = np.concatenate([[0], np.load(table, mmap_mode="r")[start : start + count]]).astype(np.uint32)
    part: NDArray[Any] = names[labels]
    if mode == "filled":  # the objects here are holes and the surroundings: what was left out is the surroundings
        part = ((labels == 0) | (part > 0)).astype(np.uint8)
    elif mode == "mask":
        part = (part > 0).astype(np.uint8)
    target(out)[slices(block)] = part
    return {}


def label(
    source: Volume,
    out: Path,
    *,
    level: float,
    smallest: int = SMALLEST,
    mode: Mode = "labels",
    block: int = BLOCK,
    cluster: Cluster | None = None,
    facts: Facts | None = None,
    say: Progress | None = None,
) -> Objects:
    """Number the objects of a volume, in a new OME-Zarr; an earlier run that was interrupted goes on.

    Parameters
    ----------
    source
        Volume of grey values, with the edges of its voxels.
    out
        New ``.zarr``.
    level
        Voxels of at least this value belong to objects.
    smallest
        Objects of fewer voxels are left out.
    mode
        ``labels``: numbers; ``mask``: 1 where an object is that is not too small; ``filled``: 1 there and in holes that
        are closed all round (``smallest`` does not count).
    block
        Edge of a block; the result does not depend on it.
    cluster
        Where to work.
    facts
        What a person may want to know of the result.
    say
        Called with how many blocks are done, of how many, for each of two passes.

    Returns
    -------
    Objects
        What is known of each object; for ``filled`` of each hole.
    """
    cluster = cluster or Cluster()
    shape, edges = source.shape, source.edges_nm or (1.0, 1.0, 1.0)
    every = blocks(shape, (block, block, block))
    work = out.with_name(out.name + ".objects")
    of: Facts = {"source": str(source.path.resolve()), "changed": stamp(source.path), "level": level}
    of |= {"smallest": smallest, "mode": mode, "block": block}
    first, second = Journal(work / "find"), Journal(work / "write")
    first.begin(of)
    path, folder = str(source.path), str(first.folder)
    half = _half(say, 0)
    counts = carry_out(
        first, find_block, [(path, level, mode, folder, n, b) for n, b in enumerate(every)], cluster, half
    )
    starts = np.concatenate([[0], np.cumsum([int(c["parts"]) for c in counts])]).astype(np.int64)
    parts = Parts.joined([_parts(first.folder, n) for n in range(len(every))])
    keep = ~parts.at_border(shape) if mode == "filled" else None
    objects = merged(
        parts, _pairs(first.folder, every, starts), smallest=1 if mode == "filled" else smallest, keep=keep
    )
    table = work / "table.npy"
    np.save(table, objects.table)
    new = NewVolume(out, edges, source.offset_nm, labels=True, whole=source.whole)
    begin(second, of, [new], shape, np.uint32 if mode == "labels" else np.uint8, block)
    names = [(path, level, mode, str(out), str(table), int(starts[n]), b) for n, b in enumerate(every)]
    carry_out(second, write_block, names, cluster, _half(say, 1))
    new.finish(facts={"objects": len(objects.parts), **of, **(facts or {})})
    shutil.rmtree(work, ignore_errors=True)
    return objects


def _half(say: Progress | None, number: int) -> Progress | None:
    return None if say is None else lambda done, total: say(done + number * total, 2 * total)


def _parts(folder: Path, number: int) -> Parts:
    with np.load(folder / f"parts-{number:07d}.npz") as file:
        return Parts(file["voxels"], file["first"], file["sums"], file["low"], file["high"])


def _pairs(folder: Path, every: list[Block], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of parts that meet at faces between blocks; two planes are held at a time."""
    found = [np.zeros((0, 2), np.int64)]
    for before, after, axis in neighbours(every):
        if starts[before] == starts[before + 1] or starts[after] == starts[after + 1]:
            continue
        with np.load(folder / f"parts-{before:07d}.npz") as one, np.load(folder / f"parts-{after:07d}.npz") as other:
            pairs = touching(one[f"face{2 * axis + 1}"], other[f"face{2 * axis}"])
        found.append(pairs - 1 + np.array([starts[before], starts[after]]))
    return np.concatenate(found)


def cell_mask(
    source: Volume,
    out: Path,
    edges_nm: Edges,
    *,
    low: float,
    high: float,
    opening: int,
    closing: int,
    smallest: int,
    cluster: Cluster | None = None,
    say: Progress | None = None,
) -> Objects:
    """1 inside the cell, 0 outside, as ASEM: greys between two, opened and closed, holes filled, specks dropped.

    Blocks are read with as much around them as the balls reach, and holes and specks are those of the whole volume.

    Parameters
    ----------
    source, edges_nm
        The volume and the edges of its voxels.
    out
        New ``.zarr``.
    low, high
        Greys between which, both excluded, a voxel is taken for cell.
    opening, closing
        Radii of the balls in voxels.
    smallest
        Pieces of fewer voxels are dropped.
    cluster, say
        As for `label`; progress counts thirds.
    """
    cluster = cluster or Cluster()
    work = out.with_name(out.name + ".work")
    rough, filled = work / "rough.zarr", work / "filled.zarr"
    journal = Journal(work / "rough")
    of: Facts = {"source": str(source.path.resolve()), "changed": stamp(source.path), "greys": [low, high]}
    of |= {"balls": [opening, closing]}
    new = NewVolume(rough, edges_nm, source.offset_nm, labels=True, whole=source.whole)
    begin(journal, of, [new], source.shape, np.uint8, BLOCK)
    every = blocks(source.shape, (BLOCK, BLOCK, BLOCK))
    arguments = [(str(source.path), str(rough), low, high, opening, closing, b) for b in every]
    carry_out(journal, rough_block, arguments, cluster, _part(say, 0))
    new.finish(1)
    label(open_volume(rough), filled, level=1, mode="filled", block=BLOCK, cluster=cluster, say=_part(say, 1))
    whole = open_volume(filled)
    found = label(whole, out, level=1, mode="mask", block=BLOCK, smallest=smallest, cluster=cluster, say=_part(say, 2))
    shutil.rmtree(work, ignore_errors=True)
    return found


def rough_block(path: str, out: str, low: float, high: float, opening: int, closing: int, block: Block) -> Facts:
    """Greys between two, opened and closed, of one block."""
    reach = 2 * (opening + closing)
    wide = tuple(a - reach for a in block[0]), tuple(b + reach for b in block[1])
    part = read_mirrored(opened(path).array, *wide)
    mask = (
        ndimage.binary_opening((part > low) & (part < high), ball(opening)) if opening else (part > low) & (part < high)
    )
    if closing:
        mask = ndimage.binary_closing(mask, ball(closing))
    target(out)[slices(block)] = taken(mask, tuple(b - a for a, b in zip(*block, strict=True)), reach).astype(np.uint8)
    return {}


def ball(radius: int) -> NDArray[np.bool_]:
    """Voxels whose centres are at most ``radius`` away."""
    grid = np.mgrid[-radius : radius + 1, -radius : radius + 1, -radius : radius + 1]
    return np.asarray((grid**2).sum(axis=0) <= radius**2)


def _part(say: Progress | None, number: int) -> Progress | None:
    return None if say is None else lambda done, total: say(done + number * total, 3 * total)


def write_objects(path: Path, objects: Objects, source: Volume) -> None:
    """A table of objects: number, size, centre in voxels and nm, box, and whether it goes on outside the volume."""
    edges, parts = source.edges_nm or (1.0, 1.0, 1.0), objects.parts
    voxel_um3 = float(np.prod(edges)) / 1e9
    border = parts.at_border(source.shape)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["number", "voxels", "volume_um3", "z", "y", "x", "z_nm", "y_nm", "x_nm"]
            + [f"{end}_{axis}" for end in ("low", "high") for axis in "zyx"]
            + ["at_border"]
        )
        for n, centre in enumerate(parts.centres):
            places = [round(o + c * e, 2) for c, e, o in zip(centre, edges, source.offset_nm, strict=True)]
            row = [n + 1, int(parts.voxels[n]), f"{parts.voxels[n] * voxel_um3:.6g}", *(round(c, 3) for c in centre)]
            writer.writerow([*row, *places, *parts.low[n].tolist(), *parts.high[n].tolist(), int(border[n])])
