"""A proofreading project: a folder with one sheet for each image; a sheet holds its marks and what was checked.

``<folder>/<image stem>.json``. Places are pixels of the image, (0, 0) is the centre of its first pixel; in a volume
they are voxels, and (0, 0, 0) is the centre of the first. Sheets are written to a file beside and then renamed, so a
crash leaves the old one or the new one.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from agent.errors import CryonautError

MOST_MARKS = 200_000
USUAL_NM = {"gold": (6.0, 12.0, 18.0), "vesicles": (30.0, 40.0, 50.0)}  # sizes to place where nothing says which


class ProjectError(CryonautError):
    """A project or a sheet of it that cannot be used: which, and why."""


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One particle: centre in pixels, diameter in nm; ``by`` says who set it, ``z`` the section in a volume."""

    id: int
    x: float
    y: float
    diameter_nm: float
    group: str = ""
    score: float = 1.0
    by: str = "model"
    z: float = 0.0


class Sheet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image or volume with its marks.

    ``checked`` holds the rectangles (left, top, right, bottom) in pixels that a person went through, in a volume boxes
    (left, top, right, bottom, first section, last section); empty means all of it. ``removed`` are marks of the model
    that were wrong.
    """

    image: str  # path of the file, as seen from the project's folder where it is relative
    shape: tuple[int, ...]  # (rows, columns), of a volume (sections, rows, columns)
    pixel_nm: float
    marks: tuple[Mark, ...] = ()
    removed: tuple[Mark, ...] = ()
    checked: tuple[tuple[float, ...], ...] = ()
    revision: int = 0
    structure: str = "gold"  # what the marks are: gold, vesicles
    white: bool = False  # membranes are bright

    @property
    def sections(self) -> int | None:
        """Sections of a volume; None for an image."""
        return self.shape[0] if len(self.shape) == 3 else None

    def __post_init__(self) -> None:
        """Refuse what is neither an image nor a volume."""
        sides = 6 if len(self.shape) == 3 else 4
        if len(self.shape) not in (2, 3) or any(len(part) != sides for part in self.checked):
            raise ValueError(f"shape {self.shape} with checked parts {self.checked}: no image, and no volume")


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """A mark that a person placed: id, x and y in pixels, diameter in nm, in a volume the section."""

    id: int
    x: float
    y: float
    diameter_nm: float
    z: float = 0.0


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person changed since ``revision``: ids that are gone, marks that are new or different, checked parts."""

    revision: int
    removed: tuple[int, ...] = ()
    placed: tuple[Placed, ...] = ()
    checked: tuple[tuple[float, ...], ...] = ()


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
    rows, columns = sheet.shape[-2:]
    for new in change.placed:
        inside = -1 <= new.x <= columns and -1 <= new.y <= rows and -1 <= new.z <= (sheet.sections or 0)
        if not (inside and 0.5 <= new.diameter_nm <= 500):
            raise ProjectError(
                f"mark {new.id} at ({new.x:g}, {new.y:g}) of {new.diameter_nm:g} nm: outside the image, or no size of"
                f" {sheet.structure}"
            )
    for part in change.checked:
        if not _holds(part, sheet):
            raise ProjectError(f"checked part ({', '.join(f'{side:g}' for side in part)}) is empty")
    known = {mark.id: mark for mark in sheet.marks}
    gone = [known.pop(number) for number in change.removed if number in known]
    for new in change.placed:
        before = known.get(new.id)
        known[new.id] = Mark(
            id=new.id, x=new.x, y=new.y, z=new.z, diameter_nm=new.diameter_nm, by="person",
            group=before.group if before else "",
        )  # fmt: skip
    if len(known) > MOST_MARKS:
        raise ProjectError(f"{len(known)} marks; at most {MOST_MARKS} are taken")
    wrong = (*sheet.removed, *(mark for mark in gone if mark.by == "model"))
    return msgspec.structs.replace(
        sheet, marks=tuple(known.values()), removed=wrong, checked=change.checked, revision=sheet.revision + 1
    )


def _holds(part: tuple[float, ...], sheet: Sheet) -> bool:
    # of a volume's box the last section counts
    if len(part) != (4 if sheet.sections is None else 6):
        return False
    left, top, right, bottom, *sections = part
    return left < right and top < bottom and (not sections or sections[0] <= sections[1])


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
    return tuple(sorted(size for size in sizes if size > 0)[:9]) or USUAL_NM.get(sheet.structure, (6.0, 12.0, 18.0))


def numbered(marks: Iterable[tuple[float, float, float, str, float]]) -> tuple[Mark, ...]:
    """Marks (x, y, diameter in nm, group, score) with ids from 1."""
    return tuple(
        Mark(id=n, x=x, y=y, diameter_nm=d, group=group, score=score)
        for n, (x, y, d, group, score) in enumerate(marks, start=1)
    )
