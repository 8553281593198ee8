"""Probability maps of whole volumes: one block after the other, on as many processes as there are."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from agent.cluster import Cluster
from agent.errors import BadFileError
from drivers.organelles.jobs import Facts, Journal, Progress, carry_out, peak_mb
from drivers.organelles.preparing import begin, load_normaliser, opened, save_normaliser, stamp, target
from drivers.volumes import NewVolume, Volume
from drivers.volumes.base import Edges
from models import runtime
from models.organelles.blocks import Block, Corner, blocks, slices
from models.organelles.network import Described, Source, predicted
from models.organelles.normalise import BadGreyError, Normaliser, normaliser

LARGEST_CHUNK = 128
_NOTHING = Normaliser("none", np.array([0.0, 1.0]), np.array([0.0, 1.0]))


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker must know of a prediction; names of files and plain values only.

    Attributes
    ----------
    volume, edges_nm
        The volume and the edges of its voxels.
    tables
        File of the tables that normalise it.
    model
        Name of weights of this package, or path of a manifest.
    threads
        Threads of the network.
    out
        Probability volumes, one for each structure.
    mask
        Volume on the network's grid: where it is 0 nothing is predicted; empty: none.
    """

    volume: str
    edges_nm: Edges
    tables: str
    model: str
    threads: int
    out: tuple[str, ...]
    mask: str = ""


def predict_block(task: Task, block: Block) -> Facts:
    """Probabilities of one block times 255, written to their places; a block outside the mask stays 0."""
    keep = None
    if task.mask:
        keep = np.asarray(opened(task.mask).array[slices(block)]) != 0
        if not keep.any():
            return {"outside": True}
    model = load_model(task.model, task.threads)
    answer = predicted(source_of(task), model, Described.of(model.manifest), *block)
    for path, part in zip(task.out, answer, strict=True):
        grey = np.rint(np.clip(part, 0, 1) * 255).astype(np.uint8)
        target(path)[slices(block)] = grey if keep is None else np.where(keep, grey, np.uint8(0))
    return {"provider": model.provider}


def load_model(model: str, threads: int) -> runtime.OnnxModel:
    """The network, kept by the process."""
    name = Path(model) if model.endswith(".yaml") else model
    return runtime.load(name, runtime.Options(threads=threads))


@lru_cache(maxsize=2)
def source_of(task: Task) -> Source:
    """The volume on the network's grid."""
    described = Described.of(load_model(task.model, task.threads).manifest)
    return Source(opened(task.volume).array, task.edges_nm, described.voxel_nm, load_normaliser(task.tables))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a prediction made.

    Attributes
    ----------
    paths
        Probability volume of each structure.
    shape, edges_nm
        Of the network's grid.
    facts
        Of each block.
    """

    paths: dict[str, Path]
    shape: Corner
    edges_nm: Edges
    facts: Sequence[Facts]

    @property
    def peak_mb(self) -> int:
        """Most memory that a process held."""
        return max((int(f.get("peak_mb", 0)) for f in self.facts), default=0)

    @property
    def cpu_seconds(self) -> float:
        """Of all blocks together."""
        return float(sum(f.get("cpu_seconds", 0.0) for f in self.facts))


def predict(
    volume: Volume,
    edges_nm: Edges,
    model: str,
    out: Path,
    *,
    block: int = 128,
    threads: int = 0,
    mask: Volume | None = None,
    cluster: Cluster | None = None,
    restart: bool = False,
    say: Progress | None = None,
) -> Prediction:
    """Probability volumes ``OUT/<structure>.probability.zarr``; blocks that are finished already are not done again.

    Parameters
    ----------
    volume, edges_nm
        What is searched, and the edges of its voxels.
    model
        Name of weights of this package, or path of a manifest.
    out
        Folder.
    block
        Edge of a block in voxels of the network's grid, a multiple of the network's step.
    threads
        Threads of each worker's network; 0: ONNX Runtime's share of this machine.
    mask
        On the network's grid: where it is 0 nothing is predicted.
    cluster
        Where to work.
    restart
        Begin anew, whatever is there.
    say
        Called with how many blocks are done, of how many.

    Raises
    ------
    BadFileError
        When the volume's grey values, the block or the mask do not fit.
    ModelError
        When the network cannot be used.
    """
    net = load_model(model, threads)
    described = Described.of(net.manifest)
    if block % described.step or block < described.step:
        raise BadFileError(f"--block {block}: {net.name} needs multiples of {described.step}")
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / "journal")
    of: Facts = {
        "volume": str(volume.path.resolve()),
        "changed": stamp(volume.path),
        "edges": edges_nm,
        "model": net.fingerprint,
        "block": block,
        "mask": str(mask.path.resolve()) if mask else "",
    }
    grid = Source(volume.array, edges_nm, described.voxel_nm, _NOTHING)
    shape = grid.shape
    if mask is not None and mask.shape != shape:
        raise BadFileError(f"{mask.path}: mask of {mask.shape} voxels (z, y, x); the network's grid has {shape}")
    paths = {name: out / f"{name}.probability.zarr" for name in described.structures}
    offset = grid_offset(volume, grid)
    new = [NewVolume(p, grid.grid_edges_nm, offset, whole=_whole(volume, grid)) for p in paths.values()]
    begin(journal, of, new, shape, np.uint8, chunk_of(block), restart=restart)
    tables = journal.folder / "tables.npz"
    if not tables.exists():
        try:
            save_normaliser(tables, normaliser(volume.array, described.normalisation))
        except BadGreyError as error:
            raise BadFileError(f"{volume.path}: {error}") from error
    names = tuple(str(p) for p in paths.values())
    task = Task(str(volume.path), edges_nm, str(tables), model, threads, names, str(mask.path) if mask else "")
    every = blocks(shape, (block, block, block))
    facts = carry_out(journal, predict_block, [(task, b) for b in every], cluster or Cluster(), say)
    for name, one in zip(described.structures, new, strict=True):
        one.finish(facts={"structure": name, "model": net.name, "fingerprint": net.fingerprint, "scale": 255})
    return Prediction(paths, shape, grid.grid_edges_nm, facts)


def chunk_of(block: int) -> int:
    """Edge of the chunks that tile a block, so that no two workers write to one."""
    parts = -(-block // LARGEST_CHUNK)
    return block // next(n for n in range(parts, block + 1) if block % n == 0)


def grid_offset(volume: Volume, source: Source) -> Edges:
    """Position of the first voxel of the network's grid: its centre is not the file's where they differ in size."""
    shift = [(f - 1) / 2 * e for f, e in zip(source.factors, source.edges_nm, strict=True)]
    z, y, x = (o + s for o, s in zip(volume.offset_nm, shift, strict=True))
    return z, y, x


def _whole(volume: Volume, source: Source) -> Any:
    return volume.whole if source.factors == (1.0, 1.0, 1.0) else None


@dataclass(frozen=True, slots=True)
class Trial:
    """What one block took: a measured estimate for a whole volume."""

    voxels: int
    seconds: float
    peak_mb: int
    provider: str


def trial(volume: Volume, edges_nm: Edges, model: str, *, block: int, threads: int = 0) -> Trial:
    """Predict one block of synthetic grey values, write nothing, and say what it took."""
    net = load_model(model, threads)
    described = Described.of(net.manifest)
    if block % described.step or block < described.step:
        raise BadFileError(f"--block {block}: {net.name} needs multiples of {described.step}")
    flat = np.random.default_rng(0).integers(0, 255, (block, block, block), dtype=np.uint8)
    source = Source(flat, (described.voxel_nm,) * 3, described.voxel_nm, normaliser(flat, "none"))
    began = time.perf_counter()
    predicted(source, net, described, (0, 0, 0), (block, block, block))
    return Trial(block**3, time.perf_counter() - began, peak_mb(), net.provider)
