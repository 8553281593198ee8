"""Loss, scores and the choice of a checkpoint, as published for ASEM, made explicit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

PRESENT = 20  # voxels of a structure from which on its overlap counts


def balanced_loss(logits: Tensor, truth: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Cross-entropy in which both classes of each structure weigh alike, clipped ("Training: Pipeline details").

    Foreground of a share f (clipped to ``clip`` and its complement) weighs 1 / (2 f), background 1 / (2 (1 - f)); the
    mean is over weights, and over structures.

    Parameters
    ----------
    logits, truth, mask
        Log-odds, 0 or 1, and where the truth holds; each (n, structures, z, y, x).
    clip
        Smallest share.
    """
    axes = (0, 2, 3, 4)
    known = mask.sum(axes).clamp(min=1)
    share = ((truth * mask).sum(axes) / known).clamp(clip, 1 - clip)
    weight = (truth / (2 * share[None, :, None, None, None])) + (1 - truth) / (
        2 * (1 - share)[None, :, None, None, None]
    )
    weight = weight * mask
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    each = (entropy * weight).sum(axes) / weight.sum(axes).clamp(min=1e-6)
    return each.mean()


def overlap_loss(logits: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """1 - Dice of probabilities, the mean over the structures that are in the block; 0 where none is.

    Ours; it sees to structures that fill one voxel in a hundred, which cross-entropy hears little of (Milletari et al.,
    V-Net, 2016). Parameters as in `balanced_loss`.
    """
    axes = (0, 2, 3, 4)
    probability, there = torch.sigmoid(logits) * mask, truth * mask
    both = 2 * (probability * there).sum(axes) + 1
    dice = both / (probability.sum(axes) + there.sum(axes) + 1)
    present = there.sum(axes) >= PRESENT
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


@dataclass(frozen=True, slots=True)
class Scores:
    """Voxels that agree and disagree, and what follows ("Validation: Performance metrics")."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
        )

    @property
    def precision(self) -> float:
        """Share of what was marked that is right; 1 where nothing was marked."""
        marked = self.true_positive + self.false_positive
        return self.true_positive / marked if marked else 1.0

    @property
    def recall(self) -> float:
        """Share of what is there that was marked; 1 where nothing is there."""
        there = self.true_positive + self.false_negative
        return self.true_positive / there if there else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both, which is the Dice coefficient."""
        either = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / either if either else 1.0


def score(found: NDArray[np.bool_], truth: NDArray[np.bool_], counted: NDArray[np.bool_] | None = None) -> Scores:
    """Scores of a mark against the truth, where ``counted`` (such as outside a metric exclusion zone) is True."""
    if counted is not None:
        found, truth = found & counted, truth & counted
    hit = int(np.count_nonzero(found & truth))
    return Scores(hit, int(np.count_nonzero(found)) - hit, int(np.count_nonzero(truth)) - hit)


@dataclass(frozen=True, slots=True)
class FitRegime:
    """Where a training neither under- nor over-fits; numbers of checkpoints, from 0.

    Attributes
    ----------
    first, middle, last
        Of the regime. Fine-tuning goes on from the first, the middle one is used.
    found
        False where no window was stable; then the regime is the window with the lowest validation loss.
    """

    first: int
    middle: int
    last: int
    found: bool


def fit_regime(validation: Sequence[float], window: int, stable: float) -> FitRegime:
    """The fit regime of a history of validation losses, one for each checkpoint.

    The article looks for it by eye: validation loss falls (under-fit), stays (fit), rises (over-fit); the checkpoint in
    the middle of the fit is used. Here a window of ``window`` checkpoints is a fit if the line through its losses
    changes by at most ``stable`` of their mean from its first to its last, and their mean is at most ``stable`` above
    that of the lowest window. The first such window begins the regime, which goes on for as long as windows that begin
    one checkpoint later are fits, too.
    """
    losses = np.asarray(validation, float)
    count = len(losses)
    if count == 0:
        raise ValueError("no checkpoint was validated")
    window = max(1, min(window, count))
    parts = np.lib.stride_tricks.sliding_window_view(losses, window)
    means = parts.mean(1)
    place = np.arange(window) - (window - 1) / 2
    spread = float((place**2).sum())
    change = parts @ place / spread * (window - 1) if spread else np.zeros(len(parts))
    lowest = float(means.min())
    fits = (np.abs(change) <= stable * means) & (means <= (1 + stable) * lowest)
    if not fits.any():
        first = int(means.argmin())
        return FitRegime(first, first + (window - 1) // 2, first + window - 1, False)
    first = last = int(np.flatnonzero(fits)[0])
    while last + 1 < len(fits) and fits[last + 1]:
        last += 1
    end = last + window - 1
    return FitRegime(first, (first + end) // 2, end, True)


def best_threshold(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Threshold of the highest F1 among 0.05, 0.10 … 0.95, of probabilities and truth in one line of voxels."""
    steps = np.round(np.arange(0.05, 0.96, 0.05), 2)
    figures = [score(probability >= t, truth).f1 for t in steps]
    return float(steps[int(np.argmax(figures))])


def finite(loss: Tensor) -> bool:
    """Whether a loss is a number."""
    return bool(torch.isfinite(loss).all())
