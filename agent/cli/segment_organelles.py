"""``cryonaut segment organelles`` and ``segment labels``: whole volumes by a network, block by block."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from agent.cli.volume_files import bar, edges_of
from agent.errors import ConfigError
from models.organelles.numbers import NUMBERS

Out = Annotated[Path, Parameter(alias="-o")]
Flag = Annotated[bool, Parameter(negative="")]


def organelles(
    volume: Path,
    /,
    *,
    out: Out,
    model: str = "organelles-fast",
    voxel_size: str = "",
    threshold: float | None = None,
    min_size: int = NUMBERS["objects"]["smallest"],
    mask: Path | None = None,
    block: int = 128,
    workers: int = 1,
    scheduler: str = "",
    threads: int = 0,
    restart: Flag = False,
    dry_run: Flag = False,
) -> None:
    """Find the organelles of a volume (FIB-SEM and the like) with a network: probability maps and numbered objects.

    Writes to --out, for each structure: `<structure>.probability.zarr` (0 to 255), `<structure>.labels.zarr` and
    `<structure>.csv` (OME-Zarr at the network's voxel size); always `slices.png`, `report.html` and `summary.json`.
    A run that was interrupted goes on; a worker that is lost costs the block that it had; finished blocks are never
    done again, also not for another threshold.

    Such as:

    - `cryonaut segment organelles cell.zarr -o found --dry-run`
    - `cryonaut segment organelles cell.zarr -o found --model organelles-fast --workers 4`
    - `cryonaut segment organelles cell.zarr -o found --scheduler tcp://head-node:8786 --mask cell_mask.zarr`

    Parameters
    ----------
    volume
        TIFF stack, folder of numbered TIFF sections, MRC, N5 or OME-Zarr (the fastest).
    out
        Folder for the results.
    model
        Name of weights of this package, or the manifest (`.yaml`) of others.
    voxel_size
        Edge of a voxel in nm, or its three edges `z,y,x`, where the file does not say it or says it wrong.
    threshold
        Probability from which a voxel belongs to a structure; by default what the network's manifest says.
    min_size
        Objects of fewer voxels are left out.
    mask
        Volume on the network's grid: where it is 0 nothing is predicted (see `cryonaut volume mask`).
    block
        Edge of the blocks in voxels: larger ones are faster and take more memory.
    workers
        Local Dask workers; 0: this process alone, without Dask.
    scheduler
        Address of a facility's Dask scheduler; its workers see the same files and have the same Cryonaut.
    threads
        Threads of each worker's network; 0: this machine's cores shared among the workers.
    restart
        Begin anew, whatever is in --out.
    dry_run
        Predict one block to measure, say what the volume would take, and do nothing.
    """
    from agent.cli.segment import speaking
    from agent.cluster import Cluster
    from drivers.organelles.predicting import predict, trial
    from drivers.volumes import open_volume

    with speaking():
        source = open_volume(volume)
        edges = edges_of(source, voxel_size)
        if threshold is not None and not 0 < threshold < 1:
            raise ConfigError(f"--threshold {threshold:g}: above 0 and below 1")
        if min_size < 1 or workers < 0:
            raise ConfigError(f"--min-size {min_size}, --workers {workers}: at least 1 voxel, at least 0 workers")
        threads = threads or _share(workers, scheduler)
        if dry_run:
            _say_cost(source, edges, model, trial(source, edges, model, block=block, threads=threads), block, workers)
            return
        cluster = Cluster(scheduler, workers)
        keep = open_volume(mask) if mask else None
        with bar(f"{volume.name}: {model}") as say:
            made = predict(
                source,
                edges,
                model,
                out,
                block=block,
                threads=threads,
                mask=keep,
                cluster=cluster,
                restart=restart,
                say=say,
            )
        counts = _objects(out, made, model, threshold, min_size, cluster)
        from dataclasses import replace

        from agent.cli.organelle_pictures import write_result

        facts = {
            "volume": f"{volume}, {' x '.join(str(n) for n in source.shape)} voxels of {edges} nm (z, y, x)",
            "network": f"{model}, on {' x '.join(str(n) for n in made.shape)} voxels of {made.edges_nm} nm",
            "took": f"{made.cpu_seconds:.0f} CPU-seconds, at most {made.peak_mb} MB in a process",
        }
        write_result(out, replace(source, edges_nm=edges), facts)
    for name, count in counts.items():
        print(f"{name}: {count} objects")
    print(f"{made.cpu_seconds:.0f} CPU-seconds, at most {made.peak_mb} MB in a process. Report: {out / 'report.html'}")


def labels(
    probability: Path,
    /,
    *,
    out: Out,
    threshold: float = 0.5,
    min_size: int = NUMBERS["objects"]["smallest"],
    block: int = 128,
    workers: int = 0,
    force: Flag = False,
) -> None:
    """Number the objects of a probability map that is there: another threshold, another smallest size.

    Objects are numbered in the order of their first voxels (z, y, x), the same for any block and any number of workers.

    Such as: `cryonaut segment labels found/mito.probability.zarr -o mito_70.zarr --threshold 0.7`

    Parameters
    ----------
    probability
        Volume of probabilities: 0 to 1, or bytes that mean 0 to 255.
    out
        New `.zarr` folder; a table of the objects is written beside it.
    threshold
        Probability from which a voxel belongs to an object.
    min_size
        Objects of fewer voxels are left out.
    block
        Edge of the blocks in voxels.
    workers
        Local Dask workers (dask extra); 0: this process alone.
    force
        Write over what is there.
    """
    from agent.cli.volume_files import free
    from agent.cluster import Cluster
    from drivers.organelles.labelling import label, write_objects
    from drivers.volumes import open_volume

    source = open_volume(probability)
    if out.suffix != ".zarr":
        raise ConfigError(f"--out {out}: an OME-Zarr is made; `cryonaut volume convert` makes others of it")
    if not 0 < threshold <= 1:
        raise ConfigError(f"--threshold {threshold:g}: above 0, at most 1")
    level = level_of(source, threshold)
    free(out, force)
    with bar(f"{probability.name}: objects") as say:
        cluster = Cluster(workers=workers)
        found = label(source, out, level=level, smallest=min_size, block=block, cluster=cluster, say=say)
    write_objects(out.with_suffix(".csv"), found, source)
    print(f"{out}: {len(found.parts)} objects, {found.left_out} smaller ones left out")


def level_of(source: Any, threshold: float) -> float:
    """The threshold in the volume's own numbers."""
    import numpy as np

    if source.array.dtype == np.uint8:
        return float(max(1, np.rint(threshold * 255)))
    if source.array.dtype.kind != "f":
        raise ConfigError(f"{source.path}: {source.array.dtype}; probabilities are bytes or floats")
    return threshold


def _share(workers: int, scheduler: str) -> int:
    """Threads of one worker: this machine's cores among its workers; 1 where others' machines are used."""
    import os

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if scheduler else max(1, cores // max(1, workers))


def _objects(out: Path, made: Any, model: str, threshold: float | None, min_size: int, cluster: Any) -> dict[str, int]:
    from drivers.organelles.labelling import label, write_objects
    from drivers.organelles.predicting import load_model
    from drivers.volumes import open_volume
    from models.organelles.network import Described

    described = Described.of(load_model(model, 1).manifest)
    counts = {}
    for name, usual in zip(described.structures, described.thresholds, strict=True):
        path, wanted = made.paths[name], threshold if threshold is not None else usual
        probability = open_volume(path)
        with bar(f"{name}: objects") as say:
            facts = {"structure": name, "threshold": wanted}
            target = out / f"{name}.labels.zarr"
            found = label(
                probability,
                target,
                level=level_of(probability, wanted),
                smallest=min_size,
                cluster=cluster,
                facts=facts,
                say=say,
            )
        write_objects(out / f"{name}.csv", found, probability)
        counts[name] = len(found.parts)
    return counts


def _say_cost(source: Any, edges: Any, model: str, took: Any, block: int, workers: int) -> None:
    import math

    from drivers.organelles.predicting import load_model
    from models.organelles.network import Described

    described = Described.of(load_model(model, 1).manifest)
    grid = [max(1, round(n * e / described.voxel_nm)) for n, e in zip(source.shape, edges, strict=True)]
    voxels = math.prod(grid)
    count = math.prod(-(-n // block) for n in grid)
    hours = count * took.seconds / max(1, workers) / 3600
    maps = len(described.structures)
    print(f"{voxels / 1e6:.1f} Mvoxel of {described.voxel_nm:g} nm in {count} blocks of {block} on {took.provider}")
    print(f"one block took {took.seconds:.2f} s: {took.voxels / took.seconds / 1e3:.0f} kvoxel/s for each worker")
    print(f"about {hours * 60:.1f} minutes with {max(1, workers)} workers that do not slow each other down")
    print(f"memory about {took.peak_mb / 1024:.1f} GiB for each worker; a smaller --block takes less")
    print(f"on disk at most {maps * voxels * (1 + 4) * 8 / 7 / 2**30:.2f} GiB before compression")
