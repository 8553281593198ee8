"""Getting to a square, and to each group of its holes."""

import math

from agent.messages import MapSquare
from drivers.base import Desk
from drivers.serialem.instrument import Instrument
from drivers.serialem.realign import Realigner

SAME_UM = 0.01


class Squares:
    """Knows where the stage was brought for which group.

    Parameters
    ----------
    instrument
        The microscope.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self._here: tuple[float, float] | None = None  # where the stage was brought for a group of exposures
        self.realigner = Realigner(instrument)

    def map(self, work: MapSquare, desk: Desk) -> None:
        """Go to a square, find eucentric height, take its image and hand it in."""
        instrument = self.instrument
        self._here = None
        instrument.clear_shift()
        instrument.move(work.x_um, work.y_um)
        if work.find_eucentric:
            desk.check()
            instrument.unblank()
            instrument.find_eucentric()
            if self._strayed(work.x_um, work.y_um):  # some routines end with the stage a little off
                instrument.move(work.x_um, work.y_um)
        desk.check()
        shot = instrument.take("medium")
        self.realigner.keep_map(work.area_id)
        desk.hand_in(shot)

    def go_to_spot(self, x_um: float, y_um: float) -> None:
        """Bring the stage to a focus spot."""
        self._here = None
        self.instrument.clear_shift()
        self.instrument.move(x_um, y_um)

    def go_to_group(self, x_um: float, y_um: float, desk: Desk) -> None:
        """Bring the stage to a group of holes, once for all its exposures."""
        if self._here is not None and math.hypot(self._here[0] - x_um, self._here[1] - y_um) < SAME_UM:
            return
        instrument = self.instrument
        instrument.clear_shift()
        instrument.move(x_um, y_um)
        desk.check()
        self.realigner.bring_back(x_um, y_um)
        instrument.go_to("high")
        instrument.unblank()
        instrument.wait_for_drift()
        self._here = (x_um, y_um)

    def forget(self) -> None:
        """Somebody else had the microscope, or another grid came."""
        self._here = None

    def new_grid(self) -> None:
        """Another grid: its maps are not made yet."""
        self._here = None
        self.realigner.forget_map()

    def _strayed(self, x_um: float, y_um: float) -> bool:
        here = self.instrument.stage
        return math.hypot(here.x_um - x_um, here.y_um - y_um) > self.instrument.settings.stage.tolerance_um
