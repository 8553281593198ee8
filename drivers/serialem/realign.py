"""The image back onto the holes after a stage move: map, template or the hole itself, all in SerialEM's own commands.

A stage arrives within a micrometre or so. Each step of `realign.steps` narrows that down, in the site's order:

- ``map``: `RealignToNavItem` to the place on the square's own map, which was saved when the square was mapped.
- ``template``: an image, and `AlignTo` a buffer in which the site keeps what the middle should look like.
- ``hole``: an image, `FindAndCenterOneHole`, and an image shift that brings that hole into the middle.

The image shift that remains is where the shifts to the holes start from.
"""

import math
import time

import structlog

from agent.messages import ErrorKind
from drivers.base import WorkError
from drivers.serialem.atlas import on_pc
from drivers.serialem.geometry import NAVIGATOR
from drivers.serialem.instrument import Instrument, failing_as

log = structlog.get_logger("serialem")


class Realigner:
    """Realigns to the holes of one square after another.

    Parameters
    ----------
    instrument
        The microscope.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self._map_item = 0

    def forget_map(self) -> None:
        """Another square or grid: there is no map of it yet."""
        self._map_item = 0

    def keep_map(self, area_id: str) -> None:
        """Save the image in A as a Navigator map of its square, where a step needs it; a failure is told and kept."""
        self.forget_map()
        instrument, client = self.instrument, self.instrument.client
        settings = instrument.settings.realign
        if "map" not in settings.steps:
            return
        if instrument.perhaps("ReportIfNavOpen") == 0:
            instrument.perhaps("OpenNavigator")
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        try:
            with failing_as(ErrorKind.REALIGN_FAILED), instrument.own_file():
                client.call("OpenNewFile", on_pc(settings.map_folder, f"{area_id}_{stamp}.mrc"))
                client.call("Save", "A")
                self._map_item = int(client.number("NewMap", 0, area_id))
        except WorkError as error:
            log.warning("map.failed", area=area_id, error=str(error), then="no realignment to it")

    def bring_back(self, x_um: float, y_um: float) -> None:
        """Realign to the place that the stage was just sent to; the image shift that is left is the new zero.

        Raises
        ------
        WorkError
            Of kind ``realign_failed``, where realignment is required and a step failed or shifted too far.
        """
        instrument, settings = self.instrument, self.instrument.settings.realign
        if not settings.steps:
            return
        try:
            for step in settings.steps:
                if step == "map":
                    self._to_map(x_um, y_um)
                elif step == "template":
                    self._to_template()
                else:
                    self._to_hole()
            self._check(settings.max_shift_um)
        except WorkError as error:
            if settings.required or error.kind is not ErrorKind.REALIGN_FAILED:
                raise
            log.warning("realign.failed", error=str(error), then="going on with the stage's own accuracy")
            instrument.forget()
            instrument.clear_shift()
            instrument.move(x_um, y_um)

    def _to_map(self, x_um: float, y_um: float) -> None:
        instrument, client = self.instrument, self.instrument.client
        if not self._map_item:
            raise WorkError(ErrorKind.REALIGN_FAILED, "realign: this square has no map to realign to", 0.0)
        item = 0
        instrument.unblank()
        try:
            with failing_as(ErrorKind.REALIGN_FAILED):
                z_um = instrument.stage.z_um
                item = int(client.number("AddStagePosAsNavPoint", x_um, y_um, z_um, 0, 1))
                client.call("RealignToNavItem", item, 0)
            instrument.realigned()
        finally:
            if item and client.in_control:
                instrument.perhaps("DeleteNavigatorItem", item)

    def _to_template(self) -> None:
        instrument, settings = self.instrument, self.instrument.settings.realign
        self._look()
        with failing_as(ErrorKind.REALIGN_FAILED):
            instrument.client.call("LimitNextAutoAlign", settings.max_shift_um)
            instrument.client.call("AlignTo", settings.template)
        instrument.realigned()

    def _to_hole(self) -> None:
        """Only the middle of the image is searched, so that the next hole is not taken for the one that is wanted."""
        instrument, settings, client = self.instrument, self.instrument.settings.realign, self.instrument.client
        diameter = settings.hole_diameter_um or 0.0
        limit = min(settings.max_shift_um, diameter)
        self._look()
        with failing_as(ErrorKind.REALIGN_FAILED):
            columns, rows, _, _, pixel_nm = client.report("ImageProperties", "A", least=5)[:5]
            side_px = 2 * round((diameter + 2 * limit) * 500.0 / pixel_nm)
            if side_px < min(columns, rows):
                client.call("CropCenterToSize", "A", side_px, side_px)
                columns, rows = client.report("ImageProperties", "A", least=5)[:2]
            x, y = client.numbers("FindAndCenterOneHole", "A", diameter, least=2)[:2]
            there = client.report("BufImagePosToStagePos", "A", NAVIGATOR, x, y, least=2)
            middle = client.report("BufImagePosToStagePos", "A", NAVIGATOR, columns / 2, rows / 2, least=2)
        dx, dy = there[0] - middle[0], there[1] - middle[1]
        if math.hypot(dx, dy) > limit:
            text = f"realign: the nearest hole is {math.hypot(dx, dy):.2f} µm away, above {limit:g} µm"
            raise WorkError(ErrorKind.REALIGN_FAILED, text, 0.0)
        with failing_as(ErrorKind.REALIGN_FAILED):
            beyond = client.call("ImageShiftByStageDiff", dx, dy)
        if beyond == 1:
            raise WorkError(ErrorKind.REALIGN_FAILED, "realign: SerialEM's limit of the image shift is reached", 0.0)
        instrument.realigned()

    def _look(self) -> None:
        """An image of the square's own kind where the stage is, in A."""
        with failing_as(ErrorKind.REALIGN_FAILED):
            preset = self.instrument.go_to("medium")
            self.instrument.unblank()
            self.instrument.client.call(preset.shot)

    def _check(self, limit_um: float) -> None:
        left = math.hypot(*self.instrument.left_um)
        if left > limit_um:
            text = f"realign: it left {left:.2f} µm of image shift, above {limit_um:g} µm (realign.max_shift_um)"
            raise WorkError(ErrorKind.REALIGN_FAILED, text, 0.0)
