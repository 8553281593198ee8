"""What scorers share: splits by session, crops that turn, areas under curves, calibration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from models.training.loop import LoopSettings, train

Floats = NDArray[np.float64]
GOOD = 0.5  # quality from which a square or hole counts as good in curves


@dataclass(frozen=True, slots=True)
class Examples:
    """Crops (n, 1, side, side), facts (n, m), true quality (n,) and session (n,) of squares or holes."""

    crops: NDArray[np.float32]
    facts: Floats
    quality: Floats
    session: NDArray[np.int64]

    def chosen(self, those: NDArray[np.bool_]) -> "Examples":
        """Some of them."""
        return Examples(self.crops[those], self.facts[those], self.quality[those], self.session[those])


@dataclass(frozen=True, slots=True)
class Line:
    """A logistic line through facts: ``logit = intercept + weights · (facts - middle) / spread``."""

    middle: Floats
    spread: Floats
    weights: Floats
    intercept: float

    def logit(self, facts: Floats) -> Floats:
        """Logits, shape (n,)."""
        return np.asarray(self.terms(facts).sum(axis=1) + self.intercept)

    def terms(self, facts: Floats) -> Floats:
        """What each fact adds to the logit, shape (n, m)."""
        return np.asarray(np.clip((facts - self.middle) / self.spread, -4, 4) * self.weights)


def split(session: NDArray[np.int64], by: str, seed: int, share: float = 0.3) -> NDArray[np.bool_]:
    """Which examples are held out: whole sessions, or a random choice of examples."""
    rng = np.random.default_rng([seed, 21])
    if by == "random":
        return np.asarray(rng.uniform(size=len(session)) < share)
    every = np.unique(session)
    return np.isin(session, rng.choice(every, max(1, round(share * len(every))), replace=False))


def auc(quality: Floats, score: Floats) -> float:
    """Area under the curve of good against the rest."""
    good = quality >= GOOD
    return float(roc_auc_score(good, score)) if 0 < good.sum() < len(good) else float("nan")


def bce(quality: Floats, logit: Floats) -> float:
    """Cross entropy of logits with qualities."""
    return float(np.mean(np.logaddexp(0.0, logit) - quality * logit))


def fit_line(facts: Floats, quality: Floats, ridge: float = 3e-3) -> Line:
    """Line whose logits have the least cross entropy with the qualities."""
    middle, spread = facts.mean(axis=0), facts.std(axis=0) + 1e-6
    z = np.clip((facts - middle) / spread, -4, 4)

    def cost(w: Floats) -> tuple[float, Floats]:
        logit = z @ w[:-1] + w[-1]
        off = 1.0 / (1.0 + np.exp(-logit)) - quality
        value = bce(quality, logit) + ridge * float(w[:-1] @ w[:-1])
        return value, np.concatenate([z.T @ off / len(z) + 2 * ridge * w[:-1], [off.mean()]])

    found = minimize(cost, np.zeros(facts.shape[1] + 1), jac=True, method="L-BFGS-B")
    return Line(middle, spread, found.x[:-1], float(found.x[-1]))


def fit_net(
    make: Callable[[], nn.Module], examples: Examples, offset: Floats, loop: LoopSettings, seed: int, batch: int = 96
) -> nn.Module:
    """Network whose logits, added to ``offset``, have the least cross entropy with the qualities."""
    torch.manual_seed(seed)
    crops = torch.from_numpy(examples.crops)
    target, base = (torch.from_numpy(v.astype(np.float32)) for v in (examples.quality, offset))

    def batch_of(step: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng([seed, 22, step])
        rows = torch.from_numpy(rng.integers(0, len(crops), batch))
        part = torch.rot90(crops[rows], int(rng.integers(4)), (2, 3))
        if rng.uniform() < 0.5:
            part = part.flip(3)
        part = part * float(np.exp(rng.normal(0, 0.1))) + 0.05 * torch.from_numpy(
            rng.standard_normal(part.shape).astype(np.float32)
        )
        return part, base[rows], target[rows]

    def loss_of(network: nn.Module, given: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        part, start, wanted = given
        loss: Tensor = nn.functional.binary_cross_entropy_with_logits(network(part) + start, wanted)
        return loss

    network, _ = train(make(), batch_of, loss_of, loop, say=_quiet)
    return network


def net_logits(network: nn.Module, crops: NDArray[np.float32]) -> Floats:
    """Logits of crops, shape (n,)."""
    with torch.no_grad():
        parts = [network(torch.from_numpy(crops[k : k + 256])).numpy() for k in range(0, len(crops), 256)]
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def fit_calibration(quality: Floats, logit: Floats) -> tuple[float, float]:
    """Slope and offset that make logits probabilities (Platt 1999), on examples that nothing was fitted to."""
    found = minimize(lambda w: bce(quality, w[0] * logit + w[1]), np.array([1.0, 0.0]), method="Nelder-Mead")
    return float(found.x[0]), float(found.x[1])


def brier(quality: Floats, chance: Floats) -> float:
    """Mean squared difference of chance and quality."""
    return float(np.mean((chance - quality) ** 2))


def reliability(quality: Floats, chance: Floats, bins: int = 5) -> list[tuple[float, float, int]]:
    """Mean chance, mean quality and count in bins of equal width."""
    which = np.minimum((chance * bins).astype(int), bins - 1)
    return [
        (float(chance[which == b].mean()), float(quality[which == b].mean()), int((which == b).sum()))
        for b in range(bins)
        if (which == b).any()
    ]


def logistic(facts: Floats, quality: Floats, asked: Floats) -> Floats:
    """Logistic regression as published: class good or not; chances of what is asked."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(facts, quality >= GOOD)
    return np.asarray(model.predict_proba(asked)[:, 1])


def forest(facts: Floats, quality: Floats, asked: Floats, seed: int) -> Floats:
    """Random forest as published: class good or not; chances of what is asked."""
    model: Any = RandomForestClassifier(200, min_samples_leaf=3, random_state=seed, n_jobs=1)
    return np.asarray(model.fit(facts, quality >= GOOD).predict_proba(asked)[:, 1])


def _quiet(text: str) -> None:
    """Say nothing."""
