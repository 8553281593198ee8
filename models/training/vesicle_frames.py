"""Learning to find vesicles in high-mag frames: the compact network on simulated frames, from a seed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from models.runtime import write_manifest
from models.training.card import Card, Figure, write_card
from models.training.export import OPSET, export_maps, filled
from models.training.gold import loss_of
from models.training.gold_data import Batch, Sample
from models.training.loop import LoopSettings, Say, seeded, train
from models.training.vesicle_frames_data import batch, simulated
from models.vesicles.frames import RASTER_NM

NAME = "vesicles-frames"
PROBE = [1, 1, 64, 96]
LIMITS = (
    "Learned from simulations only. Look at the overlay of the first frames of a new series, and correct some.",
    "Outer diameters of 28 to 110 nm. Larger round organelles are not what it looks for.",
    "A tubule of the reticulum that is cut across looks like a vesicle, to it and to a person.",
)


class FrameRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a training of the frame network follows from; lengths in raster pixels of 2.5 nm.

    Attributes
    ----------
    seed
        Of the pictures, the weights and the order.
    pictures, picture_px
        Number of simulated frames, and their side.
    batch, crop_px
        Crops in a batch, and their side, a multiple of 16.
    bfloat16
        Whether convolutions learn in 16 bits: twice as fast where the processor knows them.
    loop
        How long and how fast.
    """

    seed: int = 11
    pictures: int = 1800
    picture_px: int = 304
    batch: int = 14
    crop_px: int = 176
    bfloat16: bool = True
    loop: LoopSettings = LoopSettings(steps=7000, learning_rate=4e-3, clip=5.0, report_every=50, save_every=200)


class FrameNetwork(nn.Module):
    """Four levels down and two up; sees about 90 pixels in each direction.

    Input (n, 1, rows, columns), sides multiples of 16; outputs ``heat`` (n, 1, rows / 4, columns / 4) in logits, and
    ``shape`` (n, 3, rows / 4, columns / 4): logarithm of the diameter over 16 pixels, and the offset (x, y) of the
    centre from the cell's middle in cells.

    Parameters
    ----------
    normed
        With batch norm, to learn from nothing; without it, to go on from exported weights, into which it was folded.
    """

    def __init__(self, normed: bool = True) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=not normed)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs) if normed else nn.Identity(), nn.ReLU(True))

        self.stem = nn.Sequential(block(1, 16, 2, 5), block(16, 32, 2))
        self.middle = nn.Sequential(block(32, 32), block(32, 32))
        self.down8 = nn.Sequential(block(32, 56, 2), block(56, 56), block(56, 56))
        self.down16 = nn.Sequential(block(56, 80, 2), block(80, 80), block(80, 80))
        self.to8 = nn.Conv2d(80, 56, 1)
        self.join8 = block(56, 56)
        self.to4 = nn.Conv2d(56, 32, 1)
        self.join4 = nn.Sequential(block(32, 32), block(32, 32))
        self.heat = nn.Conv2d(32, 1, 1)
        self.shape = nn.Conv2d(32, 3, 1)
        nn.init.constant_(self.heat.bias, -4.0)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of pictures; see the class."""
        at4 = self.middle(self.stem(picture.clamp(-12, 12) * 0.4))
        at8 = self.down8(at4)
        at16 = self.down16(at8)
        at8 = self.join8(at8 + nn.functional.interpolate(self.to8(at16), scale_factor=2.0, mode="nearest"))
        at4 = self.join4(at4 + nn.functional.interpolate(self.to4(at8), scale_factor=2.0, mode="nearest"))
        return self.heat(at4), self.shape(at4)


def pool(recipe: Any, say: Say = print) -> list[Sample]:
    """The simulated frames of a recipe."""
    samples = [simulated(recipe.seed * 100_000 + k, recipe.picture_px) for k in range(recipe.pictures)]
    say(f"{len(samples)} frames with {sum(len(s.marks) for s in samples)} vesicles")
    return samples


def batch_maker(recipe: FrameRecipe, samples: Sequence[Sample]) -> Callable[[int], Batch]:
    """The batch of each step, by its number."""
    return lambda step: batch(samples, recipe.seed, step, recipe.batch, recipe.crop_px)


def learn(recipe: FrameRecipe, out: Path, *, command: str, start: Path | None = None, say: Say = print) -> Path:
    """Train from nothing, or go on from ``start``; weights, manifest and card go to ``out``; the weights' file."""
    seeded(recipe.seed)
    network = FrameNetwork() if start is None else filled(FrameNetwork(normed=False), start)
    network = network.to(memory_format=torch.channels_last)
    maker = batch_maker(recipe, pool(recipe, say))
    checkpoint = out / f"{NAME}.checkpoint"
    learned, history = train(network, maker, loss_of(recipe.bfloat16), recipe.loop, checkpoint=checkpoint, say=say)
    facts = f"{recipe.pictures} simulated frames of three kinds (simulators.specimen.vesicles), seed {recipe.seed}"
    facts = facts if start is None else f"{facts}; begun with {start.name}"
    return write(learned, recipe, out, command=command, data=facts, learned=f"{history.losses[-1][1]:.3f}", say=say)


def write(
    network: nn.Module,
    recipe: Any,
    out: Path,
    *,
    command: str,
    data: str,
    learned: str,
    figures: Sequence[Figure] = (),
    say: Say = print,
) -> Path:
    """Export a network with its proof, manifest and card."""
    path = out / f"{NAME}.onnx"
    parity = export_maps(network, path, 80)
    write_manifest(
        path,
        opset=OPSET,
        probe_shapes={"picture": PROBE},
        what="Vesicles in high-mag frames: heat, diameter and offset on a raster of 2.5 nm pixels.",
        made_by=command,
        trained_on=data,
        settings={"raster_nm": RASTER_NM},
    )
    card = Card(
        name=NAME,
        purpose="Finds vesicles of 28 to 110 nm in cryo projections, stained sections and FIB-SEM slices.",
        inputs="picture (n, 1, rows, columns): (grey - median) / spread, matter dark, resampled to 2.5 nm; sides"
        " multiples of 16",
        outputs="heat in logits; shape: ln(outer diameter / 16 px), offset (x, y) in cells; cells of four pixels",
        data=data,
        command=command,
        recipe={"final_loss": learned, **msgspec.to_builtins(recipe)},
        figures=figures,
        limits=LIMITS,
    )
    write_card(card, path.with_suffix(".md"))
    say(f"torch and ONNX differ by {parity.torch_onnx:.1g}")
    return path
