"""A site's own holes: the shipped network goes on learning from marked images, between simulated ones.

Every second piece of a batch is still simulated, so that what the network knew of other foils is kept (rehearsal,
Robins, Connection Science 7, 123, 1995). A third of the images is held out, to say honestly whether it helped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from onnx import load as load_onnx
from onnx import numpy_helper
from scipy.optimize import linear_sum_assignment

from models.base import as_plain
from models.holes.learned import NetHoleFinder
from models.holes.prepare import prepare
from models.training.holes import POOL_RADIUS, HoleRecipe, batch_maker, loss_of, write
from models.training.loop import LoopSettings, Say, TrainingError, seeded, train
from models.training.networks import HoleNet
from models.training.scenes import Scene, pool

_SITE_SIDE = 160  # pixels of a site's pieces, which may be small images
_TOLERANCE = 0.5  # radii: how far from a mark a found hole may be


@dataclass(frozen=True, slots=True)
class Marked:
    """One image of a site and its holes: centres (n, 2) as (x, y) pixels, radii (n,), and which count neither way."""

    name: str
    image: NDArray[np.generic]
    points: NDArray[np.float64]
    radius: NDArray[np.float64]
    unsure: NDArray[np.bool_]


class SiteRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a fine-tuning follows from; ``pictures`` are the simulated ones between the site's own."""

    seed: int = 0
    pictures: int = 210
    batch: int = 8
    side: int = 224
    loop: LoopSettings = LoopSettings(steps=300, learning_rate=5e-4, report_every=50, averaging=0.98)


def scene_of(marked: Marked) -> Scene | None:
    """A marked image as the training sees pictures, enlarged or reduced until holes have about six pixels."""
    work = prepare(as_plain(marked.image))
    if work is None or not len(marked.points):
        return None
    scale = work.scale
    radius = marked.radius * scale
    values = work.values
    zoom = min(2.0, max(1.0, 448 / min(values.shape)), 9.0 / max(float(np.median(radius)), 1e-3))
    if zoom < 1.0 and min(values.shape) * zoom < 300:
        zoom = min(1.0, 300 / min(values.shape))
    rows, columns = (max(32, round(n * zoom)) for n in values.shape)
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(values, (columns, rows), interpolation=how), np.float32)
    points = ((marked.points + 0.5) * scale * zoom) - 0.5
    sure = ~marked.unsure
    count = int(sure.sum())
    unsure = np.column_stack([points, radius * zoom])[marked.unsure]
    half = np.full(count, 0.5)
    return Scene(image, points[sure], radius[sure] * zoom, half, np.zeros(count, np.int64), unsure)


def recalled(finder: NetHoleFinder, images: Sequence[Marked]) -> tuple[float, float]:
    """Recall and precision over images, centres within half a radius, one to one."""
    hits = found = there = 0
    for marked in images:
        holes = finder.find(marked.image).holes
        at = np.array([[h.x, h.y] for h in holes]).reshape(-1, 2)
        sure = ~marked.unsure
        away = np.hypot(*(marked.points[:, None] - at[None]).transpose(2, 0, 1))
        near = away <= _TOLERANCE * marked.radius[:, None]
        rows, columns = linear_sum_assignment(np.where(near, away, 1e6)) if near.any() else (np.zeros(0, int),) * 2
        paired = [(r, c) for r, c in zip(rows, columns, strict=True) if near[r, c]]
        hits += sum(bool(sure[r]) for r, _ in paired)
        there += int(sure.sum())
        found += len(at) - sum(bool(marked.unsure[r]) for r, _ in paired)
    return hits / max(1, there), hits / max(1, found)


def weights_of(manifest: Path) -> HoleNet:
    """The compact network with the weights of an exported file.

    Raises
    ------
    TrainingError
        When the file holds another network.
    """
    graph = load_onnx(manifest.with_suffix(".onnx")).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    network = HoleNet()
    modules = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d)]
    layers = [module for module in modules if isinstance(module, torch.nn.Conv2d)]
    try:
        with torch.no_grad():
            for layer, node in zip(layers, convolutions, strict=True):
                layer.weight.copy_(torch.from_numpy(np.array(held[node.input[1]])))
                after = modules.index(layer) + 1
                norm = modules[after] if layer.bias is None else layer
                norm.bias.copy_(torch.from_numpy(np.array(held[node.input[2]])))
                if norm is not layer:  # the export folded it into the layer before it
                    norm.running_var.fill_(1.0 - norm.eps)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise TrainingError(f"{manifest}: not the weights of the compact hole network: {error}") from error
    return network


def learn(
    recipe: SiteRecipe, images: Sequence[Marked], start: Path, out: Path, *, command: str, say: Say = print
) -> Path:
    """Go on from the weights of ``start`` with a site's images; say what it changed on those held out.

    Raises
    ------
    TrainingError
        When there are fewer than three marked images.
    """
    usable = [(m, s) for m in images if (s := scene_of(m)) is not None]
    if len(usable) < 3:
        raise TrainingError(
            f"{len(usable)} marked images with holes; at least 3 are needed, one of them to be held out"
        )
    seeded(recipe.seed)
    order = np.random.default_rng(recipe.seed).permutation(len(usable))
    held = [usable[k][0] for k in order[: max(1, len(usable) // 3)]]
    own = [usable[k][1] for k in order[max(1, len(usable) // 3) :]]
    before = recalled(NetHoleFinder(start), held)
    say(f"before, on {len(held)} held-out images: recall {before[0]:.4f}, precision {before[1]:.4f}")
    base = HoleRecipe(seed=recipe.seed, batch=recipe.batch // 2, side=recipe.side)
    simulated = batch_maker(base, pool(recipe.seed + 1, recipe.pictures, 512, POOL_RADIUS, say))
    ours = batch_maker(msgspec.structs.replace(base, side=_SITE_SIDE), own)
    network, history = train(
        frozen_norms(weights_of(start)),
        lambda step: (simulated(step), ours(step)),
        lambda network, both: loss_of(network, both[0]) + loss_of(network, both[1], judged=False),
        recipe.loop,
        say=say,
    )
    path = write(
        network,
        HoleRecipe(seed=recipe.seed, pictures=recipe.pictures, loop=recipe.loop),
        out,
        command,
        f"fine-tuned on {len(own)} images of a site, final loss {history.losses[-1][1]:.4f}",
        say,
    )
    after = recalled(NetHoleFinder(path.with_suffix(".yaml")), held)
    say(f"after, on the same images: recall {after[0]:.4f}, precision {after[1]:.4f}")
    with (out / "holes-net.md").open("a", encoding="utf-8") as card:
        card.write(
            f"\n## Fine-tuned\n\nOn {len(own)} images of a site; on {len(held)} held out: recall {before[0]:.4f} ->"
            f" {after[0]:.4f}, precision {before[1]:.4f} -> {after[1]:.4f}.\n"
        )
    return path


def frozen_norms(network: HoleNet) -> HoleNet:
    """The network with batch norms that keep their statistics, also while it learns."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
            module.train = lambda mode=True, m=module: torch.nn.Module.train(m, False)  # type: ignore[method-assign,misc,unused-ignore]
            module.eval()
    return network
