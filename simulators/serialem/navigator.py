"""The Navigator: its items, and .nav files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from simulators.serialem.buffers import ImageBuffer
from simulators.serialem.commands import ScriptError

POINT, POLYGON, MAP = 0, 1, 2
KNOWN = {"Color", "StageXYZ", "NumPts", "Regis", "Type", "PtsX", "PtsY", "Note", "Acquire", "GroupID", "MapFile"}
KNOWN |= {"MapSection", "MapID", "HoleArray", "SkipHoles"}


@dataclass(slots=True)
class NavItem:
    """One item; ``extra`` holds what this simulator keeps in the file and does not use."""

    label: str
    x_um: float
    y_um: float
    z_um: float
    kind: int = POINT
    color: int = 0
    note: str = ""
    acquire: bool = False
    group: int = 0
    registration: int = 1
    xs_um: tuple[float, ...] = ()
    ys_um: tuple[float, ...] = ()
    map_file: str = ""
    map_section: int = 0
    map_id: int = 0
    holes: tuple[int, int] | None = None  # columns and rows of the pattern that a combined item stands for
    skipped: tuple[tuple[int, int], ...] = ()  # (column, row) from 0
    extra: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The item as it stands in a .nav file."""
        xs, ys = self.xs_um or (self.x_um,), self.ys_um or (self.y_um,)
        values = {
            "Color": str(self.color),
            "StageXYZ": f"{self.x_um:.4f} {self.y_um:.4f} {self.z_um:.4f}",
            "NumPts": str(len(xs)),
            "Regis": str(self.registration),
            "Type": str(self.kind),
            "Note": self.note,
            "Acquire": str(int(self.acquire)),
            "GroupID": str(self.group) if self.group else "",
            "MapFile": self.map_file,
            "MapSection": str(self.map_section) if self.kind == MAP else "",
            "MapID": str(self.map_id) if self.map_id else "",
            "HoleArray": f"{self.holes[0]} {self.holes[1]}" if self.holes else "",
            "SkipHoles": " ".join(f"{i + 1} {j + 1}" for i, j in self.skipped),
            **self.extra,
            "PtsX": " ".join(f"{x:.4f}" for x in xs),
            "PtsY": " ".join(f"{y:.4f}" for y in ys),
        }
        if not self.acquire:
            values.pop("Acquire")
        return [f"[Item = {self.label}]", *(f"{key} = {value}" for key, value in values.items() if value), ""]

    @classmethod
    def of(cls, label: str, values: dict[str, str]) -> NavItem:
        """An item from the lines of a .nav file."""
        x, y, z = ([float(v) for v in values.get("StageXYZ", "0 0 0").split()] + [0.0, 0.0, 0.0])[:3]
        return cls(
            label,
            x,
            y,
            z,
            int(values.get("Type", 0)),
            int(values.get("Color", 0)),
            values.get("Note", ""),
            values.get("Acquire", "0").strip() not in ("", "0"),
            int(values.get("GroupID", 0)),
            int(values.get("Regis", 1)),
            tuple(float(v) for v in values.get("PtsX", "").split()),
            tuple(float(v) for v in values.get("PtsY", "").split()),
            values.get("MapFile", ""),
            int(values.get("MapSection", 0)),
            int(values.get("MapID", 0)),
            _pair(values.get("HoleArray", "")),
            tuple((i - 1, j - 1) for i, j in _pairs(values.get("SkipHoles", ""))),
            {key: value for key, value in values.items() if key not in KNOWN},
        )


def _pairs(text: str) -> list[tuple[int, int]]:
    numbers = [int(word) for word in text.split()]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _pair(text: str) -> tuple[int, int] | None:
    return next(iter(_pairs(text)), None)


def read(path: Path) -> list[NavItem]:
    """The items of a .nav file; `ScriptError` when it is none."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise ScriptError(f"Error opening Navigator file {path.name}: {error.strerror}") from error
    if "AdocVersion" not in text:
        raise ScriptError(f"{path.name} is not a Navigator file: it has no AdocVersion")
    items: list[tuple[str, dict[str, str]]] = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if key == "[Item":
            items.append((value.rstrip("]").strip(), {}))
        elif key and items and not key.startswith("["):
            items[-1][1][key] = value
    try:
        return [NavItem.of(label, values) for label, values in items]
    except ValueError as error:
        raise ScriptError(f"{path.name}: {error}") from error


class Navigator:
    """The open Navigator; indices count from 1, negative ones from the end."""

    def __init__(self) -> None:
        self.open = True
        self.file = ""
        self.items: list[NavItem] = []
        self.selected = 0
        self.acquiring = False
        self.acquire_at_end = False
        self.primary = 0  # what Acquire at Items does: 4 is multiple Records
        self.map_images: dict[int, ImageBuffer] = {}
        self.before_combining: list[NavItem] = []
        self._labels = 0
        self._ids = 1000

    def need_open(self) -> None:
        """Refuse what needs an open Navigator."""
        if not self.open:
            raise ScriptError("The Navigator must be open to execute this command")

    def index(self, given: int) -> int:
        """Index from 1 of an item; 0 is the selected one.

        Raises
        ------
        ScriptError
            If there is no such item.
        """
        self.need_open()
        index = given or self.selected
        if index < 0:
            index += len(self.items) + 1
        if not 1 <= index <= len(self.items):
            raise ScriptError(f"Index {given} is out of range for a Navigator table of {len(self.items)} items")
        return index

    def item(self, given: int) -> NavItem:
        """An item by its index."""
        return self.items[self.index(given) - 1]

    def unique_id(self) -> int:
        """An id that no item has."""
        self._ids += 1
        while any(self._ids in (item.group, item.map_id) for item in self.items):
            self._ids += 1
        return self._ids

    def next_label(self) -> str:
        """The label of the next new item."""
        self._labels += 1
        return str(self._labels)

    def add(self, item: NavItem) -> int:
        """Append an item and return its index."""
        self.need_open()
        self.items.append(item)
        self.selected = len(self.items)
        return self.selected

    def write(self, path: Path, name: str) -> None:
        """Save all items."""
        lines = ["AdocVersion = 2.00", f"LastSavedAs = {name}", ""]
        for item in self.items:
            lines += item.lines()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", "utf-8", newline="\r\n")
        self.file = name
