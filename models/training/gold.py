"""Training of the compact gold network on simulated replicas and sections, from a seed, and its export."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.runtime import Manifest, ModelError, load, write_manifest
from models.training.gold_data import Batch, Sample, batches, simulated
from models.training.gold_network import GoldNetwork, loss

Say = Callable[[str], None]
OPSET = 17
PARITY = 1e-3


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a training is made of; lengths in raster pixels of 1.1 nm.

    Attributes
    ----------
    seed
        Of the pictures, their order, and the first weights.
    pictures, picture_px
        Number of simulated pictures, and their side.
    steps, batch, crop_px
        Steps, crops in each, and their side.
    learning_rate
        The highest one; it rises over the first tenth and falls to nothing.
    """

    seed: int = 7
    pictures: int = 1600
    picture_px: int = 384
    steps: int = 3000
    batch: int = 16
    crop_px: int = 192
    learning_rate: float = 4e-3


def train(recipe: Recipe, say: Say = print, keep: Path | None = None) -> GoldNetwork:
    """A network trained from nothing; ``keep`` is a file that gets the weights of every 250th step."""
    torch.manual_seed(recipe.seed)
    begun = time.process_time()
    samples = [simulated(recipe.seed * 100_000 + k, recipe.picture_px) for k in range(recipe.pictures)]
    say(f"{len(samples)} pictures, {sum(len(s.marks) for s in samples)} particles,"
        f" {time.process_time() - begun:.0f} CPU s")  # fmt: skip
    network = GoldNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crops = batches(samples, recipe.seed, recipe.steps, recipe.batch, recipe.crop_px)
    fit(network, crops, recipe.steps, recipe.learning_rate, say, keep)
    return network


def fit(
    network: GoldNetwork,
    crops: Iterator[Batch],
    steps: int,
    learning_rate: float,
    say: Say = print,
    keep: Path | None = None,
) -> None:
    """Go through batches once, with AdamW and one cycle of the learning rate; the network ends in eval mode."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps + 1, pct_start=0.1)
    begun, mean = time.process_time(), 0.0
    for step, batch in enumerate(crops):
        value = loss(*network(_tensor(batch.pictures)), _tensor(batch.targets), _tensor(batch.near))
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        mean += (float(value.detach()) - mean) * (0.02 if step > 50 else 1 / (step + 1))
        if step % 50 == 49 or step + 1 == steps:
            say(f"step {step + 1}/{steps}: loss {mean:.3f}, {time.process_time() - begun:.0f} CPU s")
        if keep is not None and step % 250 == 249:
            torch.save(network.state_dict(), keep)
    network.eval()


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def export(network: GoldNetwork, file: Path, facts: dict[str, Any]) -> Manifest:
    """Write the network as ONNX with its manifest, after checking that both give the same answer.

    Parameters
    ----------
    network
        In eval mode.
    file
        ``<name>.onnx``.
    facts
        ``what``, ``made_by``, ``trained_on`` and ``settings`` of the manifest.

    Raises
    ------
    ModelError
        When the exported network answers otherwise.
    """
    network.eval()
    plain = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    axes = {2: "rows", 3: "columns"}
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch speaks of its newer exporter, which needs another package
        torch.onnx.export(
            plain, (example,), str(file), input_names=["picture"], output_names=["heat", "shape"], opset_version=OPSET,
            dynamic_axes={"picture": {0: "n", **axes}, "heat": {0: "n"}, "shape": {0: "n"}}, dynamo=False,
        )  # fmt: skip
    manifest = write_manifest(file, opset=OPSET, probe_shapes={"picture": [1, 1, 64, 96]}, **facts)
    with torch.no_grad():
        wanted = plain(example * 4)
    got = load(file.with_suffix(".yaml")).run((example * 4).numpy())
    worst = max(float(np.abs(got[n] - w.numpy()).max()) for n, w in zip(("heat", "shape"), wanted, strict=True))
    if worst > PARITY:
        raise ModelError(f"{file}: the exported network is off by {worst:g} from torch; {PARITY:g} is allowed")
    return manifest
