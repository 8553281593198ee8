"""The atlas: SerialEM's own full montage in one piece, or one low-mag frame at each planned position."""

import time
from collections.abc import Callable

from agent.messages import AcquireAtlas, ErrorKind
from drivers.base import Desk
from drivers.serialem.instrument import Instrument, failing_as


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
        self._taken = 0
        self._whole = False

    def take(self, desk: Desk) -> None:
        """Take what is still missing and hand it in."""
        if self.instrument.settings.atlas.method == "montage":
            self._montage(desk)
        else:
            self._frames(desk)

    def _frames(self, desk: Desk) -> None:
        for x_um, y_um in self.work.positions_um[self._taken :]:
            self._before(desk)
            self.instrument.clear_shift()
            self.instrument.move(x_um, y_um)
            desk.check()
            desk.hand_in(self.instrument.take("low"))
            self._taken += 1

    def _montage(self, desk: Desk) -> None:
        instrument, ways = self.instrument, self.instrument.settings.atlas
        client = instrument.client
        if not self._whole:
            self._before(desk)
            instrument.clear_shift()
            instrument.go_to("low")
            instrument.unblank()
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            file = on_pc(ways.folder, f"{self.work.grid_id}_atlas_{stamp}.mrc")
            with failing_as(ErrorKind.CAMERA, None):
                client.call("SetupFullMontage", ways.overlap, file)
                try:
                    desk.check()
                    client.call("Montage")
                    self._whole = True
                    desk.note(f"montage in {file}")
                finally:
                    if client.in_control:
                        instrument.perhaps("CloseFile")
        with failing_as(ErrorKind.CAMERA, None):
            shot = instrument.read(ways.overview, "low", montage=True)
        desk.hand_in(shot)


def on_pc(folder: str, name: str) -> str:
    """Path of a file on SerialEM's PC; ``folder`` may be empty and is written in Windows' way or in ours."""
    if not folder:
        return name
    return (
        f"{folder.rstrip('/')}/{name}" if "/" in folder and "\\" not in folder else f"{folder.rstrip(chr(92))}\\{name}"
    )
