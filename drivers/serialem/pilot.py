"""The pilot's hooks: what a session's commands mean in front of SerialEM.

Whenever nothing is to be done, control goes back to SerialEM; after STOP, a busy answer or a cancel nothing touches the
microscope before the next command.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from msgspec.structs import replace

from agent.messages import (
    AcquireAtlas,
    AnyWork,
    ErrorKind,
    Expose,
    Focus,
    Goto,
    LoadGrid,
    MapSquare,
    Park,
    ScopeState,
    Targets,
)
from drivers.base import CancelledWork, Desk, Shot, WorkError
from drivers.serialem.atlas import Atlas
from drivers.serialem.cassette import Cassette
from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import LinkLostError, SerialEMError, StoppedError, TakenOverError
from drivers.serialem.instrument import Instrument, failing_as
from drivers.serialem.safe import make_safe
from drivers.serialem.settings import SerialEMSettings
from drivers.serialem.squares import Squares
from drivers.serialem.watch import Watch

log = structlog.get_logger("serialem")
KEEPER_S = 0.25


class Later(CancelledWork):
    """The microscope has something else to do first: the work goes back undone, the guards are looked at on."""


class SerialEMPilot:
    """Pilot's hands on SerialEM, for `drivers.shell.Shell`.

    Parameters
    ----------
    settings
        ``config/serialem.yaml``.
    memory
        File that keeps the inventory of the cassette over restarts.
    client
        The connection; None makes one from the settings.
    """

    can_pilot = True

    def __init__(self, settings: SerialEMSettings, memory: Path, client: SerialEMClient | None = None) -> None:
        where = settings.serialem
        self.settings = settings
        self.name = settings.name
        self.software = f"SerialEM at {where.host}:{where.port}"
        self.client = client or SerialEMClient(
            where.host, where.port, limits_s={str(k): v for k, v in where.limits_s.items()}, connect_s=where.connect_s
        )
        self.instrument = Instrument(self.client, settings)
        self.squares = Squares(self.instrument)
        self.watch = Watch(settings.safety)
        self.cassette = Cassette(
            self.client, memory, settings.grids.slots, settings.grids.on_stage, settings.grids.on_stage_slot
        )
        self.takeover: Callable[[str], None] = lambda why: None  # `Shell.taken_over`
        self.session: Callable[[], str] = lambda: ""  # id of the session that the shell is in
        self._hands_off = True  # until the first command nothing is touched
        self._at_work = threading.Lock()
        self._worked = time.monotonic()
        self._looked = 0.0
        self._exposing = False  # the command that exposes was sent
        self._verify = True  # compare the cassette before the next work
        self._state = ScopeState(grid_id=self.cassette.grid_id)
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="serialem-keeper", daemon=True)
        self._keeper.start()

    # ------------------------------------------------------------------------------------------ hooks

    def state(self) -> ScopeState:
        """How the microscope was when it was last asked."""
        return self._state

    def carry_out(self, work: AnyWork, desk: Desk) -> float | None:
        """Do ``work``; lets go at once when a person takes over or the command is cancelled."""
        with self._at_work:
            self._hands_off = False
            self._exposing = False
            self.instrument.holding = False
            atlas = Atlas(self.instrument, work, self._guard) if isinstance(work, AcquireAtlas) else None
            try:
                return self._until_reached(work, desk, atlas)
            except TakenOverError as error:
                self._let_go(error)
                if self._exposing:
                    raise WorkError(ErrorKind.OUTCOME_UNKNOWN, f"{error}; the exposure may be made") from error
                raise CancelledWork from error
            except CancelledWork as word:
                self._hands_off = not isinstance(word, Later)
                self.client.exit_control()
                raise
            except SerialEMError as error:
                raise WorkError(ErrorKind.SCRIPT, str(error), None if self._exposing else 0.0) from error
            finally:
                self._worked = time.monotonic()
                self._refresh()

    def make_safe(self, why: str) -> None:
        """Blank the beam, close the valves where the site wants that, tilt to 0, give control back."""
        make_safe(self.instrument, why)
        self.squares.forget()
        self._refresh()

    def answered(self, targets: Targets) -> None:
        """A pilot needs no answers: the session commands."""

    def close(self) -> None:
        """End the keeper and the connection."""
        self._closing.set()
        self._keeper.join(5.0)
        self.client.close()

    # ------------------------------------------------------------------------------------------ work

    def _until_reached(self, work: AnyWork, desk: Desk, atlas: Atlas | None) -> float | None:
        """Do ``work`` as soon as SerialEM can be reached; again after a lost link, unless it exposed."""
        told = False
        while True:
            desk.check()
            try:
                self.client.ready()
                if self._verify and not isinstance(work, Park | Goto):
                    self.cassette.check(self.session())
                    self._verify = False
                return self._do(work, desk, atlas)
            except LinkLostError as error:
                self._lost()
                if self._exposing:
                    raise WorkError(ErrorKind.OUTCOME_UNKNOWN, f"{error}; the exposure may be made") from error
                if not told:
                    log.warning("serialem.away", error=str(error), then="waiting for it")
                    told = True
            desk.wait(self.settings.serialem.retry_s)

    def _do(self, work: AnyWork, desk: Desk, atlas: Atlas | None) -> float | None:
        match work:
            case LoadGrid():
                self._load(work, desk)
            case AcquireAtlas() if atlas is not None:
                atlas.take(desk)
            case MapSquare():
                self._guard(desk)
                self.squares.map(work, desk)
                self.watch.read(self.client)
            case Focus():
                self._guard(desk)
                self.squares.go_to_spot(work.x_um, work.y_um)
                desk.check()
                self.instrument.unblank()
                self.instrument.autofocus(work.defocus_um)
            case Expose():
                return self._expose(work, desk)
            case Goto():
                self.squares.forget()
                self.instrument.clear_shift()
                self.instrument.move(work.x_um, work.y_um, work.z_um, work.tilt_deg)
            case Park():
                failed = make_safe(self.instrument, work.why or "parked")
                self.squares.forget()
                if failed:
                    raise WorkError(ErrorKind.SCRIPT, "; ".join(failed), 0.0)
        return None

    def _load(self, work: LoadGrid, desk: Desk) -> None:
        if not self.cassette.may_load(self.session(), work.grid_id, work.slot):
            return
        desk.check()
        if self.settings.grids.close_valves:
            with failing_as(ErrorKind.LOAD_FAILED):
                self.client.call("SetColumnOrGunValve", 0)
            self.instrument.valves_closed = True
        self.squares.new_grid()
        self.watch.beam.forget()
        self.cassette.leaves()
        try:
            with failing_as(ErrorKind.LOAD_FAILED):
                self.client.call("LoadCartridge", work.slot)
        except WorkError:
            self.cassette.failed()
            raise
        self.cassette.loaded(work.grid_id, work.slot)
        self._open_valves()

    def _expose(self, work: Expose, desk: Desk) -> float:
        instrument = self.instrument
        self._guard(desk)
        self.squares.go_to_group(work.x_um, work.y_um, desk)
        preset = instrument.go_to("high")
        around_um = self.settings.exposure.shot_radius_um if self.settings.exposure.shots_in_hole > 1 else 0.0
        instrument.shift_to(work.image_shift_x_um, work.image_shift_y_um, around_um)
        instrument.defocus_to(work.defocus_um)
        instrument.unblank()
        known, limit = instrument.record_dose_e_per_a2, self.settings.interlocks.dose_per_area_e_per_a2
        if known is not None and known > limit:
            text = f"driver's own limits: Record gives {known:.1f} e/Å², above {limit:g} e/Å² (dose_per_area_e_per_a2)"
            raise WorkError(ErrorKind.OUTSIDE_ENVELOPE, text, 0.0)
        desk.check()
        self._exposing = True
        with failing_as(ErrorKind.CAMERA, None):
            instrument.expose(preset)
            shot = instrument.read("A", "high")
        dose = shot.dose_e_per_a2 or known or work.dose_e_per_a2
        instrument.record_dose_e_per_a2 = shot.dose_e_per_a2 or known
        shot.dose_e_per_a2 = dose
        self._after_exposure(shot, desk)
        desk.hand_in(shot)
        return dose

    def _after_exposure(self, shot: Shot, desk: Desk) -> None:
        self.watch.saw(float(shot.image.mean()))
        file = self.instrument.perhaps("ReportLastFrameFile")
        if isinstance(file, tuple):
            file = file[0]
        if isinstance(file, str) and file.strip():
            desk.note(f"frames in {file.strip()}")

    # ------------------------------------------------------------------------------------------ guards

    def _guard(self, desk: Desk) -> None:
        """Look at valves, nitrogen and pump; wait a while for them, then hand the work back undone."""
        deadline = time.monotonic() + self.settings.safety.wait_s
        self._open_valves()
        while True:
            desk.check()
            self.watch.read(self.client)
            self._refresh()
            waiting_for = self.watch.waiting_for
            if not waiting_for:
                break
            log.warning("waiting", why=waiting_for)
            self.client.exit_control()
            desk.wait(self.settings.safety.look_again_s)
            if not self.watch.valves_open or time.monotonic() > deadline:
                raise Later  # the session has heard of it by the heartbeats, and holds
        if self.settings.safety.manage:
            with failing_as(ErrorKind.SCRIPT):
                self.client.call("ManageDewarsAndPumps", 1)

    def _open_valves(self) -> None:
        """Open the column valves again, where we closed them ourselves."""
        if self.instrument.valves_closed:
            if self.instrument.holding:
                raise CancelledWork
            with failing_as(ErrorKind.BEAM_LOST):
                self.client.call("SetColumnOrGunValve", 1)
            self.instrument.valves_closed = False

    def _let_go(self, error: TakenOverError) -> None:
        """A person has the microscope."""
        self._lost()
        self._hands_off = True
        self.client.exit_control()
        self.takeover(str(error))

    def _lost(self) -> None:
        self._verify = True
        self.instrument.forget()
        self.squares.forget()

    def _refresh(self) -> None:
        instrument, watch = self.instrument, self.watch
        if self.client.version:
            where = self.settings.serialem
            self.software = f"SerialEM {self.client.version} at {where.host}:{where.port}"
        self._state = replace(
            self._state,
            stage=instrument.stage,
            grid_id=self.cassette.grid_id,
            level=instrument.level,
            valves_open=watch.valves_open or instrument.valves_closed,
            beam_blanked=bool(instrument.blanked),
            readings=dict(watch.readings),
        )

    # ------------------------------------------------------------------------------------------ waiting

    def _keep(self) -> None:
        """While there is no work: give control back, and look at the guards now and then."""
        while not self._closing.wait(KEEPER_S):
            if self._hands_off or not self._at_work.acquire(blocking=False):
                continue
            try:
                self._wait_well()
            except StoppedError as error:
                self._let_go(error)
            except SerialEMError as error:
                log.info("serialem.not_now", why=str(error))
                self._lost()
            finally:
                self._at_work.release()

    def _wait_well(self) -> None:
        now, safety = time.monotonic(), self.settings.safety
        if now - self._worked < safety.release_s:
            return
        if self.client.in_control:
            if safety.blank_when_waiting and not self.instrument.blanked:
                self.instrument.blank()
            self.client.exit_control()
            self._looked = now
        elif now - self._looked > safety.every_s:
            self._looked = now
            self.watch.read(self.client)
            self.instrument.read_stage()
            self.client.exit_control()
        self._refresh()
