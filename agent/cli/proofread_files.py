"""What ``cryonaut proofread`` opens: tables of marks, and images or volumes with the size of their pixels."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import BadFileError, ConfigError
from agent.web.proofread.project import Mark, numbered

DOUBTFUL = 0.5  # at most this score for a vesicle that `segment vesicles` says is worth a look
_SPHERES = ("x", "y", "z", "radius_nm")


@dataclass(frozen=True, slots=True)
class Table:
    """Marks of a table: of what, and whether in a volume."""

    structure: str
    volume: bool
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """Pixels of an image (rows, columns) or a volume (z, y, x), and their size; None where the file does not say it."""

    pixels: Any
    pixel_nm: float | None


def read_table(path: Path) -> Table:
    """Marks of `cryonaut find gold`, `cryonaut find vesicles` or `cryonaut segment vesicles`, told by the columns.

    Raises
    ------
    ConfigError
        When the table cannot be read or is another one; the text names the line.
    """
    from models.gold.files import read_csv

    try:
        with path.open(newline="", encoding="utf-8") as file:
            columns = tuple(csv.DictReader(file).fieldnames or ())
        if set(_SPHERES) <= set(columns):
            return Table("vesicles", True, _spheres(path))
        found = read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    structure = "vesicles" if "gap_nm" in columns else "gold"
    return Table(structure, False, numbered((p.x, p.y, p.diameter_nm, p.group, p.score) for p in found))


def _spheres(path: Path) -> tuple[Mark, ...]:
    marks = []
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                x, y, z, radius = (float(row[name]) for name in _SPHERES)
                score = float(row.get("score") or 1.0)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: line {line}: {error}") from error
            if row.get("outlier"):
                score = min(score, DOUBTFUL)
            marks.append(Mark(id=line - 1, x=x, y=y, z=z, diameter_nm=2 * radius, score=score))
    return tuple(marks)


def open_any(path: Path, *, volume: bool | None) -> Opened:
    """An image or a volume; where ``volume`` is None, what holds several sections is a volume.

    Raises
    ------
    BadFileError
        When it cannot be read, or is the other.
    """
    from drivers.images import map_image
    from drivers.volumes import open_volume

    if volume is None:
        volume = path.is_dir() or _sections(path) > 1
    if not volume:
        pixels, angstrom = map_image(path)
        return Opened(pixels, angstrom / 10 if angstrom else None)
    opened = open_volume(path)
    return Opened(opened.array, opened.voxel_nm)


def _sections(path: Path) -> int:
    from drivers.volumes import open_volume

    try:
        return open_volume(path).shape[0]
    except BadFileError:
        return 1  # an image of another kind, or nothing: opening it as an image says which
