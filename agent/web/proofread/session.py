"""The micrographs of a running session as a shelf: what its detectors marked, corrected in ``<session>/proofread``."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from agent.core import Core
from agent.journal import naming
from agent.recording.record import pixels
from agent.session import events as ev
from agent.web.live.history import History
from agent.web.proofread.project import Project, Sheet, numbered
from agent.web.proofread.shelf import Entry
from models.gold.sampling import Pixels

FOLDER = "proofread"
UNSIZED_NM = 10.0  # drawn so large where a detector gives no size
MOST_RUNS = 60  # of detectors on one micrograph


class SessionShelf:
    """High-mag frames of the session in ``folder``; sheets name images from their own folder: both may move.

    What several detectors marked on a frame are several entries, ``FRAME@DETECTOR``, and each detector has a folder of
    its own below that of the project: corrections of one must not teach another.
    """

    def __init__(self, core: Core, history: History, folder: Path) -> None:
        self.core = core
        self.history = history
        self.folder = folder
        self.project = Project(folder / FOLDER)
        self.detectors = tuple(core.settings.inference.detectors)

    @property
    def several(self) -> bool:
        """Whether frames have an entry for each detector."""
        return len(self.detectors) > 1

    def entry_of(self, name: str) -> str:
        """The entry of the first detector, where a frame is named alone and there are several."""
        return f"{name}@{self.detectors[0]}" if self.several and "@" not in name else name

    def keep(self, name: str, sheet: Sheet) -> Path:
        """Write the sheet of an entry."""
        return self._project(name.partition("@")[2]).write(sheet)

    def _project(self, detector: str) -> Project:
        return Project(self.project.folder / detector) if self.several else self.project

    async def entries(self) -> Sequence[Entry]:
        """Every hole with a micrograph, in the order of the grid."""
        kinds = self.detectors if self.several else ("",)
        corrected = {kind: await asyncio.to_thread(_sheets, self._project(kind)) for kind in kinds}
        holes = (
            hole
            for grid in self.core.state.grids.values()
            for square in grid.squares.values()
            for hole in square.holes.values()
            if hole.frame_id
        )
        return [
            Entry(
                name=f"{hole.frame_id}@{kind}" if kind else hole.frame_id,
                place=hole.area_id,
                found=", ".join(
                    f"{count} {group}"
                    for group, count in sorted(hole.detected.items(), key=_natural)
                    if not kind or group.startswith(f"{kind} ")
                ),
                corrected=hole.frame_id.replace(":", "%3A") in corrected[kind],
            )
            for hole in holes
            for kind in kinds
        ]

    async def sheet(self, name: str) -> Sheet | None:
        """What a person left of an entry, else what the last run of its detector found.

        The revision of marks that nobody corrected is the number of runs they are from: who still has the marks of
        before a run cannot save over it.
        """
        frame_id, at, wanted = name.partition("@")
        received = await self.history.frame(frame_id)
        if bool(at) != self.several or (at and wanted not in self.detectors):
            return None
        if received is None or received.frame.level != "high":
            return None
        file = Path("../.." if self.several else "..") / received.file
        kept = await asyncio.to_thread(self._project(wanted).read, file)
        if kept is not None:
            return kept
        path, said = self.core.journal.path, f'"{frame_id}"'
        rows = await asyncio.to_thread(naming, path, said, ("objects_detected",), MOST_RUNS)
        events = (ev.decode_event(row.body) for row in rows)
        runs = [
            event
            for event in events
            if isinstance(event, ev.ObjectsDetected)
            and event.frame_id == frame_id
            and (not wanted or event.detector == wanted)
        ]
        last = {run.detector: run for run in runs}
        found = [(run.detector, thing) for run in last.values() for thing in run.objects]
        return Sheet(
            image=str(file),
            shape=received.frame.shape,
            pixel_nm=received.frame.pixel_size_angstrom / 10,
            marks=numbered(
                (o.x, o.y, o.diameter_nm or UNSIZED_NM, o.group or detector, o.score) for detector, o in found
            ),
            revision=len(runs),
            structure="vesicles" if wanted == "vesicles" or set(last) == {"vesicles"} else "gold",
        )

    async def image(self, name: str) -> Pixels:
        """Pixels of a micrograph, checked against the journal.

        Raises
        ------
        BadFileError
            If its file is missing or damaged.
        """
        received = await self.history.frame(name.partition("@")[0])
        assert received is not None  # it has a sheet  # noqa: S101
        return await asyncio.to_thread(pixels, self.folder, received)


def _sheets(project: Project) -> set[str]:
    return {file.stem for file in project.folder.glob("*.json")}


def _natural(item: tuple[str, int]) -> tuple[str | int, ...]:
    # 6 nm before 12 nm
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", item[0]))
