"""The advisor's hooks: somebody else takes images; each new one is sent, and its targets come into the Navigator.

Control is taken for the moment of a look only and given back at once, so that the operator can work. A busy SerialEM is
no takeover here: it is what an advisor's microscope looks like.
"""

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog
from msgspec.structs import replace

from agent.errors import BadFileError, LinkError
from agent.messages import LEVELS, AnyWork, ErrorKind, Frame, Goto, Level, Park, ScopeState, Targets
from drivers.base import Desk, Shot, WorkError
from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import BusyError, LinkLostError, ScriptError, SerialEMError, StoppedError
from drivers.serialem.instrument import Instrument
from drivers.serialem.navigator import Navigator
from drivers.serialem.settings import SerialEMSettings

log = structlog.get_logger("serialem")
ASK = "cryonaut_ask"  # persistent variable that a SerialEM script sets to have buffer A looked at
TRIES = 5
MOST_WAITING = 50


class SerialEMAdvisor:
    """Watches SerialEM's buffer A, for `drivers.shell.Shell`.

    Parameters
    ----------
    settings
        ``config/serialem.yaml``.
    client
        The connection; None makes one from the settings.
    """

    can_pilot = False

    def __init__(self, settings: SerialEMSettings, client: SerialEMClient | None = None) -> None:
        where = settings.serialem
        self.settings = settings
        self.name = settings.name
        self.software = f"SerialEM at {where.host}:{where.port}"
        self.client = client or SerialEMClient(where.host, where.port, connect_s=where.connect_s)
        self.instrument = Instrument(self.client, settings)
        self.navigator = Navigator(self.client, settings.advisor)
        self.advise: Callable[..., Frame] | None = None  # `Shell.advise`
        self.takeover: Callable[[str], None] = lambda why: None
        self._answers: queue.Queue[tuple[Targets, int]] = queue.Queue(MOST_WAITING)
        self._last_image: object = None  # what tells the last image that was seen from a new one
        self._kept: OrderedDict[str, tuple[str, float]] = OrderedDict()  # frame id -> buffer, z in µm
        self._state = ScopeState(grid_id=settings.advisor.grid_id)
        self._away_until = 0.0
        self._told = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serialem-advisor", daemon=True)

    # ------------------------------------------------------------------------------------------ hooks

    def state(self) -> ScopeState:
        """How the microscope was when it was last asked."""
        return self._state

    def carry_out(self, work: AnyWork, desk: Desk) -> float | None:
        """An advisor carries nothing out."""
        if isinstance(work, Park | Goto):
            return None
        text = "this driver advises and does not drive; start it with --mode pilot"
        raise WorkError(ErrorKind.OUTSIDE_ENVELOPE, text, 0.0)

    def make_safe(self, why: str) -> None:
        """Leave the microscope to its operator, and control with SerialEM."""
        self.client.exit_control()

    def answered(self, targets: Targets) -> None:
        """Have the targets put into the Navigator at the next moment that SerialEM has; returns at once."""
        try:
            self._answers.put_nowait((targets, 0))
        except queue.Full:
            log.error("answer.lost", frame=targets.frame_id, why=f"{MOST_WAITING} answers wait for SerialEM already")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End looking, and the connection."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self.client.close()

    # ------------------------------------------------------------------------------------------ looking

    def _run(self) -> None:
        while not self._closing.wait(self.settings.advisor.poll_s):
            if time.monotonic() < self._away_until:
                continue
            try:
                self._look()
                self._told = ""
            except StoppedError as error:
                self._away_until = time.monotonic() + self.settings.advisor.after_stop_s
                log.warning("advisor.stays_away", why=str(error), seconds=self.settings.advisor.after_stop_s)
                self.takeover(str(error))
            except (BusyError, LinkLostError) as error:
                if type(error).__name__ != self._told:
                    log.info("serialem.not_now", why=str(error))
                self._told = type(error).__name__
            except (SerialEMError, WorkError, LinkError) as error:
                log.warning("advisor.failed", error=str(error))
            finally:
                self.client.exit_control()

    def _look(self) -> None:
        self._put_answers()
        if self.advise is None or not self._is_asked():
            return
        try:
            about = self.client.numbers("ImageProperties", "A", least=5)
        except ScriptError:  # no image in A
            return
        tick = self.instrument.perhaps("GetVariable", "imageTickTime")
        if (tick, about) == self._last_image:
            return
        level = self._level(about[4])
        if level is None:
            log.info("image.ignored", pixel_nm=about[4], why="no level has this pixel size (advisor.levels_nm)")
            self._last_image = (tick, about)
            return
        shot = self.instrument.read("A", level)
        self._keep(shot, (tick, about))

    def _keep(self, shot: Shot, image: object) -> None:
        """Copy the image aside for its answer, give control back, and send it."""
        buffer = self.settings.exposure.keep_in
        self.client.call("Copy", "A", buffer)
        self.client.exit_control()  # before the daemon is waited for
        self._state = replace(self._state, stage=self.instrument.stage, level=shot.level)
        if self.advise is None:
            return
        self._last_image = image
        try:
            frame = self.advise(shot, grid_id=self.settings.advisor.grid_id)
        except LinkError:
            self._last_image = None  # no daemon yet: once more later
            raise
        for other, (where, z_um) in self._kept.items():
            if where == buffer:
                self._kept[other] = ("", z_um)  # its pixels are gone
        self._kept[frame.frame_id] = (buffer, shot.stage.z_um)
        while len(self._kept) > MOST_WAITING:
            self._kept.popitem(last=False)
        log.info("image.sent", frame=frame.frame_id, level=shot.level)

    def _is_asked(self) -> bool:
        if self.settings.advisor.when == "every_image":
            return True
        if not self.client.number("IsVariableDefined", ASK):
            return False
        asked = self.client.call("GetVariable", ASK)
        if str(asked).strip() in ("", "0", "0.0"):
            return False
        self.client.call("SetPersistentVar", ASK, "0")
        self._last_image = None
        return True

    def _level(self, pixel_nm: float) -> Level | None:
        for level in LEVELS:
            low, high = self.settings.advisor.levels_nm.get(level, (0.0, 0.0))
            if low <= pixel_nm < high:
                return level
        return None

    # ------------------------------------------------------------------------------------------ answering

    def _put_answers(self) -> None:
        """Put what waits into the Navigator; what SerialEM is too busy for stays and is tried again."""
        for _ in range(self._answers.qsize()):
            targets, tries = self._answers.get_nowait()
            if targets.level == "high" or not targets.targets:
                continue
            buffer, z_um = self._kept.get(targets.frame_id, ("", self.instrument.stage.z_um))
            try:
                added, changed = self.navigator.put(targets, buffer=buffer, z_um=z_um)
            except BadFileError as error:
                log.error("answer.lost", frame=targets.frame_id, error=str(error))
            except SerialEMError as error:
                if tries + 1 < TRIES or isinstance(error, BusyError | LinkLostError | StoppedError):
                    self._answers.put_nowait((targets, tries + 1))
                else:
                    log.error("answer.lost", frame=targets.frame_id, error=str(error))
                if not isinstance(error, ScriptError):
                    raise
            else:
                log.info("navigator.filled", frame=targets.frame_id, added=added, changed=changed)
