"""Figures over sessions: means, confidence intervals by bootstrap, rankings, and a paired test of two models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn import metrics

RESAMPLES = 10_000
EXACT_UP_TO = 14  # sessions: 2**14 signs are all tried


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over sessions and its 95 % interval; one session has no interval."""

    mean: float
    low: float | None
    high: float | None
    sessions: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Second minus first, session by session: mean, 95 % interval, two-sided p of no difference."""

    difference: float
    low: float | None
    high: float | None
    p: float | None
    sessions: int


def roc_auc(wanted: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Area under the ROC curve; None where one of the classes is empty."""
    return float(metrics.roc_auc_score(wanted, scores)) if 0 < sum(wanted) < len(wanted) else None


def average_precision(wanted: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Average precision; None without a wanted one."""
    return float(metrics.average_precision_score(wanted, scores)) if any(wanted) else None


def figure(values: Sequence[float | None], seed: int = 0) -> Figure | None:
    """Mean over the sessions that have a value, with a percentile bootstrap over sessions; None without a value."""
    known = np.array([value for value in values if value is not None], float)
    if known.size == 0:
        return None
    low, high = _interval(known, seed)
    return Figure(float(known.mean()), low, high, int(known.size))


def compare(first: Sequence[float | None], second: Sequence[float | None], seed: int = 0) -> Comparison | None:
    """Paired comparison of two lists of the same sessions; None where no session has both.

    The p value is that of a sign-flip permutation test of the mean difference: all signs up to 14 sessions, 10,000
    random ones beyond. With fewer than five sessions there is none: it could not fall below 0.1.
    """
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if not both:
        return None
    gaps = np.array([b - a for a, b in both], float)
    low, high = _interval(gaps, seed)
    return Comparison(float(gaps.mean()), low, high, _sign_flip(gaps, seed) if gaps.size >= 5 else None, int(gaps.size))


def _interval(values: "np.ndarray", seed: int) -> tuple[float | None, float | None]:
    if values.size < 2:
        return None, None
    picks = np.random.default_rng(seed).integers(0, values.size, (RESAMPLES, values.size))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def _sign_flip(gaps: "np.ndarray", seed: int) -> float:
    if not gaps.any():
        return 1.0
    resamples = 2**gaps.size if gaps.size <= EXACT_UP_TO else RESAMPLES
    test = stats.permutation_test(
        (gaps,),
        np.mean,
        permutation_type="samples",
        n_resamples=resamples if gaps.size > EXACT_UP_TO else np.inf,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)
