"""One annotation project at work: strokes and labels with their way back, and the revisions that a page asks by."""

import secrets
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.web.annotate.ink import covered, plane_of
from agent.web.annotate.project import AnnotationProjectError, Bytes, Facts, mapped, read_facts, write_facts
from models.organelles.annotation import BACKGROUND, STRUCTURE, Keep

MOST_HISTORY = 1 << 26  # bytes of steps that can be undone
KINDS = {"erase": 0, "structure": STRUCTURE, "background": BACKGROUND}


class Stroke(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stroke on one plane: axis 0, 1, 2 is z, y, x; points are (column, row) of it, the radius is in voxels."""

    axis: int
    index: int
    kind: str
    radius: float
    points: tuple[tuple[float, float], ...]


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person chose for the next cut."""

    structure: str = ""
    keep: Keep = "all"
    boundary_weight: float


@dataclass(frozen=True, slots=True)
class _Ink:
    """A stroke that was made: the voxels that changed, from what to what."""

    voxels: NDArray[np.int64]
    before: Bytes
    after: Bytes

    @property
    def bytes(self) -> int:
        return int(self.voxels.nbytes + self.before.nbytes + self.after.nbytes)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Labels that took the place of others, packed."""

    before: bytes
    after: bytes

    @property
    def bytes(self) -> int:
        return len(self.before) + len(self.after)


class Board:
    """A project that is open; every method may be called from any thread.

    Parameters
    ----------
    folder
        The project.

    Raises
    ------
    AnnotationProjectError
        When it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: Facts = read_facts(folder)
        self.shape = self.facts.shape
        if not (folder / "grey.npy").exists():
            raise AnnotationProjectError(
                f"{folder}: has no grey.npy: `cryonaut annotate VOLUME --project` makes it anew"
            )
        self.grey = mapped(folder, "grey", self.shape)
        self.strokes = mapped(folder, "strokes", self.shape)
        self.labels = mapped(folder, "labels", self.shape)
        self.painted = {
            value: sum(int(np.count_nonzero(plane == value)) for plane in self.strokes)
            for value in (STRUCTURE, BACKGROUND)
        }
        self.labelled = int(np.count_nonzero(self.labels))
        self.ink_revision = self.label_revision = 0
        self.key = secrets.token_hex(6)  # revisions of another run are others
        self.unsaved = False
        self._done: list[_Ink | _Cut] = []
        self._undone: list[_Ink | _Cut] = []
        self._lock = threading.Lock()

    @property
    def undoable(self) -> tuple[int, int]:
        """Steps that can be undone, and done again."""
        return len(self._done), len(self._undone)

    def paint(self, stroke: Stroke) -> None:
        """Paint a stroke, or erase with it.

        Raises
        ------
        AnnotationProjectError
            When it lies on no plane of the box.
        """
        if stroke.kind not in KINDS or stroke.axis not in (0, 1, 2) or not stroke.points:
            raise AnnotationProjectError(f"stroke of {stroke.kind!r} along axis {stroke.axis}: no such brush or plane")
        if not 0 <= stroke.index < self.shape[stroke.axis] or not 0 <= stroke.radius <= 200:
            raise AnnotationProjectError(
                f"stroke of radius {stroke.radius:g} on plane {stroke.index}: the box has {self.shape[stroke.axis]}"
            )
        points = np.asarray(stroke.points, np.float64)
        plane = plane_of(self.strokes, stroke.axis, stroke.index)
        points = np.clip(points, -300.0, np.array(plane.shape[::-1]) + 300.0)
        rows, columns, mask = covered(points, stroke.radius, (plane.shape[0], plane.shape[1]))
        with self._lock:
            now = plane[rows, columns]
            value = KINDS[stroke.kind]
            at = np.argwhere(mask & (now != value)) + np.array([rows.start, columns.start])
            if not len(at):
                return
            where = np.insert(at, stroke.axis, stroke.index, axis=1)
            voxels = np.ravel_multi_index(tuple(where.T), self.shape)
            step = _Ink(voxels, self.strokes.ravel()[voxels], np.full(len(voxels), value, np.uint8))
            self._play(step, forward=True)
            self._remember(step)

    def take(self, labels: Bytes) -> None:
        """Put new labels in the place of the old ones.

        Raises
        ------
        AnnotationProjectError
            When they have another shape.
        """
        if labels.shape != self.shape:
            raise AnnotationProjectError(f"labels of {labels.shape}; the box has {self.shape}")
        with self._lock:
            step = _Cut(_packed(self.labels), _packed(labels))
            self._play(step, forward=True)
            self._remember(step)

    def undo(self) -> None:
        """Take the last step back."""
        with self._lock:
            if self._done:
                step = self._done.pop()
                self._play(step, forward=False)
                self._undone.append(step)

    def redo(self) -> None:
        """Do again what was taken back last."""
        with self._lock:
            if self._undone:
                step = self._undone.pop()
                self._play(step, forward=True)
                self._done.append(step)

    def choose(self, choice: Choice) -> None:
        """Keep what a person chose.

        Raises
        ------
        AnnotationProjectError
            When it makes no sense.
        """
        known = self.facts.settings.structures
        if choice.structure and choice.structure not in known:
            raise AnnotationProjectError(f"structure {choice.structure!r}: known are {', '.join(sorted(known))}")
        if not 0 <= choice.boundary_weight <= 1e4:
            raise AnnotationProjectError(f"boundary weight {choice.boundary_weight:g}: expected 0 to 10 000")
        cut = msgspec.structs.replace(self.facts.settings.cut, boundary_weight=choice.boundary_weight)
        settings = msgspec.structs.replace(self.facts.settings, cut=cut)
        facts = msgspec.structs.replace(self.facts, settings=settings, structure=choice.structure, keep=choice.keep)
        with self._lock:
            if facts != self.facts:
                write_facts(self.folder, facts)
                self.facts = facts

    def saved(self) -> None:
        """Labels are in their file now."""
        self.unsaved = False

    def _remember(self, step: _Ink | _Cut) -> None:
        self._done.append(step)
        self._undone.clear()
        size = sum(one.bytes for one in self._done)
        while size > MOST_HISTORY and len(self._done) > 1:
            size -= self._done.pop(0).bytes

    def _play(self, step: _Ink | _Cut, *, forward: bool) -> None:
        if isinstance(step, _Ink):
            old, new = (step.before, step.after) if forward else (step.after, step.before)
            self.strokes.reshape(-1)[step.voxels] = new
            for value in self.painted:
                self.painted[value] += int((new == value).sum()) - int((old == value).sum())
            self.ink_revision += 1
            return
        mask = _unpacked(step.after if forward else step.before, self.shape)
        self.labels[...] = mask
        self.labelled = int(np.count_nonzero(mask))
        self.label_revision += 1
        self.unsaved = True


def _packed(labels: Bytes) -> bytes:
    return zlib.compress(np.packbits(labels > 0).tobytes(), 1)


def _unpacked(packed: bytes, shape: tuple[int, int, int]) -> Bytes:
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)
