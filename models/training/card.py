"""The page that goes with every set of weights: what it is for, what made it, what it measured, where it fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure, and the command that prints it."""

    what: str
    value: str
    command: str


@dataclass(frozen=True, slots=True)
class Card:
    """A model card.

    Attributes
    ----------
    name, purpose
        Name of the weights, and in one or two sentences what they are for.
    inputs, outputs
        What goes in and comes out: shapes, units, ranges.
    data
        What it learned from.
    recipe
        Settings of the training, by name.
    command
        Command line that made it, seed included.
    figures
        What was measured.
    limits
        Where not to trust it.
    licence
        Of the weights.
    """

    name: str
    purpose: str
    inputs: str
    outputs: str
    data: str
    command: str
    recipe: Mapping[str, object] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    limits: Sequence[str] = ()
    licence: str = "Apache-2.0"

    def markdown(self) -> str:
        """The card as a page."""
        lines = [f"# {self.name}", "", self.purpose, ""]
        lines += [f"- **In**: {self.inputs}", f"- **Out**: {self.outputs}", f"- **Learned from**: {self.data}"]
        lines += [f"- **Made by**: `{self.command}`", f"- **Licence**: {self.licence}", ""]
        if self.figures:
            lines += ["| measured | value | printed by |", "|---|---|---|"]
            lines += [f"| {f.what} | {f.value} | `{f.command}` |" for f in self.figures]
            lines.append("")
        if self.limits:
            lines += ["## Where not to trust it", "", *[f"- {limit}" for limit in self.limits], ""]
        if self.recipe:
            lines += ["## Recipe", "", "```yaml", *[f"{key}: {value}" for key, value in self.recipe.items()], "```", ""]
        return "\n".join(lines)


def write_card(card: Card, path: Path) -> None:
    """Write the card as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(card.markdown(), encoding="utf-8")
