"""Learning from a person's corrections: checked parts of images, beside simulated ones so that none is unlearnt.

The checked parts are cut into windows; every fourth window is held out and tells, before and after, what was gained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from models.gold.fast import HALO, THRESHOLD, peaks
from models.gold.likeness import Weigher
from models.gold.matching import matched
from models.gold.sampling import Pixels, Raster, raster_of
from models.runtime import WEIGHTS
from models.training.card import Figure
from models.training.gold import NAME, loss_of, pool, write
from models.training.gold_data import Batch, Sample, batch
from models.training.gold_network import from_onnx
from models.training.loop import LoopSettings, Say, TrainingError, seeded, train

WINDOW = 256  # raster pixels
HELD_OUT = 4  # every so many windows
NEAR_NM = 3.0
MOST_WINDOWS = 600


class FinetuneRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that learning from corrections follows from.

    Attributes
    ----------
    seed, batch, crop_px, bfloat16
        As in `models.training.gold.GoldRecipe`.
    pictures, picture_px
        Simulated pictures that are shown beside the corrections.
    simulated_share
        Share of the batches that are simulated.
    loop
        How long and how fast.
    """

    seed: int = 7
    batch: int = 12
    crop_px: int = 160
    bfloat16: bool = True
    pictures: int = 200
    picture_px: int = 384
    simulated_share: float = 0.5
    loop: LoopSettings = LoopSettings(
        steps=300, learning_rate=5e-4, averaging=0.98, clip=5.0, report_every=50, save_every=1000
    )


@dataclass(frozen=True, slots=True)
class Proofread:
    """An image that a person went through.

    ``marks`` has rows (x, y, diameter) in pixels, ``checked`` the parts (left, top, right, bottom) in pixels that were
    gone through; none means all of the image.
    """

    name: str
    image: Pixels
    pixel_nm: float
    marks: NDArray[np.float64]
    checked: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """A checked window of an image's raster: place, size, and the marks in it (n, 3) in raster pixels of the window."""

    raster: Raster
    top: int
    left: int
    rows: int
    columns: int
    marks: NDArray[np.float64]
    step_nm: float

    def sample(self) -> Sample:
        """The window to learn from."""
        picture = self.raster.window(self.top, self.left, self.rows, self.columns)
        weights = np.ones((len(self.marks), 1))
        return Sample(np.clip(picture, -60, 60).astype(np.float16), np.hstack([self.marks, weights]).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Quality:
    """Hits, misses and false alarms on the held-out windows."""

    hits: int
    missed: int
    false: int
    what: str = "particles"

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision; 1 where there is nothing to find and nothing was found."""
        all_said = 2 * self.hits + self.missed + self.false
        return 2 * self.hits / all_said if all_said else 1.0

    def __str__(self) -> str:
        """Figures in words."""
        recall = self.hits / max(1, self.hits + self.missed)
        precision = self.hits / max(1, self.hits + self.false)
        return (
            f"F1 {self.f1:.3f} (recall {recall:.3f}, precision {precision:.3f}, {self.hits + self.missed} {self.what})"
        )


def windows(read: Proofread, make_raster: Callable[[Pixels, float], Raster] = raster_of) -> list[Window]:
    """The checked parts of an image in windows; those of an odd shape at the ends are smaller."""
    raster = make_raster(read.image, read.pixel_nm)
    rows, columns = raster.shape
    parts = read.checked or ((-0.5, -0.5, read.image.shape[1] - 0.5, read.image.shape[0] - 0.5),)
    marks = read.marks.reshape(-1, 3)
    x, y = (marks[:, 0] + 0.5) / raster.step - 0.5, (marks[:, 1] + 0.5) / raster.step - 0.5
    diameter = marks[:, 2] / raster.step
    found = []
    for left, top, right, bottom in parts:
        x0, y0 = (max(0, round((v + 0.5) / raster.step)) for v in (left, top))
        x1 = min(columns, round((right + 0.5) / raster.step))
        y1 = min(rows, round((bottom + 0.5) / raster.step))
        for v in range(y0, y1, WINDOW):
            for u in range(x0, x1, WINDOW):
                high, wide = min(WINDOW, y1 - v), min(WINDOW, x1 - u)
                if min(high, wide) < 32:
                    continue
                inside = (x >= u - 0.5) & (x < u + wide - 0.5) & (y >= v - 0.5) & (y < v + high - 0.5)
                own = np.stack([x[inside] - u, y[inside] - v, diameter[inside]], axis=1)
                found.append(Window(raster, v, u, high, wide, own, read.pixel_nm * raster.step))
    return found


def split(found: Sequence[Window], seed: int) -> tuple[list[Window], list[Window]]:
    """Windows to learn from, and windows held out; both have marks.

    Raises
    ------
    TrainingError
        When there are too few windows with marks for that.
    """
    order = np.random.default_rng([seed, 53]).permutation(len(found))
    full = [found[k] for k in order if len(found[k].marks)]
    empty = [found[k] for k in order if not len(found[k].marks)]
    if len(full) < 2:
        raise TrainingError(
            f"{len(full)} checked window with marks: at least 2 are needed ({WINDOW} raster pixels of 1.1 nm each), one"
            " of them to measure on; proofread more"
        )
    held = full[::HELD_OUT] + empty[::HELD_OUT]
    learnt = [w for k, w in enumerate(full) if k % HELD_OUT] + [w for k, w in enumerate(empty) if k % HELD_OUT]
    return learnt[:MOST_WINDOWS], held[:MOST_WINDOWS]


def quality(network: nn.Module, held: Sequence[Window]) -> Quality:
    """What a network finds in windows; a hit lies within 3 nm or half a diameter of its mark."""
    hits = missed = false = 0
    for window in held:
        rows, columns = (-(-n // 8) * 8 + 2 * HALO for n in (window.rows, window.columns))
        picture = window.raster.window(window.top - HALO, window.left - HALO, rows, columns)
        with torch.no_grad():
            heat, shape = network(torch.from_numpy(picture[None, None]))
        x, y, _, _ = peaks(heat[0, 0].numpy(), shape[0].numpy(), THRESHOLD)
        said = np.stack([x - HALO, y - HALO], axis=1)
        inside = (said >= -0.5).all(axis=1) & (said[:, 0] < window.columns - 0.5) & (said[:, 1] < window.rows - 0.5)
        reach = np.maximum(NEAR_NM / window.step_nm, window.marks[:, 2] / 2)
        pairs = matched(window.marks[:, :2], said[inside], reach)
        hits += len(pairs)
        missed += len(window.marks) - len(pairs)
        false += int(inside.sum()) - len(pairs)
    return Quality(hits, missed, false)


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
    network = from_onnx(start).eval()
    before = quality(network, held)
    say(f"{len(learnt)} windows to learn from, {len(held)} held out; before: {before}")
    samples = [window.sample() for window in learnt]
    rehearsed = pool(recipe, say)
    maker = _maker(recipe, samples, rehearsed)
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
        likeness=_likeness(start),
        say=say,
    )
    return file, before, after


def _likeness(start: Path) -> Weigher | None:
    """How hits are weighed beside their fellows, as the weights that were gone on from say it."""
    manifest = start.with_suffix(".yaml")
    kept = yaml.safe_load(manifest.read_text(encoding="utf-8"))["settings"] if manifest.exists() else {}
    return Weigher.from_settings(kept["likeness"]) if "likeness" in kept else None


def _maker(recipe: FinetuneRecipe, samples: list[Sample], rehearsed: list[Sample]) -> Callable[[int], Batch]:
    def batch_of(step: int) -> Batch:
        simulated = rehearsed and np.random.default_rng([recipe.seed, 59, step]).uniform() < recipe.simulated_share
        return batch(rehearsed if simulated else samples, recipe.seed, step, recipe.batch, recipe.crop_px)

    return batch_of
