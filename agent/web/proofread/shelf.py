"""Where images to be proofread come from: one file of a command, or the micrographs of a session."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from agent.web.proofread.project import Project, Sheet
from models.gold.sampling import Pixels


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a shelf: its name in addresses, where it belongs, what was found on it, and who corrected it."""

    name: str
    place: str = ""
    found: str = ""
    corrected: bool = False


class Shelf(Protocol):
    """Images by name, with the marks that each has before anybody corrected it."""

    @property
    def project(self) -> Project:
        """Where corrected sheets are kept."""
        ...

    def entry_of(self, name: str) -> str:
        """Name of the entry that ``name`` leads to: an image may have several, such as one for each detector."""
        ...

    def keep(self, name: str, sheet: Sheet) -> Path:
        """Write the sheet of an entry; returns its file. A `ProjectError` where it cannot be written."""
        ...

    async def entries(self) -> Sequence[Entry]:
        """What there is."""
        ...

    async def sheet(self, name: str) -> Sheet | None:
        """The marks of an image, a person's where there are any; None where there is no such image."""
        ...

    async def image(self, name: str) -> Pixels:
        """Pixels of an image or volume, of its sheet's shape; a `CryonautError` where they cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class OneImage:
    """The shelf of ``cryonaut proofread``: a single image or volume."""

    name: str
    pixels: Pixels
    first: Sheet
    project: Project

    def entry_of(self, name: str) -> str:
        """The name itself."""
        return name

    def keep(self, name: str, sheet: Sheet) -> Path:
        """Write its sheet."""
        return self.project.write(sheet)

    async def entries(self) -> Sequence[Entry]:
        """The one image."""
        return (Entry(name=self.name),)

    async def sheet(self, name: str) -> Sheet | None:
        """Its marks as they were when the command began."""
        return self.first if name == self.name else None

    async def image(self, name: str) -> Pixels:
        """Its pixels."""
        return self.pixels
