"""A site's own taste in squares: the shipped scorer is moved towards what was accepted, rejected and good there.

The network that looks at crops stays as it is; what its answer and each summary statistic count for is fitted anew,
with the shipped values as the prior: a logistic regression by maximum a posteriori (Bishop, *Pattern Recognition and
Machine Learning*, 2006, 4.5). How far a site may move them is chosen by cross-validation, so that a dozen squares
change little. A third of the squares is held out, to say honestly whether it helped.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from models import runtime
from models.squares.crops import FACTS, crops, facts
from models.squares.finder import locate
from models.squares.located import Located
from models.squares.scoring import judge
from models.training.loop import Say, TrainingError
from models.training.scores import GOOD, auc, bce, brier

Floats = NDArray[np.float64]
LEAST = 12  # judged squares; below, nothing can be said about those held out
_NEAR = 0.35  # of the pitch: how far a mark may be from the middle of its square
_LEAST_LOOK = 0.05  # what the network's answer counts for at least; it is divided by it


@dataclass(frozen=True, slots=True)
class JudgedFrame:
    """One low-mag image and its judged squares.

    Attributes
    ----------
    points, quality
        Shape (n, 2) as (x, y) pixels, and (n,) from 0, not wanted, to 1.
    others
        What the squares are worth that are found and not among them; None: nothing is known of those.
    """

    name: str
    image: NDArray[np.generic]
    points: Floats
    quality: Floats
    others: float | None = None


class SiteRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a fit follows from.

    Attributes
    ----------
    seed
        Of what is held out, and of the parts of the cross-validation.
    held
        Share of the squares that is held out.
    reach
        Standard deviations to choose from: how far the weight of a statistic may be from the shipped one.
    reach_look, reach_level
        The same for what the network's answer counts for, and for the level of all squares.
    parts
        Of the cross-validation.
    """

    seed: int = 0
    held: float = 1 / 3
    reach: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    reach_look: float = 0.5
    reach_level: float = 2.0
    parts: int = 5


@dataclass(frozen=True, slots=True)
class _Scorer:
    """A scorer's line: columns are the network's answer, the statistics, and one."""

    middle: Floats
    spread: Floats
    look: float
    weights: Floats

    @classmethod
    def of(cls, network: runtime.OnnxModel) -> "_Scorer":
        known = network.manifest.settings
        slope, offset = known["calibration"]
        level = slope * (known["intercept"] + known["look"]) + offset
        weights = np.array([slope, *(slope * np.array(known["weights"])), level])
        return cls(np.array(known["middle"]), np.array(known["spread"]), float(known["look"]), weights)

    def columns(self, look: Floats, table: Floats) -> Floats:
        z = np.clip((table - self.middle) / self.spread, -4, 4)
        return np.column_stack([look - self.look, z, np.ones(len(z))])


def learn(
    recipe: SiteRecipe, frames: Sequence[JudgedFrame], start: Path, out: Path, *, command: str, say: Say = print
) -> Path:
    """Move the scorer of ``start`` to what a site's squares were judged to be; write weights, manifest and card.

    Raises
    ------
    TrainingError
        When fewer than `LEAST` judged squares are found again in the images, or all are judged alike.
    """
    network = runtime.load(start)
    scorer = _Scorer.of(network)
    columns, quality = _examples(frames, network, scorer)
    good = int((quality >= GOOD).sum())
    if len(quality) < LEAST or good in (0, len(quality)):
        raise TrainingError(
            f"{len(quality)} judged squares, {good} of them good; at least {LEAST} are needed, good ones and others:"
            " accept and reject more, or add frames"
        )
    rng = np.random.default_rng([recipe.seed, 51])
    held = np.zeros(len(quality), bool)
    for kind in (quality >= GOOD, quality < GOOD):  # as many of each kind as there are
        rows = rng.permutation(np.flatnonzero(kind))
        held[rows[: round(recipe.held * len(rows))]] = True
    reach = _chosen_reach(recipe, columns[~held], quality[~held], scorer.weights)
    weights = _fitted(recipe, columns[~held], quality[~held], scorer.weights, reach)
    told = [_told(columns[held], quality[held], w) for w in (scorer.weights, weights)]
    say(f"{len(quality)} judged squares of {len(frames)} frames, {good} good; {int(held.sum())} held out")
    say(f"before, on those held out: {told[0]}")
    say(f"after, on the same: {told[1]}")
    path = _write(network, scorer, weights, start, out, command, f"{int((~held).sum())} squares of a site")
    (out / "squares-score.md").write_text(
        f"# squares-score, a site's own\n\nThe shipped scorer, moved to {int((~held).sum())} judged squares of"
        f" {len(frames)} frames by `{command}`; a weight may be {reach:g} from the shipped one (cross-validation).\n"
        f"On {int(held.sum())} held out, before: {told[0]}; after: {told[1]}.\n",
        encoding="utf-8",
    )
    return path


def _examples(frames: Sequence[JudgedFrame], network: runtime.OnnxModel, scorer: _Scorer) -> tuple[Floats, Floats]:
    """Columns and quality of every square that was judged and is found in its image."""
    tables, qualities = [np.zeros((0, len(scorer.weights)))], [np.zeros(0)]
    for frame in frames:
        located = locate(frame.image)
        if not isinstance(located, Located):
            continue
        centres = np.array(
            [located.work.to_image(b.box_centre(located.mesh.angle_deg)[None])[0] for b in located.mesh.squares]
        )
        quality = np.full(len(centres), np.nan if frame.others is None else frame.others)
        if len(frame.points):
            away = np.hypot(*(centres[:, None] - frame.points[None]).transpose(2, 0, 1))
            side = np.sqrt(located.mesh.nominal_area) / located.work.scale
            near = away.min(axis=1) < _NEAR * side
            quality[near] = frame.quality[away.argmin(axis=1)][near]
        known = np.isfinite(quality) & ~located.cut
        look = np.asarray(network.batches(crops(located), 256)["logit"], np.float64)
        table = facts([f for _, _, f in judge(located)])
        tables.append(scorer.columns(look, table)[known])
        qualities.append(quality[known])
    return np.concatenate(tables), np.concatenate(qualities)


def _fitted(recipe: SiteRecipe, columns: Floats, quality: Floats, prior: Floats, reach: float) -> Floats:
    """Weights of the highest posterior."""
    sd = np.array([recipe.reach_look, *([reach] * (2 * len(FACTS))), recipe.reach_level])

    def cost(weights: Floats) -> tuple[float, Floats]:
        logit = columns @ weights
        away = (weights - prior) / sd
        value = len(quality) * bce(quality, logit) + 0.5 * float(away @ away)
        return value, columns.T @ (expit(logit) - quality) + away / sd

    bounds = [(_LEAST_LOOK, None), *[(None, None)] * (len(prior) - 1)]
    return np.asarray(minimize(cost, prior, jac=True, method="L-BFGS-B", bounds=bounds).x)


def _chosen_reach(recipe: SiteRecipe, columns: Floats, quality: Floats, prior: Floats) -> float:
    """The reach whose fits say best what squares are worth that they were not fitted to."""
    part = np.random.default_rng([recipe.seed, 52]).permutation(len(quality)) % recipe.parts

    def missed(reach: float) -> float:
        fits = (_fitted(recipe, columns[part != k], quality[part != k], prior, reach) for k in range(recipe.parts))
        return sum(
            bce(quality[part == k], columns[part == k] @ w) * int((part == k).sum())
            for k, w in enumerate(fits)
            if (part == k).any()
        )

    return min(recipe.reach, key=missed)


def _told(columns: Floats, quality: Floats, weights: Floats) -> str:
    chance = expit(columns @ weights)
    return f"AUC {auc(quality, chance):.3f}, Brier score {brier(quality, chance):.4f}"


def _write(
    network: runtime.OnnxModel, scorer: _Scorer, weights: Floats, start: Path, out: Path, command: str, data: str
) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "squares-score.onnx"
    if path.resolve() != start.with_suffix(".onnx").resolve():
        shutil.copyfile(start.with_suffix(".onnx"), path)
    slope, level = float(weights[0]), float(weights[-1])
    known = network.manifest
    runtime.write_manifest(
        path,
        opset=known.opset,
        probe_shapes=known.probe.shapes,
        what=known.what,
        made_by=command,
        trained_on=f"{known.trained_on}; then {data}",
        settings={
            **known.settings,
            "weights": [round(float(w) / slope, 6) for w in weights[1:-1]],
            "intercept": round(level / slope - scorer.look, 6),
            "calibration": [round(slope, 6), 0.0],
        },
    )
    return path
