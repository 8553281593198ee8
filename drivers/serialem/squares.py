"""Getting to a square and back to it: stage, SerialEM's own map of it, and its realignment before a group of holes."""

import math
import time

import structlog

from agent.messages import ErrorKind, MapSquare
from drivers.base import Desk, WorkError
from drivers.serialem.atlas import on_pc
from drivers.serialem.instrument import Instrument, failing_as

log = structlog.get_logger("serialem")
SAME_UM = 0.01


class Squares:
    """Knows where the stage was brought for which group, and which Navigator item is the map of the square.

    Parameters
    ----------
    instrument
        The microscope.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self._here: tuple[float, float] | None = None  # where the stage was brought for a group of exposures
        self._map_item = 0

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
        if instrument.settings.stage.realign:
            self._make_map(work.area_id)
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
        if instrument.settings.stage.realign and self._map_item:
            self._realign(x_um, y_um)
        instrument.go_to("high")
        instrument.unblank()
        instrument.wait_for_drift()
        self._here = (x_um, y_um)

    def forget(self) -> None:
        """Somebody else had the microscope, or another grid came."""
        self._here = None

    def new_grid(self) -> None:
        """Another grid: its maps are not made yet."""
        self._here, self._map_item = None, 0

    def _strayed(self, x_um: float, y_um: float) -> bool:
        here = self.instrument.stage
        return math.hypot(here.x_um - x_um, here.y_um - y_um) > self.instrument.settings.stage.tolerance_um

    def _make_map(self, area_id: str) -> None:
        """Save the image in A as a Navigator map; without one there is no realignment, but the night goes on."""
        instrument, client = self.instrument, self.instrument.client
        self._map_item = 0
        if instrument.perhaps("ReportIfNavOpen") == 0:
            instrument.perhaps("OpenNavigator")
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        try:
            with failing_as(ErrorKind.SCRIPT), instrument.own_file():
                client.call("OpenNewFile", on_pc(instrument.settings.stage.map_folder, f"{area_id}_{stamp}.mrc"))
                client.call("Save", "A")
                self._map_item = int(client.number("NewMap", 0, area_id))
        except WorkError as error:
            log.warning("map.failed", area=area_id, error=str(error), then="no realignment in this square")

    def _realign(self, x_um: float, y_um: float) -> None:
        """Let SerialEM realign to the point on the square's map; the image shift that it leaves is the new zero."""
        client = self.instrument.client
        item = 0
        try:
            with failing_as(ErrorKind.SCRIPT):
                z_um = self.instrument.stage.z_um
                item = int(client.number("AddStagePosAsNavPoint", x_um, y_um, z_um, 0, 1))
                client.call("RealignToNavItem", item, 0)
            self.instrument.realigned()
        except WorkError as error:
            log.warning("realign.failed", error=str(error), then="going on with the stage's own accuracy")
            self.instrument.forget()
            self.instrument.clear_shift()
            self.instrument.move(x_um, y_um)
        finally:
            if item and client.in_control:
                self.instrument.perhaps("DeleteNavigatorItem", item)
