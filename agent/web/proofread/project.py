"""A proofreading project: a folder with one sheet for each image; a sheet holds its marks and what was checked.

``<folder>/<image stem>.json``. Places are pixels of the image, (0, 0) is the centre of its first pixel. Sheets are
written to a file beside and then renamed, so a crash leaves the old one or the new one.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from agent.errors import CryonautError

MOST_MARKS = 200_000


class ProjectError(CryonautError):
    """A project or a sheet of it that cannot be used: which, and why."""


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One particle: centre in pixels, diameter in nm; ``by`` says who set it."""

    id: int
    x: float
    y: float
    diameter_nm: float
    group: str = ""
    score: float = 1.0
    by: str = "model"


class Sheet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image with its marks.

    ``checked`` holds the rectangles (left, top, right, bottom) in pixels that a person went through; empty means all of
    the image. ``removed`` are marks of the model that were wrong.
    """

    image: str  # path of the image file, as seen from the project's folder where it is relative
    shape: tuple[int, int]
    pixel_nm: float
    marks: tuple[Mark, ...] = ()
    removed: tuple[Mark, ...] = ()
    checked: tuple[tuple[float, float, float, float], ...] = ()
    revision: int = 0


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person changed since ``revision``: ids that are gone, marks that are new or different, checked parts."""

    revision: int
    removed: tuple[int, ...] = ()
    placed: tuple[tuple[int, float, float, float], ...] = ()  # id, x, y, diameter in nm
    checked: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """A folder of sheets."""

    folder: Path

    def path(self, image: Path) -> Path:
        """The sheet of an image."""
        return self.folder / f"{image.stem}.json"

    def read(self, image: Path) -> Sheet | None:
        """The sheet of an image, or None where there is none yet."""
        file = self.path(image)
        return read_sheet(file) if file.exists() else None

    def write(self, sheet: Sheet) -> Path:
        """Keep a sheet; returns its file.

        Raises
        ------
        ProjectError
            When it cannot be written; the sheet that was there is then left as it was.
        """
        file = self.path(Path(sheet.image))
        part = file.with_suffix(".json.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as out:
                out.write(msgspec.json.format(msgspec.json.encode(sheet), indent=0))
                out.flush()
                os.fsync(out.fileno())
            part.replace(file)
        except OSError as error:
            raise ProjectError(f"{file}: cannot be written: {error.strerror or error}") from error
        return file


def read_sheet(file: Path) -> Sheet:
    """The sheet in a file.

    Raises
    ------
    ProjectError
        When it cannot be read or is no sheet.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=Sheet)
    except OSError as error:
        raise ProjectError(f"{file}: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise ProjectError(f"{file}: is no proofreading sheet: {error}") from error


def read_project(folder: Path) -> list[Sheet]:
    """All sheets of a project, by the name of their image.

    Raises
    ------
    ProjectError
        When there is none, or one cannot be read.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ProjectError(f"{folder}: holds no proofreading sheet; `cryonaut proofread` makes them")
    return [read_sheet(file) for file in files]


def changed(sheet: Sheet, change: Change) -> Sheet:
    """The sheet after a person's change.

    Raises
    ------
    ProjectError
        When the change was made to another revision, or places a mark outside the image or with an absurd size.
    """
    if change.revision != sheet.revision:
        raise ProjectError(
            f"the marks were saved from another window meanwhile (revision {sheet.revision}, not {change.revision}):"
            " load the page again"
        )
    rows, columns = sheet.shape
    for number, x, y, d in change.placed:
        if not (-1 <= x <= columns and -1 <= y <= rows and 0.5 <= d <= 500):
            raise ProjectError(f"mark {number} at ({x:g}, {y:g}) of {d:g} nm: outside the image, or no size of gold")
    for left, top, right, bottom in change.checked:
        if not (left < right and top < bottom):
            raise ProjectError(f"checked part ({left:g}, {top:g}, {right:g}, {bottom:g}) is empty")
    known = {mark.id: mark for mark in sheet.marks}
    gone = [known.pop(number) for number in change.removed if number in known]
    for number, x, y, d in change.placed:
        before = known.get(number)
        known[number] = Mark(
            id=number, x=x, y=y, diameter_nm=d, by="person", group=before.group if before else "",
        )  # fmt: skip
    if len(known) > MOST_MARKS:
        raise ProjectError(f"{len(known)} marks; at most {MOST_MARKS} are taken")
    wrong = (*sheet.removed, *(mark for mark in gone if mark.by == "model"))
    return msgspec.structs.replace(
        sheet, marks=tuple(known.values()), removed=wrong, checked=change.checked, revision=sheet.revision + 1
    )


def sizes_of(sheet: Sheet) -> tuple[float, ...]:
    """Sizes in nm that a person will want to place: those that the groups are named after, else their medians."""
    groups: dict[str, list[float]] = {}
    for mark in sheet.marks:
        groups.setdefault(mark.group, []).append(mark.diameter_nm)
    sizes = set()
    for name, diameters in groups.items():
        try:
            sizes.add(float(name.removesuffix(" nm")))
        except ValueError:
            sizes.add(round(median(diameters), 1))
    return tuple(sorted(size for size in sizes if size > 0)[:9]) or (6.0, 12.0, 18.0)


def numbered(marks: Iterable[tuple[float, float, float, str, float]]) -> tuple[Mark, ...]:
    """Marks (x, y, diameter in nm, group, score) with ids from 1."""
    return tuple(
        Mark(id=n, x=x, y=y, diameter_nm=d, group=group, score=score)
        for n, (x, y, d, group, score) in enumerate(marks, start=1)
    )
