"""Reads answers by Leginon's rules, and keeps a warning wherever Leginon itself would log one or go wrong.

The rules: an answer is a JSON string of CSV text with a header line; an empty one is an empty list. Integers may be
written as ``3`` or ``3.0``. A row whose integers, centre or ``GP_probs`` cannot be read is replaced by the row before
it (the first such row ends the reading). An empty score, brightness or area is None and fails later.
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
SQUARE_INTEGERS = ("square_id", "tile_id", "grid_id")
HOLE_INTEGERS = ("hole_id", "mm_img_id", "square_id", "grid_id")
NEEDED = ("prior_score", "center_x", "center_y")


class UnreadableError(Exception):
    """An answer at which Leginon's own reader would raise."""


def squares(answer: Any, warnings: list[str]) -> list[Row]:
    """The squares of an answer to ``current_lm_state`` or ``select_next_square``."""
    return _rows(answer, SQUARE_INTEGERS, ("center_x", "center_y"), ("prior_score", "brightness", "area"), warnings)


def holes(answer: Any, warnings: list[str]) -> list[Row]:
    """The holes of an answer to ``push_and_evaluate_mm``."""
    found = _rows(answer, HOLE_INTEGERS, ("center_x", "center_y"), ("prior_score", "radius"), warnings)
    if len(found) < 2:
        warnings.append(f"{len(found)} holes: Leginon's lattice needs two")
    return found


def _rows(
    answer: Any, integers: Sequence[str], floats: Sequence[str], never_none: Sequence[str], warnings: list[str]
) -> list[Row]:
    if not isinstance(answer, str):
        raise UnreadableError(f"a JSON string is expected, not a {type(answer).__name__}: {answer!r}"[:300])
    if not answer:
        return []
    reader = csv.DictReader(io.StringIO(answer))
    missing = [name for name in (*NEEDED, *integers) if name not in (reader.fieldnames or ())]
    if missing:
        raise UnreadableError(f"columns {missing} are missing")
    found: list[Row] = []
    for number, raw in enumerate(reader):
        try:
            row = _row(raw, integers, floats)
        except (TypeError, ValueError) as error:
            warnings.append(f"row {number} cannot be read ({error}): Leginon repeats the row before")
            if not found:
                raise UnreadableError(f"the first row cannot be read: {error}") from error
            row = dict(found[-1])
        warnings += [f"row {number}: {name} is empty" for name in never_none if row.get(name) is None]
        found.append(row)
    key = integers[0]
    if len({row[key] for row in found}) != len(found):
        warnings.append(f"{key} is not unique")
    return found


def _row(raw: dict[str, str], integers: Sequence[str], floats: Sequence[str]) -> Row:
    row: Row = {name: int(float(raw[name])) for name in integers}
    row |= {name: float(raw[name]) for name in floats}
    for name, text in raw.items():
        if name in row or not name:
            continue
        if name == "GP_probs":
            row[name] = float(text)
        elif name == "visited":
            row[name] = str(text).lower() == "true"
        else:
            row[name] = float(text) if text not in ("", None) else None
    row["score"] = row.get("GP_probs", row["prior_score"])
    return row
