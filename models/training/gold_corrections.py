"""Gold: learning from a person's corrections; every fourth checked window of 280 nm is held out."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from models.gold.fast import CELLS, THRESHOLD
from models.gold.likeness import Weigher
from models.runtime import WEIGHTS
from models.training.corrected_windows import Proofread, Window, WindowRecipe, mixed, split, windows
from models.training.corrections import Material, Quality, go_on, tally
from models.training.gold import NAME, loss_of, pool, write
from models.training.gold_data import batch
from models.training.gold_network import from_onnx
from models.training.loop import LoopSettings, Say, seeded

NEAR_NM = 3.0


class FinetuneRecipe(WindowRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How corrections of gold are learned from."""

    seed: int = 7
    crop_px: int = 160
    pictures: int = 200
    picture_px: int = 384
    simulated_share: float = 0.5
    loop: LoopSettings = LoopSettings(
        steps=300, learning_rate=5e-4, averaging=0.98, clip=5.0, report_every=50, save_every=1000
    )


def quality(network: nn.Module, held: Sequence[Window]) -> Quality:
    """What a network finds in windows; a hit lies within 3 nm or half a diameter of its mark."""

    def looks() -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        for window in held:
            x, y, _, _ = window.peaks(network, CELLS, THRESHOLD)
            said = np.stack([x, y], axis=1)
            inside = (said >= -0.5).all(axis=1) & (said[:, 0] < window.columns - 0.5) & (said[:, 1] < window.rows - 0.5)
            reach = np.maximum(NEAR_NM / window.step_nm, window.marks[:, 2] / 2)
            yield window.marks[:, :2], said[inside], reach

    return tally(looks())


def learn(
    recipe: FinetuneRecipe,
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
    learnt, held = split([w for image in images for w in windows(image)], recipe.seed)
    gained = go_on(
        from_onnx(start).to(memory_format=torch.channels_last),
        mixed(batch, recipe, learnt, pool(recipe, say), 59),
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
        likeness=_likeness(start),
        say=say,
    )
    return file, gained.before, gained.after


def _likeness(start: Path) -> Weigher | None:
    """How hits are weighed beside their fellows, as the weights that were gone on from say it."""
    manifest = start.with_suffix(".yaml")
    kept = yaml.safe_load(manifest.read_text(encoding="utf-8"))["settings"] if manifest.exists() else {}
    return Weigher.from_settings(kept["likeness"]) if "likeness" in kept else None
