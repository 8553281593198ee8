"""Learning to find gold: the compact network on simulated replicas and sections, from a seed; and its corrections."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from models.gold.likeness import Weigher
from models.gold.sampling import CANONICAL_NM
from models.runtime import write_manifest
from models.training import gold_likeness
from models.training.card import Card, Figure, write_card
from models.training.export import OPSET, export_maps
from models.training.gold_data import Batch, Sample, batch, simulated
from models.training.gold_likeness import LikenessRecipe
from models.training.gold_network import GoldNetwork, loss
from models.training.loop import LoopSettings, Say, seeded, train

NAME = "gold-fast"
PROBE = [1, 1, 64, 96]
LIMITS = (
    "6 nm gold in noisy, blurred images: a third is missed, and one find in ten is none.",
    "Rods and strongly elongated particles are missed.",
    "Learned from simulations only. Real replicas and sections vary more: proofread the first images of a new series.",
    "Particles of less than about 2.4 pixels, or on folds as dark as they are, are missed.",
    "Pre-embedding (silver-enhanced) labels are not countable particles; the finding says so (`doubt`).",
)


class GoldRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a training of the gold finder follows from; lengths in raster pixels of 1.1 nm.

    Attributes
    ----------
    seed
        Of the pictures, the weights and the order.
    pictures, picture_px
        Number of simulated pictures, and their side.
    batch, crop_px
        Crops in a batch, and their side.
    bfloat16
        Whether convolutions learn in 16 bits: twice as fast where the processor knows them.
    loop
        How long and how fast.
    likeness
        How hits are weighed beside their fellows; None: they keep the network's own score.
    """

    seed: int = 7
    pictures: int = 1800
    picture_px: int = 384
    batch: int = 16
    crop_px: int = 160
    bfloat16: bool = True
    loop: LoopSettings = LoopSettings(steps=4500, learning_rate=4e-3, clip=5.0, report_every=50, save_every=200)
    likeness: LikenessRecipe | None = LikenessRecipe()


def pool(recipe: Any, say: Say = print) -> list[Sample]:
    """The simulated pictures of a recipe."""
    samples = [simulated(recipe.seed * 100_000 + k, recipe.picture_px) for k in range(recipe.pictures)]
    say(f"{len(samples)} pictures with {sum(len(s.marks) for s in samples)} particles")
    return samples


def batch_maker(recipe: GoldRecipe, samples: Sequence[Sample]) -> Callable[[int], Batch]:
    """The batch of each step, by its number."""
    return lambda step: batch(samples, recipe.seed, step, recipe.batch, recipe.crop_px)


def loss_of(bfloat16: bool) -> Callable[[nn.Module, Batch], Tensor]:
    """Loss of a network on a batch."""

    def loss_of_batch(network: nn.Module, made: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            heat, shape = network(torch.from_numpy(made.pictures))
        return loss(heat.float(), shape.float(), torch.from_numpy(made.targets), torch.from_numpy(made.near))

    return loss_of_batch


def learn(recipe: GoldRecipe, out: Path, *, command: str, say: Say = print) -> Path:
    """Train from nothing and write weights, manifest and card to ``out``; the weights' file."""
    seeded(recipe.seed)
    network = GoldNetwork().to(memory_format=torch.channels_last)
    maker = batch_maker(recipe, pool(recipe, say))
    checkpoint = out / f"{NAME}.checkpoint"
    learned, history = train(network, maker, loss_of(recipe.bfloat16), recipe.loop, checkpoint=checkpoint, say=say)
    facts = f"{recipe.pictures} simulated replicas and sections (simulators.specimen.immunogold), seed {recipe.seed}"
    file = write(learned, recipe, out, command=command, data=facts, learned=f"{history.losses[-1][1]:.3f}", say=say)
    if recipe.likeness is not None:
        gold_likeness.learn(recipe.likeness, file.with_suffix(".yaml"), say=say)
    return file


def write(
    network: nn.Module,
    recipe: Any,
    out: Path,
    *,
    command: str,
    data: str,
    learned: str,
    figures: Sequence[Figure] = (),
    likeness: Weigher | None = None,
    say: Say = print,
) -> Path:
    """Export a network with its proof, its torch weights (to go on from), manifest and card."""
    path = out / f"{NAME}.onnx"
    parity = export_maps(network, path, 72)
    write_manifest(
        path,
        opset=OPSET,
        probe_shapes={"picture": PROBE},
        what="Immunogold on replicas and sections: heat, diameter and offset on a raster of 1.1 nm pixels.",
        made_by=command,
        trained_on=data,
        settings={"raster_nm": CANONICAL_NM} | ({} if likeness is None else {"likeness": likeness.to_settings()}),
    )
    card = Card(
        name=NAME,
        purpose="Finds colloidal gold of 5 to 25 nm in high-mag frames of 0.3 to 3 nm per pixel.",
        inputs="picture (n, 1, rows, columns): (grey - median) / spread, resampled to 1.1 nm; sides multiples of 8",
        outputs="heat in logits; shape: ln(diameter / 8 px), offset (x, y) in cells; cells of two pixels",
        data=data,
        command=command,
        recipe={"final_loss": learned, **msgspec.to_builtins(recipe)},
        figures=figures,
        limits=LIMITS,
    )
    write_card(card, path.with_suffix(".md"))
    say(f"torch and ONNX differ by {parity.torch_onnx:.1g}")
    return path


def parameters(network: nn.Module) -> int:
    """Number of learned numbers."""
    return sum(int(np.prod(p.shape)) for p in network.parameters())
