"""Learning what holes are worth: the line in use, the published CNNs and the published summed probability beside it."""

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from models.base import as_plain
from models.holes.learned import NetHoleFinder
from models.holes.prepare import prepare
from models.holes.worth import FACTS, facts
from models.runtime import read_manifest
from models.training.card import Figure
from models.training.loop import LoopSettings, Say, seeded
from models.training.networks import PublishedHoleScore
from models.training.scenes import grid_of, render, view_of
from models.training.scores import (
    Examples,
    Line,
    auc,
    brier,
    fit_calibration,
    fit_line,
    fit_net,
    net_logits,
    reliability,
    split,
)

_SIDE, _RADIUS = 32, 10.0  # pixels of a crop, and of a hole in it


class WorthRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the line follows from: simulated grids, views of each, how long published CNNs learn (or 0)."""

    seed: int = 0
    sessions: int = 45
    views: int = 1
    side: int = 640
    most_per_view: int = 150
    loop: LoopSettings = LoopSettings(steps=60, learning_rate=2e-3, averaging=0.95)


def sessions(recipe: WorthRecipe, finder: NetHoleFinder, say: Say) -> Examples:
    """Holes of simulated grids as the finder finds them, with their true quality."""
    crops, tables, quality, session = [], [], [], []
    for number in range(recipe.sessions):
        rng = np.random.default_rng([recipe.seed, 41, number])
        grid = grid_of(rng)
        for _ in range(recipe.views):
            radius = float(np.exp(rng.uniform(np.log(4.5), np.log(30))))
            scene = render(grid, view_of(rng, grid, radius, recipe.side))
            holes = [h for h in finder.find(scene.image).holes if h.features.get("seen", 0.0) > 0.97]
            if len(holes) < 4 or not len(scene.holes):
                continue
            at = np.array([[h.x, h.y] for h in holes])
            away = np.hypot(*(at[:, None] - scene.holes[None]).transpose(2, 0, 1))
            known = np.flatnonzero(away.min(axis=1) < 0.5 * np.median(scene.radius))
            if len(known) > recipe.most_per_view:
                known = np.sort(rng.choice(known, recipe.most_per_view, replace=False))
            if not len(known):
                continue
            tables.append(facts([h.features for h in holes])[known])
            quality.append(scene.quality[away[known].argmin(axis=1)])
            session.append(np.full(len(known), number))
            crops.append(_crops(scene.image, at[known], float(np.median([h.radius_px for h in holes]))))
        if (number + 1) % 15 == 0:
            say(f"{number + 1} of {recipe.sessions} grids, {sum(map(len, quality))} holes")
    return Examples(*(np.concatenate(parts) for parts in (crops, tables, quality, session)))


def _crops(image: NDArray[Any], points: NDArray[np.float64], radius: float) -> NDArray[np.float32]:
    """Crops as the published scorers take them: each of mean 0 and deviation 1, shape (n, 1, 32, 32)."""
    work = prepare(as_plain(image))
    values = np.asarray(image, np.float32) if work is None else work.values
    zoom = radius / _RADIUS
    out = np.empty((len(points), 1, _SIDE, _SIDE), np.float32)
    for k, (x, y) in enumerate(points):
        matrix = np.array([[zoom, 0, x - zoom * (_SIDE - 1) / 2], [0, zoom, y - zoom * (_SIDE - 1) / 2]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(values, matrix, (_SIDE, _SIDE), flags=how, borderMode=cv2.BORDER_REPLICATE)
        out[k, 0] = (crop - crop.mean()) / max(float(crop.std()), 1e-6)
    return out


def learn(recipe: WorthRecipe, manifest: Path, *, command: str, say: Say = print) -> Path:
    """Fit the line for the network of ``manifest``, print the comparison, and write both into manifest and card."""
    seeded(recipe.seed)
    every = sessions(recipe, NetHoleFinder(manifest), say)
    figures = compare(every, recipe, command, say)
    kept = split(every.session, "sessions", recipe.seed + 1, 0.25)
    line = fit_line(every.chosen(~kept).facts, every.chosen(~kept).quality)
    asked = every.chosen(kept)
    slope, offset = fit_calibration(asked.quality, line.logit(asked.facts))
    chance = 1 / (1 + np.exp(-(slope * line.logit(asked.facts) + offset)))
    rows = "; ".join(f"{c:.2f} -> {q:.2f} ({n})" for c, q, n in reliability(asked.quality, chance))
    figures.append(
        Figure(
            "Brier score of the scores, sessions kept for calibration", f"{brier(asked.quality, chance):.4f}", command
        )
    )
    figures.append(Figure("said -> true (holes), by fifths", rows, command))
    for figure in figures[-2:]:
        say(f"{figure.what}: {figure.value}")
    _into_manifest(manifest, line, slope, offset)
    with manifest.with_suffix(".md").open("a", encoding="utf-8") as card:
        card.write("\n## What a hole is worth\n\n| measured | value | printed by |\n|---|---|---|\n")
        card.writelines(f"| {f.what} | {f.value} | `{f.command}` |\n" for f in figures)
    return manifest


def compare(every: Examples, recipe: WorthRecipe, command: str, say: Say) -> list[Figure]:
    """Areas under the curve on held-out sessions and a random split."""
    figures = []
    chance_at, promise_at = FACTS.index("correlation"), FACTS.index("promise")
    for by in ("sessions", "random"):
        held = split(every.session, by, recipe.seed)
        learning, asked = every.chosen(~held), every.chosen(held)
        start = np.zeros(len(learning.quality))
        nets = {
            name: fit_net(partial(PublishedHoleScore, pooled), learning, start, recipe.loop, recipe.seed, 64)
            for name, pooled in (("padded CNN", False), ("average-pool CNN", True))
            if recipe.loop.steps
        }
        scores = {name: net_logits(net, asked.crops) for name, net in nets.items()}
        scores["centre probability"] = asked.facts[:, chance_at]
        scores["network's quality"] = asked.facts[:, promise_at]
        scores["line (in use)"] = fit_line(learning.facts, learning.quality).logit(asked.facts)
        text = ", ".join(f"{name} {auc(asked.quality, score):.3f}" for name, score in scores.items())
        what = "held-out sessions" if by == "sessions" else "random split"
        figures.append(Figure(f"AUC (quality at least 0.5), {what}, {len(asked.quality)} holes", text, command))
        say(f"AUC, {what}: {text}")
    return figures


def _into_manifest(path: Path, line: Line, slope: float, offset: float) -> None:
    manifest = read_manifest(path)
    worth = {
        "facts": list(FACTS),
        "middle": [round(float(v), 6) for v in line.middle],
        "spread": [round(float(v), 6) for v in line.spread],
        "weights": [round(float(v), 6) for v in line.weights],
        "intercept": round(line.intercept, 6),
        "calibration": [round(slope, 6), round(offset, 6)],
    }
    text = manifest.model_copy(update={"settings": manifest.settings | {"worth": worth}}).model_dump(mode="json")
    path.write_text(yaml.safe_dump(text, sort_keys=False, width=120, allow_unicode=True), encoding="utf-8")
