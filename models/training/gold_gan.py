"""The seed's network: pix2pix that paints particles, learned on simulated tiles.

Sources: Isola et al., Image-to-image translation with conditional adversarial networks, CVPR 2017 (U-Net-256 generator,
70 x 70 PatchGAN, L1 weight 100, Adam 2e-4 with beta1 0.5, linear decay over the second half); Jerez et al., Sci Rep 11,
7771 (2021) for what it paints: a square as wide as the particle, green on black, on tiles of 256 pixels, half of them
seen at twice the magnification. Where the seed leaves batch norm and dropout in training mode when it answers, this one
is exported in eval mode.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.gold.gan import as_shown
from models.gold.sampling import CANONICAL_NM
from models.runtime import write_manifest
from models.training.card import Card, write_card
from models.training.export import OPSET, export_onnx
from models.training.gold import pool
from models.training.gold_data import Sample
from models.training.loop import Say, TrainingError, seeded

NAME = "gold-gan"
SIDE = 256
LEVELS = (1, 2, 4, 8, 8, 8, 8, 8)  # channels of each level, in widths


class GanRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a training of the pix2pix baseline follows from.

    Attributes
    ----------
    seed, pictures, picture_px
        As in `models.training.gold.GoldRecipe`.
    width
        Channels of the first level; 64 is the published generator of 54 million parameters, which takes 13 times as
        long for a step.
    steps, batch
        Steps, and tiles in each; the learning rate falls over the second half. Published: 200 epochs of 3000 tiles,
        which is 300,000 steps of 2; as many as three minutes of one CPU core allow are the default.
    empty_share
        Share of tiles without gold.
    magnified_share
        Share of tiles that show a quarter of the area, twice as large.
    learning_rate, l1, gold_weight
        Of both networks; the weight of the L1 loss; and how much more painted pixels count in it than empty ones.
        Published: 2e-4, 100, and 1, with which a short training paints nothing: hardly a pixel in a hundred is gold.
    """

    seed: int = 7
    pictures: int = 300
    picture_px: int = 384
    width: int = 16
    steps: int = 800
    batch: int = 2
    empty_share: float = 0.3
    magnified_share: float = 0.5
    learning_rate: float = 1e-3
    l1: float = 100.0
    gold_weight: float = 10.0


class Generator(nn.Module):
    """U-Net-256: eight levels of 4 x 4 convolutions down and up; input and output (n, 3, 256, 256) from -1 to 1."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = [width * n for n in LEVELS]
        last = len(sizes) - 1
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for k, size in enumerate(sizes):
            normed = 0 < k < last
            parts: list[nn.Module] = [] if k == 0 else [nn.LeakyReLU(0.2)]
            parts.append(nn.Conv2d(3 if k == 0 else sizes[k - 1], size, 4, 2, 1, bias=False))
            if normed:
                parts.append(nn.BatchNorm2d(size))
            self.down.append(nn.Sequential(*parts))
        for k in range(last, -1, -1):
            inputs = sizes[k] if k == last else 2 * sizes[k]
            outputs = 3 if k == 0 else sizes[k - 1]
            up: list[nn.Module] = [nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=k == 0)]
            up += [nn.Tanh()] if k == 0 else [nn.BatchNorm2d(outputs)]
            if last - 3 <= k < last:
                up.append(nn.Dropout(0.5))
            self.up.append(nn.Sequential(*up))

    def forward(self, picture: Tensor) -> Tensor:
        """The painted picture."""
        seen = [picture]
        for part in self.down:
            seen.append(part(seen[-1]))
        out = seen.pop()
        for k, part in enumerate(self.up):
            out = part(out if k == 0 else torch.cat([seen.pop(), out], dim=1))
        return out


class Discriminator(nn.Module):
    """70 x 70 PatchGAN on a picture beside its mask (n, 6, 256, 256); logits (n, 1, 30, 30)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for k, stride in ((1, 2), (2, 2), (4, 1)):
            parts += [nn.Conv2d(width * k, width * 2 * k, 4, stride, 1, bias=False), nn.BatchNorm2d(width * 2 * k)]
            parts.append(nn.LeakyReLU(0.2))
        self.parts = nn.Sequential(*parts, nn.Conv2d(width * 8, 1, 4, 1, 1))

    def forward(self, both: Tensor) -> Tensor:
        """Logits of each patch being real."""
        made: Tensor = self.parts(both)
        return made


def initialised(network: nn.Module) -> None:
    """Draw weights from normal(0, 0.02), as pix2pix does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


def tile(rng: np.random.Generator, samples: Sequence[Sample], recipe: GanRecipe) -> tuple[NDArray[np.float32], Tensor]:
    """A tile of 256 pixels as a raster window, and the mask (3, 256, 256) that is to be painted."""
    wants_empty = rng.uniform() < recipe.empty_share
    zoom = 2 if rng.uniform() < recipe.magnified_share else 1
    side = SIDE // zoom
    for _ in range(50):
        sample = samples[int(rng.integers(len(samples)))]
        top = int(rng.integers(0, sample.picture.shape[0] - side + 1))
        left = int(rng.integers(0, sample.picture.shape[1] - side + 1))
        marks = sample.marks[sample.marks[:, 3] > 0]
        x, y = marks[:, 0] - left, marks[:, 1] - top
        inside = (x > 0) & (x < side) & (y > 0) & (y < side)
        if inside.any() != wants_empty:
            break
    part = sample.picture[top : top + side, left : left + side].astype(np.float32)
    part = np.kron(part, np.ones((zoom, zoom), np.float32))
    mask = np.full((3, SIDE, SIDE), -1, np.float32)
    for cx, cy, d in zip(x[inside] * zoom, y[inside] * zoom, marks[inside, 2] * zoom, strict=True):
        reach = max(d / 2, 1.0)
        rows = slice(max(0, round(cy - reach)), round(cy + reach) + 1)
        mask[1, rows, max(0, round(cx - reach)) : round(cx + reach) + 1] = 1
    if rng.uniform() < 0.5:
        part, mask = part[:, ::-1], mask[:, :, ::-1]
    return np.ascontiguousarray(part), torch.from_numpy(np.ascontiguousarray(mask))


def learn(recipe: GanRecipe, out: Path, *, command: str, say: Say = print) -> Path:
    """Train generator and discriminator and write the generator with manifest and card; the weights' file.

    Raises
    ------
    TrainingError
        When the pictures are smaller than a tile, or the loss is no number.
    """
    if recipe.picture_px < SIDE:
        raise TrainingError(f"picture_px {recipe.picture_px}: tiles of {SIDE} pixels are cut from the pictures")
    seeded(recipe.seed)
    samples = [s for s in pool(recipe, say) if min(s.picture.shape) >= SIDE]
    generator, critic = Generator(recipe.width), Discriminator(recipe.width)
    initialised(generator)
    initialised(critic)
    paint = torch.optim.Adam(generator.parameters(), recipe.learning_rate, betas=(0.5, 0.999))
    judge = torch.optim.Adam(critic.parameters(), recipe.learning_rate, betas=(0.5, 0.999))
    real_or_not = nn.BCEWithLogitsLoss()
    generator.train()
    last = 0.0
    for step in range(recipe.steps):
        rng = np.random.default_rng([recipe.seed, 47, step])
        for group in (*paint.param_groups, *judge.param_groups):
            group["lr"] = recipe.learning_rate * min(1.0, 2 * (1 - step / recipe.steps))
        made = [tile(rng, samples, recipe) for _ in range(recipe.batch)]
        shown = torch.from_numpy(as_shown(np.stack([part for part, _ in made])))
        wanted = torch.stack([mask for _, mask in made])
        painted = generator(shown)
        fake, real = critic(torch.cat([shown, painted.detach()], 1)), critic(torch.cat([shown, wanted], 1))
        judged = 0.5 * (real_or_not(fake, torch.zeros_like(fake)) + real_or_not(real, torch.ones_like(real)))
        judge.zero_grad()
        judged.backward()
        judge.step()
        fooled = critic(torch.cat([shown, painted], 1))
        off = ((painted - wanted).abs() * (1 + (recipe.gold_weight - 1) * (wanted > 0))).mean()
        total = real_or_not(fooled, torch.ones_like(fooled)) + recipe.l1 * off
        paint.zero_grad()
        total.backward()
        paint.step()
        last = float(off.detach())
        if not np.isfinite(last):
            raise TrainingError(f"L1 loss at step {step} is {last}: lower the learning rate ({recipe.learning_rate:g})")
        if step % 50 == 49 or step + 1 == recipe.steps:
            say(f"step {step + 1}/{recipe.steps}  L1 {last:.4f}  critic {float(judged.detach()):.3f}")
    return write(generator.eval(), recipe, out, command=command, learned=last)


def write(generator: nn.Module, recipe: GanRecipe, out: Path, *, command: str, learned: float) -> Path:
    """Export a generator with its proof, manifest and card."""
    path = out / f"{NAME}.onnx"
    examples = [(torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).clamp(-1, 1),)]
    export_onnx(
        generator, examples, path, inputs=["picture"], outputs=["painted"],
        free={"picture": {0: "n"}, "painted": {0: "n"}}, tolerance=1e-3,
    )  # fmt: skip
    data = f"{recipe.pictures} simulated replicas and sections (simulators.specimen.immunogold), seed {recipe.seed}"
    write_manifest(
        path,
        opset=OPSET,
        probe_shapes={"picture": [1, 3, SIDE, SIDE]},
        what="Immunogold painted by a pix2pix generator; the published method, for comparison.",
        made_by=command,
        trained_on=data,
        settings={"raster_nm": CANONICAL_NM},
    )
    card = Card(
        name=NAME,
        purpose="The published method (Gold Digger, 2021) rebuilt, to compare the compact network with.",
        inputs="picture (n, 3, 256, 256): grey from -1 to 1, three times",
        outputs="painted (n, 3, 256, 256): green squares from -1 to 1",
        data=data,
        command=command,
        recipe={"final_l1": round(learned, 5), **msgspec.to_builtins(recipe)},
        limits=("A baseline: nothing in Cryonaut uses it unless it is asked for.",),
    )
    write_card(card, path.with_suffix(".md"))
    return path
