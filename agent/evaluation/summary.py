"""What many judged sessions come to: a figure per metric and variant, a paired comparison of two, the worst cases."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agent.evaluation.sessions import Judged
from agent.evaluation.statistics import Comparison, Figure, compare, figure

MOST_WORST = 12
LESS_IS_BETTER = ("error", "seconds")


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: a figure for each variant, and the comparison of the first two."""

    metric: str
    figures: tuple[Figure | None, ...]
    comparison: Comparison | None

    @property
    def better(self) -> str:
        """Which direction is better."""
        return "lower" if any(word in self.metric for word in LESS_IS_BETTER) else "higher"


@dataclass(frozen=True)
class Summary:
    """Everything that the table, the JSON file and the page show."""

    variants: tuple[str, ...]
    sessions: tuple[str, ...]
    rows: tuple[Row, ...]
    curves: dict[str, list[float]]
    judged: tuple[tuple[Judged, ...], ...]
    worst: tuple[dict[str, Any], ...]
    troubles: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON has it; pictures are left to the page."""
        return {
            "variants": self.variants,
            "sessions": self.sessions,
            "metrics": {
                row.metric: {
                    "figures": {
                        name: asdict(value) if value else None
                        for name, value in zip(self.variants, row.figures, strict=True)
                    },
                    "comparison": asdict(row.comparison) if row.comparison else None,
                }
                for row in self.rows
            },
            "by_session": [judged.row() for several in self.judged for judged in several],
            "curves": self.curves,
            "troubles": self.troubles,
        }


def summarise(judged: Sequence[Sequence[Judged]]) -> Summary:
    """Sum up ``judged[variant][session]``; every variant judged the same sessions in the same order."""
    variants = tuple(next((one.variant for one in several if one.variant), "") for several in judged)
    names: dict[str, None] = {}
    for several in judged:
        for one in several:
            names.update(dict.fromkeys(one.metrics))
    rows = []
    for name in names:
        values = [[one.metrics.get(name) for one in several] for several in judged]
        comparison = compare(values[0], values[1]) if len(values) > 1 else None
        figures = tuple(figure(several) for several in values)
        if any(found is not None for found in figures):
            rows.append(Row(name, figures, comparison))
    worst = [
        {**case, "session": one.session, "variant": one.variant}
        for several in judged
        for one in several
        for case in one.worst
    ]
    worst.sort(key=lambda case: (case["f1"], case["session"], case["what"]))
    troubles = [f"{one.session}: {one.trouble}" for several in judged for one in several if one.trouble]
    return Summary(
        variants=variants,
        sessions=tuple(one.session for one in judged[0]),
        rows=tuple(rows),
        curves=mean_curves([one.curves for one in judged[0]]),
        judged=tuple(tuple(several) for several in judged),
        worst=tuple(worst[:MOST_WORST]),
        troubles=tuple(dict.fromkeys(troubles)),
    )


def mean_curves(tables: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Good micrographs as a share of all good ones, against the share of the session's time, mean over sessions."""
    known = [table for table in tables if table and max(table["oracle"]) > 0]
    if not known:
        return {}
    share = np.linspace(0.0, 1.0, len(known[0]["seconds"]))
    mean = {"share of the time": share.tolist()}
    for name in (key for key in known[0] if key != "seconds"):
        mean[name] = np.mean([np.array(t[name]) / max(t["oracle"]) for t in known], axis=0).tolist()
    return mean
