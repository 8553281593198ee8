"""Organelle networks from annotated volumes: learn, go on with one block of a new cell, measure, and export.

The protocol is that of ASEM (Gallusser et al., J Cell Biol 222, e202208005, 2023); see `organelles_recipe` for its
numbers and `organelles_protocol` for what the article leaves to the eye.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from models import runtime
from models.training.card import Card, Figure, write_card
from models.training.export import OPSET, export_onnx
from models.training.loop import Say, TrainingError, seeded
from models.training.organelles_data import Annotated, Blocks, fixed_blocks
from models.training.organelles_loop import Run, best_device, train
from models.training.organelles_network import STEP, OrganelleNet, build, condition
from models.training.organelles_protocol import Scores, best_threshold, score
from models.training.organelles_recipe import OrganelleRecipe
from simulators.specimen.cell import CellName, CellSettings, simulate

WEIGHTS = "organelles-fast"


@dataclass(frozen=True, slots=True)
class Data:
    """What a training may see.

    Attributes
    ----------
    training
        Volumes to learn from.
    held_out
        Volumes of the same cells, or of naive ones, to validate on.
    what
        In a few words, for the manifest.
    """

    training: tuple[Annotated, ...]
    held_out: tuple[Annotated, ...] = ()
    what: str = ""


def simulated(
    name: CellName, region: int, recipe: OrganelleRecipe, shape: tuple[int, int, int] = (176, 176, 176)
) -> Annotated:
    """A region of a simulated cell with its annotation."""
    cell = simulate(CellSettings.of(name, region, shape=shape, voxel_nm=recipe.voxel_nm))
    return Annotated.of(f"{name}/{region}", cell.raw, cell.labels, recipe.structures)


def simulated_data(
    recipe: OrganelleRecipe, cells: Sequence[CellName] = ("train-1", "train-2"), regions: int = 2
) -> Data:
    """Regions of simulated cells to learn from, and one more of each, of which nothing is learned, to validate on."""
    training = tuple(simulated(cell, region, recipe) for cell in cells for region in range(regions))
    held_out = tuple(simulated(cell, 90, recipe) for cell in cells)
    return Data(training, held_out, f"{len(training)} regions of simulated cells {' and '.join(cells)}")


def learn(
    recipe: OrganelleRecipe,
    data: Data,
    folder: Path,
    *,
    seed: int = 0,
    iterations: int | None = None,
    start: Path | None = None,
    say: Say = print,
) -> tuple[OrganelleNet, Run]:
    """The network of the middle of the fit regime, and how it came about.

    Parameters
    ----------
    recipe, data, seed
        What everything follows from.
    folder
        For state and checkpoints.
    iterations
        In the place of the recipe's.
    start
        Weights (a checkpoint's ``.pt``) to begin from.

    Raises
    ------
    TrainingError
        When something does not fit.
    """
    seeded(seed)
    network = build(recipe.arch, len(recipe.structures), recipe.width)
    if start is not None:
        load_weights(network, start)
    blocks = Blocks(data.training, recipe, network.context, seed)
    if start is None and recipe.arch == "fast" and not (folder / "state.pt").exists():
        condition(network, blocks.batch(0).volume)
    held_out = {v.name: fixed_blocks(v, recipe, network.context, recipe.validation.blocks) for v in data.held_out}
    run = train(
        network,
        blocks,
        held_out,
        recipe,
        folder,
        iterations=iterations,
        start="" if start is None else hashlib.sha256(start.read_bytes()).hexdigest(),
        say=say,
    )
    load_weights(network, run.weights(run.regime.middle))
    regime = [run.checkpoints[k].iteration for k in (run.regime.first, run.regime.middle, run.regime.last)]
    found = "fit regime" if run.regime.found else "no stable validation loss yet; lowest window"
    say(f"{found}: iterations {regime[0]} to {regime[2]}, used: {regime[1]}")
    return network.eval(), run


def load_weights(network: OrganelleNet, path: Path) -> None:
    """Weights of a checkpoint.

    Raises
    ------
    TrainingError
        When the file is none, or one of another network.
    """
    try:
        network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # torch raises many kinds
        raise TrainingError(f"{path}: no weights of this network: {' '.join(str(error).split())[:200]}") from error


def predict(
    network: OrganelleNet, raw: NDArray[np.uint8] | NDArray[np.float32], *, block: int = 128, bf16: bool = False
) -> NDArray[np.float32]:
    """Probabilities (structures, z, y, x) of a whole volume that fits memory, mirrored at its borders."""
    device = next(network.parameters()).device
    context, shape = network.context, raw.shape
    grey = raw.astype(np.float32) / np.float32(255) if raw.dtype == np.uint8 else np.asarray(raw, np.float32)
    full = [-(-n // STEP) * STEP for n in shape]
    padded = np.pad(grey, [(context, context + f - n) for f, n in zip(full, shape, strict=True)], mode="symmetric")
    out = np.empty((network.structures, *full), np.float32)
    starts = [range(0, f, block) for f in full]
    network.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for z in starts[0]:
            for y in starts[1]:
                for x in starts[2]:
                    ends = [min(a + block, f) for a, f in zip((z, y, x), full, strict=True)]
                    box = tuple(slice(a, b + 2 * context) for a, b in zip((z, y, x), ends, strict=True))
                    seen = torch.from_numpy(np.ascontiguousarray(padded[box]))[None, None].to(device)
                    out[:, z : ends[0], y : ends[1], x : ends[2]] = network(seen)[0].float().cpu().numpy()
    return out[:, : shape[0], : shape[1], : shape[2]]


def measure(
    network: OrganelleNet,
    volumes: Sequence[Annotated],
    recipe: OrganelleRecipe,
    *,
    thresholds: Mapping[str, float] | None = None,
    counted: Mapping[str, NDArray[np.bool_]] | None = None,
) -> dict[str, Scores]:
    """Scores of each structure over volumes.

    Parameters
    ----------
    thresholds
        By structure; by default the recipe's.
    counted
        By structure, where voxels count, such as outside a metric exclusion zone; with one volume only.
    """
    total = {name: Scores() for name in recipe.structures}
    for volume in volumes:
        probability = predict(network, volume.raw, bf16=recipe.optimisation.precision == "bf16")
        for k, name in enumerate(recipe.structures):
            limit = (thresholds or {}).get(name, recipe.validation.threshold)
            where = volume.mask if counted is None else counted[name]
            total[name] += score(probability[k] >= limit, (volume.bits >> k) & 1 > 0, where)
    return total


def thresholds_of(network: OrganelleNet, volumes: Sequence[Annotated], recipe: OrganelleRecipe) -> dict[str, float]:
    """For each structure the threshold of the highest F1 on held-out volumes."""
    found: dict[str, float] = {}
    answers = [(v, predict(network, v.raw, bf16=recipe.optimisation.precision == "bf16")) for v in volumes]
    for k, name in enumerate(recipe.structures):
        truth = np.concatenate([((v.bits >> k) & 1 > 0).ravel()[::5] for v, _ in answers])
        probability = np.concatenate([p[k].ravel()[::5] for _, p in answers])
        found[name] = best_threshold(probability, truth) if truth.any() else recipe.validation.threshold
    return found


def export(
    network: OrganelleNet,
    recipe: OrganelleRecipe,
    file: Path,
    *,
    trained_on: str,
    command: str,
    seed: int,
    thresholds: Mapping[str, float] | None = None,
    figures: Sequence[Figure] = (),
    limits: Sequence[str] = (),
) -> runtime.Manifest:
    """Write weights, manifest and model card: ``<name>.onnx``, ``.yaml`` and ``.md``.

    Raises
    ------
    TrainingError
        When torch and ONNX Runtime differ.
    """
    network = network.cpu().eval()
    least = STEP + 2 * network.context
    shapes = [[2, 1, least, least + STEP, least], [1, 1, least, least, least + 2 * STEP]]
    examples = [(torch.from_numpy(runtime.question(1, {"volume": shape})["volume"]),) for shape in shapes]
    free = {name: {0: "n", 2: "z", 3: "y", 4: "x"} for name in ("volume", "probability")}
    parity = export_onnx(network, examples, file, inputs=["volume"], outputs=["probability"], free=free)
    manifest = runtime.write_manifest(
        file,
        opset=OPSET,
        probe_shapes={"volume": [1, 1, least, least, least]},
        what=f"Organelles in volumes: probability of {', '.join(recipe.structures)}",
        made_by=command,
        trained_on=trained_on,
        settings={
            "structures": list(recipe.structures),
            "context": network.context,
            "step": STEP,
            "voxel_size_nm": recipe.voxel_nm,
            "normalisation": recipe.normalisation,
            "threshold": recipe.validation.threshold,
            "thresholds": dict(thresholds or {}),
            "arch": recipe.arch,
            "width": recipe.width,
            "seed": seed,
        },
    )
    card = Card(
        name=file.stem,
        purpose=manifest.what + ".",
        inputs=f"`volume` (n, 1, z, y, x), edges {2 * network.context} + a multiple of {STEP}, voxels of"
        f" {recipe.voxel_nm:g} nm, grey values in [0, 1] ({recipe.normalisation} normalisation), membranes dark",
        outputs=f"`probability` (n, {network.structures}, z, y, x): {', '.join(recipe.structures)};"
        f" {network.context} voxels less at each side",
        data=trained_on,
        command=command,
        recipe=msgspec.to_builtins(recipe),
        figures=figures,
        limits=[*limits, f"torch and ONNX Runtime agree to {parity.torch_onnx:.1e}"],
    )
    write_card(card, file.with_suffix(".md"))
    return manifest


def device_name() -> str:
    """What a training would run on."""
    device = best_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
