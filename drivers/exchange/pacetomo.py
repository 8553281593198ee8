"""Holes rich in what a detector looks for, as targets of PACEtomo tilt series: lists that grow while a session runs.

PACEtomo (Eisenstein et al., Nat Methods 20, 131, 2023; github.com/eisfabian/PACEtomo) takes tilt series at many targets
in parallel by beam-image shift from one stage position. It reads a text file ``<name>_tgts.txt`` with a block of
``key = value`` lines for each target, begun by ``_tgt = 001``: ``tsfile`` is where the tilt series goes, ``stageX`` and
``stageY`` are its place in micrometres (image shifts follow from them with SerialEM's own calibration, as neither
``SSX`` nor ``SSY`` is given), ``skip`` leaves one out. The first target is the one that is tracked. In the Navigator
only that one has Acquire, and its note is the name of the file. Targets further away than SerialEM's limit of image
shift, 15 µm unless a site changed it, are skipped by PACEtomo, so none is written.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent import geometry
from agent.errors import BadFileError, CryonautError
from agent.recording.record import Record
from agent.session import events as ev
from agent.session.state import Hole
from drivers.serialem.navfile import NavItem, write_nav

REACH_UM = 12.0  # of image shift; what remains to 15 is PACEtomo's for alignment and tilting
GREEN = 1
_SUFFIX = "_tgts.txt"


@dataclass(frozen=True, slots=True)
class Series:
    """One tilt series: the hole it is for, where it is centred on the stage, and how much was seen there."""

    hole_id: str
    x_um: float
    y_um: float
    count: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Tilt series that are taken in parallel from one stage position; the first is tracked."""

    name: str
    z_um: float
    series: tuple[Series, ...]

    @property
    def file(self) -> str:
        """Name of its target file."""
        return f"{self.name}{_SUFFIX}"

    def text(self) -> str:
        """The target file."""
        blocks = []
        for number, one in enumerate(self.series, start=1):
            blocks.append(
                f"_tgt = {number:03d}\ntsfile = {self.name}_ts_{number:03d}.mrc\n"
                f"stageX = {one.x_um:.4f}\nstageY = {one.y_um:.4f}\nskip = False\n"
            )
        return "\n".join(blocks) + "\n"

    def points(self) -> list[NavItem]:
        """Its points for the Navigator; only the first has Acquire, and its note names the target file."""
        found = []
        for number, one in enumerate(self.series, start=1):
            note = self.file if number == 1 else f"{self.name} {number:03d}: {one.hole_id}, {one.count} seen"
            label = f"{self.name[-12:]}-{number:03d}"
            found.append(
                NavItem.point(label, one.x_um, one.y_um, self.z_um, note=note, colour=GREEN, acquire=number == 1)
            )
        return found


def export(record: Record, folder: Path, what: str, at_least: int, reach_um: float = REACH_UM) -> list[Batch]:
    """Write target files for the rich holes that have none in ``folder`` yet, and a Navigator file of their points.

    Called again while the session runs, only what is new is written: a file that is there may be one that PACEtomo is
    working from, and is never touched. The Navigator file is ``pacetomo-01.nav``, next time ``pacetomo-02.nav``.

    Parameters
    ----------
    record
        The session; it may be running.
    folder
        Where the files go: the folder that PACEtomo works in.
    what
        Detector and group, such as ``vesicles under 65 nm``.
    at_least
        Fewest of them on the micrograph of a hole.
    reach_um
        Largest image shift from the tracked target.

    Raises
    ------
    CryonautError
        When no detector of the session ever counted ``what``.
    BadFileError
        When a file cannot be written.
    """
    counted = {name for hole in _holes(record) for name in hole.detected}
    if what not in counted:
        there = ", ".join(sorted(counted)) or "nothing (inference.detectors names none)"
        raise CryonautError(f"no micrograph of {record.folder} has a count of {what!r}; counted were: {there}")
    known = _known(folder)
    wanted = [one for one in rich(record, what, at_least) if one.hole_id not in known]
    made = batches(record, wanted, reach_um, taken={p.name.removesuffix(_SUFFIX) for p in folder.glob(f"*{_SUFFIX}")})
    if not made:
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for batch in made:
            _new(folder / batch.file, batch.text())
        _new(folder / "pacetomo.csv", _listed(folder, made))
    except OSError as error:
        raise BadFileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    number = 1 + max((int(p.stem.split("-")[-1]) for p in folder.glob("pacetomo-[0-9][0-9].nav")), default=0)
    write_nav(folder / f"pacetomo-{number:02d}.nav", [point for batch in made for point in batch.points()])
    return made


def rich(record: Record, what: str, at_least: int) -> list[Series]:
    """Holes with at least so many of ``what``, the richest first, centred on the middle of what was found there."""
    middles = _middles(record, what)
    found = []
    for hole in _holes(record):
        count = hole.detected.get(what, 0)
        if count >= at_least and hole.word != "rejected":
            x, y = middles.get(hole.area_id, (hole.x_um, hole.y_um))
            found.append(Series(hole.area_id, x, y, count))
    return sorted(found, key=lambda one: (-one.count, one.hole_id))


def batches(record: Record, wanted: Sequence[Series], reach_um: float, taken: Iterable[str] = ()) -> list[Batch]:
    """The tilt series in batches: the richest hole that is left, and all of its square within ``reach_um`` of it."""
    left, made = list(wanted), []
    names = set(taken)
    while left:
        first = left[0]
        square = first.hole_id.rpartition("-H")[0]
        mine = [
            one for one in left
            if one.hole_id.rpartition("-H")[0] == square
            and math.hypot(one.x_um - first.x_um, one.y_um - first.y_um) <= reach_um
        ]  # fmt: skip
        left = [one for one in left if one not in mine]
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", first.hole_id)
        name, number = base, 1
        while name in names:
            number += 1
            name = f"{base}_{number}"
        names.add(name)
        made.append(Batch(name, _z_um(record, first.hole_id), tuple(mine)))
    return made


def _holes(record: Record) -> Iterable[Hole]:
    for grid in record.state.grids.values():
        for square in grid.squares.values():
            yield from square.holes.values()


def _middles(record: Record, what: str) -> dict[str, tuple[float, float]]:
    """Median place on the stage of the objects of ``what``, by hole."""
    detector, _, group = what.partition(" ")
    found: dict[str, tuple[float, float]] = {}
    for happened in record.happened:
        event = happened.event
        if not isinstance(event, ev.ObjectsDetected) or event.detector != detector:
            continue
        received = record.frames.get(event.frame_id)
        mine = [(o.x, o.y) for o in event.objects if o.group == group]
        if received is None or not mine:
            continue
        x, y = np.median(np.array(mine), axis=0)
        found[event.area_id] = geometry.pixel_to_stage(received.frame, float(x), float(y))
    return found


def _z_um(record: Record, hole_id: str) -> float:
    """Height at which the hole was seen."""
    hole = record.state.hole(hole_id)
    received = record.frames.get(hole.frame_id) if hole is not None else None
    return received.frame.stage.z_um if received is not None else 0.0


def _known(folder: Path) -> set[str]:
    """Holes that have a target already."""
    file = folder / "pacetomo.csv"
    if not file.exists():
        return set()
    return {line.split(",")[0] for line in file.read_text(encoding="utf-8").splitlines()[1:]}


def _listed(folder: Path, made: Sequence[Batch]) -> str:
    """The list of all targets, with the new ones."""
    file = folder / "pacetomo.csv"
    before = file.read_text(encoding="utf-8") if file.exists() else "hole,file,target,x_um,y_um,seen\n"
    rows = [
        f"{one.hole_id},{batch.file},{number},{one.x_um:.4f},{one.y_um:.4f},{one.count}\n"
        for batch in made
        for number, one in enumerate(batch.series, start=1)
    ]
    return before + "".join(rows)


def _new(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
