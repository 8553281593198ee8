"""The hooks of the virtual microscope: what a session's commands mean in front of it."""

from agent import interlock
from agent.messages import (
    AcquireAtlas,
    AnyWork,
    ErrorKind,
    Expose,
    Focus,
    Goto,
    Level,
    LoadGrid,
    MapSquare,
    Park,
    ScopeState,
    Stage,
    Targets,
)
from agent.settings import EnvelopeSettings
from drivers.base import Desk, Shot, WorkError
from simulators.microscope import MicroscopeError, Trouble, VirtualMicroscope

KINDS: dict[Trouble, ErrorKind] = {
    "stuck_stage": ErrorKind.STAGE_TIMEOUT,
    "camera_error": ErrorKind.CAMERA,
    "autofocus_fails": ErrorKind.AUTOFOCUS_FAILED,
    "eucentric_fails": ErrorKind.EUCENTRIC_FAILED,
    "load_fails": ErrorKind.LOAD_FAILED,
    "valves_closed": ErrorKind.BEAM_LOST,
}


class SimulatedDriver:
    """Pilot's hands on a `VirtualMicroscope`, for `drivers.shell.Shell`.

    Parameters
    ----------
    scope
        The microscope.
    envelope
        This side's own stage limits, checked before every move.
    """

    name = "simulated"
    can_pilot = True

    def __init__(self, scope: VirtualMicroscope, envelope: EnvelopeSettings | None = None) -> None:
        self.scope = scope
        self.software = f"Cryonaut virtual microscope, {scope.clock.speed:g} x real time"
        self.envelope = envelope or EnvelopeSettings()
        self.answers: dict[str, Targets] = {}

    def state(self) -> ScopeState:
        """How the microscope is."""
        scope = self.scope
        return ScopeState(
            stage=self._stage(),
            grid_id=scope.grid_id,
            level=scope.level,
            valves_open=scope.valves_open,
            beam_blanked=scope.beam_blanked,
            readings={"beam_current": scope.beam_current, "simulated_s": round(scope.clock.elapsed_s, 3)},
        )

    def _stage(self) -> Stage:
        scope = self.scope
        return Stage(x_um=scope.x_um, y_um=scope.y_um, z_um=scope.z_um, tilt_deg=scope.tilt_deg)

    def carry_out(self, work: AnyWork, desk: Desk) -> float | None:
        """Do ``work``; failures of the microscope become `WorkError` with their kind."""
        try:
            return self._carry_out(work, desk)
        except MicroscopeError as error:
            kind = KINDS.get(error.kind, ErrorKind.SCRIPT)
            raise WorkError(kind, str(error), error.dose_e_per_a2) from error

    def _carry_out(self, work: AnyWork, desk: Desk) -> float | None:
        scope = self.scope
        match work:
            case LoadGrid(grid_id=grid_id):
                scope.load_grid(grid_id)
            case AcquireAtlas(positions_um=positions):
                for x_um, y_um in positions:
                    desk.check()
                    self._move(x_um, y_um)
                    scope.shift(0.0, 0.0)
                    self._take(desk, "low")
            case MapSquare() as square:
                self._move(square.x_um, square.y_um)
                scope.shift(0.0, 0.0)
                if square.find_eucentric:
                    desk.check()
                    scope.find_eucentric()
                desk.check()
                self._take(desk, "medium")
            case Focus() as focus:
                self._move(focus.x_um, focus.y_um)
                desk.check()
                scope.autofocus()
            case Expose() as shot:
                self._move(shot.x_um, shot.y_um)
                scope.shift(shot.image_shift_x_um, shot.image_shift_y_um)
                desk.check()
                self._take(desk, "high", defocus_um=shot.defocus_um, dose_e_per_a2=shot.dose_e_per_a2)
                return shot.dose_e_per_a2
            case Goto() as goto:
                self._move(goto.x_um, goto.y_um, goto.z_um, goto.tilt_deg)
            case Park():
                self.make_safe("parked")
        return None

    def _move(self, x_um: float, y_um: float, z_um: float | None = None, tilt_deg: float | None = None) -> None:
        for problem in interlock.stage_problems(x_um, y_um, z_um, tilt_deg, self.envelope):
            raise WorkError(ErrorKind.OUTSIDE_ENVELOPE, problem, 0.0)
        if z_um is None and tilt_deg is None:
            self.scope.move_with_backlash_correction(x_um, y_um)
        else:
            self.scope.move(x_um, y_um, z_um=z_um, tilt_deg=tilt_deg)

    def _take(self, desk: Desk, level: Level, *, defocus_um: float = 0.0, dose_e_per_a2: float | None = None) -> None:
        scope = self.scope
        taken = scope.acquire(level, defocus_um=defocus_um, dose_e_per_a2=dose_e_per_a2)
        preset = scope.settings.presets[level]
        desk.hand_in(
            Shot(
                taken.image,
                level=level,
                pixel_size_angstrom=preset.pixel_size_angstrom,
                stage=self._stage(),
                image_shift_um=scope.image_shift_um,
                image_to_stage=taken.image_to_stage,
                defocus_um=taken.believed.defocus_um if level == "high" else None,
                dose_e_per_a2=taken.believed.dose_e_per_a2,
                exposure_s=preset.exposure_s,
                voltage_kv=scope.voltage_kv if level == "high" else None,
                open_beam_counts=scope.open_beam_counts(taken.believed),
            )
        )

    def make_safe(self, why: str) -> None:
        """Blank the beam, tilt to 0."""
        self.scope.make_safe()

    def answered(self, targets: Targets) -> None:
        """Keep the daemon's answers: a pilot needs none, tests look at them."""
        self.answers[targets.frame_id] = targets
