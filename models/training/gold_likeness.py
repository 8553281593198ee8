"""Learning to weigh hits of the gold network by how like their fellows they are; see `models.gold.likeness`.

Whole simulated pictures go through the network as it will be used; each hit's facts and whether it is gold are what a
small network learns from. It stands in the manifest of the large one, under ``likeness``.
"""

from pathlib import Path

import msgspec
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from models.gold.fast import FastDetector
from models.gold.likeness import Weigher, facts
from models.gold.matching import matched
from models.training.loop import Say, TrainingError, seeded
from simulators.specimen import immunogold

LARGEST_PX = 2200


class LikenessRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the weigher follows from.

    Attributes
    ----------
    seed
        Of the pictures and the weights.
    pictures, sides_nm
        Number of simulated pictures, and the sides that they are drawn from.
    hidden, steps, batch, learning_rate, weight_decay
        Width of the hidden layer, and how long and how fast it learns.
    """

    seed: int = 7
    pictures: int = 300
    sides_nm: tuple[float, ...] = (280.0, 560.0, 880.0)
    hidden: int = 10
    steps: int = 1500
    batch: int = 2048
    learning_rate: float = 0.02
    weight_decay: float = 0.5


Facts = NDArray[np.float64]


def examples(recipe: LikenessRecipe, detector: FastDetector) -> tuple[Facts, Facts]:
    """Facts (n, facts) of the hits in simulated pictures, and 1 for gold; what nobody could see is left out."""
    known, gold = [], []
    for number in range(recipe.pictures):
        made = picture(recipe, number)
        score, discs = detector.hits(made.image, made.pixel_nm)
        beads = np.array([(b.x, b.y, b.diameter_nm, b.visible) for b in made.beads]).reshape(-1, 4)
        reach = np.maximum(3.0, beads[:, 2] / 2) / made.pixel_nm
        truth, clear = np.zeros(len(score)), np.ones(len(score), bool)
        for bead, hit in matched(beads[:, :2], np.stack([discs.x, discs.y], axis=1), reach):
            truth[hit], clear[hit] = beads[bead, 3], beads[bead, 3] > 0
        known.append(facts(score, discs, made.pixel_nm)[clear])
        gold.append(truth[clear])
    return np.concatenate(known), np.concatenate(gold)


def picture(recipe: LikenessRecipe, number: int) -> immunogold.GoldImage:
    """The simulated picture of a number: a random look, magnification and size."""
    rng = np.random.default_rng([recipe.seed, 61, number])
    pixel_nm = float(rng.uniform(0.5, 1.5) if rng.uniform() < 0.55 else np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
    side = min(round(float(rng.choice(recipe.sides_nm)) / pixel_nm), LARGEST_PX)
    look = immunogold.draw_look(rng, pixel_nm)
    return immunogold.render(look, 10_000_000 + recipe.seed * 100_000 + number, (side, side), pixel_nm)


def fit(recipe: LikenessRecipe, known: Facts, gold: Facts) -> Weigher:
    """A weigher for hits with ``known`` facts (n, facts), of which ``gold`` (n,) are gold."""
    seeded(recipe.seed)
    mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
    shown = torch.tensor((known - mean) / spread, dtype=torch.float32)
    wanted = torch.tensor(gold, dtype=torch.float32)
    inner, outer = nn.Linear(shown.shape[1], recipe.hidden), nn.Linear(recipe.hidden, 1)
    both = nn.Sequential(inner, nn.Tanh(), outer)
    optimiser = torch.optim.AdamW(both.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    for _ in range(recipe.steps):
        chosen = torch.randint(len(shown), (recipe.batch,))
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(both(shown[chosen])[:, 0], wanted[chosen])
        loss.backward()
        optimiser.step()
        slower.step()
    numbers = [t.detach().double().numpy() for t in (inner.weight, inner.bias, outer.weight, outer.bias)]
    return Weigher(mean, spread, numbers[0].T, numbers[1], numbers[2][0], float(numbers[3][0]))


def learn(recipe: LikenessRecipe, manifest: Path, *, say: Say = print) -> Weigher:
    """Learn the weigher of the network of ``manifest`` and write it into the manifest.

    Raises
    ------
    TrainingError
        When the network takes nothing in any picture for gold.
    """
    known, gold = examples(recipe, FastDetector(weights=manifest))
    if len(known) == 0 or not 0 < gold.mean() < 1:
        raise TrainingError(f"{manifest}: {len(known)} hits in {recipe.pictures} pictures teach nothing; train longer")
    weigher = fit(recipe, known, gold)
    alone, beside = (float(np.mean(said == (gold > 0))) for said in (known[:, 0] > 0, weigher.score(known) > 0.5))
    say(
        f"{len(known)} hits, {int(gold.sum())} of them gold: right {alone:.1%} alone, {beside:.1%} beside their fellows"
    )
    put(manifest, weigher)
    return weigher


def put(manifest: Path, weigher: Weigher) -> None:
    """Write a weigher into a manifest."""
    kept = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    kept["settings"] = kept.get("settings", {}) | {"likeness": weigher.to_settings()}
    manifest.write_text(
        yaml.safe_dump(kept, sort_keys=False, width=120, allow_unicode=True, default_flow_style=None), encoding="utf-8"
    )
