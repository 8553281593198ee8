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
    """High-mag frames of the session in ``folder``; sheets name images from their own folder: both may move."""

    def __init__(self, core: Core, history: History, folder: Path) -> None:
        self.core = core
        self.history = history
        self.folder = folder
        self.project = Project(folder / FOLDER)

    async def entries(self) -> Sequence[Entry]:
        """Every hole with a micrograph, in the order of the grid."""
        corrected = await asyncio.to_thread(lambda: {file.stem for file in self.project.folder.glob("*.json")})
        holes = (
            hole
            for grid in self.core.state.grids.values()
            for square in grid.squares.values()
            for hole in square.holes.values()
            if hole.frame_id
        )
        return [
            Entry(
                name=hole.frame_id,
                place=hole.area_id,
                found=", ".join(f"{count} {group}" for group, count in sorted(hole.detected.items(), key=_natural)),
                corrected=hole.frame_id.replace(":", "%3A") in corrected,
            )
            for hole in holes
        ]

    async def sheet(self, name: str) -> Sheet | None:
        """What a person left of a micrograph, else what the last run of each detector found.

        The revision of marks that nobody corrected is the number of runs they are from: who still has the marks of
        before a run cannot save over it.
        """
        received = await self.history.frame(name)
        if received is None or received.frame.level != "high":
            return None
        file = Path("..") / received.file
        kept = await asyncio.to_thread(self.project.read, file)
        if kept is not None:
            return kept
        path, said = self.core.journal.path, f'"{name}"'
        rows = await asyncio.to_thread(naming, path, said, ("objects_detected",), MOST_RUNS)
        runs = [run for row in rows if isinstance(run := ev.decode_event(row.body), ev.ObjectsDetected)]
        last = {run.detector: run for run in runs if run.frame_id == name}
        found = [(run.detector, thing) for run in last.values() for thing in run.objects]
        return Sheet(
            image=str(file),
            shape=received.frame.shape,
            pixel_nm=received.frame.pixel_size_angstrom / 10,
            marks=numbered(
                (o.x, o.y, o.diameter_nm or UNSIZED_NM, o.group or detector, o.score) for detector, o in found
            ),
            revision=len(runs),
            structure="vesicles" if set(last) == {"vesicles"} else "gold",
        )

    async def image(self, name: str) -> Pixels:
        """Pixels of a micrograph, checked against the journal.

        Raises
        ------
        BadFileError
            If its file is missing or damaged.
        """
        received = await self.history.frame(name)
        assert received is not None  # it has a sheet  # noqa: S101
        return await asyncio.to_thread(pixels, self.folder, received)


def _natural(item: tuple[str, int]) -> tuple[str | int, ...]:
    # 6 nm before 12 nm
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", item[0]))
