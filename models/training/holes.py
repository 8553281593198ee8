"""Learning to find holes: the compact network on one octave of sizes, and the published U-Net on clicks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.holes.levels import LARGEST, SMALLEST, planes_of
from models.runtime import write_manifest
from models.training.card import Card, write_card
from models.training.export import OPSET, export_onnx
from models.training.loop import LoopSettings, Say, seeded, train
from models.training.networks import HoleNet, PublishedUNet
from models.training.scenes import STATES, Scene, piece, pool, worn

POOL_RADIUS = (2.6, 12.0)  # pixels, of holes in the rendered pool
_TOO_SMALL, _TOO_LARGE = 2.2, 8.2  # level pixels: beyond these a hole belongs to another level for sure
_SPREAD = 0.28  # of the radius: sigma of the peak that the network is asked for


class HoleRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a training of the hole finder follows from.

    Attributes
    ----------
    seed
        Of the pictures, the weights and the order.
    pictures, picture_side
        Size of the rendered pool, and of its pictures in pixels.
    batch, side
        Pieces in a batch, and their side in pixels.
    loop
        How long and how fast.
    """

    seed: int = 0
    pictures: int = 1400
    picture_side: int = 512
    batch: int = 8
    side: int = 224
    loop: LoopSettings = LoopSettings(steps=4500, learning_rate=3e-3, report_every=100, save_every=500, stop_after=2000)


Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # planes, heat, weight, rows of (item, y, x, ln r, quality, state)


def targets(scene: Scene, side: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What the network is asked for.

    Returns
    -------
    heat, weight
        Shapes (side / 2, side / 2): peaks of 1 at centres, and 0 where nothing is asked.
    about
        Shape (n, 5): y and x of the cell, ln radius, quality, state of each hole whose centre is inside.
    """
    cells = side // 2
    heat, weight = np.zeros((cells, cells), np.float32), np.ones((cells, cells), np.float32)
    y, x = np.mgrid[0:cells, 0:cells].astype(np.float32)
    for cx, cy, r in scene.unsure:
        if r > _TOO_SMALL:
            _stamp(weight, x, y, cx, cy, r, 0.0)
    about = []
    for (cx, cy), r, quality, state in zip(scene.holes, scene.radius, scene.quality, scene.state, strict=True):
        if not _TOO_SMALL < r < _TOO_LARGE:
            continue
        if not SMALLEST <= r <= LARGEST:
            _stamp(weight, x, y, cx, cy, r, 0.0)
            continue
        u, v, sigma = (cx - 0.5) / 2, (cy - 0.5) / 2, max(_SPREAD * r / 2, 0.5)
        i, j = round(u), round(v)
        reach = int(np.ceil(3.5 * sigma))
        a, b, c, d = max(0, j - reach), max(0, j + reach + 1), max(0, i - reach), max(0, i + reach + 1)
        bump = np.exp(-((x[a:b, c:d] - u) ** 2 + (y[a:b, c:d] - v) ** 2) / (2 * sigma**2))
        heat[a:b, c:d] = np.maximum(heat[a:b, c:d], bump)
        if 0 <= i < cells and 0 <= j < cells:
            heat[j, i] = 1.0
            about.append((j, i, np.log(r), quality, state))
    return heat, weight, np.array(about, np.float32).reshape(-1, 5)


def _stamp(
    plane: NDArray[np.float32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    cx: float,
    cy: float,
    r: float,
    to: float,
) -> None:
    plane[(x - (cx - 0.5) / 2) ** 2 + (y - (cy - 0.5) / 2) ** 2 < (r / 2) ** 2] = to


def batch_maker(recipe: HoleRecipe, scenes: Sequence[Scene]) -> Callable[[int], Batch]:
    """The batch of each step."""
    with_holes = [k for k, s in enumerate(scenes) if len(s.radius)]
    without = [k for k, s in enumerate(scenes) if not len(s.radius)]

    def batch_of(step: int) -> Batch:
        rng = np.random.default_rng([recipe.seed, 7, step])
        planes, heats, weights, rows = [], [], [], []
        for item in range(recipe.batch):
            example = one_piece(rng, scenes, with_holes, without, recipe.side)
            rows_seen, columns_seen = recipe.side, recipe.side
            if rng.uniform() < 0.15:  # a frame that ends here
                rows_seen, columns_seen = (int(n) for n in rng.integers(recipe.side // 4, recipe.side + 1, 2))
            example, seen = framed(example, rows_seen, columns_seen)
            heat, weight, about = targets(example, recipe.side)
            planes.append(seen)
            heats.append(heat)
            weights.append(weight)
            rows.append(np.column_stack([np.full(len(about), item, np.float32), about]))
        as_tensor = torch.from_numpy
        return (
            as_tensor(np.stack(planes)),
            as_tensor(np.stack(heats)[:, None]),
            as_tensor(np.stack(weights)[:, None]),
            as_tensor(np.concatenate(rows).astype(np.float32)),
        )

    return batch_of


def one_piece(
    rng: np.random.Generator, scenes: Sequence[Scene], with_holes: Sequence[int], without: Sequence[int], side: int
) -> Scene:
    """One worn piece of a picture of the pool; nine in ten have holes, most of them of this octave."""
    empty = without and rng.uniform() < 0.1
    scene = scenes[int(rng.choice(without if empty else with_holes))]
    zoom = float(np.exp(rng.uniform(np.log(0.6), np.log(1.6))))
    if len(scene.radius) and rng.uniform() < 0.85:
        wanted = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
        zoom = wanted / float(np.median(scene.radius))
    shear = float(rng.uniform(0, 0.3)) if rng.uniform() < 0.2 else 0.0
    cut = piece(rng, scene, side, zoom, turn=float(rng.uniform(0, 360)), shear=shear)
    image = worn(rng, cut.image)
    return replace(cut, image=image)


def framed(scene: Scene, rows: int, columns: int) -> tuple[Scene, NDArray[np.float32]]:
    """The top left part of a scene and its planes, padded to the whole as levels are padded."""
    image = np.asarray(scene.image, np.float32)
    planes = np.zeros((2, *image.shape), np.float32)
    planes[:, :rows, :columns] = planes_of(image[:rows, :columns])
    keep = (scene.holes[:, 0] < columns) & (scene.holes[:, 1] < rows)
    part = replace(
        scene,
        holes=scene.holes[keep],
        radius=scene.radius[keep],
        quality=scene.quality[keep],
        state=scene.state[keep],
    )
    return part, planes


def loss_of(network: nn.Module, batch: Batch, judged: bool = True) -> Tensor:
    """Penalty-reduced focal loss of the centres (Zhou et al., Objects as points, 2019), and what is said about each.

    Without ``judged``, quality and state of the holes are not known and nothing is asked of them.
    """
    planes, heat, weight, rows = batch
    logits = network.logits(planes)  # type: ignore[operator,unused-ignore]
    centre = logits[:, :1]
    p = torch.sigmoid(centre).clamp(1e-5, 1 - 1e-5)
    peak = (heat >= 0.9999).float()
    hit = -peak * (1 - p) ** 2 * torch.log(p)
    miss = -(1 - peak) * (1 - heat) ** 4 * p**2 * torch.log(1 - p)
    count = peak.sum().clamp(min=1.0)
    loss = ((hit + miss) * weight).sum() / count
    if len(rows):
        item, y, x = rows[:, 0].long(), rows[:, 1].long(), rows[:, 2].long()
        said = logits[item, 1:, y, x]
        loss = loss + 0.5 * nn.functional.smooth_l1_loss(said[:, 0], rows[:, 3], beta=0.05)
    if len(rows) and judged:
        loss = loss + 0.5 * nn.functional.binary_cross_entropy_with_logits(said[:, 1], rows[:, 4])
        loss = loss + 0.1 * nn.functional.cross_entropy(said[:, 2:], rows[:, 5].long())
    return loss


def learn(recipe: HoleRecipe, out: Path, *, command: str, say: Say = print) -> Path:
    """Train the compact network and write weights, manifest and card to ``out``; the weights' file."""
    seeded(recipe.seed)
    pictures: list[Scene] = []

    def batch_of(step: int) -> Batch:
        if not pictures:  # a run that was complete already needs none
            pictures.extend(pool(recipe.seed, recipe.pictures, recipe.picture_side, POOL_RADIUS, say))
        return batch_maker(recipe, pictures)(step)

    network, history = train(
        HoleNet(),
        batch_of,
        loss_of,
        recipe.loop,
        checkpoint=out / "holes-net.checkpoint",
        say=say,
    )
    return write(network, recipe, out, command, f"final loss {history.losses[-1][1]:.4f}", say)


def write(network: nn.Module, recipe: HoleRecipe, out: Path, command: str, learned: str, say: Say = print) -> Path:
    """Export a compact network with its proof, manifest and card."""
    path = out / "holes-net.onnx"
    examples = [(torch.randn(3, 2, 64, 96),), (torch.randn(2, 2, 160, 112),), (torch.randn(1, 2, 16, 16),)]
    axes = {0: "n", 2: "rows", 3: "columns"}
    small = {0: "n", 2: "cells_down", 3: "cells_right"}
    parity = export_onnx(
        network,
        examples,
        path,
        inputs=["planes"],
        outputs=["centre", "about"],
        free={"planes": axes, "centre": small, "about": small},
        tolerance=2e-4,
    )
    say(f"{path}: torch and ONNX Runtime differ by {parity.torch_onnx:.1e}, alone and batch {parity.alone_batch:.1e}")
    write_manifest(
        path,
        opset=OPSET,
        probe_shapes={"planes": [1, 2, 64, 64]},
        what="Centres, radii, quality and states of foil holes of 2.8 to 6.6 pixels radius",
        made_by=command,
        trained_on=f"{recipe.pictures} simulated views (simulators/specimen), seed {recipe.seed}",
        settings={"smallest_px": SMALLEST, "largest_px": LARGEST, "states": list(STATES)},
    )
    card = Card(
        name="holes-net",
        purpose="Finds the holes of perforated foils in medium-mag frames, on every scale (`models/holes/learned.py`).",
        inputs="`planes` (n, 2, rows, columns): frame of mean 0 and deviation 1, and the same with even local contrast",
        outputs="at half scale: `centre` (probability), `about` (ln radius in px, quality logit, five state logits)",
        data=f"{recipe.pictures} simulated views, holes of {POOL_RADIUS[0]} to {POOL_RADIUS[1]} px, domain-randomised",
        command=command,
        recipe=flat(recipe) | {"learned": learned},
        limits=[
            "It proposes; the lattice fit and the rims decide. Alone it sees holes in lacey carbon.",
            "Radii outside 2.8 to 6.6 pixels on every level (holes larger than 0.42 of the frame).",
        ],
    )
    write_card(card, out / "holes-net.md")
    return path


def flat(recipe: msgspec.Struct) -> dict[str, Any]:
    """Recipe as one level of names and values."""
    plain: dict[str, Any] = {}
    for key, value in msgspec.to_builtins(recipe).items():
        plain |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return plain


class PublishedRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The published training (Kim et al. 2023): 6000 steps, positive weight 100, learned blur with its own rate."""

    seed: int = 0
    pictures: int = 1400
    picture_side: int = 512
    batch: int = 4
    side: int = 256
    positive_weight: float = 100.0
    blur_rate: float = 0.1
    loop: LoopSettings = LoopSettings(steps=6000, learning_rate=1e-3, averaging=0.0, weight_decay=0.0, clip=1e9)


Clicks = tuple[Tensor, Tensor]  # images and maps with ones at clicks, both (n, 1, side, side)


def click_maker(recipe: PublishedRecipe, scenes: Sequence[Scene]) -> Callable[[int], Clicks]:
    """Batches of the published training: whole 90-degree turns and inversion only, a one at each hole's centre."""
    with_holes = [k for k, s in enumerate(scenes) if len(s.radius)]

    def batch_of(step: int) -> Clicks:
        rng = np.random.default_rng([recipe.seed, 8, step])
        images, clicks = [], []
        for _ in range(recipe.batch):
            scene = scenes[with_holes[int(rng.integers(len(with_holes)))]]
            cut = piece(rng, scene, recipe.side, 1.0, turn=90.0 * int(rng.integers(4)), shear=0.0)
            image = np.asarray(cut.image, np.float32)
            image = (image - image.mean()) / max(float(image.std()), 1e-6)
            marks = np.zeros_like(image)
            x, y = np.rint(cut.holes).astype(int).T
            inside = (x >= 0) & (y >= 0) & (x < recipe.side) & (y < recipe.side)
            marks[y[inside], x[inside]] = 1.0
            images.append(image * rng.choice([-1, 1]))
            clicks.append(marks)
        return torch.from_numpy(np.stack(images)[:, None].astype(np.float32)), torch.from_numpy(
            np.stack(clicks)[:, None]
        )

    return batch_of


def learn_published(recipe: PublishedRecipe, out: Path, *, command: str, say: Say = print) -> Path:
    """Train the published U-Net and write its weights, manifest and card to ``out``; the weights' file."""
    seeded(recipe.seed)
    scenes = pool(recipe.seed, recipe.pictures, recipe.picture_side, (4.0, 24.0), say)
    weight = torch.tensor(recipe.positive_weight)

    def weighted(network: nn.Module, batch: Clicks) -> Tensor:
        images, clicks = batch
        p = network.blurred(torch.sigmoid(network(images))).clamp(1e-7, 1 - 1e-7)  # type: ignore[operator,unused-ignore]
        return -(weight * clicks * torch.log(p) + (1 - clicks) * torch.log(1 - p)).mean()

    network, history = train(
        PublishedUNet(),
        click_maker(recipe, scenes),
        weighted,
        recipe.loop,
        slow={"log_sigma": recipe.blur_rate},
        checkpoint=out / "holes-published.checkpoint",
        say=say,
    )
    sigma = float(torch.exp(network.log_sigma.detach()))
    path = out / "holes-published.onnx"
    free = {0: "n", 2: "rows", 3: "columns"}
    export_onnx(
        network,
        [(torch.randn(2, 1, 256, 256),), (torch.randn(1, 1, 256, 512),)],
        path,
        inputs=["image"],
        outputs=["logit"],
        free={"image": free, "logit": free},
        tolerance=2e-3,
    )
    facts = f"{recipe.pictures} simulated views, seed {recipe.seed}"
    write_manifest(
        path,
        opset=OPSET,
        probe_shapes={"image": [1, 1, 256, 256]},
        what="Hole centres as published (Kim et al. 2023), trained on simulated grids",
        made_by=command,
        trained_on=facts,
        settings={"sigma_px": sigma},
    )
    card = Card(
        name="holes-published",
        purpose="The published hole finder, to compare with; not used by default.",
        inputs="`image` (n, 1, rows, columns), mean 0 and deviation 1, sides multiples of 256",
        outputs="`logit` of a hole's centre at each pixel",
        data=facts,
        command=command,
        recipe=flat(recipe)
        | {"learned blur, sigma in px": f"{sigma:.2f}", "final loss": f"{history.losses[-1][1]:.5f}"},
        limits=[
            "One scale only: holes of 4 to 24 pixels radius.",
            "2.8 s for an image that the compact one does in 0.04 s.",
        ],
    )
    write_card(card, out / "holes-published.md")
    return path
