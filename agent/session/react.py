"""What the session makes of a fact from the microscope or a model."""

import math

import numpy as np

from agent import geometry
from agent.messages import (
    AcquireAtlas,
    AnyWork,
    CommandResult,
    DetectedObject,
    ErrorKind,
    Expose,
    Frame,
    Goto,
    LoadGrid,
    MapSquare,
    Park,
)
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.places import merge_holes, merge_squares, place_frame
from agent.session.state import OPEN_STATES, Anchor, Decision, Hole, Placement, Square, hole_id, square_id
from agent.session.turn import Turn
from models.detections import GridSighting, HoleFinding, QualityFinding, SquareFinding

LINK = "link"
LEAST_CORRELATION = 0.6  # of a grid that came back with how it was: below, it is not taken for the same
BAD_MICROGRAPHS = {"dark": ErrorKind.FRAME_DARK, "saturated": ErrorKind.FRAME_SATURATED}


def started(turn: Turn, what: inp.Started) -> None:
    """The daemon opened the journal: a new session, or the next epoch of an old one."""
    settings = turn.settings
    config = settings.decision_hash()
    if not turn.state.session_id:
        turn.emit(
            ev.SessionOpened(
                session_id=what.session_id,
                name=settings.session.name,
                config=config,
                version=what.version,
                mode=settings.session.mode,
                autonomy=settings.session.autonomy,
                thresholds={
                    "square_score": settings.squares.min_score,
                    "hole_score": settings.holes.min_score,
                    "squares_per_grid": float(settings.squares.per_grid),
                    "exposures_per_square": float(settings.holes.per_square),
                },
                grids=tuple((grid.id, grid.slot) for grid in settings.session.grids),
                models=what.models,
            )
        )
        if what.prior is not None:
            turn.emit(ev.PriorRead(prior=what.prior))
    turn.emit(ev.EpochBegan(epoch=turn.state.epoch + 1, config=config, version=what.version))
    if turn.state.epoch == 1:
        turn.phase("collecting", "the session has begun")
    known = {rule.cause for rule in settings.suspend_when}
    for cause in [cause for cause in turn.state.suspensions if cause.startswith("reading:") and cause not in known]:
        turn.unsuspend(cause)  # its rule is no longer in the config: nothing would ever end it
    if turn.state.phase != "stopped":
        turn.suspend(LINK, "waiting for the driver", severity="info")


def said_hello(turn: Turn, what: inp.SaidHello) -> None:
    """A driver is here: take what it still has to tell, compare its grid with ours, go on."""
    hello = what.hello
    turn.emit(
        ev.DriverJoined(driver=hello.driver, software=hello.software, can_pilot=hello.can_pilot, state=hello.state)
    )
    for result in hello.results:
        result_came(turn, result)
    there, here = hello.state.grid_id, turn.state.grid_id
    if there and here and there != here and there in turn.state.grids:
        turn.suspend("grid", f"the microscope holds grid {there}, this session was at {here}: resume after a look")
    turn.unsuspend(LINK)


def left(turn: Turn, what: inp.Left) -> None:
    """The driver is gone."""
    if turn.state.driver != what.driver:
        return
    turn.emit(ev.DriverLeft(driver=what.driver, why=what.why))
    if turn.state.phase != "stopped":
        piloting = turn.state.mode == "pilot"
        turn.suspend(LINK, f"driver {what.driver}: {what.why}", "alarm" if piloting else "info")


def taken_over(turn: Turn, what: inp.TakenOver) -> None:
    """A person works at the microscope: let go, go on only when told."""
    for command_id in turn.state.outstanding:
        turn.emit(ev.CommandCancelled(command_id=command_id, why=what.why))
    if turn.state.phase != "fault":  # only an operator's `clear` leads out of a fault
        turn.phase("paused", f"taken over at the microscope: {what.why}", by="microscope")
    turn.emit(ev.Noticed(severity="alarm", text=f"taken over at the microscope: {what.why}; resume when done"))


def frame_came(turn: Turn, what: inp.FrameCame) -> None:
    """A frame is on disk: note what it shows; its analysis is due from now on."""
    frame, as_taken, grid = what.frame, None, turn.state.grid
    if grid is not None and (lies := grid.placement) is not None:  # it was out meanwhile, and lies otherwise by now
        frame, as_taken = geometry.on_grid(what.frame, lies.matrix, (lies.x_um, lies.y_um)), what.frame
    grid_id, area_id = place_frame(turn, frame)
    turn.emit(ev.FrameReceived(frame=frame, file=what.file, grid_id=grid_id, area_id=area_id, as_taken=as_taken))
    limits = turn.settings.pixel_size_angstrom.get(frame.level)
    if limits is not None and not limits[0] <= frame.pixel_size_angstrom <= limits[1]:
        why = (
            f"frame {frame.frame_id}: pixel size {frame.pixel_size_angstrom:g} Å is no {frame.level} magnification"
            f" (config pixel_size_angstrom.{frame.level}: {limits[0]:g}…{limits[1]:g} Å)"
        )
        _set_aside(turn, frame.frame_id, ErrorKind.FRAME_WRONG, why)


def analysed(turn: Turn, what: inp.Analysed) -> None:
    """A model has answered."""
    frame = what.frame
    pending = turn.state.pending.get(frame.frame_id)
    if pending is None:
        return
    if what.degraded != turn.state.degraded:
        turn.emit(ev.DegradedChanged(text=what.degraded))
        text = f"degraded: {what.degraded}" if what.degraded else "models are well again"
        turn.emit(ev.Noticed(severity="warning" if what.degraded else "info", text=text))
    match what.finding:
        case SquareFinding() as finding:
            grid = turn.state.grids[pending.grid_id]
            turn.emit(
                ev.SquaresFound(
                    grid_id=pending.grid_id,
                    frame_id=frame.frame_id,
                    model=what.model,
                    fingerprint=what.fingerprint,
                    squares=merge_squares(turn.state, grid, frame, finding),
                    note=finding.note,
                    elapsed_s=what.elapsed_s,
                )
            )
        case HoleFinding() as finding:
            _holes(turn, what, pending.area_id, finding)
        case GridSighting() as finding:
            _sighted(turn, what, pending.grid_id, pending.like, finding)
        case QualityFinding() as finding:
            _objects(turn, what, pending.area_id)
            _quality(turn, what, pending.area_id, finding)


def _sighted(turn: Turn, what: inp.Analysed, grid_id: str, like: str, seen: GridSighting) -> None:
    """A grid is back on the stage: where it lies now, or that it was not known again."""
    anchor, frame = turn.state.grids[grid_id].anchor, what.frame
    placement = None
    if anchor is not None and seen.correlation >= LEAST_CORRELATION:
        placement = placement_of(anchor, frame, seen)
        (a, b), (x_um, y_um) = placement.matrix[:2], placement.stage_um(anchor.x_um, anchor.y_um)
        turn_deg = math.degrees(math.atan2(-b, a))
        way_um = math.hypot(x_um - anchor.x_um, y_um - anchor.y_um)
        text = f"known again: {way_um:.1f} µm away and turned by {turn_deg:+.2f}°, correlation {seen.correlation:.2f}"
    else:
        text = f"not known again: correlation {seen.correlation:.2f}, {LEAST_CORRELATION:g} is needed"
        text += f" ({seen.note})" if seen.note else ""
    turn.emit(
        ev.GridSighted(
            grid_id=grid_id,
            frame_id=frame.frame_id,
            like=like,
            model=what.model,
            fingerprint=what.fingerprint,
            placement=placement,
            correlation=round(seen.correlation, 4),
            decision=Decision(why=text, model=what.model, frame_id=frame.frame_id),
            elapsed_s=what.elapsed_s,
        )
    )


def placement_of(anchor: Anchor, frame: Frame, seen: GridSighting) -> Placement:
    """How a grid lies of which ``frame`` shows what its anchor showed, turned and shifted as ``seen`` says."""
    m, n = np.array(anchor.image_to_stage).reshape(2, 2), np.array(geometry.image_to_stage(frame)).reshape(2, 2)
    turn = math.radians(seen.turn_deg)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = n @ rotation @ np.linalg.inv(m)
    shift = np.array(geometry.centre_um(frame)) + n @ (seen.dx, seen.dy) - matrix @ (anchor.x_um, anchor.y_um)
    a, b, c, d = (round(float(v), 9) for v in matrix.ravel())
    return Placement(matrix=(a, b, c, d), x_um=round(float(shift[0]), 4), y_um=round(float(shift[1]), 4))


def _holes(turn: Turn, what: inp.Analysed, area_id: str, finding: HoleFinding) -> None:
    square = turn.state.square(area_id)
    if square is None:
        return
    grid = turn.state.grids[turn.state.pending[what.frame.frame_id].grid_id]
    holes, beside = merge_holes(grid, square, what.frame, finding)
    lattice = finding.lattice
    scale = what.frame.pixel_size_angstrom * 1e-4
    pitch = min(math.hypot(*lattice.a), math.hypot(*lattice.b)) * scale if lattice else None
    turn.emit(
        ev.HolesFound(
            square_id=area_id,
            frame_id=what.frame.frame_id,
            model=what.model,
            fingerprint=what.fingerprint,
            holes=holes,
            lattice=lattice.symmetry if lattice else "",
            pitch_um=round(pitch, 4) if pitch else None,
            note=finding.note,
            elapsed_s=what.elapsed_s,
            beside=beside,
        )
    )
    now = turn.state.square(area_id)
    if now is None:
        return
    if not now.holes:
        turn.error(ErrorKind.NO_HOLES, area_id, finding.note or "no holes found")
    elif now.state in ("busy", "found", "queued") or (now.state == "skipped" and not now.word):
        why = Decision(
            why=f"{len(now.holes)} holes found" + (f", {lattice.symmetry} lattice" if lattice else ""),
            model=what.model,
            fingerprint=what.fingerprint,
            frame_id=what.frame.frame_id,
        )
        turn.area(area_id, "mapped", why)


def _objects(turn: Turn, what: inp.Analysed, area_id: str) -> None:
    """Note what the detectors found, and give more exposures to a square that is rich in it (``squares.rich``)."""
    for told in what.detected:
        finding = told.finding
        turn.emit(
            ev.ObjectsDetected(
                area_id=area_id,
                frame_id=what.frame.frame_id,
                detector=told.detector,
                fingerprint=told.fingerprint,
                objects=tuple(
                    DetectedObject(x=o.x, y=o.y, diameter_nm=o.diameter_nm, group=o.group, score=o.score)
                    for o in finding.objects
                ),
                counts=dict(finding.counts),
                doubt=finding.doubt,
                note=finding.note,
                elapsed_s=told.elapsed_s,
            )
        )
    square = turn.state.square(area_id) if what.detected else None
    for rule in turn.settings.squares.rich if square is not None else ():
        found = square.all_detected.get(rule.what, 0) if square is not None else 0
        if square is None or rule.what in square.favoured or found < rule.at_least:
            continue
        why = Decision(
            why=f"{found} {rule.what} on its micrographs, {rule.at_least} make a square rich (squares.rich)",
            frame_id=what.frame.frame_id,
        )
        turn.emit(
            ev.SquareFavoured(
                area_id=square.area_id,
                rule=rule.what,
                priority=rule.priority,
                more_exposures=rule.more_exposures,
                decision=why,
            )
        )


def _quality(turn: Turn, what: inp.Analysed, area_id: str, finding: QualityFinding) -> None:
    turn.emit(
        ev.MicrographJudged(
            area_id=area_id,
            frame_id=what.frame.frame_id,
            model=what.model,
            fingerprint=what.fingerprint,
            score=round(float(finding.score), 4),
            label=finding.label,
            features={k: round(float(v), 4) for k, v in finding.features.items()},
            note=finding.note,
            elapsed_s=what.elapsed_s,
        )
    )
    if error := BAD_MICROGRAPHS.get(finding.label):
        turn.error(error, area_id, finding.note or f"micrograph is {finding.label}")
    else:
        bad = tuple(str(kind) for kind in BAD_MICROGRAPHS.values() if str(kind) in turn.state.in_a_row)
        if bad:
            turn.emit(ev.ErrorsForgiven(errors=bad))
    _settle(turn, area_id)


def _settle(turn: Turn, area_id: str) -> None:
    """A hole is done when its micrograph is judged and its command has ended, whichever came last."""
    hole = turn.state.hole(area_id)
    if hole is None or hole.state not in ("busy", "exposed", "found"):
        return
    if any(entry.area_id == area_id for entry in turn.state.outstanding.values()):
        return
    if hole.quality is None:
        turn.area(area_id, "exposed", Decision(why="exposed, not judged yet"))
    else:
        turn.area(area_id, "done", Decision(why=f"micrograph is {hole.quality_label}", score=hole.quality))


def measurement_came(turn: Turn, what: inp.MeasurementCame) -> None:
    """The microscope software's own pipeline measured an exposure, or says that an area was visited."""
    told = what.measured
    hole = turn.state.hole(told.area_id)
    if turn.state.area(told.area_id) is None:
        return
    quality, label = (None, "")
    if hole is not None and told.ctf_resolution_angstrom is not None:
        ctf = hole.mean_with("ctf_resolution_angstrom", told.ctf_resolution_angstrom)
        quality, label = quality_of(ctf, turn.settings.policy.good_ctf_angstrom)
    turn.emit(
        ev.AreaMeasured(
            measured_id=told.measured_id,
            area_id=told.area_id,
            ctf_resolution_angstrom=told.ctf_resolution_angstrom,
            ice_thickness_nm=told.ice_thickness_nm,
            quality=quality,
            label=label,
        )
    )
    if hole is not None and hole.state != "done":
        turn.area(told.area_id, "done", Decision(why=f"measured by the microscope software: {label or 'no CTF'}"))


def quality_of(ctf_resolution_angstrom: float, good_angstrom: float) -> tuple[float, str]:
    """Quality (0 to 1) and label of a micrograph from its CTF resolution: 0.5 just where it is still good."""
    quality = 1.0 / (1.0 + (ctf_resolution_angstrom / good_angstrom) ** 2)
    return round(quality, 4), "good" if ctf_resolution_angstrom <= good_angstrom else "poor"


def past_came(turn: Turn, what: inp.PastCame) -> None:
    """A square of an earlier session joins a grid that is learned from and never visited."""
    past, told = what.past, what.past.square
    grid = turn.state.past.get(past.grid_id)
    area_id = square_id(past.grid_id, len(grid.squares) + 1 if grid is not None else 1)
    holes = {}
    for number, hole in enumerate(told.holes, 1):
        measured = {
            "ctf_resolution_angstrom": hole.ctf_resolution_angstrom,
            "ice_thickness_nm": hole.ice_thickness_nm,
        }
        values = {name: value for name, value in measured.items() if value is not None}
        quality, label = None, ""
        if hole.ctf_resolution_angstrom is not None:
            quality, label = quality_of(hole.ctf_resolution_angstrom, turn.settings.policy.good_ctf_angstrom)
        name = hole_id(area_id, number)
        holes[name] = Hole(
            area_id=name,
            x_um=hole.x_um,
            y_um=hole.y_um,
            radius_um=hole.radius_um,
            score=hole.score,
            state="done" if values else "skipped",
            why="of an earlier session",
            quality=quality,
            quality_label=label,
            features={**hole.features, **values},
            looks=hole.features if values else {},
            measurements=1 if values else 0,
        )
    square = Square(
        area_id=area_id,
        x_um=told.x_um,
        y_um=told.y_um,
        size_um=told.size_um,
        score=told.score,
        state="done",
        why="of an earlier session",
        visited=True,
        features=told.features,
        holes=holes,
        holes_ever=len(holes),
    )
    why = Decision(why=past.why or "recalled to be learned from")
    turn.emit(ev.PastRecalled(past_id=past.past_id, grid_id=past.grid_id, square=square, decision=why))


def order_asked(turn: Turn, what: inp.OrderAsked) -> None:
    """A driver is about to be told an order of squares: for the record, before it is told."""
    turn.emit(ev.OrderGiven(driver=what.driver, order=what.order, decision=Decision(why=what.why)))


def analysis_failed(turn: Turn, what: inp.AnalysisFailed) -> None:
    """No model could work with a frame: it is set aside, the night goes on."""
    if what.frame_id in turn.state.pending:
        _set_aside(turn, what.frame_id, what.error, what.why)


def _set_aside(turn: Turn, frame_id: str, error: ErrorKind, why: str) -> None:
    area_id = turn.state.pending[frame_id].area_id
    turn.emit(ev.FrameSetAside(frame_id=frame_id, error=error, why=why))
    turn.error(error, area_id, why)


def result_came(turn: Turn, result: CommandResult) -> None:
    """A command has ended; asked twice, told twice, counted once."""
    entry = turn.state.outstanding.get(result.command_id)
    if entry is None or result.session_id != turn.state.session_id:
        return
    turn.emit(ev.CommandEnded(result=result, area_id=entry.area_id))
    work = entry.work
    if result.status == "done":
        _done(turn, entry.area_id, result, work, frames=len(entry.frames))
    elif result.status == "cancelled":
        area = turn.state.area(entry.area_id)
        if area is not None and area.state == "busy":
            turn.area(entry.area_id, "queued", Decision(why=f"cancelled: {result.message}"))
        if isinstance(work, AcquireAtlas):
            turn.grid(work.grid_id, "loaded", f"the atlas was cancelled and is taken again: {result.message}")
    else:
        _not_done(turn, entry.area_id, result, work)
    hole = turn.state.hole(entry.area_id)
    if isinstance(work, Expose) and hole is not None and hole.state in OPEN_STATES and hole.dose_e_per_a2 > 0:
        # whatever went wrong, the dose is spent: the agent never exposes a place twice by itself
        turn.area(hole.area_id, "skipped", Decision(why=f"had {hole.dose_e_per_a2:g} e/Å², is not exposed again"))


def _not_done(turn: Turn, area_id: str, result: CommandResult, work: AnyWork) -> None:
    """A command failed, was refused, or nobody knows."""
    kind = result.error
    if result.status == "unknown" and (kind is None or isinstance(work, Expose)):
        kind = ErrorKind.OUTCOME_UNKNOWN
    elif kind is None:
        kind = ErrorKind.OUTSIDE_ENVELOPE if result.status == "refused" else ErrorKind.SCRIPT
    why = result.message or f"{work.__struct_config__.tag} {result.status}"
    match work:
        case AcquireAtlas(grid_id=grid_id) if _atlas_again(turn, grid_id, kind):
            turn.emit(ev.ErrorCounted(error=kind, area_id=grid_id, why=why, will="try again"))
            turn.grid(grid_id, "loaded", f"the atlas is taken again: {why}")
        case AcquireAtlas(grid_id=grid_id):
            turn.emit(ev.ErrorCounted(error=kind, area_id=grid_id, why=why, will="go on"))
            turn.emit(ev.Noticed(severity="warning", text=f"atlas of {grid_id} is not whole: {why}"))
        case LoadGrid(grid_id=grid_id):
            turn.error(kind, grid_id, why, work)
        case Park():
            tried = turn.state.attempts.get(f"{kind} park", 0)
            turn.emit(ev.ErrorCounted(error=kind, area_id="park", why=why, will="fault" if tried else "try again"))
            if tried:
                turn.fault(f"the microscope could not be parked: {why}")
        case Goto():
            turn.emit(ev.Noticed(severity="warning", text=f"goto failed: {why}"))
        case _:
            turn.error(kind, area_id, why, work)


def _atlas_again(turn: Turn, grid_id: str, kind: ErrorKind) -> bool:
    """Whether an atlas of which nobody knows how far it came is taken again: its dose is next to nothing."""
    tried = turn.state.attempts.get(f"{kind} {grid_id}", 0)
    return kind == ErrorKind.OUTCOME_UNKNOWN and tried < turn.settings.error_row(kind).retries


def _done(turn: Turn, area_id: str, result: CommandResult, work: object, frames: int) -> None:
    forgiven = [ErrorKind.STAGE_TIMEOUT, ErrorKind.OUTSIDE_ENVELOPE, ErrorKind.SCRIPT]
    match work:
        case LoadGrid(grid_id=grid_id):
            turn.grid(grid_id, "loaded", "on the stage")
        case MapSquare() if not frames:
            turn.error(ErrorKind.CAMERA, area_id, f"{result.command_id} ended without a frame")
        case Expose():
            forgiven += [ErrorKind.CAMERA, ErrorKind.DRIFT, ErrorKind.REALIGN_FAILED]
            if not frames:
                turn.error(ErrorKind.CAMERA, area_id, f"{result.command_id} ended without a frame")
            else:
                _settle(turn, area_id)
        case _:
            forgiven += [ErrorKind.AUTOFOCUS_FAILED, ErrorKind.EUCENTRIC_FAILED]
    counted = tuple(str(kind) for kind in forgiven if str(kind) in turn.state.in_a_row)
    if counted:
        turn.emit(ev.ErrorsForgiven(errors=counted))


def overdue(turn: Turn, what: inp.Overdue) -> None:
    """No result in time: nobody can say what became of the command, and it is not asked for again by itself."""
    entry = turn.state.outstanding.get(what.command_id)
    if entry is None:
        return
    text = f"{what.command_id} had no result within {entry.command.timeout_s:g} s"
    turn.emit(ev.CommandCancelled(command_id=what.command_id, why=text))
    result = CommandResult(
        command_id=what.command_id,
        session_id=turn.state.session_id,
        status="unknown",
        error=ErrorKind.COMMAND_TIMEOUT,
        message=text,
    )
    result_came(turn, result)


def reported(turn: Turn, what: inp.Reported) -> None:
    """The microscope said how it is; valves that somebody else closed hold the session until they are open."""
    closed = not what.state.valves_open and not what.state.in_safe_state
    if closed and not turn.state.parked and turn.state.phase in ("collecting", "pausing"):
        turn.suspend("valves", "the column valves were closed from outside")
    elif what.state.valves_open:
        turn.unsuspend("valves")


def held(turn: Turn, what: inp.Held) -> None:
    """A suspender tripped or cleared."""
    if what.detail:
        turn.suspend(what.cause, what.detail)
    else:
        turn.unsuspend(what.cause)


def tick(turn: Turn, _: inp.Tick) -> None:
    """Time has passed: say so when nothing was finished for too long."""
    state = turn.state
    limit = turn.settings.link.idle_notice_s
    since = max(state.progress_utc, state.started_utc)
    if state.phase == "collecting" and not state.idle_told and turn.utc - since > limit:
        text = f"nothing was finished for {limit:g} s"
        turn.emit(ev.IdleTold(text=text))
        turn.emit(ev.Noticed(severity="alarm", text=text))
