"""Learning what squares are worth: published statistics, published CNN, and the scorer in use (both together)."""

from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from models.runtime import write_manifest
from models.squares.crops import FACTS, PUBLISHED, SIDE, crops, facts
from models.squares.finder import locate
from models.squares.located import Located
from models.squares.scoring import judge
from models.training.card import Card, Figure, write_card
from models.training.export import OPSET, export_onnx
from models.training.loop import LoopSettings, Say, seeded
from models.training.networks import CropNet, PublishedSquareNet
from models.training.scores import (
    Examples,
    auc,
    brier,
    fit_calibration,
    fit_line,
    fit_net,
    forest,
    logistic,
    net_logits,
    reliability,
    split,
)
from simulators.specimen import Specimen, SpecimenSettings, View

_PUBLISHED_COLUMNS = [FACTS.index(name) for name in PUBLISHED]


class SquareRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a training of the square scorer follows from.

    Attributes
    ----------
    seed
        Of the grids, the weights and the order.
    sessions, views
        Simulated grids, and low-mag frames of each.
    loop, baseline_loop
        How long the network in use learns, and the published one in the table (0 steps: left out).
    """

    seed: int = 0
    sessions: int = 40
    views: int = 1
    loop: LoopSettings = LoopSettings(steps=300, learning_rate=4e-3, weight_decay=1e-3, averaging=0.98)
    baseline_loop: LoopSettings = LoopSettings(steps=60, learning_rate=2e-3, averaging=0.95)


def sessions(recipe: SquareRecipe, say: Say) -> Examples:
    """Squares of simulated grids as the finder finds them, with their true quality."""
    parts: list[Examples] = []
    for number in range(recipe.sessions):
        rng = np.random.default_rng([recipe.seed, 31, number])
        pitch = float(rng.choice([85.0, 127.0, 127.0]))
        grid = Specimen(
            SpecimenSettings(
                seed=int(rng.integers(2**31)),
                grid_radius_um=float(rng.uniform(350, 650)),
                mesh="hexagonal" if rng.uniform() < 0.15 else "square",
                mesh_pitch_um=pitch,
                bar_um=float(rng.uniform(25, 45)),
                foil="gold" if rng.uniform() < 0.3 else "carbon",
                hole_diameter_um=2.0,
                hole_pitch_um=4.0,
                ice=("mixed", "good", "thick", "poor")[int(rng.integers(4))],
            )
        )
        for view_number in range(recipe.views):
            part = _examples(grid, _view(rng, pitch, view_number), number)
            if part is not None:
                parts.append(part)
        if (number + 1) % 15 == 0:
            say(f"{number + 1} of {recipe.sessions} grids, {sum(len(p.quality) for p in parts)} squares")
    return Examples(*(np.concatenate([getattr(p, name) for p in parts]) for name in Examples.__slots__))


def _view(rng: np.random.Generator, pitch_um: float, number: int) -> View:
    pixel = pitch_um * 1e4 / float(np.exp(rng.uniform(np.log(14), np.log(130))))
    side = int(np.clip(1.3e7 / pixel, 160, 900))
    dose = float(np.exp(rng.uniform(np.log(80), np.log(4000)))) / pixel**2
    x, y = rng.uniform(-120, 120, 2).tolist()
    return View(x, y, pixel, (side, side), float(rng.uniform(0, 90)), dose_e_per_a2=dose, frame_seed=number)


def _examples(grid: Specimen, view: View, number: int) -> Examples | None:
    located = locate(grid.render(view))
    if not isinstance(located, Located):
        return None
    centres = np.array(
        [located.work.to_image(b.box_centre(located.mesh.angle_deg)[None])[0] for b in located.mesh.squares]
    )
    truth = np.array([[*grid.stage_to_pixel(view, s.x_um, s.y_um), s.quality] for s in grid.squares])
    away = np.hypot(*(centres[:, None] - truth[None, :, :2]).transpose(2, 0, 1))
    nearest = away.argmin(axis=1)
    pitch_px = grid.settings.mesh_pitch_um / view.pixel_size_um
    known = (away.min(axis=1) < 0.35 * pitch_px) & ~located.cut
    if not known.any():
        return None
    table = facts([f for _, _, f in judge(located)])
    count = int(known.sum())
    return Examples(crops(located)[known], table[known], truth[nearest[known], 2], np.full(count, number))


def learn(recipe: SquareRecipe, out: Path, *, command: str, say: Say = print) -> Path:
    """Train the square scorer, print the published comparison, write weights, manifest and card to ``out``."""
    seeded(recipe.seed)
    every = sessions(recipe, say)
    figures = compare(every, recipe, command, say)
    kept = split(every.session, "sessions", recipe.seed + 1, 0.2)
    learning, calibrating = every.chosen(~kept), every.chosen(kept)
    line = fit_line(learning.facts, learning.quality)
    network = fit_net(CropNet, learning, line.logit(learning.facts), recipe.loop, recipe.seed)
    raw = net_logits(network, calibrating.crops) + line.logit(calibrating.facts)
    slope, offset = fit_calibration(calibrating.quality, raw)
    chance = 1 / (1 + np.exp(-(slope * raw + offset)))
    figures.append(
        Figure("Brier score on sessions kept for calibration", f"{brier(calibrating.quality, chance):.4f}", command)
    )
    rows = "; ".join(f"{c:.2f} -> {q:.2f} ({n})" for c, q, n in reliability(calibrating.quality, chance))
    figures.append(Figure("said -> true (squares), by fifths", rows, command))
    for figure in figures[-2:]:
        say(f"{figure.what}: {figure.value}")
    path = out / "squares-score.onnx"
    export_onnx(
        network,
        [(torch.randn(5, 1, SIDE, SIDE),), (torch.randn(1, 1, SIDE, SIDE),)],
        path,
        inputs=["crops"],
        outputs=["logit"],
        free={"crops": {0: "n"}, "logit": {0: "n"}},
    )
    trained_on = f"{len(learning.quality)} squares of {recipe.sessions} simulated grids, seed {recipe.seed}"
    write_manifest(
        path,
        opset=OPSET,
        probe_shapes={"crops": [3, 1, SIDE, SIDE]},
        what="What a square is worth, from an upright crop and summary statistics of its frame",
        made_by=command,
        trained_on=trained_on,
        settings={
            "facts": list(FACTS),
            "middle": _rounded(line.middle),
            "spread": _rounded(line.spread),
            "weights": _rounded(line.weights),
            "intercept": round(line.intercept, 6),
            "look": round(float(np.mean(net_logits(network, learning.crops))), 6),
            "calibration": [round(slope, 6), round(offset, 6)],
        },
    )
    card = Card(
        name="squares-score",
        purpose="Chance that a micrograph taken somewhere in a square is good (`models/squares/learned.py`).",
        inputs="`crops` (n, 1, 32, 32): openings upright, mean 0 and deviation 1 over the open pixels of their frame",
        outputs="`logit` (n,), to which a line through nine summary statistics is added (settings of the manifest)",
        data=trained_on,
        command=command,
        figures=figures,
        limits=[
            "Quality is the specimen simulator's, not an operator's taste: fine-tune to a site.",
            "Frames with fewer than about five openings: what is usual in the frame is then hardly known.",
        ],
        recipe={"seed": recipe.seed, "sessions": recipe.sessions, "steps": recipe.loop.steps},
    )
    write_card(card, out / "squares-score.md")
    return path


def compare(every: Examples, recipe: SquareRecipe, command: str, say: Say) -> list[Figure]:
    """Areas under the curve of LR, RF, the published CNN and ours, on held-out sessions and a random split."""
    figures = []
    for by in ("sessions", "random"):
        held = split(every.session, by, recipe.seed)
        learning, asked = every.chosen(~held), every.chosen(held)
        columns = _PUBLISHED_COLUMNS
        line = fit_line(learning.facts, learning.quality)
        ours = fit_net(CropNet, learning, line.logit(learning.facts), recipe.loop, recipe.seed)
        scores: dict[str, NDArray[np.float64]] = {
            "LR": logistic(learning.facts[:, columns], learning.quality, asked.facts[:, columns]),
            "RF": forest(learning.facts[:, columns], learning.quality, asked.facts[:, columns], recipe.seed),
            "ours": net_logits(ours, asked.crops) + line.logit(asked.facts),
        }
        if recipe.baseline_loop.steps:
            cnn = fit_net(
                PublishedSquareNet, learning, np.zeros(len(held) - held.sum()), recipe.baseline_loop, recipe.seed
            )
            scores["CNN"] = net_logits(cnn, asked.crops)
        text = ", ".join(f"{name} {auc(asked.quality, score):.3f}" for name, score in scores.items())
        held_out = "held-out sessions" if by == "sessions" else "random split"
        figures.append(Figure(f"AUC (quality at least 0.5), {held_out}, {len(asked.quality)} squares", text, command))
        say(f"AUC, {held_out}: {text}")
    return figures


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(v), 6) for v in values]
