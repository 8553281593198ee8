"""Organelles in volumes: the published table on simulated cells, throughput beside the published network, real slices.

    python -m benchmarks.organelles --work runs/organelles                 # everything; a finished part is not repeated
    python -m benchmarks.organelles --only cells --work runs/organelles    # one cell, joint, fine-tuned, from scratch
    python -m benchmarks.organelles --only speed                           # voxels/s, ratio to the published network
    python -m benchmarks.organelles --only epfl --data ../shared/data/volumes   # mitochondria of real FIB-SEM slices

Regions that are measured were never learned from nor validated on. Naive cells give nothing but the one block that
fine-tuning and the from-scratch baseline see, and one more to choose their checkpoint by.
"""

import argparse
import itertools
import json
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import organelle_slices
from models.runtime import load
from models.training.loop import load_recipe
from models.training.organelles import Data, fine_tune, learn, measure, simulated, simulated_data
from models.training.organelles_data import Annotated
from models.training.organelles_network import FastNet, OrganelleNet, PublishedNet, parameters
from models.training.organelles_recipe import OrganelleRecipe
from simulators.specimen.cell import CellName

RECIPE = Path(__file__).resolve().parent.parent / "config" / "training" / "organelles.yaml"
TRAINED: tuple[CellName, ...] = ("train-1", "train-2")
NAIVE: tuple[CellName, ...] = ("naive-1", "naive-2")
TEST_REGION = 91
_ORDER = ("one", "joint", "from", "fine-tuned")
Figures = dict[str, dict[str, tuple[float, float, float]]]


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("cells", "speed", "epfl", "vnc"), default=None)
    parser.add_argument("--work", type=Path, default=Path("runs/organelles"), help="folder of the trainings")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/volumes"), help="folder of real volumes")
    parser.add_argument("--config", type=Path, default=RECIPE)
    parser.add_argument("--iterations", type=int, default=None, help="in the place of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.only in (None, "speed"):
        speed()
    if asked.only in (None, "cells"):
        cells(load_recipe(asked.config, OrganelleRecipe), asked.work, asked.seed, asked.iterations)
    if asked.only in (None, "epfl", "vnc"):
        for name in ("epfl", "vnc") if asked.only is None else (asked.only,):
            organelle_slices.run(name, asked.data, asked.work, asked.seed)


def cells(recipe: OrganelleRecipe, work: Path, seed: int, iterations: int | None) -> None:
    """F1 on all four cells of networks from one cell, from two, fine-tuned, and from scratch."""
    begun = time.process_time()
    shape = (176, 176, 176)
    tests = {name: simulated(name, TEST_REGION, recipe, shape) for name in (*TRAINED, *NAIVE)}

    def figures(network: OrganelleNet, names: tuple[CellName, ...]) -> Figures:
        found = {name: measure(network, [tests[name]], recipe) for name in names}
        return {
            name: {s: (one.f1, one.precision, one.recall) for s, one in scores.items()}
            for name, scores in found.items()
        }

    every: tuple[CellName, ...] = (*TRAINED, *NAIVE)

    def trained(folder: Path, used: tuple[CellName, ...]) -> Figures:
        data = simulated_data(recipe, used)
        network, _ = learn(recipe, data, folder, seed=seed, iterations=iterations, say=_say)
        return figures(network, every)

    def tuned(folder: Path, cell: CellName, start: Path | None) -> Figures:
        block = fullest(simulated(cell, 50, recipe, shape), recipe)
        data = Data((block,), (simulated(cell, 60, recipe, shape),), f"one block of {cell}")
        network, _ = fine_tune(recipe, data, folder, start, seed=seed, say=_say)
        return figures(network, (cell,))

    joint = work / "joint"
    jobs: dict[str, tuple[Path, Callable[[Path], Figures]]] = {
        "joint": (joint, partial(trained, used=TRAINED)),
    }
    for cell in NAIVE:
        jobs[f"from scratch on {cell}"] = (work / f"scratch-{cell}", partial(tuned, cell=cell, start=None))
        jobs[f"fine-tuned on {cell}"] = (work / f"fine-{cell}", partial(tuned, cell=cell, start=joint))
    jobs["one cell"] = (work / "one-cell", partial(trained, used=TRAINED[:1]))
    rows: dict[str, Figures] = {}
    for name, (folder, work_on) in jobs.items():
        _say(f"-- {name}")
        rows[name] = _once(folder, work_on)
    for structure in recipe.structures:
        print(f"\n{structure}: F1 (precision, recall)")
        print(f"{'':24}" + "".join(f"{cell:>22}" for cell in every))
        for name, row in sorted(rows.items(), key=lambda item: _ORDER.index(item[0].split()[0])):
            parts = []
            for cell in every:
                f1, precision, recall = row.get(cell, {}).get(structure, (None, None, None))
                parts.append(f"{'':>22}" if f1 is None else f"{f1:>8.3f} ({precision:.2f}, {recall:.2f})")
            print(f"{name:24}" + "".join(parts))
    print(f"\n{time.process_time() - begun:.0f} s of processor time for what was not there yet")


def fullest(volume: Annotated, recipe: OrganelleRecipe) -> Annotated:
    """A region of which one block is annotated: the one that holds most of everything, as a person would choose it.

    What holds as much of a structure as the region on average is full enough of it.
    """
    edge, each = recipe.finetuning.edge, range(len(recipe.structures))
    usual = [max(float(((volume.bits >> k) & 1).mean()), 1e-9) for k in each]

    def holds(box: tuple[slice, ...]) -> float:
        return sum(min(1.0, float(((volume.bits[box] >> k) & 1).mean()) / usual[k]) for k in each)

    places = [range(0, n - edge + 1, 16) for n in volume.raw.shape]
    boxes = [tuple(slice(a, a + edge) for a in corner) for corner in itertools.product(*places)]
    mask = np.zeros(volume.raw.shape, bool)
    mask[max(boxes, key=holds)] = True
    return replace(volume, mask=mask)


def _once(folder: Path, work: Callable[[Path], Figures]) -> Figures:
    """What a folder's ``figures.json`` says, or else the result of the work, written there."""
    path = folder / "figures.json"
    if path.exists():
        kept: Figures = json.loads(path.read_text())
        return kept
    found = work(folder)
    path.write_text(json.dumps(found, indent=1))
    return found


def _say(text: str) -> None:
    print(text, flush=True)


def speed(out_fast: int = 192) -> None:
    """Voxels answered for each second: the published network by plain torch, and the fast one by each engine."""
    published, fast = PublishedNet().eval(), FastNet(6).eval()
    print(f"published {parameters(published):,} parameters, fast {parameters(fast):,}")

    def torch_run(network: Any, size: int, *, bf16: bool = False) -> Callable[[], int]:
        volume = torch.rand(1, 1, size, size, size)

        def once() -> int:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return int(np.prod(network(volume).shape[2:]))

        return once

    model = load("organelles-fast")
    context = int(model.manifest.settings["context"])
    asked = np.random.default_rng(0).random((1, 1, *[out_fast + 2 * context] * 3), np.float32)
    engines: list[tuple[str, Callable[[], int]]] = [
        ("published, torch fp32, 204 in, 110 out", torch_run(published.classes, 204)),
        (f"fast, torch fp32, {out_fast} out", torch_run(fast, out_fast + 72)),
        (f"fast, torch bf16, {out_fast} out", torch_run(fast, out_fast + 72, bf16=True)),
        (f"fast, ONNX Runtime, {out_fast} out", lambda: int(np.prod(model.run(asked)["probability"].shape[2:]))),
    ]
    base: float | None = None
    print(f"{'':42}{'kvoxel/s':>10}{'per CPU s':>11}{'ratio':>8}   (ratio of CPU seconds to the published one)")
    for name, once in engines:
        walls, cpus = [], []
        voxels = 0
        for _ in range(2):
            wall, cpu = time.perf_counter(), time.process_time()
            voxels = once()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        wall, cpu = voxels / min(walls) / 1e3, voxels / min(cpus) / 1e3
        base = base or cpu
        print(f"{name:42}{wall:>10.0f}{cpu:>11.0f}{cpu / base:>8.1f}")
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


if __name__ == "__main__":
    main()
