"""Prediction of a whole volume by one and more workers: ``python -m benchmarks.organelle_prediction``.

A simulated cell goes through ``cryonaut segment organelles``' own steps with a network of this package: one process
alone, then Dask clusters. Printed are wall and CPU time, throughput, the speed relative to one worker, the largest
memory of a process, and whether the maps are the same. Throughput counts from the end of the first block, so without
the start of a cluster; it means something only on a quiet machine.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from agent.cluster import Cluster
from drivers.organelles.labelling import label
from drivers.organelles.predicting import load_model, predict
from drivers.volumes import open_volume, write_ome_zarr
from models.organelles.network import Described
from simulators.specimen.cell import CellSettings, simulate


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="organelles-fast")
    parser.add_argument("--edge", type=int, default=192, help="voxels of the cell along each axis")
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        cell = simulate(CellSettings.of("naive-1", region=7, shape=(given.edge,) * 3))
        write_ome_zarr(here / "cell.zarr", cell.raw, cell.settings.voxel_nm)
        volume = open_volume(here / "cell.zarr")
        edges = volume.edges_nm or (1.0, 1.0, 1.0)
        table = Table("workers", "wall s", "CPU s", "kvoxel/s", "speed", "MB", "objects", "maps", title=given.model)
        first, base = None, 0.0
        described = Described.of(load_model(given.model, 1).manifest)
        levels = {n: round(255 * t) for n, t in zip(described.structures, described.thresholds, strict=True)}
        for workers in [0, *given.workers]:
            out = here / f"out{workers}"
            began = time.perf_counter()
            cluster = Cluster(workers=workers)
            times: list[float] = []

            def note(done: int, total: int, times: list[float] = times) -> None:
                times.append(time.perf_counter())

            made = predict(volume, edges, given.model, out, block=given.block, threads=1, cluster=cluster, say=note)
            wall = time.perf_counter() - began
            # from the first block's end to the last's: without the start of the cluster and of the network
            blocks, steady = len(times) - 2, times[-1] - times[1]
            maps = {name: open_volume(path).array[:] for name, path in made.paths.items()}
            objects = 0
            for name, level in levels.items():
                found = label(open_volume(made.paths[name]), out / f"{name}.zarr", level=level, block=given.block)
                objects += len(found.parts)
            first = first or maps
            voxels = int(np.prod(made.shape))
            rate = voxels * blocks / (blocks + 1) / max(steady, 1e-9)
            base = base or rate
            same = all(np.array_equal(maps[n], first[n]) for n in maps)
            table.add_row(
                str(workers) if workers else "none (this process)",
                f"{wall:.1f}",
                f"{made.cpu_seconds:.1f}",
                f"{rate / 1e3:.0f}",
                f"{rate / base:.2f}x",
                str(made.peak_mb),
                str(objects),
                "the same" if same else "DIFFER",
            )
    console = Console(width=110)
    console.print(f"{voxels / 1e6:.1f} Mvoxel, blocks of {given.block}, {cores} cores, load {os.getloadavg()[0]:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
