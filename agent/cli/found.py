"""What ``cryonaut find`` writes: JSON, CSV, STAR and Navigator files, and the table on the screen."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.errors import BadFileError, ConfigError

FORMATS = ("table", "json", "csv", "star", "nav")


def formats_of(given: Sequence[str]) -> tuple[str, ...]:
    """The formats that were asked for, given one by one or with commas.

    Raises
    ------
    ConfigError
        If there is no such format.
    """
    names = tuple(name.strip() for text in given for name in text.split(",") if name.strip())
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"--format {name}: there are {', '.join(FORMATS)}")
    return names


def record(item: Any) -> dict[str, Any]:
    """One square or hole as plain data: pixels of the file, (0, 0) is the centre of its first pixel."""
    plain: dict[str, Any] = {
        "x": round(item.x, 3),
        "y": round(item.y, 3),
        "score": round(item.score, 4),
        "label": item.label,
    }
    if hasattr(item, "vertices"):
        plain |= {"vertices": [[round(x, 2), round(y, 2)] for x, y in item.vertices], "area_px": round(item.area_px, 1)}
        plain |= {"touches_edge": item.touches_edge}
    else:
        plain |= {"radius": round(item.radius_px, 2), "inferred": item.inferred}
    return plain | {"reasons": {name: round(value, 3) for name, value in reasons(item)}}


def reasons(item: Any, most: int = 3) -> list[tuple[str, float]]:
    """The features that say most: what they add to the score where a model tells, else the largest ones."""
    told = {name.removeprefix("for_"): value for name, value in item.features.items() if name.startswith("for_")}
    return sorted((told or item.features).items(), key=lambda pair: -abs(pair[1]))[:most]


def as_csv(items: Sequence[Any]) -> str:
    """A table with a head, one line for each; outlines and reasons are in JSON only."""
    rows = [record(item) for item in items] or [{"x": 0, "y": 0, "score": 0, "label": ""}]
    names = [name for name in rows[0] if name not in ("vertices", "reasons")]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    if items:
        writer.writerows(rows)
    return text.getvalue()


def as_star(items: Sequence[Any]) -> str:
    """Coordinates as RELION and its friends read them, best first; pixels as in JSON."""
    lines = ["", "data_", "", "loop_", "_rlnCoordinateX #1", "_rlnCoordinateY #2", "_rlnAutopickFigureOfMerit #3"]
    lines += [f"{item.x:12.3f} {item.y:12.3f} {item.score:12.6f}" for item in items]
    return "\n".join([*lines, ""])


def write(
    what: str,
    file: Path,
    shape: tuple[int, int],
    items: Sequence[Any],
    finding: Any,
    out: Path | None,
    formats: Sequence[str],
    session_nav: Path | None = None,
) -> None:
    """Write one image's result in each format to ``out``, or print it without.

    Raises
    ------
    BadFileError
        If Navigator points are asked for and no Navigator file knows the image as a map.
    """
    rows = [record(item) for item in items]
    for name in formats:
        if name == "json" and out is None:
            print(json.dumps({"image": str(file), "note": finding.note, what: rows}))
        elif name == "nav":
            _nav(file, shape, items, out, session_nav)
        elif name == "table":
            show(what, file, items, finding)
        else:
            text = json.dumps(rows) if name == "json" else as_csv(items) if name == "csv" else as_star(items)
            if out is None:
                print(text, end="" if text.endswith("\n") else "\n")
            else:
                into(out, file, f".{name}").write_text(text, encoding="utf-8")


def _nav(file: Path, shape: tuple[int, int], items: Sequence[Any], out: Path | None, session_nav: Path | None) -> None:
    from drivers.serialem.files import holes_to_nav, nav_beside

    target = into(out or Path(), file, ".nav")
    known = session_nav or nav_beside(file)
    if target.resolve() == known.resolve():
        raise BadFileError(f"{target}: is the session's own Navigator file; give another folder with --out")
    print(f"{holes_to_nav(list(items), file, shape, known, target)} points: {target}")


def into(out: Path, file: Path, suffix: str) -> Path:
    """Where the result of a file goes."""
    out.mkdir(parents=True, exist_ok=True)
    return out / f"{file.stem}{suffix}"


def show(what: str, file: Path, items: Sequence[Any], finding: Any) -> None:
    """Print the best as a table."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    size = "side px" if what == "squares" else "radius px"
    table = Table("x", "y", size, "score", "label", "main reasons", title=f"{file.name}: {len(items)} {what}")
    for item in items[:25]:
        span = float(np.sqrt(item.area_px)) if what == "squares" else item.radius_px
        why = ", ".join(f"{name} {value:+.2f}" for name, value in reasons(item))
        table.add_row(f"{item.x:.1f}", f"{item.y:.1f}", f"{span:.1f}", f"{item.score:.2f}", item.label, why)
    console = Console()
    console.print(table)
    if len(items) > 25:
        console.print(f"… and {len(items) - 25} more (--format csv or json gives all)", style="dim")
    lattice = getattr(finding, "lattice", None)
    if lattice is not None:
        a, b = (float(np.hypot(*v)) for v in (lattice.a, lattice.b))
        console.print(f"{lattice.symmetry} lattice, spacings {a:.1f} and {b:.1f} px, rms {lattice.residual_px:.2f} px")
    if finding.note:
        console.print(f"note: {finding.note}")
