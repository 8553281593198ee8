"""SerialEM's .mdoc files: what it noted of each image of a stack.

The package mdocfile reads them, too, and the tests hold this module against it. It is not used here because it needs
pandas, which the microscope PC should not have to carry, leaves out the ``[Image = …]`` sections of image series, and
names no line of a damaged file.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from agent.errors import BadFileError
from agent.messages import Stage
from drivers.serialem.navfile import text_lines

_SECTION = re.compile(r"^\[\s*(\w+)\s*=\s*(.*?)\s*\]$")
KINDS = ("ZValue", "FrameSet", "Image", "MontSection")


@dataclass(frozen=True, slots=True)
class Entry:
    """One section of an .mdoc file; what the file does not say is None."""

    kind: str
    name: str
    values: dict[str, str] = field(default_factory=dict)

    def number(self, key: str, place: int = 0) -> float | None:
        """A number of a line; None where the line, or a number at that place, is absent."""
        words = self.values.get(key, "").split()
        try:
            return float(words[place])
        except (IndexError, ValueError):
            return None

    @property
    def section(self) -> int | None:
        """Number of the image in its stack."""
        return int(self.name) if self.name.isdigit() else None

    @property
    def stage(self) -> Stage | None:
        """Stage position of the image."""
        x, y = self.number("StagePosition"), self.number("StagePosition", 1)
        if x is None or y is None:
            return None
        return Stage(x_um=x, y_um=y, z_um=self.number("StageZ") or 0.0, tilt_deg=self.number("TiltAngle") or 0.0)

    @property
    def pixel_size_angstrom(self) -> float | None:
        """Pixel size."""
        return self.number("PixelSpacing")

    @property
    def underfocus_um(self) -> float | None:
        """Underfocus; SerialEM writes it as a negative defocus."""
        defocus = self.number("TargetDefocus")
        return None if defocus is None else -defocus

    @property
    def dose_e_per_a2(self) -> float | None:
        """Dose; SerialEM writes 0 where it does not know it."""
        return self.number("ExposureDose") or None

    @property
    def frame_file(self) -> str:
        """Name of the file of its movie frames, without folders."""
        return PureWindowsPath(self.values.get("SubFramePath", "")).name


@dataclass(frozen=True, slots=True)
class Mdoc:
    """A whole file: what holds for all images, titles, and the entries in their order."""

    path: Path
    head: dict[str, str]
    titles: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def image_file(self) -> Path:
        """The stack that it describes, beside it."""
        named = PureWindowsPath(self.head.get("ImageFile", "")).name
        return self.path.with_name(named or self.path.name.removesuffix(".mdoc"))


def read_mdoc(path: Path) -> Mdoc:
    """Read an .mdoc file.

    Raises
    ------
    BadFileError
        If it cannot be read, or holds something else.
    """
    head: dict[str, str] = {}
    titles: list[str] = []
    entries: list[Entry] = []
    for number, line in enumerate(text_lines(path), 1):
        text = line.strip()
        if found := _SECTION.match(text):
            if found[1] == "T":
                titles.append(" ".join(found[2].split()))
            else:
                entries.append(Entry(found[1], found[2], {}))
        elif text and "=" in text:
            key, _, value = text.partition("=")
            (entries[-1].values if entries else head)[key.strip()] = value.strip()
        elif text and not text.startswith("#"):
            raise BadFileError(f"{path}: line {number}: {text[:60]!r}: key = value was expected")
    if not any(entry.kind in KINDS for entry in entries) and "ImageFile" not in head:
        raise BadFileError(f"{path}: no .mdoc file: it has neither ImageFile nor a section such as [ZValue = 0]")
    return Mdoc(path, head, tuple(titles), tuple(entries))
