"""Learning from a person's corrections of any kind: some are held out and tell, before and after, what was gained.

What is simulated is shown beside the corrections, so that nothing is unlearnt.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from models.gold.matching import matched
from models.training.card import Figure
from models.training.loop import Batch, LoopSettings, Say, train

HELD_OUT = 4  # one in so many checked parts is not learned from


@dataclass(frozen=True, slots=True)
class Quality:
    """Hits, misses and false alarms on what was held out."""

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


def tally(looks: Iterable[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]], what: str = "particles") -> Quality:
    """Quality over many looks: marks (n, d), what was said (m, d), and how far from each mark a hit may lie (n,)."""
    hits = missed = false = 0
    for marks, said, reach in looks:
        pairs = len(matched(marks, said, reach))
        hits += pairs
        missed += len(marks) - pairs
        false += len(said) - pairs
    return Quality(hits, missed, false, what)


@dataclass(frozen=True, slots=True)
class Material:
    """What is learned from and measured on: numbers of ``parts`` (windows, cubes), files, and the first weights."""

    parts: str
    learnt: int
    held: int
    files: tuple[str, ...]
    start: Path


@dataclass(frozen=True, slots=True)
class Gained:
    """A network that went on learning, its quality on what was held out, and the facts for manifest and card."""

    network: nn.Module
    before: Quality
    after: Quality
    data: str
    last_loss: str
    figures: tuple[Figure, Figure]


def go_on(
    network: nn.Module,
    batch_of: Callable[[int], Batch],
    loss_of: Callable[[nn.Module, Batch], Tensor],
    settings: LoopSettings,
    *,
    material: Material,
    measure: Callable[[nn.Module], Quality],
    command: str,
    say: Say,
) -> Gained:
    """Let a network learn on, and ``measure`` it on what was held out before and after."""
    before = measure(network.eval())
    say(f"{material.learnt} {material.parts} to learn from, {material.held} held out; before: {before}")
    improved, history = train(network, batch_of, loss_of, settings, say=say)
    after = measure(improved)
    say(f"before: {before}\nafter:  {after}")
    names = ", ".join(sorted(set(material.files)))[:200]
    figures = (
        Figure(f"held-out {material.parts}, before", str(before), command),
        Figure("held-out, after", str(after), command),
    )
    data = f"{material.start.name}, then {material.learnt} {material.parts} of {names}"
    return Gained(improved, before, after, data, f"{history.losses[-1][1]:.3f}", figures)
