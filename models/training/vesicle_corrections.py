"""Vesicles in frames: learning from a person's corrections; every fourth checked window of 640 nm is held out."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.runtime import WEIGHTS
from models.training.corrected_windows import Proofread, Window, WindowRecipe, mixed, split, windows
from models.training.corrections import Material, Quality, go_on, tally
from models.training.export import filled
from models.training.gold import loss_of
from models.training.loop import LoopSettings, Say, seeded
from models.training.vesicle_frames import NAME, FrameNetwork, pool, write
from models.training.vesicle_frames_data import batch
from models.vesicles.discs import Disc, apart
from models.vesicles.frames import CELLS, RASTER_NM, THRESHOLD, raster_of


class FrameFinetuneRecipe(WindowRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How corrections of vesicles in frames are learned from."""

    seed: int = 11
    crop_px: int = 176
    pictures: int = 150
    picture_px: int = 304
    simulated_share: float = 0.4
    loop: LoopSettings = LoopSettings(
        steps=400, learning_rate=8e-4, averaging=0.98, clip=5.0, report_every=50, save_every=1000
    )


def discs(network: nn.Module, window: Window, threshold: float = THRESHOLD) -> list[Disc]:
    """What a network finds in a window, in its raster pixels."""
    x, y, diameter, score = window.peaks(network, CELLS, threshold)
    inside = (x >= -0.5) & (y >= -0.5) & (x < window.columns - 0.5) & (y < window.rows - 0.5)
    found = [Disc(float(x[k]), float(y[k]), float(diameter[k]), float(score[k])) for k in np.flatnonzero(inside)]
    return apart(found, 1.0)


def quality(network: nn.Module, held: Sequence[Window]) -> Quality:
    """What a network finds in windows; a hit lies within half a diameter of its mark."""

    def looks() -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        for window in held:
            said = np.array([(d.x, d.y) for d in discs(network, window)]).reshape(-1, 2)
            yield window.marks[:, :2], said, np.maximum(20 / RASTER_NM, window.marks[:, 2] / 2)

    return tally(looks(), "vesicles")


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
    gained = go_on(
        filled(FrameNetwork(normed=False), start).to(memory_format=torch.channels_last),
        mixed(batch, recipe, learnt, pool(recipe, say), 71),
        loss_of(recipe.bfloat16),
        recipe.loop,
        material=Material("windows", len(learnt), len(held), tuple(image.name for image in images), start),
        measure=partial(quality, held=held),
        command=command,
        say=say,
    )
    file = write(
        gained.network,
        recipe,
        out,
        command=command,
        data=gained.data,
        learned=gained.last_loss,
        figures=gained.figures,
        say=say,
    )
    return file, gained.before, gained.after
