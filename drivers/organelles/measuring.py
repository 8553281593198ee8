"""Objects of label volumes on disk, measured block by block: sizes, surfaces, contacts; pores and pits one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.cluster import Cluster
from agent.errors import BadFileError
from drivers.organelles.jobs import Facts, Journal, Progress, carry_out
from drivers.organelles.preparing import opened, stamp
from drivers.volumes import Volume
from drivers.volumes.base import Edges
from models.organelles import pits, pores
from models.organelles.blocks import Block, blocks, slices
from models.organelles.envelope import envelope, freed
from models.organelles.surface import areas, contacts, reach

BLOCK = 128


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of a label volume, as columns.

    Attributes
    ----------
    numbers
        Their values in the volume.
    voxels
        How many each has.
    centres
        In voxels (z, y, x).
    low, high
        Corners of their boxes; the high one outside.
    area_nm2
        Of their surfaces, without what lies at the border of the volume.
    at_border
        Whether they touch it.
    """

    numbers: NDArray[np.int64]
    voxels: NDArray[np.int64]
    centres: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    area_nm2: NDArray[np.float64]
    at_border: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.numbers)


def checked(volume: Volume) -> Edges:
    """Edges of the voxels of a label volume.

    Raises
    ------
    BadFileError
        When it holds no labels, or does not say the edges.
    """
    if np.dtype(volume.array.dtype).kind not in "iu":
        raise BadFileError(f"{volume.path}: {volume.array.dtype}; labels are whole numbers")
    if volume.edges_nm is None:
        raise BadFileError(f"{volume.path}: says no voxel size: `cryonaut volume convert --voxel-size NM` gives it one")
    return volume.edges_nm


def same_grid(one: Volume, other: Volume) -> None:
    """Refuse two label volumes whose voxels are not the same places.

    Raises
    ------
    BadFileError
        What differs.
    """
    a, b = checked(one), checked(other)
    if one.shape != other.shape:
        raise BadFileError(f"{other.path}: {other.shape} voxels (z, y, x), {one.path} has {one.shape}: another grid")
    if not np.allclose(a, b, rtol=1e-3):
        raise BadFileError(f"{other.path}: voxels of {b} nm, those of {one.path} are {a}: another grid")
    if not np.allclose(one.offset_nm, other.offset_nm, atol=0.1 * min(a)):
        raise BadFileError(f"{other.path}: begins at {other.offset_nm} nm, {one.path} at {one.offset_nm}: off the grid")


def object_block(path: str, edges: Edges, block: Block) -> Facts:
    """Voxels, sums, boxes and areas of the labels in a block."""
    volume = opened(path)
    low = [max(0, a - 1) for a in block[0]]
    high = [min(n, b + 1) for n, b in zip(volume.shape, block[1], strict=True)]
    wide = np.asarray(volume.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    at = [slice(a - s, b - s) for a, b, s in zip(*block, low, strict=True)]
    inner = (at[0], at[1], at[2])
    numbers, which = np.unique(wide[inner], return_inverse=True)
    which = which.reshape(wide[inner].shape)
    found: dict[str, list[float]] = {
        str(n): [float(v)] for n, v in zip(numbers, np.bincount(which.ravel()), strict=True)
    }
    for axis in range(3):
        along = np.arange(block[0][axis], block[1][axis])
        index = which * len(along) + (along - along[0]).reshape([-1 if a == axis else 1 for a in range(3)])
        counts = np.bincount(index.ravel(), minlength=len(numbers) * len(along)).reshape(len(numbers), len(along))
        for number, row in zip(numbers.tolist(), counts, strict=True):
            there = along[row > 0]
            found[str(number)] += [float(row @ along), float(there[0]), float(there[-1] + 1)]
    found.pop("0", None)
    return {"objects": found, "areas": {str(n): area for n, area in areas(wide, inner, edges).items()}}


def objects(volume: Volume, work: Path, *, cluster: Cluster | None = None, say: Progress | None = None) -> Objects:
    """What is known of the objects of a label volume; ``work`` is a folder for the journal, which is taken away."""
    edges = checked(volume)
    journal = Journal(work)
    journal.begin({"source": str(volume.path.resolve()), "changed": stamp(volume.path), "edges": edges})
    every = blocks(volume.shape, (BLOCK, BLOCK, BLOCK))
    facts = carry_out(journal, object_block, [(str(volume.path), edges, b) for b in every], cluster or Cluster(), say)
    rows: dict[int, list[Any]] = {}
    area: dict[int, float] = {}
    for one in facts:
        for name, values in one["objects"].items():
            row = rows.setdefault(int(name), [0.0, np.zeros(3), np.full(3, np.inf), np.zeros(3)])
            triples = np.array(values[1:]).reshape(3, 3)
            row[0] += values[0]
            row[1] += triples[:, 0]
            row[2] = np.minimum(row[2], triples[:, 1])
            row[3] = np.maximum(row[3], triples[:, 2])
        for name, part in one["areas"].items():
            area[int(name)] = area.get(int(name), 0.0) + part
    journal.end()
    numbers = np.array(sorted(rows), np.int64)
    picked = [rows[int(n)] for n in numbers]
    voxels = np.array([r[0] for r in picked], np.int64)
    low = np.array([r[2] for r in picked], np.int64).reshape(-1, 3)
    high = np.array([r[3] for r in picked], np.int64).reshape(-1, 3)
    return Objects(
        numbers,
        voxels,
        np.array([r[1] / r[0] for r in picked]).reshape(-1, 3),
        low,
        high,
        np.array([area.get(int(n), 0.0) for n in numbers], float),
        np.asarray((low <= 0).any(axis=1) | (high >= np.array(volume.shape)).any(axis=1)),
    )


# ---------------------------------------------------------------------------------------------- contacts


def contact_block(first: str, second: str, edges: Edges, within_nm: float, block: Block) -> Facts:
    """Contacts of the first volume's objects with the second's, of surfaces in a block."""
    one, other = opened(first), opened(second)
    halo = reach(edges, within_nm)
    low = [max(0, a - h) for a, h in zip(block[0], halo, strict=True)]
    high = [min(n, b + h) for n, b, h in zip(one.shape, block[1], halo, strict=True)]
    at = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inner = [slice(a - s, b - s) for a, b, s in zip(*block, low, strict=True)]
    place = (inner[0], inner[1], inner[2])
    found = contacts(np.asarray(one.array[at]), np.asarray(other.array[at]), place, edges, within_nm)
    return {"pairs": [[a, b, c.area, c.gap] for (a, b), c in sorted(found.items())]}


def contact_sites(
    first: Volume,
    second: Volume,
    within_nm: float,
    work: Path,
    *,
    cluster: Cluster | None = None,
    say: Progress | None = None,
) -> dict[tuple[int, int], tuple[float, float]]:
    """Area (nm²) of each object of ``first`` within a distance of each of ``second``, and their smallest gap (nm)."""
    same_grid(first, second)
    edges = checked(first)
    journal = Journal(work)
    of = {"first": str(first.path.resolve()), "second": str(second.path.resolve()), "within": within_nm}
    journal.begin(of | {"changed": [stamp(first.path), stamp(second.path)]})
    every = blocks(first.shape, (BLOCK, BLOCK, BLOCK))
    arguments = [(str(first.path), str(second.path), edges, within_nm, b) for b in every]
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for facts in carry_out(journal, contact_block, arguments, cluster or Cluster(), say):
        for a, b, area, gap in facts["pairs"]:
            old = found.get((a, b), (0.0, np.inf))
            found[(a, b)] = (old[0] + area, min(old[1], gap))
    journal.end()
    return dict(sorted(found.items()))


# ---------------------------------------------------------------------------------------------- pores and pits


def place_in(volume: Volume, labels: Volume, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """A place in the voxels of a label volume as one in those of the grey volume.

    Raises
    ------
    BadFileError
        When it lies outside: the labels belong to another volume, or their offset is lost.
    """
    edges, own = volume.edges_nm or (1.0, 1.0, 1.0), labels.edges_nm or (1.0, 1.0, 1.0)
    at = (np.array(labels.offset_nm) + centre * own - volume.offset_nm) / edges
    if (at < -1).any() or (at > np.array(volume.shape)).any():
        z, y, x = (float(v) for v in np.array(labels.offset_nm) + centre * own)
        raise BadFileError(
            f"{labels.path}: an object at {z:.0f}, {y:.0f}, {x:.0f} nm (z, y, x) is outside of {volume.path}:"
            " labels of another volume, or off its grid"
        )
    return np.asarray(at)


def voxels_of(labels: Volume, found: Objects, n: int) -> NDArray[np.float64]:
    """Places of an object's voxels, (n, 3), in voxels."""
    block: Any = (tuple(found.low[n].tolist()), tuple(found.high[n].tolist()))
    part = np.asarray(labels.array[slices(block)]) == found.numbers[n]
    return np.asarray(np.argwhere(part) + found.low[n], float)


def measured_pores(
    volume: Volume,
    labels: Volume,
    found: Objects,
    *,
    nucleus: Volume | None = None,
    alpha_nm: float | None = None,
    shortest_nm: float = 15.0,
) -> Iterator[tuple[pores.Pore, NDArray[np.float64]]]:
    """Each pore with its face-on picture; objects whose short axis is below ``shortest_nm`` are passed over.

    The direction is that of the nucleus' surface where one is given, else that of the surface through all pores, else
    the object's own short axis.
    """
    edges, own = volume.edges_nm or (1.0, 1.0, 1.0), np.array(checked(labels))
    kept, shorts = [], []
    for n in range(len(found)):
        way, length = pores.short_axis(voxels_of(labels, found, n) * own)
        if length >= shortest_nm:
            kept.append(n)
            shorts.append(way)
    centres = found.centres[kept] * own
    surface = envelope(freed(centres), alpha_nm)
    ways = surface.normals_at(centres)
    for n, way, short in zip(kept, ways, shorts, strict=True):
        centre = found.centres[n]
        origin, source = way, "pores"
        if nucleus is not None:
            origin = pores.mask_normal(nucleus.array, checked(nucleus), list(place_in(nucleus, labels, centre)))
            source = "envelope"
        if not np.isfinite(origin).all():
            origin, source = (way, "pores") if np.isfinite(way).all() else (short, "object")
        at = place_in(volume, labels, centre)
        pore, picture = pores.measured(volume.array, edges, int(found.numbers[n]), at, origin, source)
        yield pore, picture


def measured_pits(
    volume: Volume, labels: Volume, found: Objects
) -> Iterator[tuple[pits.Pit, NDArray[np.float64], NDArray[np.float64]]]:
    """Each pit or vesicle with the picture of its best plane and the outline in it."""
    edges, own = volume.edges_nm or (1.0, 1.0, 1.0), checked(labels)
    for n in range(len(found)):
        extent = float(((found.high[n] - found.low[n]) * np.array(own)).max())
        at = place_in(volume, labels, found.centres[n])
        inside = pits.Only(labels.array, int(found.numbers[n]), own, found.centres[n].tolist())
        yield pits.measured(volume.array, edges, int(found.numbers[n]), at.tolist(), extent, inside)
