"""The atlas: SerialEM's own full montage in one piece, or one low-mag frame at each planned position."""

import time
from collections.abc import Callable

import structlog

from agent.messages import AcquireAtlas, ErrorKind
from drivers.base import Desk, Shot, WorkError
from drivers.serialem.instrument import Instrument, failing_as

log = structlog.get_logger("serialem")
TRIES = 3


class Atlas:
    """Takes the atlas of one command; can be called again after a lost connection and goes on where it was.

    Parameters
    ----------
    instrument
        The microscope.
    work
        The command.
    before
        What has to be called before each image (safety readings).
    """

    def __init__(self, instrument: Instrument, work: AcquireAtlas, before: Callable[[Desk], None]) -> None:
        self.instrument = instrument
        self.work = work
        self._before = before
        self._taken = 0  # positions that are done with
        self._tries = 0  # at the present one
        self._error: WorkError | None = None
        self._whole = False  # there is something to show

    def take(self, desk: Desk) -> None:
        """Take what is still missing and hand it in."""
        if self.instrument.settings.atlas.method == "montage":
            self._montage(desk)
        else:
            self._frames(desk)

    def _frames(self, desk: Desk) -> None:
        while self._taken < len(self.work.positions_um):
            x_um, y_um = self.work.positions_um[self._taken]
            try:
                shot = self._frame(x_um, y_um, desk)
            except WorkError as error:
                self._failed(error, desk, f"({x_um:.0f}, {y_um:.0f}) µm")
                continue
            desk.hand_in(shot)
            self._whole = True
            self._next()
        if not self._whole and self._error is not None:
            raise self._error

    def _frame(self, x_um: float, y_um: float, desk: Desk) -> Shot:
        self._before(desk)
        self.instrument.clear_shift()
        self.instrument.move(x_um, y_um)
        desk.check()
        return self.instrument.take("low")

    def _next(self) -> None:
        self._taken += 1
        self._tries = 0

    def _failed(self, error: WorkError, desk: Desk, what: str) -> None:
        """Try a frame of next to no dose again, then leave it out: one missing frame is no missing atlas."""
        self._tries += 1
        self._error = error
        if error.kind is not ErrorKind.OUTSIDE_ENVELOPE and self._tries < TRIES:
            log.warning("atlas.again", at=what, error=str(error))
            return
        if error.kind is ErrorKind.STAGE_TIMEOUT:
            raise error
        log.error("atlas.frame_left_out", at=what, error=str(error))
        desk.note(f"frame at {what} is missing: {error}")
        self._next()

    def _montage(self, desk: Desk) -> None:
        while True:
            try:
                desk.hand_in(self._assembled(desk))
                return
            except WorkError as error:
                self._tries += 1
                if self._tries >= TRIES or error.kind is ErrorKind.OUTSIDE_ENVELOPE:
                    raise
                log.warning("atlas.again", error=str(error))

    def _assembled(self, desk: Desk) -> Shot:
        """SerialEM's montage; where it was taken already, only its overview is read."""
        instrument, ways = self.instrument, self.instrument.settings.atlas
        client = instrument.client
        if not self._whole:
            self._before(desk)
            instrument.clear_shift()
            instrument.go_to("low")
            instrument.unblank()
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            file = on_pc(ways.folder, f"{self.work.grid_id}_atlas_{stamp}.mrc")
            with failing_as(ErrorKind.CAMERA, None), instrument.own_file():
                client.call("SetupFullMontage", ways.overlap, file)
                desk.check()
                client.call("Montage")
                self._whole = True
                desk.note(f"montage in {file}")
        with failing_as(ErrorKind.CAMERA, None):
            return instrument.read(ways.overview, "low", montage=True)


def on_pc(folder: str, name: str) -> str:
    """Path of a file on SerialEM's PC; ``folder`` may be empty and is written in Windows' way or in ours."""
    if not folder:
        return name
    return (
        f"{folder.rstrip('/')}/{name}" if "/" in folder and "\\" not in folder else f"{folder.rstrip(chr(92))}\\{name}"
    )
