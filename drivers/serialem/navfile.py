"""SerialEM's Navigator files: read, written anew for import, and the way from a map's pixels to the stage.

A ``.nav`` file that SerialEM has open is never rewritten: points go into a file of their own, which SerialEM takes with
*Navigator - Merge File* or ``MergeNavFile``.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from agent.errors import BadFileError

Point = tuple[float, float]
POINT, POLYGON, MAP = 0, 1, 2
MOST_BYTES = 256 << 20
VERSION = "2.00"
_HEAD = re.compile(r"^\[\s*Item\s*=\s*(.*?)\s*\]$")


@dataclass(frozen=True, slots=True)
class NavItem:
    """One item of a Navigator file; positions are stage coordinates in micrometres.

    Parameters
    ----------
    label
        What stands in the list.
    values
        Every line of the item as it stands in the file, known to us or not.
    """

    label: str
    values: dict[str, str] = field(default_factory=dict)

    def numbers(self, key: str, count: int = 0) -> tuple[float, ...]:
        """The numbers of a line; empty where the line is absent.

        Raises
        ------
        BadFileError
            If there are no numbers, or fewer than ``count``.
        """
        text = self.values.get(key)
        if text is None:
            return ()
        try:
            found = tuple(float(word) for word in text.split())
        except ValueError as error:
            raise BadFileError(f"item {self.label}: {key} = {text[:60]!r}: numbers were expected") from error
        if len(found) < count or not all(map(math.isfinite, found)):
            raise BadFileError(f"item {self.label}: {key} = {text[:60]!r}: {count} finite numbers were expected")
        return found

    @property
    def kind(self) -> int:
        """0 point, 1 polygon, 2 map."""
        return int((self.numbers("Type") or (POINT,))[0])

    @property
    def stage_um(self) -> tuple[float, float, float]:
        """Stage x, y, z."""
        x, y, z = (*self.numbers("StageXYZ", 2), 0.0, 0.0, 0.0)[:3]
        return x, y, z

    @property
    def acquire(self) -> bool:
        """Whether Acquire is on."""
        return any(self.numbers("Acquire"))

    @property
    def note(self) -> str:
        """Its note."""
        return self.values.get("Note", "")

    @property
    def outline_um(self) -> tuple[Point, ...]:
        """Its points: corners of a polygon or map."""
        return tuple(zip(self.numbers("PtsX"), self.numbers("PtsY"), strict=False))

    @classmethod
    def point(
        cls,
        label: str,
        x_um: float,
        y_um: float,
        z_um: float = 0.0,
        *,
        note: str = "",
        colour: int = 0,
        acquire: bool = False,
        group: int = 0,
    ) -> "NavItem":
        """A new point."""
        values = {
            "Color": str(colour),
            "StageXYZ": f"{x_um:.4f} {y_um:.4f} {z_um:.4f}",
            "NumPts": "1",
            "Regis": "1",
            "Type": str(POINT),
            **({"Note": _one_line(note)} if note else {}),
            **({"Acquire": "1"} if acquire else {}),
            **({"GroupID": str(group)} if group else {}),
            "PtsX": f"{x_um:.4f}",
            "PtsY": f"{y_um:.4f}",
        }
        return cls(_one_line(label).replace("]", ")"), values)


@dataclass(frozen=True, slots=True)
class MapTransform:
    """From the pixels of a map's image file to the stage and back.

    Pixels are (x, y) as the file stores them, y counted from its first row, which for MRC is the bottom one; the centre
    of the first pixel is (0, 0). The map's matrix turns the stage into pixels with y up, as
    SerialEM's camera matrices do.
    """

    stage_um: Point
    to_pixels: tuple[float, float, float, float]
    shape: tuple[int, int]  # (rows, columns)

    @classmethod
    def of(cls, item: NavItem, shape: tuple[int, int] | None = None) -> "MapTransform":
        """The transform of a map item; ``shape`` is that of the image at hand, if it is not the map's own.

        Raises
        ------
        BadFileError
            If the item is no map, or its matrix cannot be used.
        """
        if item.kind != MAP:
            raise BadFileError(f"item {item.label} is no map")
        a, b, c, d = (item.numbers("MapScaleMat", 4) or (0.0,) * 4)[:4]
        width, height = (item.numbers("MapWidthHeight", 2) or (0.0, 0.0))[:2]
        if a * d - b * c == 0 or min(width, height) < 1:
            raise BadFileError(f"map {item.label}: MapScaleMat or MapWidthHeight is missing or of no use")
        rows, columns = shape or (int(height), int(width))
        u, v = columns / width, rows / height
        x, y, _ = item.stage_um
        return cls((x, y), (a * u, b * u, c * v, d * v), (rows, columns))

    def to_stage(self, x: float, y: float) -> Point:
        """Stage position of a pixel of the file."""
        a, b, c, d = self.to_pixels
        rows, columns = self.shape
        u, v = x + 0.5 - columns / 2, y + 0.5 - rows / 2
        det = a * d - b * c
        return (self.stage_um[0] + (d * u - b * v) / det, self.stage_um[1] + (a * v - c * u) / det)

    def to_pixel(self, x_um: float, y_um: float) -> Point:
        """Pixel of the file at a stage position."""
        a, b, c, d = self.to_pixels
        rows, columns = self.shape
        dx, dy = x_um - self.stage_um[0], y_um - self.stage_um[1]
        return (a * dx + b * dy + columns / 2 - 0.5, c * dx + d * dy + rows / 2 - 0.5)


def read_nav(path: Path) -> list[NavItem]:
    """All items of a Navigator file.

    Raises
    ------
    BadFileError
        If it cannot be read, or is none.
    """
    lines = text_lines(path)
    if not any(line.startswith("AdocVersion") for line in lines[:20]):
        is_xml = any(line.lstrip().startswith("<") for line in lines[:3])
        what = "XML, which SerialEM can write too: save it in its plain form" if is_xml else "it has no AdocVersion"
        raise BadFileError(f"{path}: not a Navigator file: {what}")
    items: list[NavItem] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if found := _HEAD.match(text):
            items.append(NavItem(found[1], {}))
        elif "=" in text and not text.startswith("["):
            key, _, value = text.partition("=")
            if items:
                items[-1].values[key.strip()] = value.strip()
        elif text and items and not text.startswith(("[", "#")):
            raise BadFileError(f"{path}: line {number}: {text[:60]!r}: key = value was expected")
    return items


def write_nav(path: Path, items: Iterable[NavItem]) -> None:
    """Write a Navigator file for import; an existing one is replaced as a whole.

    Raises
    ------
    BadFileError
        If it cannot be written.
    """
    lines = [f"AdocVersion = {VERSION}", f"LastSavedAs = {path.name}", ""]
    for item in items:
        lines += [f"[Item = {item.label}]", *(f"{key} = {value}" for key, value in item.values.items()), ""]
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\r\n")
        fresh.replace(path)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be written: {error.strerror or error}") from error


def map_of(items: Iterable[NavItem], image: Path, section: int = 0) -> NavItem:
    """The map item whose image file this is.

    Raises
    ------
    BadFileError
        If there is none.
    """
    maps = [item for item in items if item.kind == MAP]
    for item in maps:
        here = PureWindowsPath(item.values.get("MapFile", "")).name.lower() == image.name.lower()
        if here and int((item.numbers("MapSection") or (0,))[0]) == section:
            return item
    known = ", ".join(sorted({PureWindowsPath(item.values.get("MapFile", "?")).name for item in maps})) or "none"
    raise BadFileError(f"{image.name}, section {section}, is no map of this Navigator file; its maps: {known}")


def text_lines(path: Path) -> list[str]:
    """The lines of a text file of SerialEM, in whatever code page its PC has."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadFileError(f"{path}: larger than {MOST_BYTES >> 20} MiB")
        raw = path.read_bytes()
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if b"\0" in raw[:4096]:
        raise BadFileError(f"{path}: not a text file")
    try:
        return raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace").splitlines()


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
