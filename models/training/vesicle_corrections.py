"""Frames: learning from a person's corrections, beside simulated frames so that none is unlearnt.

The checked parts are cut into windows of 640 nm; every fourth window is held out and tells, before and after, what was
gained.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from models.gold.matching import matched
from models.runtime import WEIGHTS
from models.training.card import Figure
from models.training.export import filled
from models.training.gold import loss_of
from models.training.gold_corrections import Proofread, Quality, Window, split, windows
from models.training.gold_data import Batch, Sample
from models.training.loop import LoopSettings, Say, seeded, train
from models.training.vesicle_frames import NAME, FrameNetwork, pool, write
from models.training.vesicle_frames_data import batch
from models.vesicles.discs import Disc, apart
from models.vesicles.frames import ALIGNED, HALO, RASTER_NM, THRESHOLD, peaks, raster_of


class FrameFinetuneRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that learning from corrections follows from.

    Attributes
    ----------
    seed, batch, crop_px, bfloat16
        As in `models.training.vesicle_frames.FrameRecipe`.
    pictures, picture_px
        Simulated frames that are shown beside the corrections.
    simulated_share
        Share of the batches that are simulated.
    loop
        How long and how fast.
    """

    seed: int = 11
    batch: int = 12
    crop_px: int = 176
    bfloat16: bool = True
    pictures: int = 150
    picture_px: int = 304
    simulated_share: float = 0.4
    loop: LoopSettings = LoopSettings(
        steps=400, learning_rate=8e-4, averaging=0.98, clip=5.0, report_every=50, save_every=1000
    )


def discs(network: nn.Module, window: Window, threshold: float = THRESHOLD) -> list[Disc]:
    """What a network finds in a window, in its raster pixels."""
    rows, columns = (-(-n // ALIGNED) * ALIGNED + 2 * HALO for n in (window.rows, window.columns))
    picture = window.raster.window(window.top - HALO, window.left - HALO, rows, columns)
    with torch.no_grad():
        heat, shape = network(torch.from_numpy(picture[None, None]))
    x, y, diameter, score = peaks(heat[0, 0].numpy(), shape[0].numpy(), threshold)
    x, y = x - HALO, y - HALO
    inside = (x >= -0.5) & (y >= -0.5) & (x < window.columns - 0.5) & (y < window.rows - 0.5)
    found = [Disc(float(x[k]), float(y[k]), float(diameter[k]), float(score[k])) for k in np.flatnonzero(inside)]
    return apart(found, 1.0)


def quality(network: nn.Module, held: Sequence[Window]) -> Quality:
    """What a network finds in windows; a hit lies within half a diameter of its mark."""
    hits = missed = false = 0
    for window in held:
        found = discs(network, window)
        said = np.array([(d.x, d.y) for d in found]).reshape(-1, 2)
        pairs = matched(window.marks[:, :2], said, np.maximum(20 / RASTER_NM, window.marks[:, 2] / 2))
        hits += len(pairs)
        missed += len(window.marks) - len(pairs)
        false += len(said) - len(pairs)
    return Quality(hits, missed, false, "vesicles")


def learn(
    recipe: FrameFinetuneRecipe,
    images: Sequence[Proofread],
    out: Path,
    *,
    command: str,
    start: Path = WEIGHTS / f"{NAME}.onnx",
    say: Say = print,
) -> tuple[Path, Quality, Quality]:
    """Go on from ``start`` with corrections; the weights' file, and the quality on the held-out part before and after.

    Raises
    ------
    TrainingError
        When there are too few corrections.
    """
    seeded(recipe.seed)
    learnt, held = split([w for image in images for w in windows(image, raster_of)], recipe.seed)
    network = filled(FrameNetwork(normed=False), start).eval()
    before = quality(network, held)
    say(f"{len(learnt)} windows to learn from, {len(held)} held out; before: {before}")
    maker = _maker(recipe, [window.sample() for window in learnt], pool(recipe, say))
    improved, history = train(
        network.to(memory_format=torch.channels_last), maker, loss_of(recipe.bfloat16), recipe.loop, say=say
    )
    after = quality(improved, held)
    say(f"before: {before}\nafter:  {after}")
    data = f"{start.name}, then {len(learnt)} windows of {', '.join(sorted({i.name for i in images}))[:200]}"
    figures = (Figure("held-out windows, before", str(before), command), Figure("held-out, after", str(after), command))
    file = write(
        improved,
        recipe,
        out,
        command=command,
        data=data,
        learned=f"{history.losses[-1][1]:.3f}",
        figures=figures,
        say=say,
    )
    return file, before, after


def _maker(recipe: FrameFinetuneRecipe, samples: list[Sample], rehearsed: list[Sample]) -> Callable[[int], Batch]:
    def batch_of(step: int) -> Batch:
        simulated = rehearsed and np.random.default_rng([recipe.seed, 71, step]).uniform() < recipe.simulated_share
        return batch(rehearsed if simulated else samples, recipe.seed, step, recipe.batch, recipe.crop_px)

    return batch_of
