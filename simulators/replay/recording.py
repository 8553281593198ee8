"""The frames of a recorded session by grid, level and place; read-only, nothing in the folder is changed."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent import frames, geometry, recording
from agent.errors import BadFileError
from agent.messages import Frame
from agent.session import events as ev

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One frame of a recording.

    Parameters
    ----------
    header
        What the driver said of it.
    file
        Its pixels, relative to the session folder.
    grid_id, area_id
        What it shows, as the session understood it.
    """

    header: Frame
    file: str
    grid_id: str
    area_id: str

    @property
    def centre_um(self) -> Point:
        """Stage coordinates of its centre: stage position plus image shift."""
        return geometry.centre_um(self.header)

    @property
    def half_um(self) -> float:
        """Half of its shorter side on the stage."""
        return 0.5 * min(self.header.shape) * geometry.micron_per_pixel(self.header)


class Recording:
    """A session folder (journal.sqlite and frames/) to look things up in.

    Parameters
    ----------
    folder
        The session folder.
    found
        Its frames, in the order in which they were recorded.
    grids
        Grid id to autoloader slot; None where it was on the stage already.
    """

    def __init__(self, folder: Path, found: Iterable[RecordedFrame], grids: dict[str, int | None]) -> None:
        self.folder = folder
        self.frames = tuple(found)
        self.grids = grids
        self._by: dict[tuple[str, str], list[RecordedFrame]] = {}
        for frame in self.frames:
            self._by.setdefault((frame.grid_id, frame.header.level), []).append(frame)
        self._digests = {frame.file: frame.header.digest for frame in self.frames}
        self._centres = {key: np.array([frame.centre_um for frame in group]) for key, group in self._by.items()}

    @classmethod
    def open(cls, folder: Path) -> "Recording":
        """Read the journal of a session folder; also one whose session still runs, or did not end well.

        Raises
        ------
        JournalError
            If the folder holds no journal.
        BadFileError
            If the journal knows no frame.
        """
        read = recording.read(folder)
        opened = next((h.event for h in read.happened if isinstance(h.event, ev.SessionOpened)), None)
        found = [RecordedFrame(e.frame, e.file, e.grid_id or "G1", e.area_id) for e in read.frames.values()]
        if not found:
            why = f": {read.unreadable}" if read.unreadable else ""
            raise BadFileError(f"{folder}: a session without a single recorded frame{why}")
        grids: dict[str, int | None] = dict(opened.grids) if opened else {}
        return cls(folder, found, {**grids, **{f.grid_id: None for f in found if f.grid_id not in grids}})

    @property
    def slots(self) -> dict[int, str]:
        """Autoloader slot to grid id, as it was; grids that were on the stage already take the free slots."""
        taken = {slot: grid_id for grid_id, slot in self.grids.items() if slot is not None}
        free = (slot for slot in range(1, 101) if slot not in taken)
        return taken | {next(free): grid_id for grid_id, slot in self.grids.items() if slot is None}

    def of(self, grid_id: str, level: str) -> list[RecordedFrame]:
        """Frames of one grid and level, in the order in which they were recorded."""
        return self._by.get((grid_id, level), [])

    def near(self, grid_id: str, level: str, x_um: float, y_um: float) -> list[tuple[float, RecordedFrame]]:
        """Distance in micrometres and frame, the nearest first; of equal ones the one recorded first."""
        group = self.of(grid_id, level)
        if not group:
            return []
        away = np.hypot(*(self._centres[grid_id, level] - (x_um, y_um)).T)
        return [(float(away[i]), group[i]) for i in np.argsort(away.round(4), kind="stable")]

    def common(self, level: str) -> RecordedFrame | None:
        """A frame of the size and scale that most frames of a level have; None where none was recorded."""
        kinds: Counter[tuple[float, tuple[int, int]]] = Counter()
        first: dict[tuple[float, tuple[int, int]], RecordedFrame] = {}
        for frame in self.frames:
            if frame.header.level == level:
                kind = (frame.header.pixel_size_angstrom, frame.header.shape)
                kinds[kind] += 1
                first.setdefault(kind, frame)
        return first[kinds.most_common(1)[0][0]] if kinds else None

    def reach_um(self, grid_id: str, level: str) -> float:
        """Radius about the origin of the stage that the frames of a grid and level cover; 0 for none."""
        return max((math.hypot(*f.centre_um) + f.half_um for f in self.of(grid_id, level)), default=0.0)

    def pixels(self, file: str) -> NDArray[Any]:
        """The pixels of a frame, shape (rows, columns).

        Raises
        ------
        BadFileError
            If the file is gone or damaged, or is not the one that was recorded.
        """
        return frames.load(self.folder, file, self._digests.get(file))
