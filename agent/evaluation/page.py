"""An evaluation as a self-contained page, as JSON, and as the lines of a terminal's table."""

import json
from pathlib import Path

from agent.evaluation.plots import curve_plot, figure_plot
from agent.evaluation.statistics import Comparison, Figure
from agent.evaluation.summary import Summary
from agent.report import environment
from agent.whole import write_whole


def figure_words(found: Figure | None) -> str:
    """A mean with its interval."""
    if found is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{found.mean:.3g}"
    return f"{found.mean:.3g} ({found.low:.3g} to {found.high:.3g})"


def difference_words(found: Comparison | None) -> str:
    """A difference with its interval."""
    if found is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{found.difference:+.3g}"
    return f"{found.difference:+.3g} ({found.low:+.3g} to {found.high:+.3g})"


def table(summary: Summary) -> list[tuple[str, ...]]:
    """Heading and rows for a terminal."""
    two = len(summary.variants) > 1
    rows = [("metric", *summary.variants, "n", *(("difference", "p") if two else ()))]
    for row in summary.rows:
        count = max(found.sessions for found in row.figures if found is not None)
        words = [row.metric, *(figure_words(found) for found in row.figures), str(count)]
        if two:
            p = row.comparison.p if row.comparison else None
            words += [difference_words(row.comparison), "–" if p is None else f"{p:.3f}"]
        rows.append(tuple(words))
    return rows


def write(summary: Summary, out: Path, *, title: str, unit: str) -> tuple[Path, Path]:
    """Write ``evaluation.html`` and ``evaluation.json`` into the folder ``out`` and return their paths.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    pages = environment()
    pages.filters |= {"figure": figure_words, "difference": difference_words}
    page = pages.get_template("evaluation.html.jinja").render(
        summary=summary,
        title=title,
        unit=unit,
        figures=figure_plot(summary.rows, summary.variants),
        curves=curve_plot(summary.curves),
    )
    as_json = json.dumps(summary.plain(), indent=1, ensure_ascii=False)
    return write_whole(out / "evaluation.html", page), write_whole(out / "evaluation.json", as_json + "\n")
