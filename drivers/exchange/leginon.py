"""Leginon exports: MRC images and a CSV of targets, and our own CSV files, which are the same kind of table.

Columns, in any order, others are ignored: ``image`` (a file beside the table) with ``x``, ``y`` in its pixels, or
``x_um``, ``y_um`` on the stage; ``kind`` (square or hole), ``id``, ``square``, ``size_um``, ``radius_um``, ``score``,
``label``, ``state``, ``selected``; for the images themselves ``image_x_um``, ``image_y_um``, ``pixel_size_angstrom``,
``level``. A row with an image and no target describes the image alone.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from agent.errors import BadFileError
from agent.messages import LEVELS, Level, Stage
from drivers.exchange.found import Found, FoundFrame, FoundHole, FoundSquare, Image, as_float
from drivers.exchange.serialem import level_of

ALIASES = {
    "filename": "image",
    "mrc": "image",
    "name": "image",
    "col": "x",
    "column": "x",
    "row": "y",
    "grid": "grid_id",
}
LEGINON_LEVELS: dict[str, Level] = {
    "gr": "low",
    "sq": "medium",
    "hl": "medium",
    "en": "high",
    "ex": "high",
    "fc": "high",
}
MOST_BYTES = 256 << 20


def read_leginon(folder: Path) -> Found:
    """What the tables and images of a folder hold, or a single CSV file; odd rows and files are listed.

    Raises
    ------
    BadFileError
        If there is no such folder or file.
    """
    if not folder.exists():
        raise BadFileError(f"{folder}: no such folder or file; expected MRC images and a CSV of targets")
    found = Found(name=folder.resolve().stem, software="Leginon", source=folder.resolve().name)
    tables = [folder] if folder.is_file() else sorted(folder.rglob("*.csv"))
    if not tables:
        found.note("there is no CSV of targets")
    images: dict[Path, FoundFrame] = {}
    rows: list[tuple[Path, int, dict[str, str]]] = []
    for path in tables:
        try:
            rows += [(path, number, row) for number, row in _rows(path)]
        except BadFileError as error:
            found.note(str(error).replace(str(path), path.name))
    for path, number, row in rows:
        if row.get("image"):
            _image(found, path, number, row, images)
    squares = [r for r in rows if r[2].get("kind", "hole") == "square"]
    for path, number, row in (*squares, *(r for r in rows if r not in squares)):
        _target(found, path, number, row, images)
    for path in [] if folder.is_file() else sorted(folder.rglob("*.mrc")):
        if path.resolve() not in images:
            found.note(f"{path.name}: no table says where it was taken; it was left out")
    return found


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadFileError(f"{path}: {path.stat().st_size} bytes; at most {MOST_BYTES} are read")
        said = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(said.splitlines(), strict=True)
        names = [
            ALIASES.get((name or "").strip().lower(), (name or "").strip().lower()) for name in reader.fieldnames or ()
        ]
        reader.fieldnames = names
        found = [
            (number, {k: v.strip() for k, v in row.items() if isinstance(k, str) and isinstance(v, str)})
            for number, row in enumerate(reader, 2)
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFileError(f"{path}: cannot be read as CSV: {' '.join(str(error).split())[:200]}") from error
    if not {"x_um", "x", "image"} & set(names):
        raise BadFileError(f"{path}: no table of targets: it has none of the columns x_um, x, image")
    return found


def _image(found: Found, table: Path, number: int, row: Mapping[str, str], images: dict[Path, FoundFrame]) -> None:
    path = (table.parent / row["image"]).resolve()
    if path in images:
        return
    if not path.is_relative_to(table.parent.resolve()):
        found.note(f"{table.name} line {number}: image {row['image']!r} lies outside the folder and was not opened")
        return
    if not path.is_file():
        found.note(f"{table.name} line {number}: image {row['image']} is not there")
        return
    x, y = as_float(row.get("image_x_um")), as_float(row.get("image_y_um"))
    pixel = as_float(row.get("pixel_size_angstrom")) or _pixel_size(path)
    if x is None or y is None or not pixel or max(abs(x), abs(y)) > 5_000:
        found.note(f"{path.name}: no usable image_x_um, image_y_um and pixel size; it was left out")
        return
    said = row.get("level", "")
    if said in LEVELS:
        level: Level = said
    else:
        words = path.stem.replace("-", "_").split("_")
        ending = next((word[-2:] for word in reversed(words) if word[-2:] in LEGINON_LEVELS), "")
        level = LEGINON_LEVELS.get(ending) or level_of(pixel)
    images[path] = FoundFrame(path.stem, level, _Reader(path), pixel, Stage(x_um=x, y_um=y))
    found.frames.append(images[path])


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> Image:
        from drivers.images import read_image

        return read_image(self.path)[0]


def _pixel_size(path: Path) -> float | None:
    from drivers.images import read_image

    try:
        return read_image(path)[1]
    except BadFileError:
        return None


def _target(found: Found, table: Path, number: int, row: Mapping[str, str], images: dict[Path, FoundFrame]) -> None:
    if row.get("x_um") or row.get("x"):
        place = _place(found, table, row, images)
        if place is None or max(abs(place[0]), abs(place[1])) > 5_000:
            found.note(f"{table.name} line {number}: no usable place (x_um, y_um, or x, y with a known image)")
            return
        x, y = place
        key = row.get("id") or f"{table.stem}-{number}"
        score = as_float(row.get("score"))
        selected = {"true": True, "1": True, "false": False, "0": False}.get(row.get("selected", "").lower())
        label = row.get("label") or "unknown"
        if row.get("kind") == "square":
            size = as_float(row.get("size_um")) or 50.0
            found.squares[key] = FoundSquare(
                key, x, y, size_um=size, score=0.5 if score is None else score, label=label, selected=selected
            )
            return
        square = found.squares.get(row.get("square", "")) or found.square_at(x, y)
        if square is None:
            name = row.get("square") or f"around {key}"
            square = found.squares.setdefault(name, FoundSquare(name, x, y))
            found.note(f"hole {key} lies in no square of the table: one was put around it")
        square.holes.append(
            FoundHole(
                key, x, y, radius_um=as_float(row.get("radius_um")) or 0.6, score=0.5 if score is None else score,
                label=label, selected=selected, exposed=row.get("exposed", "").lower() in ("true", "1"),
            )
        )  # fmt: skip


def _place(
    found: Found, table: Path, row: Mapping[str, str], images: dict[Path, FoundFrame]
) -> tuple[float, float] | None:
    x, y = as_float(row.get("x_um")), as_float(row.get("y_um"))
    if x is not None and y is not None:
        return x, y
    x, y = as_float(row.get("x")), as_float(row.get("y"))
    frame = images.get((table.parent / row.get("image", "")).resolve()) if row.get("image") else None
    if x is None or y is None or frame is None:
        return None
    try:
        rows, columns = frame.read().shape
    except BadFileError:
        return None
    found.note("pixels are turned into stage positions without rotation, x right and y down: no table gives a matrix")
    scale = frame.pixel_size_angstrom * 1e-4
    return frame.stage.x_um + scale * (x - (columns - 1) / 2), frame.stage.y_um + scale * (y - (rows - 1) / 2)
