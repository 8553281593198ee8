"""Images that a person corrected, cut into windows on a network's raster, to learn from and to measure on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.gold.network import Cells, Seen
from models.gold.sampling import Pixels, Raster, raster_of
from models.training.corrections import HELD_OUT
from models.training.gold_data import Batch, Sample
from models.training.loop import LoopSettings, TrainingError

WINDOW = 256  # raster pixels
MOST_WINDOWS = 600


class WindowRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that learning from corrected images follows from.

    Attributes
    ----------
    seed, batch, crop_px, bfloat16
        As in the recipe from which the network learned first.
    pictures, picture_px
        Simulated pictures that are shown beside the corrections.
    simulated_share
        Share of the batches that are simulated.
    loop
        How long and how fast.
    """

    seed: int
    batch: int = 12
    crop_px: int
    bfloat16: bool = True
    pictures: int
    picture_px: int
    simulated_share: float
    loop: LoopSettings


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

    def peaks(self, network: nn.Module, cells: Cells, threshold: float) -> Seen:
        """What a network says of the window and its halo, in raster pixels of the window."""
        picture = cells.window(self.raster, self.top, self.left, self.rows, self.columns)
        with torch.no_grad():
            heat, shape = network(torch.from_numpy(picture[None, None]))
        x, y, diameter, score = cells.peaks((heat[0, 0].numpy(), shape[0].numpy()), threshold)
        return x - cells.halo, y - cells.halo, diameter, score


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


def mixed(
    batch: Callable[[Sequence[Sample], int, int, int, int], Batch],
    recipe: WindowRecipe,
    learnt: Sequence[Window],
    simulated: Sequence[Sample],
    stream: int,
) -> Callable[[int], Batch]:
    """Batches by the number of the step, now of windows, now of what is simulated.

    ``stream`` tells the random numbers of one kind of network from those of another.
    """
    samples = [window.sample() for window in learnt]

    def batch_of(step: int) -> Batch:
        rehearse = simulated and np.random.default_rng([recipe.seed, stream, step]).uniform() < recipe.simulated_share
        return batch(simulated if rehearse else samples, recipe.seed, step, recipe.batch, recipe.crop_px)

    return batch_of
