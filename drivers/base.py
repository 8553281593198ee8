"""What an adapter has to bring: a few hooks for its microscope software; `drivers.shell` brings everything else."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.messages import AnyWork, ErrorKind, Frame, Level, ScopeState, Stage, Targets

Image = NDArray[Any]  # shape (rows, columns)


class WorkError(Exception):
    """A piece of work that failed; the error policy of the session decides what follows.

    Parameters
    ----------
    kind
        Which row of the policy applies.
    message
        Value, limit and way out, in words for the operator.
    dose_e_per_a2
        Dose that the area had before it failed; None when nobody can say.
    """

    def __init__(self, kind: ErrorKind, message: str, dose_e_per_a2: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.dose_e_per_a2 = dose_e_per_a2


class CancelledWork(Exception):  # noqa: N818 - a cancel is not an error
    """The command was cancelled and its work ended early.

    It means that no dose was given unless an image was handed in: once an exposure has begun, hand its image in or
    raise `WorkError` with the dose, else the hole could be exposed again.
    """


class Shot:
    """One image and what the microscope said when it was taken; the shell makes the `Frame` of it."""

    def __init__(
        self,
        image: Image,
        *,
        level: Level,
        pixel_size_angstrom: float,
        stage: Stage,
        image_shift_um: tuple[float, float] = (0.0, 0.0),
        image_to_stage: tuple[float, float, float, float] | None = None,
        defocus_um: float | None = None,
        dose_e_per_a2: float | None = None,
        exposure_s: float | None = None,
        nominal: bool = False,
        pixel_size_known: bool = True,
        foreign_ids: Mapping[str, int] | None = None,
        voltage_kv: float | None = None,
        cs_mm: float | None = None,
        open_beam_counts: float | None = None,
    ) -> None:
        self.image = np.ascontiguousarray(image)
        self.level = level
        self.pixel_size_angstrom = pixel_size_angstrom
        self.stage = stage
        self.image_shift_um = image_shift_um
        self.image_to_stage = image_to_stage
        self.defocus_um = defocus_um
        self.dose_e_per_a2 = dose_e_per_a2
        self.exposure_s = exposure_s
        self.nominal = nominal  # its position is a layout of the driver's
        self.pixel_size_known = pixel_size_known
        self.foreign_ids = dict(foreign_ids or {})  # what the microscope software calls it
        self.voltage_kv = voltage_kv
        self.cs_mm = cs_mm
        self.open_beam_counts = open_beam_counts


class Desk:
    """What a hook gets to work with: a way to hand in frames, and the word whether it is to stop."""

    def __init__(self, send: Callable[[Shot, str], Frame], cancelled: threading.Event) -> None:
        self._send = send
        self._cancelled = cancelled
        self.notes: list[str] = []
        self.handed_in = 0

    def hand_in(self, shot: Shot, area_id: str = "") -> Frame:
        """Send an image and wait until the daemon has it on disk, however long that takes: no image is thrown away.

        Raises
        ------
        WorkError
            If the daemon refuses it for good, or the driver ends.
        """
        self.handed_in += 1
        return self._send(shot, area_id)

    def note(self, text: str) -> None:
        """Add a line to the result of the command, such as where the microscope software put its frames."""
        self.notes.append(text)

    def check(self) -> None:
        """Raise `CancelledWork` when the command is to end; call it wherever the work can stop safely."""
        if self._cancelled.is_set():
            raise CancelledWork

    def wait(self, seconds: float) -> None:
        """Sleep, but end at once with `CancelledWork` when the command is cancelled."""
        if self._cancelled.wait(seconds):
            raise CancelledWork


class Microscope(Protocol):
    """The hooks. They may block: the shell calls them from a worker thread, one at a time, except `state`."""

    name: str  # of the driver, as the session shows it
    software: str  # what it talks to, with version
    can_pilot: bool

    def state(self) -> ScopeState:
        """How the microscope is, from what was last seen; must return at once, from any thread."""
        ...

    def carry_out(self, work: AnyWork, desk: Desk) -> float | None:
        """Do ``work`` and return the dose it gave (exposures) or None; raises `WorkError` or `CancelledWork`."""
        ...

    def make_safe(self, why: str) -> None:
        """Reach the safe state, whatever it takes: beam blanked, tilt 0, valves as configured."""
        ...

    def answered(self, targets: Targets) -> None:
        """The daemon's answer to a frame: where an advisor puts the targets into its microscope software."""
        ...
