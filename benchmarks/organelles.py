"""Organelles in volumes: the published table on simulated cells, throughput beside the published network, real slices.

    python -m benchmarks.organelles --work runs/organelles                 # everything; a finished part is not repeated
    python -m benchmarks.organelles --only cells --work runs/organelles    # one cell, joint, fine-tuned, from scratch
    python -m benchmarks.organelles --only shipped                         # the shipped weights on the four cells
    python -m benchmarks.organelles --only pictures --work runs/organelles # what they mark in the naive cells
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

import msgspec
import numpy as np
import torch

from benchmarks import organelle_slices
from benchmarks.organelle_pictures import drawn, network_of
from models.runtime import WEIGHTS, load
from models.training.loop import load_recipe
from models.training.organelles import WEIGHTS as SHIPPED
from models.training.organelles import Data, fine_tune, learn, load_weights, measure, simulated, simulated_data
from models.training.organelles_data import Annotated
from models.training.organelles_network import FastNet, OrganelleNet, PublishedNet, build, parameters
from models.training.organelles_recipe import OrganelleRecipe
from simulators.specimen.cell import CellName

RECIPE = Path(__file__).resolve().parent.parent / "config" / "training" / "organelles.yaml"
TRAINED: tuple[CellName, ...] = ("train-1", "train-2")
NAIVE: tuple[CellName, ...] = ("naive-1", "naive-2")
TEST_REGION = 91
SHAPE = (176, 176, 176)
_ORDER = ("one", "joint", "from", "fine-tuned")
Figures = dict[str, dict[str, tuple[float, float, float]]]


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("cells", "pictures", "shipped", "speed", "epfl", "vnc"), default=None)
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
    if asked.only in (None, "pictures"):
        pictures(load_recipe(asked.config, OrganelleRecipe), asked.work)
    if asked.only in (None, "shipped"):
        shipped(load_recipe(asked.config, OrganelleRecipe))
    if asked.only in (None, "epfl", "vnc"):
        for name in ("epfl", "vnc") if asked.only is None else (asked.only,):
            organelle_slices.run(name, asked.data, asked.work, asked.seed)


def cells(recipe: OrganelleRecipe, work: Path, seed: int, iterations: int | None) -> None:
    """F1 on all four cells of networks from one cell, from two, fine-tuned, and from scratch."""
    begun = time.process_time()
    every: tuple[CellName, ...] = (*TRAINED, *NAIVE)

    def trained(folder: Path, used: tuple[CellName, ...]) -> Figures:
        data = simulated_data(recipe, used)
        network, _ = learn(recipe, data, folder, seed=seed, iterations=iterations, say=_say)
        return figures(network, every, recipe)

    joint = work / "joint"
    jobs: dict[str, tuple[Path, Callable[[Path], Figures]]] = {
        "joint": (joint, partial(trained, used=TRAINED)),
    }
    for cell in NAIVE:
        jobs[f"from scratch on {cell}"] = (work / f"scratch-{cell}", partial(tuned, recipe, cell, None, seed))
        jobs[f"fine-tuned on {cell}"] = (work / f"fine-{cell}", partial(tuned, recipe, cell, joint, seed))
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


def figures(network: OrganelleNet, cells: tuple[CellName, ...], recipe: OrganelleRecipe) -> Figures:
    """F1, precision and recall of each structure in the regions that nothing was learned from, by cell."""
    found = {}
    for cell in cells:
        scores = measure(network, [simulated(cell, TEST_REGION, recipe, SHAPE)], recipe)
        found[str(cell)] = {name: (one.f1, one.precision, one.recall) for name, one in scores.items()}
    return found


def tuned(recipe: OrganelleRecipe, cell: CellName, start: Path | None, seed: int, folder: Path) -> Figures:
    """Figures of a network that went on with one block of a naive cell, or began with it."""
    block = fullest(simulated(cell, 50, recipe, SHAPE), recipe)
    data = Data((block,), (simulated(cell, 60, recipe, SHAPE),), f"one block of {cell}")
    network, _ = fine_tune(recipe, data, folder, start, seed=seed, say=_say)
    return figures(network, (cell,), recipe)


def pictures(recipe: OrganelleRecipe, work: Path) -> None:
    """Sections of the naive cells with what the networks of the table mark, in ``work/cells.jpg``."""
    tests: dict[str, Annotated] = {name: simulated(name, TEST_REGION, recipe, SHAPE) for name in NAIVE}
    naive: tuple[str, ...] = NAIVE
    one, joint = (network_of(work / name, recipe) for name in ("one-cell", "joint"))
    columns = {
        "one cell": dict.fromkeys(naive, one),
        "joint": dict.fromkeys(naive, joint),
        "from scratch, one block": {c: network_of(work / f"scratch-{c}", recipe) for c in naive},
        "fine-tuned, one block": {c: network_of(work / f"fine-{c}", recipe) for c in naive},
    }
    drawn(work / "cells.jpg", tests, columns, recipe)
    print(f"{work / 'cells.jpg'}")


def shipped(recipe: OrganelleRecipe) -> None:
    """F1 of the weights in use on regions of the four cells; of the naive ones they have seen nothing."""
    manifest = WEIGHTS / f"{SHIPPED}.yaml"
    settings = load(SHIPPED).manifest.settings
    recipe = msgspec.structs.replace(recipe, structures=tuple(settings["structures"]))
    network = build(recipe.arch, len(recipe.structures), recipe.width, norm=False)
    load_weights(network, manifest, recipe.structures)
    print(f"{'F1 (precision, recall)':24}" + "".join(f"{name:>22}" for name in recipe.structures))
    for cell in (*TRAINED, *NAIVE):
        for what, limits in (("0.5", None), ("the manifest's", settings["thresholds"])):
            found = measure(network, [simulated(cell, TEST_REGION, recipe, SHAPE)], recipe, thresholds=limits)
            parts = [f"{s.f1:.3f} ({s.precision:.2f}, {s.recall:.2f})" for s in found.values()]
            print(f"{cell + ', ' + what:24}" + "".join(f"{part:>22}" for part in parts))


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
