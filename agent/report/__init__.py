"""A report of a session: one self-contained HTML file for the person who reads it in the morning."""

import time
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from agent.recording.record import Record, read
from agent.report import collect, decisions
from agent.report.cards import cards, damaged
from agent.report.maps import grid_view, short, square_view
from agent.report.timings import timings
from agent.report.troubles import troubles
from agent.whole import write_whole

__all__ = ["render"]

FILE_NAME = "report.html"


def render(folder: Path, out: Path | None = None) -> Path:
    """Write the report of the session in ``folder`` and return its path.

    Works on finished, crashed, empty and running sessions; a frame that cannot be read becomes a note.

    Parameters
    ----------
    folder
        A session folder: it holds the journal and the frames.
    out
        The file to write, or a folder to write `report.html` into; by default the session folder.

    Raises
    ------
    JournalError
        If the folder holds no journal, or SQLite cannot open it.
    OSError
        If the file cannot be written; a report that was there is then left as it was.
    """
    folder = Path(folder)
    target = folder / FILE_NAME if out is None else out / FILE_NAME if out.is_dir() else out
    page = environment().get_template("report.html.jinja").render(**view_of(read(folder), time.time()))
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(target, page)


def view_of(record: Record, now_utc: float) -> dict[str, Any]:
    """Everything that the template shows, as plain data."""
    grids = tuple(grid_view(record, grid) for grid in record.state.grids.values() if grid.atlas_frames or grid.squares)
    mapped = [s for grid in record.state.grids.values() for s in grid.squares.values() if s.map_frame_id]
    order = {frame_id: number for number, frame_id in enumerate(record.frames)}
    mapped.sort(key=lambda square: order.get(square.map_frame_id, len(order)))
    side_px = 1000 if len(mapped) <= 12 else 800 if len(mapped) <= 30 else 560
    squares = tuple(square_view(record, square, side_px) for square in mapped)
    micrographs = cards(record)
    figures = collect.counts(record)
    wrong = troubles(record)
    unread = damaged([square.picture for square in squares] + [card.picture for card in micrographs])
    unread += sum(len(grid.notes) for grid in grids)
    choices = decisions.choices(record)
    return {
        "record": record,
        "state": record.state,
        "headline": collect.headline(record, figures, wrong, unread, now_utc),
        "counts": figures,
        "troubles": wrong,
        "grids": grids,
        "squares": squares,
        "cards": micrographs,
        "timings": timings(record),
        "decisions": choices[: decisions.MOST_DECISIONS],
        "decisions_left_out": max(0, len(choices) - decisions.MOST_DECISIONS),
        "operators": decisions.operators(record),
        "facts": collect.facts(record),
        "now_utc": now_utc,
    }


def environment() -> Environment:
    """Where the templates are, and how they are filled: escaped, and nothing undefined."""
    environment = Environment(
        loader=PackageLoader("agent.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "when": collect.when,
        "clock": collect.clock,
        "span": collect.span_words,
        "short": short,
    }
    return environment
