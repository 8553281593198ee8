"""Organelle networks from annotated volumes: learn, go on with one block of a new cell, measure, and export.

The protocol is that of ASEM (Gallusser et al., J Cell Biol 222, e202208005, 2023); see `organelles_recipe` for its
numbers and `organelles_protocol` for what the article leaves to the eye.
"""

import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx.numpy_helper
import torch
from numpy.typing import NDArray

from models import runtime
from models.organelles.normalise import normalised
from models.training.card import Card, Figure, write_card
from models.training.export import OPSET, export_onnx
from models.training.loop import Say, TrainingError, seeded
from models.training.organelles_data import Annotated, Blocks, fixed_blocks
from models.training.organelles_loop import Run, best_device, history, train, validate, weights_file
from models.training.organelles_network import STEP, FastNet, OrganelleNet, build, parameters
from models.training.organelles_protocol import Scores, best_threshold, fit_regime, score
from models.training.organelles_recipe import OrganelleRecipe
from simulators.specimen.cell import CellName, CellSettings, simulate
from simulators.specimen.cell.variety import varied

WEIGHTS = "organelles-fast"
VARIED_CELLS = 12
CALIBRATION = 2**40  # number of a block that no training comes to, from which a network begins
SIMULATED = (
    "It has seen simulated cells only: look at what it marks in a real one, and fine-tune with one block of it",
    "On naive-1 and naive-2, which it has not seen: `python -m benchmarks.organelles --only shipped`",
    "A short training on a processor; structures whose F1 above is low are not to be measured with it",
)


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
    limits
        Where not to trust what was learned from it, for the card.
    """

    training: tuple[Annotated, ...]
    held_out: tuple[Annotated, ...] = ()
    what: str = ""
    limits: tuple[str, ...] = ()


@cache
def simulated(
    name: CellName, region: int, recipe: OrganelleRecipe, shape: tuple[int, int, int] = (176, 176, 176)
) -> Annotated:
    """A region of a simulated cell with its annotation."""
    cell = simulate(CellSettings.of(name, region, shape=shape, voxel_nm=recipe.voxel_nm))
    raw = even(cell.raw, recipe)
    return Annotated.of(f"{name}/{region}", raw, cell.labels, recipe.structures)


def even(raw: NDArray[np.generic], recipe: OrganelleRecipe) -> NDArray[np.uint8]:
    """Grey values of a whole volume as the recipe's networks see them, in 256 steps."""
    return np.rint(normalised(raw, recipe.normalisation) * 255).astype(np.uint8)


def varied_data(recipe: OrganelleRecipe, cells: int = VARIED_CELLS) -> Data:
    """A region of each of many simulated cells, no two alike, and of two more to validate on; the shipped weights'."""
    training = tuple(_varied(number, recipe) for number in range(cells))
    held_out = tuple(_varied(number, recipe) for number in (900, 901))
    return Data(training, held_out, f"a region of each of {cells} simulated cells, no two alike", SIMULATED)


@cache
def _varied(number: int, recipe: OrganelleRecipe) -> Annotated:
    settings = varied(number, voxel_nm=recipe.voxel_nm)
    cell = simulate(settings)
    return Annotated.of(settings.name, even(cell.raw, recipe), cell.labels, recipe.structures)


def simulated_data(
    recipe: OrganelleRecipe, cells: Sequence[CellName] = ("train-1", "train-2"), regions: int = 2
) -> Data:
    """Regions of simulated cells to learn from, and one more of each, of which nothing is learned, to validate on."""
    training = tuple(simulated(cell, region, recipe) for cell in cells for region in range(regions))
    held_out = tuple(simulated(cell, 90, recipe) for cell in cells)
    return Data(training, held_out, f"{len(training)} regions of simulated cells {' and '.join(cells)}", SIMULATED)


def learn(
    recipe: OrganelleRecipe,
    data: Data,
    folder: Path,
    *,
    seed: int = 0,
    iterations: int | None = None,
    start: Path | None = None,
    lowest: bool = False,
    say: Say = print,
) -> tuple[OrganelleNet, Run]:
    """The network of the middle of the fit regime, and how it came about.

    Where the learning rate falls to nothing (``cosine``) the last checkpoints are the best ones, so that of the lowest
    validation loss is taken instead.

    Parameters
    ----------
    recipe, data, seed
        What everything follows from.
    folder
        For state and checkpoints.
    iterations
        In the place of the recipe's.
    start
        Weights to begin from, see `load_weights`.
    lowest
        Take the checkpoint of the lowest validation loss in any case, as fine-tuning does.

    Raises
    ------
    TrainingError
        When something does not fit.
    """
    seeded(seed)
    network = build(recipe.arch, len(recipe.structures), recipe.width, norm=start is None)
    if start is not None:
        load_weights(network, start, recipe.structures)
    blocks = Blocks(data.training, recipe, network.context, seed)
    if start is None and isinstance(network, FastNet):
        network.calibrate(torch.cat([blocks.batch(CALIBRATION + k).volume for k in range(3)]))
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
    taken = run.regime.middle
    if lowest or recipe.optimisation.schedule == "cosine":
        taken = int(np.argmin([c.mean for c in run.checkpoints]))
    load_weights(network, run.weights(taken), recipe.structures)
    first, last = run.checkpoints[run.regime.first].iteration, run.checkpoints[run.regime.last].iteration
    found = "fit regime" if run.regime.found else "no stable validation loss yet; lowest window"
    say(f"{found}: iterations {first} to {last}; used: {run.checkpoints[taken].iteration}")
    return network.eval(), run


def fine_tune(
    recipe: OrganelleRecipe,
    data: Data,
    folder: Path,
    start: Path | None,
    *,
    seed: int = 0,
    iterations: int | None = None,
    say: Say = print,
) -> tuple[OrganelleNet, Run]:
    """Go on with a block of a new cell; without ``start`` from scratch, with the same block and iterations.

    Parameters
    ----------
    data
        The block to learn from, and volumes of the same cell to choose a checkpoint by.
    folder
        For state and checkpoints.
    start
        Folder of the training to go on from: its first checkpoint of the fit regime is taken, as published. Or a file
        of weights.

    Raises
    ------
    TrainingError
        When a block is smaller than the recipe's ``finetuning.edge``, or there are no weights.
    """
    how = recipe.finetuning
    for volume in data.training:
        if min(volume.extent) < how.edge:
            raise TrainingError(
                f"{volume.name}: {volume.extent} voxels annotated; fine-tuning wants at least {how.edge} along each"
                f" axis (finetuning.edge)"
            )
    count = how.iterations if iterations is None else iterations
    if count > how.iterations:
        raise TrainingError(
            f"{count} iterations; fine-tuning goes on for {how.iterations} at most (finetuning.iterations)"
        )
    if how.learning_rate and start is not None:
        optimisation = msgspec.structs.replace(recipe.optimisation, learning_rate=how.learning_rate)
        recipe = msgspec.structs.replace(recipe, optimisation=optimisation)
    weights = first_of_regime(start, recipe) if start is not None and start.is_dir() else start
    if start is not None and (absent := _absent(data, recipe)):
        say(f"not in the block, so nothing is learned of them: {', '.join(absent)}")
        known = sum(1 << k for k, name in enumerate(recipe.structures) if name not in absent)
        training, held_out = (
            tuple(replace(one, known=one.known & known) for one in some) for some in (data.training, data.held_out)
        )
        data = replace(data, training=training, held_out=held_out)
        # with decay, Adam moves a weight that no loss pulls at as fast as any other
        recipe = msgspec.structs.replace(
            recipe, optimisation=msgspec.structs.replace(recipe.optimisation, weight_decay=0.0)
        )
    return learn(recipe, data, folder, seed=seed, iterations=count, start=weights, lowest=True, say=say)


def _absent(data: Data, recipe: OrganelleRecipe) -> list[str]:
    """What is nowhere in the blocks: a small one without a Golgi does not teach that there are none."""
    known = 0
    for volume in data.training:
        known |= volume.marked()
    return [name for k, name in enumerate(recipe.structures) if not (known >> k) & 1]


def first_of_regime(folder: Path, recipe: OrganelleRecipe) -> Path:
    """Weights that fine-tuning goes on from: the first checkpoint of the fit regime of a training.

    Where the learning rate fell to nothing, that of the lowest validation loss, see `learn`.

    Raises
    ------
    TrainingError
        When the folder holds no training.
    """
    checkpoints = history(folder)
    if recipe.optimisation.schedule == "cosine":
        return weights_file(folder, min(checkpoints, key=lambda one: one.mean).iteration)
    window = max(1, recipe.validation.window // recipe.validation.every)
    regime = fit_regime([c.mean for c in checkpoints], window, recipe.validation.stable)
    return weights_file(folder, checkpoints[regime.first].iteration)


def load_weights(network: OrganelleNet, path: Path, structures: Sequence[str] = ()) -> None:
    """Weights of a checkpoint (``.pt``), or of a shipped network (its manifest or ``.onnx``).

    Parameters
    ----------
    network
        With normalisation or without; a network without gets weights into which it is folded.
    path
        Of the weights.
    structures
        What the network shall mark. Of a shipped network the answers for these structures are taken; what it does not
        know begins at random. A checkpoint has to mark the same.

    Raises
    ------
    TrainingError
        When the file is none, or one of another network.
    """
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu") if path.suffix == ".pt" else _shipped(path)
        if any(".conv." in name or ".norm." in name for name in kept):
            raise TrainingError("weights of an older form, which this network would answer otherwise with; train anew")
        if isinstance(network, FastNet):
            if any(name.endswith(".gain") for name in kept) and not _learns_gains(network):
                full = FastNet(len(kept["head.bias"]) // 8, network.width)
                full.load_state_dict(kept)
                kept = full.folded().state_dict()
            if structures and path.suffix != ".pt":
                _choose(kept, network, path, structures)
        network.load_state_dict(kept)
    except Exception as error:  # torch and onnx raise many kinds
        raise TrainingError(f"{path}: no weights of this network: {' '.join(str(error).split())[:200]}") from error


def _learns_gains(network: OrganelleNet) -> bool:
    return any(name.endswith(".gain") for name in network.state_dict())


def _shipped(path: Path) -> dict[str, torch.Tensor]:
    """Weights in an ONNX file by the names that they have in torch."""
    graph = onnx.load(str(path.with_suffix(".onnx"))).graph
    return {
        one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy())
        for one in graph.initializer
        if one.name.endswith((".weight", ".bias"))
    }


def _choose(kept: dict[str, torch.Tensor], network: FastNet, path: Path, structures: Sequence[str]) -> None:
    """Put the answers for structures that shipped weights know in the places where a network has them."""
    known: list[str] = runtime.read_manifest(path.with_suffix(".yaml")).settings["structures"]
    for end in ("weight", "bias"):
        head = network.state_dict()[f"head.{end}"].clone()
        for k, name in enumerate(structures):
            if name in known:
                at = known.index(name)
                head[8 * k : 8 * k + 8] = kept[f"head.{end}"][8 * at : 8 * at + 8]
        kept[f"head.{end}"] = head


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
            where = (counted or {}).get(name, volume.mask)
            total[name] += score(probability[k] >= limit, (volume.bits >> k) & 1 > 0, where)
    return total


def thresholds_of(network: OrganelleNet, volumes: Sequence[Annotated], recipe: OrganelleRecipe) -> dict[str, float]:
    """For each structure the threshold of the highest F1 on held-out volumes."""
    found: dict[str, float] = {}
    if not volumes:
        return found
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
    if isinstance(network, FastNet):
        network = network.folded()
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


Counted = Mapping[str, Mapping[str, NDArray[np.bool_]]]


def trained(
    recipe: OrganelleRecipe,
    data: Data,
    out: Path,
    *,
    start: Path | None = None,
    seed: int = 0,
    iterations: int | None = None,
    command: str = "",
    counted: Counted | None = None,
    say: Say = print,
) -> Path:
    """Learn, measure on what was held out, and write weights, manifest and card to ``out``; the weights' file."""
    if start is not None:
        data = replace(data, what=f"{data.what}; began as {start}")
    network, run = learn(recipe, data, out / "run", seed=seed, iterations=iterations, start=start, say=say)
    thresholds = thresholds_of(network, data.held_out, recipe)
    rows = {"as published, 0.5": measured(network, data, recipe, counted)}
    if thresholds:
        rows["at the thresholds of the manifest"] = measured(network, data, recipe, counted, thresholds)
    for line in table(rows, recipe):
        say(line)
    return _written(network, recipe, data, out, rows, run, command=command, seed=seed, thresholds=thresholds)


def fine_tuned(
    recipe: OrganelleRecipe,
    data: Data,
    out: Path,
    start: Path,
    *,
    baseline: bool = True,
    seed: int = 0,
    iterations: int | None = None,
    command: str = "",
    counted: Counted | None = None,
    say: Say = print,
) -> Path:
    """Go on with a block of a new cell; say how well before, after, and from scratch; the weights' file.

    Raises
    ------
    TrainingError
        When something does not fit; see `fine_tune`.
    """
    rows: dict[str, dict[str, Scores]] = {}
    before = build(recipe.arch, len(recipe.structures), recipe.width, norm=False)
    load_weights(before, first_of_regime(start, recipe) if start.is_dir() else start, recipe.structures)
    if data.held_out:
        rows["before"] = measured(before, data, recipe, counted)
    if baseline:
        say("-- from scratch, to compare")
        scratch, _ = fine_tune(recipe, data, out / "scratch", None, seed=seed, iterations=iterations, say=say)
        if data.held_out:
            rows["from scratch"] = measured(scratch, data, recipe, counted)
    say("-- going on")
    network, run = fine_tune(recipe, data, out / "run", start, seed=seed, iterations=iterations, say=say)
    thresholds: dict[str, float] = {}
    if data.held_out:
        rows["fine-tuned"] = measured(network, data, recipe, counted)
        thresholds = thresholds_of(network, data.held_out, recipe)
    else:
        say("no held_out volume in --data: nothing is measured, and the last checkpoint's loss chose")
    for line in table(rows, recipe):
        say(line)
    return _written(network, recipe, data, out, rows, run, command=command, seed=seed, thresholds=thresholds)


def measured(
    network: OrganelleNet,
    data: Data,
    recipe: OrganelleRecipe,
    counted: Counted | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Scores]:
    """Scores of each structure over the held-out volumes, where they count."""
    total = {name: Scores() for name in recipe.structures}
    for volume in data.held_out:
        where = (counted or {}).get(volume.name)
        for name, one in measure(network, [volume], recipe, thresholds=thresholds, counted=where).items():
            total[name] += one
    return total


def table(rows: Mapping[str, Mapping[str, Scores]], recipe: OrganelleRecipe) -> list[str]:
    """Lines with F1, precision and recall of each structure."""
    if not rows:
        return []
    lines = [f"{'held out: F1 (precision, recall)':36}" + "".join(f"{name:>22}" for name in recipe.structures)]
    for what, scores in rows.items():
        parts = [f"{s.f1:.3f} ({s.precision:.2f}, {s.recall:.2f})" for s in scores.values()]
        lines.append(f"{what:36}" + "".join(f"{part:>22}" for part in parts))
    return lines


def _written(
    network: OrganelleNet,
    recipe: OrganelleRecipe,
    data: Data,
    out: Path,
    rows: Mapping[str, Mapping[str, Scores]],
    run: Run,
    *,
    command: str,
    seed: int,
    thresholds: Mapping[str, float],
) -> Path:
    file = out / f"{WEIGHTS if recipe.arch == 'fast' else f'organelles-{recipe.structures[0]}'}.onnx"
    figures = [
        Figure(
            f"{name}, {what}, held out", f"F1 {s.f1:.3f}, precision {s.precision:.3f}, recall {s.recall:.3f}", command
        )
        for what, scores in rows.items()
        for name, s in scores.items()
    ]
    limits = [*data.limits]
    if not run.regime.found:
        limits.append("Validation loss was not stable yet: train longer")
    export(
        network, recipe, file, trained_on=data.what, command=command, seed=seed, thresholds=thresholds,
        figures=figures, limits=limits,
    )  # fmt: skip
    return file


@dataclass(frozen=True, slots=True)
class Cost:
    """What a training would take, from iterations that were run.

    Attributes
    ----------
    device
        What it would run on.
    parameters
        Numbers that are learned.
    seen, answered
        Edges of the blocks in voxels.
    iteration_s, validation_s
        Of one iteration, its block included, and of one validation block.
    memory_gb
        Most that the process (on a GPU: the GPU) held.
    checkpoint_mb
        Of one checkpoint.
    """

    device: str
    parameters: int
    seen: int
    answered: int
    iteration_s: float
    validation_s: float
    memory_gb: float
    checkpoint_mb: float

    def lines(self, recipe: OrganelleRecipe, iterations: int, held_out: int) -> list[str]:
        """What a person wants to know before it begins."""
        checks = -(-iterations // recipe.validation.every)
        seconds = iterations * self.iteration_s + checks * held_out * recipe.validation.blocks * self.validation_s
        return [
            f"device       {self.device}",
            f"network      {recipe.arch}, {self.parameters:,} parameters, {self.seen} voxels in, {self.answered} out",
            f"marks        {', '.join(recipe.structures)}",
            f"iterations   {iterations} of {self.iteration_s:.2f} s (measured now), {checks} checkpoints",
            f"time         {seconds / 3600:.1f} h" if seconds > 5400 else f"time         {seconds / 60:.0f} min",
            f"memory       {self.memory_gb:.1f} GB and the volumes",
            f"disk         {checks * self.checkpoint_mb:.0f} MB of checkpoints",
        ]


def cost(recipe: OrganelleRecipe, seed: int = 0) -> Cost:
    """Measure two iterations on noise, of which the second counts."""
    device = best_device()
    network = build(recipe.arch, len(recipe.structures), recipe.width)
    edge = recipe.sampling.block + 2 * network.context
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (edge, edge, edge), np.uint8)
    volume = Annotated("noise", noise, (noise > 200).astype(np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        blocks = Blocks([volume], recipe, network.context, seed)
        checked = {"noise": fixed_blocks(volume, recipe, network.context, 1)}
        quiet = msgspec.structs.replace(
            recipe, validation=msgspec.structs.replace(recipe.validation, every=10**9, window=10**9)
        )
        train(network, blocks, {}, quiet, Path(folder) / "first", iterations=1, device=device, say=lambda _: None)
        begun = time.perf_counter()
        train(network, blocks, {}, quiet, Path(folder) / "second", iterations=1, device=device, say=lambda _: None)
        each = time.perf_counter() - begun
        begun = time.perf_counter()
        validate(network, checked["noise"], recipe, device)
        check = time.perf_counter() - begun
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    count = parameters(network)
    return Cost(name, count, edge, recipe.sampling.block, each, check, memory, count * 4 / 1e6)
