"""Learning what holes are worth by what they let through; published CNNs, forests and the network's look beside it."""

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.base import as_plain
from models.conditions import Conditions
from models.holes.learned import NetHoleFinder
from models.holes.prepare import prepare
from models.holes.worth import Worth, thickness_nm, transmissions
from models.runtime import read_manifest
from models.training.card import Figure
from models.training.loop import LoopSettings, Say, seeded
from models.training.networks import PublishedHoleScore
from models.training.scenes import grid_of, render, view_of
from models.training.scores import (
    Examples,
    Floats,
    auc,
    bce,
    brier,
    fit_net,
    forest,
    net_logits,
    reliability,
    split,
)
from simulators.specimen import detector

_SIDE, _RADIUS = 32, 10.0  # pixels of a crop, and of a hole in it
LOOKS = ("mean", "step", "spread", "dark_share", "correlation", "promise")  # what the frame's own greys say of a hole
FACTS = (*LOOKS, *(f"{name} beside the usual" for name in LOOKS), "score", "thickness")
KNOTS_NM = (-30.0, 0.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 130.0, 180.0, 250.0, 350.0)
_SMOOTH = 2e-3  # weight of bends of the curve beside its cross entropy
_HEADING = "## What a hole is worth"
_CLEAN = 0.06  # share that lumps may cover of holes that the curve learns from: the finder takes dirt off by itself


class WorthRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the curve follows from: simulated grids, views of each, how long published CNNs learn (or 0)."""

    seed: int = 0
    sessions: int = 100
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
            view = view_of(rng, grid, radius, recipe.side)
            scene = render(grid, view)
            holes = [h for h in finder.find(scene.image).holes if h.features.get("seen", 0.0) > 0.97]
            if len(holes) < 4 or not len(scene.holes):
                continue
            counts = view.dose_e_per_a2 * view.pixel_size_angstrom**2
            counts *= detector.camera_gain(view.dose_e_per_a2, view.pixel_size_angstrom)
            shares, _ = transmissions(as_plain(scene.image), tuple(holes), counts)
            if shares is None:
                continue
            at = np.array([[h.x, h.y] for h in holes])
            away = np.hypot(*(at[:, None] - scene.holes[None]).transpose(2, 0, 1))
            known = np.flatnonzero(away.min(axis=1) < 0.5 * np.median(scene.radius))
            if len(known) > recipe.most_per_view:
                known = np.sort(rng.choice(known, recipe.most_per_view, replace=False))
            if not len(known):
                continue
            looks = np.array([[h.features.get(name, 0.5) for name in LOOKS] for h in holes])
            through = thickness_nm(shares, Conditions(voltage_kv=grid.settings.voltage_kv))
            own = np.column_stack([[h.score for h in holes], through])
            tables.append(np.concatenate([looks, looks - np.median(looks, axis=0), own], axis=1)[known])
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


def fit_curve(thickness: Floats, quality: Floats) -> Worth:
    """The smooth curve over thickness whose chances have the least cross entropy with the qualities."""
    knots = np.array(KNOTS_NM)
    weights = np.stack([np.interp(thickness, knots, row) for row in np.eye(len(knots))], axis=1)
    bends = np.zeros((len(knots) - 2, len(knots)))
    for k, (a, b) in enumerate(zip(np.diff(knots)[:-1], np.diff(knots)[1:], strict=True)):
        bends[k, k : k + 3] = np.array([1 / a, -1 / a - 1 / b, 1 / b]) * np.sqrt(a * b)

    def cost(logits: Floats) -> tuple[float, Floats]:
        logit = weights @ logits
        off = 1.0 / (1.0 + np.exp(-logit)) - quality
        bent = bends @ logits
        value = bce(quality, logit) + _SMOOTH * float(bent @ bent) + 1e-4 * float(logits @ logits)
        return value, weights.T @ off / len(off) + 2 * _SMOOTH * bends.T @ bent + 2e-4 * logits

    found = minimize(cost, np.zeros(len(knots)), jac=True, method="L-BFGS-B")
    return Worth(knots, np.asarray(found.x, np.float64))


def curve_of(examples: Examples) -> Worth:
    """The curve that examples make: of those that hardly any dirt covers."""
    clean = examples.facts[:, FACTS.index("dark_share")] < _CLEAN
    return fit_curve(examples.facts[clean, -1], examples.quality[clean])


def learn(recipe: WorthRecipe, manifest: Path, *, command: str, say: Say = print) -> Path:
    """Fit the curve for the network of ``manifest``, print the comparison, and write both into manifest and card."""
    seeded(recipe.seed)
    every = sessions(recipe, NetHoleFinder(manifest), say)
    figures = compare(every, recipe, command, say)
    kept = split(every.session, "sessions", recipe.seed + 1, 0.25)
    asked = every.chosen(kept)
    chance = curve_of(every.chosen(~kept)).chance(asked.facts[:, -1])
    rows = "; ".join(f"{c:.2f} -> {q:.2f} ({n})" for c, q, n in reliability(asked.quality, chance))
    what = f"a quarter of the sessions held out, {len(asked.quality)} holes"
    figures.append(
        Figure(f"Brier score of chances by the open beam, {what}", f"{brier(asked.quality, chance):.4f}", command)
    )
    figures.append(Figure("said -> true (holes), by fifths", rows, command))
    for figure in figures[-2:]:
        say(f"{figure.what}: {figure.value}")
    _into_manifest(manifest, curve_of(every))
    _into_card(manifest.with_suffix(".md"), figures)
    return manifest


def compare(every: Examples, recipe: WorthRecipe, command: str, say: Say) -> list[Figure]:
    """Areas under the curve on held-out sessions and a random split."""
    figures = []
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
        scores["centre probability"] = asked.facts[:, FACTS.index("correlation")]
        scores["score by greys (in use without the open beam)"] = asked.facts[:, FACTS.index("score")]
        greys = learning.facts[:, :-1], learning.quality, asked.facts[:, :-1]
        scores["RF of greys"] = forest(*greys, recipe.seed)
        scores["RF of greys and transmission"] = forest(learning.facts, learning.quality, asked.facts, recipe.seed)
        scores["curve over transmission (in use with the open beam)"] = curve_of(learning).chance(asked.facts[:, -1])
        text = ", ".join(f"{name} {auc(asked.quality, score):.3f}" for name, score in scores.items())
        what = "held-out sessions" if by == "sessions" else "random split"
        figures.append(Figure(f"AUC (quality at least 0.5), {what}, {len(asked.quality)} holes", text, command))
        say(f"AUC, {what}: {text}")
    return figures


def _into_manifest(path: Path, curve: Worth) -> None:
    manifest = read_manifest(path)
    worth = {
        "thickness_nm": [round(float(v), 3) for v in curve.thickness_nm],
        "logits": [round(float(v), 4) for v in curve.logits],
    }
    text = manifest.model_copy(update={"settings": manifest.settings | {"worth": worth}}).model_dump(mode="json")
    path.write_text(yaml.safe_dump(text, sort_keys=False, width=120, allow_unicode=True), encoding="utf-8")


def _into_card(path: Path, figures: list[Figure]) -> None:
    """Write the figures into the model card, in the place of those of an earlier run."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, _, after = text.partition(_HEADING)
    _, _, rest = after.partition("\n## ")
    lines = [_HEADING, "", "| measured | value | printed by |", "|---|---|---|"]
    lines += [f"| {f.what} | {f.value} | `{f.command}` |" for f in figures]
    text = before.rstrip() + "\n\n" + "\n".join(lines) + "\n" + (f"\n## {rest}" if rest else "")
    path.write_text(text, encoding="utf-8")
