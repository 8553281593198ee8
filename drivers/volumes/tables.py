"""Small result files."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_json(path: Path, values: Any) -> None:
    """Plain data, written whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(values, indent=1), encoding="utf-8")
    part.replace(path)


def write_star(path: Path, block: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """One loop of a STAR file."""
    names = list(columns)
    lines = [f"data_{block}", "", "loop_", *[f"_{name} #{n}" for n, name in enumerate(names, start=1)]]
    lines += [" ".join(str(value) for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
