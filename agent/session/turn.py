"""One turn of the session: the events that an input leads to, each folded in before the next is thought of."""

from msgspec.structs import replace

from agent.messages import AnyWork, Command, ErrorKind, Expose, Focus, Goto, LoadGrid, MapSquare
from agent.session import events as ev
from agent.session.apply import advance
from agent.session.state import (
    PHASE_MOVES,
    AreaState,
    Decision,
    GridState,
    Hole,
    Phase,
    Placement,
    State,
    is_hole,
    square_of,
)
from agent.settings import ErrorRow, Settings


def on_stage(work: AnyWork, placement: Placement) -> AnyWork:
    """The same work with places of the stage instead of those on a grid that lies as ``placement`` says."""
    if not isinstance(work, MapSquare | Focus | Expose | Goto):
        return work
    x_um, y_um = (round(v, 4) for v in placement.stage_um(work.x_um, work.y_um))
    if isinstance(work, Expose):
        u, v = placement.turned(work.image_shift_x_um, work.image_shift_y_um)
        return replace(work, x_um=x_um, y_um=y_um, image_shift_x_um=round(u, 4), image_shift_y_um=round(v, 4))
    return replace(work, x_um=x_um, y_um=y_um)


class Turn:
    """Collects events; ``state`` is always the state after the last of them. Lives for one `step` only."""

    def __init__(self, state: State, settings: Settings, utc: float) -> None:
        self.state = state
        self.settings = settings
        self.utc = utc
        self.events: list[ev.AnyEvent] = []

    def emit(self, event: ev.AnyEvent) -> None:
        """Let this happen."""
        self.state = advance(self.state, event, seq=self.state.seq + 1, utc=self.utc)
        self.events.append(event)

    def phase(self, phase: Phase, why: str, by: str = "agent", stop_after: str = "") -> None:
        """Go to another phase; from ``stopped`` and along forbidden ways nothing happens."""
        if phase in PHASE_MOVES[self.state.phase]:
            self.emit(ev.PhaseChanged(phase=phase, why=why, by=by, stop_after=stop_after))

    def area(self, area_id: str, state: AreaState, decision: Decision) -> None:
        """A square or hole changes."""
        if self.state.area(area_id) is not None:
            self.emit(ev.AreaChanged(area_id=area_id, state=state, decision=decision))

    def grid(self, grid_id: str, state: GridState, why: str) -> None:
        """A grid changes."""
        self.emit(ev.GridChanged(grid_id=grid_id, state=state, decision=Decision(why=why)))

    def suspend(self, cause: str, detail: str, severity: str = "alarm") -> None:
        """Hold the session; told and journalled once, however often the cause comes up again meanwhile."""
        if cause in self.state.suspensions:
            return
        self.emit(ev.Suspended(cause=cause, detail=detail))
        self.emit(ev.Noticed(severity=severity, text=f"suspended ({cause}): {detail}"))

    def unsuspend(self, cause: str) -> None:
        """End a hold; its end is told once too."""
        if cause in self.state.suspensions:
            self.emit(ev.Unsuspended(cause=cause))
            self.emit(ev.Noticed(severity="info", text=f"no longer suspended by {cause}"))

    def command(self, work: AnyWork, area_id: str, decision: Decision) -> None:
        """Issue a command; it leaves once its event is on disk."""
        kind = str(work.__struct_config__.tag)
        command = Command(
            command_id=f"C{self.state.commands_issued + 1:06d}",
            session_id=self.state.session_id,
            epoch=self.state.epoch,
            timeout_s=getattr(self.settings.timeouts_s, kind),
            work=work,
        )
        grid = self.state.grid
        on_grid = None
        if grid is not None and grid.placement is not None and self.state.on_stage == grid.grid_id:
            sent = on_stage(work, grid.placement)
            if sent is not work:
                command, on_grid = replace(command, work=sent), work
        self.emit(ev.CommandIssued(command=command, area_id=area_id, decision=decision, on_grid=on_grid))

    def error(self, kind: ErrorKind, area_id: str, why: str, work: AnyWork | None = None) -> None:
        """Something failed: count it and do what the error policy says."""
        row = self.settings.error_row(kind)
        tried = self.state.attempts.get(f"{kind} {area_id}", 0)
        dosed = isinstance(work, Expose) and kind == ErrorKind.OUTCOME_UNKNOWN
        again = tried < row.retries and not dosed
        will = "try again" if again else row.then
        self.emit(ev.ErrorCounted(error=kind, area_id=area_id, why=why, will=will))
        decision = Decision(why=f"{why} ({kind}; {will})", config=self.state.config)
        if again:
            self._once_more(area_id, decision)
        else:
            self._then(row, kind, area_id, decision, work)
        count = self.state.in_a_row.get(str(kind), 0)
        if row.suspend_after is not None and count >= row.suspend_after:
            self.suspend("errors", f"{count} x {kind} in a row, the last: {why}")

    def _once_more(self, area_id: str, decision: Decision) -> None:
        area = self.state.area(area_id)
        if isinstance(area, Hole) and area.state in ("busy", "exposed") and area.dose_e_per_a2 > 0:
            self.area(area_id, "skipped", decision)  # the dose is spent: no place is exposed twice
        elif area is not None and area.state in ("busy", "exposed"):
            mapped = not is_hole(area_id) and getattr(area, "holes", None)
            self.area(area_id, "mapped" if mapped else "queued", decision)

    def _then(self, row: ErrorRow, kind: ErrorKind, area_id: str, decision: Decision, work: AnyWork | None) -> None:
        match row.then:
            case _ if isinstance(work, LoadGrid):  # without its grid nothing of it can be done, whatever the row says
                self.grid(work.grid_id, "skipped", decision.why)
                if row.then in ("suspend", "fault"):
                    self.suspend("errors", decision.why)
            case "skip":
                self._skip(area_id, decision, work)
            case "go_on":
                self._go_on(area_id, decision, work)
            case "suspend":
                self._once_more(area_id, decision)
                self.suspend("errors", decision.why)
            case "fault":
                self._once_more(area_id, decision)
                self.fault(decision.why)
            case "next_grid":
                self._skip(area_id, decision, work)
                if self.state.grid_id:
                    self.grid(self.state.grid_id, "skipped", decision.why)
        if kind == ErrorKind.OUTCOME_UNKNOWN and isinstance(work, Expose):
            self.area(area_id, "unknown", decision)

    def _skip(self, area_id: str, decision: Decision, work: AnyWork | None) -> None:
        if isinstance(work, Focus):  # no focus, no exposures there: the holes of this group are left out
            square = self.state.square(area_id)
            for group in square.groups.values() if square else ():
                if (group.focus_x_um, group.focus_y_um) == (work.x_um, work.y_um):
                    for hole_id in group.hole_ids:
                        hole = self.state.hole(hole_id)
                        if hole is not None and hole.state in ("found", "queued"):
                            self.area(hole_id, "skipped", decision)
            return
        area = self.state.area(area_id)
        if area is not None and area.state not in ("done", "rejected", "skipped"):
            self.area(area_id, "skipped", decision)

    def _go_on(self, area_id: str, decision: Decision, work: AnyWork | None) -> None:
        square = self.state.square(area_id)
        if isinstance(work, Focus) and square is not None:
            groups = tuple(
                replace(g, focused=True) if (g.focus_x_um, g.focus_y_um) == (work.x_um, work.y_um) else g
                for g in square.groups.values()
            )
            planned = ev.GroupsPlanned(square_id=square_of(area_id), groups=groups, decision=decision)
            self.emit(planned)
        elif is_hole(area_id):
            self.area(area_id, "done", decision)
        elif square is not None and square.state == "busy":  # without a map there is nothing to go on with
            self.area(area_id, "mapped" if square.holes else "skipped", decision)

    def fault(self, why: str, by: str = "agent") -> None:
        """Stop everything, reach the safe state, and wait for a person."""
        for command_id in self.state.outstanding:
            self.emit(ev.CommandCancelled(command_id=command_id, why=why))
        self.phase("fault", why, by)
        self.emit(ev.SafeOrdered(why=why))
        self.emit(ev.Noticed(severity="alarm", text=f"fault: {why}; `cryonaut control clear` leads on"))
