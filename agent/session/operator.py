"""What an operator's word does: at once, with a name, remembered, and above every model."""

from msgspec.structs import replace

from agent import control_messages as say
from agent.interlock import reachable
from agent.messages import Expose, Goto
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.places import next_hole_number
from agent.session.state import (
    OPEN_STATES,
    Decision,
    Grid,
    Hole,
    Square,
    hole_id,
    is_hole,
    square_id,
)
from agent.session.turn import Turn

PINNED = 1000  # the highest priority
OWN_CAUSES = ("errors", "grid", "moves")  # suspensions that an operator's `resume` ends


class NotPossibleError(ValueError):
    """A request that cannot be carried out now, and what can be done instead."""


def controlled(turn: Turn, what: inp.Controlled) -> str:
    """Carry the request out and say in one line what was done.

    Raises
    ------
    NotPossibleError
        If it cannot be done now; then nothing was changed.
    """
    turn.emit(ev.Requested(request_id=what.request_id, by=what.by, verb=what.verb))
    by = what.by
    match what.verb:
        case say.Pause(now=now):
            return _pause(turn, by, now)
        case say.Resume():
            return _resume(turn, by)
        case say.Stop(after=after):
            _must(turn, "collecting", "pausing", "paused", "idle", "stopping")
            turn.phase("stopping", f"stop asked for by {by}", by, stop_after=after)
            if not turn.state.driver:
                turn.phase("stopped", f"stopped by {by}; not parked: there is no driver", by)
                return "stopped; the microscope was not parked, as there is no driver"
            return f"stopping after the {after} under way, then parking"
        case say.Abort():
            return _abort(turn, by)
        case say.EmergencyStop(why=why):
            turn.fault(f"emergency stop by {by}" + (f": {why}" if why else ""), by)
            return "emergency stop: the driver is told to reach its safe state; `clear` leads on"
        case say.Clear():
            return _clear(turn, by)
        case say.SetThreshold(name=name, value=value):
            before = turn.state.thresholds[name]
            if name.endswith("_score") and value > 1:
                raise NotPossibleError(f"{name} {value:g}: scores lie between 0 and 1")
            turn.emit(ev.SettingChanged(name=name, before=f"{before:g}", after=f"{value:g}", by=by))
            return f"{name}: {before:g} -> {value:g}"
        case say.SetAutonomy(level=level):
            before_level = turn.state.autonomy
            turn.emit(ev.SettingChanged(name="autonomy", before=before_level, after=level, by=by))
            if turn.state.phase == "idle" and level == "unattended":
                turn.phase("collecting", f"autonomy {level} by {by}", by)
            return f"autonomy: {before_level} -> {level}"
        case say.SetMode(mode=mode):
            before_mode = turn.state.mode
            turn.emit(ev.SettingChanged(name="mode", before=before_mode, after=mode, by=by))
            return f"mode: {before_mode} -> {mode}"
        case say.GoTo() as goto:
            return _goto(turn, by, goto)
        case say.Undo():
            return _undo(turn, by)
        case _:
            return _areas(turn, by, what.verb)


def _must(turn: Turn, *phases: str) -> None:
    if turn.state.phase not in phases:
        raise NotPossibleError(f"the session is {turn.state.phase}; this needs {', '.join(phases)}")


def _pause(turn: Turn, by: str, now: bool) -> str:
    if turn.state.phase == "paused":
        return "paused already"
    _must(turn, "collecting", "pausing", "idle", "stopping")
    if now or not turn.state.outstanding:
        turn.phase("paused", f"paused by {by}", by)
        under_way = ", ".join(turn.state.outstanding)
        return "paused; nothing new leaves" + (
            f" ({under_way} was sent before and ends by itself)" if under_way else ""
        )
    turn.phase("pausing", f"pause after this item, by {by}", by)
    return f"pausing after {', '.join(turn.state.outstanding)}"


def _resume(turn: Turn, by: str) -> str:
    if turn.state.phase == "fault":
        raise NotPossibleError("the session is in fault: look at the microscope, then `clear`, then `resume`")
    if turn.state.phase == "stopped":
        raise NotPossibleError("the session has ended; start a new one")
    if turn.state.phase == "stopping":
        raise NotPossibleError("the session is stopping; `pause` holds that, then `resume` goes on")
    for cause in OWN_CAUSES:
        turn.unsuspend(cause)
    forgiven = tuple(turn.state.in_a_row)
    if forgiven:
        turn.emit(ev.ErrorsForgiven(errors=forgiven))
    if turn.state.phase != "collecting":
        turn.phase("collecting", f"resumed by {by}", by)
    held = ", ".join(f"{cause} ({detail})" for cause, detail in turn.state.suspensions.items())
    return f"collecting, but held by {held}" if held else "collecting"


def _abort(turn: Turn, by: str) -> str:
    _must(turn, "collecting", "pausing", "paused", "idle", "stopping")
    for command_id in turn.state.outstanding:
        turn.emit(ev.CommandCancelled(command_id=command_id, why=f"aborted by {by}"))
    turn.phase("stopping", f"aborted by {by}", by, stop_after="now")
    return "aborting: what is under way is cancelled, then the microscope is parked"


def _clear(turn: Turn, by: str) -> str:
    if turn.state.phase != "fault":
        raise NotPossibleError(f"the session is {turn.state.phase}, not in fault: there is nothing to clear")
    for cause in OWN_CAUSES:
        turn.unsuspend(cause)
    if turn.state.in_a_row:
        turn.emit(ev.ErrorsForgiven(errors=tuple(turn.state.in_a_row)))
    turn.emit(ev.Released())
    turn.phase("paused", f"fault cleared by {by}", by)
    return "cleared; the session is paused, `resume` goes on"


def _goto(turn: Turn, by: str, goto: say.GoTo) -> str:
    _must(turn, "paused", "idle")
    if not turn.state.can_pilot:
        raise NotPossibleError("there is no driver that the agent may move")
    if turn.state.outstanding:
        raise NotPossibleError(f"{', '.join(turn.state.outstanding)} is under way; wait for its end")
    if goto.area_id:
        area = turn.state.area(goto.area_id)
        if area is None:
            raise NotPossibleError(f"there is no area {goto.area_id}")
        x_um, y_um = area.x_um, area.y_um
    elif goto.x_um is not None and goto.y_um is not None:
        x_um, y_um = goto.x_um, goto.y_um
    else:
        raise NotPossibleError("goto needs an area, or x and y in micrometres")
    _must_be_reachable(turn, x_um, y_um)
    turn.command(Goto(x_um=x_um, y_um=y_um), "", Decision(why=f"goto by {by}", by=by))
    return f"going to {x_um:.1f}, {y_um:.1f} µm; nothing is exposed"


def _areas(turn: Turn, by: str, verb: say.AnyVerb) -> str:
    match verb:
        case say.Accept(area_ids=ids):
            return _word(turn, by, ids, "accepted")
        case say.Reject(area_ids=ids):
            return _word(turn, by, ids, "rejected")
        case say.Skip(area_id=area_id):
            return _skip(turn, by, area_id)
        case say.AddTarget() as add:
            return _add(turn, by, add)
        case say.MoveTarget(area_id=area_id, x_um=x_um, y_um=y_um):
            area = _open_area(turn, area_id, "moved")
            _must_be_reachable(turn, x_um, y_um)
            dx, dy = x_um - area.x_um, y_um - area.y_um
            if isinstance(area, Square):
                shifted = tuple((x + dx, y + dy) for x, y in area.vertices_um)
                moved: Square | Hole = replace(area, x_um=x_um, y_um=y_um, vertices_um=shifted)
            else:
                moved = replace(area, x_um=x_um, y_um=y_um, inferred=False)
            moved = replace(moved, word="accepted", by=by, why=f"moved by {by}")
            _place(turn, by, [(area, moved)], f"move {area_id}")
            return f"{area_id} moved by ({dx:+.2f}, {dy:+.2f}) µm"
        case say.Rerank(area_id=area_id, priority=priority):
            area = _open_area(turn, area_id, "re-ranked")
            _place(turn, by, [(area, replace(area, priority=priority, by=by))], f"rerank {area_id}")
            return f"{area_id}: priority {priority}"
        case say.Pin(area_ids=ids):
            return _pin(turn, by, ids)
        case say.Ban(area_ids=ids):
            return _ban(turn, by, ids)
        case say.SetBudget(area_id=area_id, exposures=exposures):
            return _budget(turn, by, area_id, exposures)
        case say.Like() as like:
            return _like(turn, by, like)
        case _:
            raise NotPossibleError("this verb changes nothing")


def _known(turn: Turn, area_id: str) -> Square | Hole:
    area = turn.state.area(area_id)
    if area is None:
        raise NotPossibleError(f"there is no area {area_id}; `cryonaut control areas` lists them")
    return area


def _open_area(turn: Turn, area_id: str, what: str) -> Square | Hole:
    area = _known(turn, area_id)
    if area.state not in (*OPEN_STATES, "skipped", "rejected"):
        raise NotPossibleError(f"{area_id} is {area.state}: it cannot be {what} any more")
    return area


def _must_be_reachable(turn: Turn, x_um: float, y_um: float) -> None:
    if why := reachable(x_um, y_um, turn.settings.interlocks):
        raise NotPossibleError(f"({x_um:.1f}, {y_um:.1f}) µm cannot be reached: {why}")


def _word(turn: Turn, by: str, ids: tuple[str, ...], word: str) -> str:
    edits: list[tuple[Square | Hole, Square | Hole]] = []
    for area_id in ids:
        area = _known(turn, area_id)
        if area.state in ("busy", "exposed"):
            raise NotPossibleError(f"{area_id} is under way; use skip to leave it")
        if isinstance(area, Hole) and area.dose_e_per_a2 > 0:
            raise NotPossibleError(f"{area_id} had {area.dose_e_per_a2:g} e/Å² already; it is not exposed again")
        if isinstance(area, Hole) and area.frame_id and word == "accepted":
            raise NotPossibleError(f"{area_id} was exposed already (frame {area.frame_id}); it is not exposed again")
        if word == "accepted":
            mapped = isinstance(area, Square) and bool(area.holes)
            state = "mapped" if mapped else "queued"
        else:
            state = "rejected"
        edits.append((area, replace(area, word=word, state=state, by=by, why=f"{word} by {by}")))
    _place(turn, by, edits, f"{word} {', '.join(ids[:3])}{' …' if len(ids) > 3 else ''}")
    if word == "accepted" and turn.state.phase == "idle":
        turn.phase("collecting", f"accepted by {by}", by)
    return f"{len(ids)} {word}"


def _pin(turn: Turn, by: str, ids: tuple[str, ...]) -> str:
    """Accepted, and before everything else: the first one first."""
    if grids := [i for i in ids if i in turn.state.grids]:
        if len(ids) > 1:
            raise NotPossibleError(f"one grid at a time can be next; these are {', '.join(ids[:3])}")
        return _pin_grid(turn, by, turn.state.grids[grids[0]])
    _word(turn, by, ids, "accepted")
    for place, area_id in enumerate(ids):
        area = _known(turn, area_id)
        pinned = replace(area, priority=PINNED - place, why=f"pinned by {by}")
        turn.emit(ev.AreaPlaced(area=pinned, request="pin", decision=Decision(why=pinned.why, by=by)))
        square = turn.state.square(area_id)
        if is_hole(area_id) and square is not None and square.state in OPEN_STATES and square.word != "accepted":
            raise NotPossibleError(f"{area_id} lies in {square.area_id}, which has no map yet: pin the square")
    return f"{', '.join(ids[:3])}{' …' if len(ids) > 3 else ''} next"


def _pin_grid(turn: Turn, by: str, grid: Grid) -> str:
    """Let this grid be next, also one that was left, skipped or banned; another pinned one is none any more."""
    here = turn.state.on_stage == grid.grid_id
    if turn.state.mode != "pilot":
        raise NotPossibleError(f"the microscope software loads grids in mode advisor: load {grid.grid_id} there")
    if grid.slot is None and grid.loads and not here:
        raise NotPossibleError(f"{grid.grid_id} has no autoloader slot (session.grids): it cannot be loaded again")
    why = Decision(why=f"pinned by {by}", by=by)
    for other in turn.state.grids.values():
        if other.word == "accepted" and other.grid_id != grid.grid_id:
            turn.emit(ev.GridSteered(grid_id=other.grid_id, word="", decision=why))
    turn.emit(ev.GridSteered(grid_id=grid.grid_id, word="accepted", decision=why))
    if grid.state in ("done", "skipped"):
        turn.grid(grid.grid_id, "screened" if grid.loads else "waiting", why.why)
    if turn.state.phase == "idle":
        turn.phase("collecting", f"{grid.grid_id} {why.why}", by)
    return f"{grid.grid_id} is next" if not here else f"{grid.grid_id} goes on; others wait"


def _ban(turn: Turn, by: str, ids: tuple[str, ...]) -> str:
    """Rejected, also where it is under way; a begun exposure ends by itself."""
    for grid_id in [i for i in ids if i in turn.state.grids]:
        steered = Decision(why=f"banned by {by}", by=by)
        turn.emit(ev.GridSteered(grid_id=grid_id, word="rejected", decision=steered))
        if turn.state.grids[grid_id].state not in ("done", "skipped", "loading"):
            turn.grid(grid_id, "skipped", steered.why)
    banned, ids = len(ids), tuple(i for i in ids if i not in turn.state.grids)
    if not ids:
        return f"{banned} banned"
    for area_id in ids:
        if _known(turn, area_id).state in ("busy", "exposed"):
            _skip(turn, by, area_id)
    rest = tuple(i for i in ids if _known(turn, i).word != "rejected")
    if rest:
        _word(turn, by, rest, "rejected")
    return f"{len(ids)} banned"


def _budget(turn: Turn, by: str, area_id: str, exposures: int | None) -> str:
    square = _known(turn, area_id)
    if not isinstance(square, Square):
        raise NotPossibleError(f"{area_id} is a hole; a budget is for a square")
    _place(turn, by, [(square, replace(square, budget=exposures))], f"budget {area_id}")
    if exposures is not None and square.state == "done" and square.word != "rejected":
        turn.area(area_id, "mapped", Decision(why=f"budget {exposures} by {by}", by=by))
    return f"{area_id}: {'as everywhere' if exposures is None else f'{exposures} exposures'}"


def _like(turn: Turn, by: str, like: say.Like) -> str:
    area = _known(turn, like.area_id)
    value = 0 if like.forget else 1 if like.more else -1
    _place(turn, by, [(area, replace(area, like=value))], f"like {like.area_id}")
    if turn.settings.policy.name != "learning":
        return f"{like.area_id} noted; policy.name is {turn.settings.policy.name}, which does not learn"
    return f"{'no wish about' if like.forget else 'more like' if like.more else 'fewer like'} {like.area_id}"


def _skip(turn: Turn, by: str, area_id: str) -> str:
    if area_id in turn.state.grids:
        turn.grid(area_id, "done", f"left by {by}")
        if turn.state.phase == "idle":
            turn.phase("collecting", f"grid {area_id} left by {by}", by)
        return f"grid {area_id} is left"
    running = {entry.area_id: command_id for command_id, entry in turn.state.outstanding.items() if entry.area_id}
    if not area_id:
        area_id = next(iter(running), "")
        if not area_id:
            raise NotPossibleError("nothing is under way; name the square or hole to skip")
    area = _known(turn, area_id)
    if area.state in ("done", "exposed"):
        raise NotPossibleError(f"{area_id} is {area.state} already")
    edited = replace(area, state="skipped", word="rejected", by=by, why=f"skipped by {by}")
    _place(turn, by, [(area, edited)], f"skip {area_id}")
    for running_id, command_id in running.items():
        inside = running_id == area_id or (not is_hole(area_id) and running_id.startswith(f"{area_id}-H"))
        work = turn.state.outstanding[command_id].work
        if inside and not isinstance(work, Expose):  # a begun exposure ends by itself: its dose is spent
            turn.emit(ev.CommandCancelled(command_id=command_id, why=f"{area_id} skipped by {by}"))
    return f"{area_id} skipped"


def _add(turn: Turn, by: str, add: say.AddTarget) -> str:
    why = f"added by {by}"
    _must_be_reachable(turn, add.x_um, add.y_um)
    if add.square_id:
        square = turn.state.square(add.square_id)
        if square is None or is_hole(add.square_id):
            raise NotPossibleError(f"there is no square {add.square_id}")
        radii = sorted(hole.radius_um for hole in square.holes.values()) or [0.6]
        area: Square | Hole = Hole(
            area_id=hole_id(square.area_id, next_hole_number(square)),
            x_um=add.x_um,
            y_um=add.y_um,
            radius_um=radii[len(radii) // 2],
            score=1.0,
            state="queued",
            word="accepted",
            by=by,
            why=why,
        )
    else:
        grid = turn.state.grid
        if grid is None:
            raise NotPossibleError("there is no grid on the stage yet")
        sizes = sorted(s.size_um for s in grid.squares.values()) or [50.0]
        size = sizes[len(sizes) // 2]
        half = size / 2
        corners = ((-half, -half), (half, -half), (half, half), (-half, half))
        area = Square(
            area_id=square_id(grid.grid_id, len(grid.squares) + 1),
            x_um=add.x_um,
            y_um=add.y_um,
            size_um=size,
            vertices_um=tuple((add.x_um + u, add.y_um + v) for u, v in corners),
            score=1.0,
            state="queued",
            word="accepted",
            by=by,
            why=why,
        )
    turn.emit(ev.AreaPlaced(area=area, request="add", decision=Decision(why=why, by=by)))
    _reopen(turn, area, by)
    if turn.state.phase == "idle":
        turn.phase("collecting", why, by)
    return f"{area.area_id} added"


def _place(turn: Turn, by: str, edits: list[tuple[Square | Hole, Square | Hole]], what: str) -> None:
    # a square is remembered without its holes: undo must not bring old holes back
    before = tuple(replace(a, holes={}, groups={}) if isinstance(a, Square) else a for a, _ in edits)
    turn.emit(ev.Remembered(what=what, before=before))
    for _, after in edits:
        turn.emit(ev.AreaPlaced(area=after, request=what, decision=Decision(why=after.why, by=by)))
        _reopen(turn, after, by)


def _reopen(turn: Turn, area: Square | Hole, by: str) -> None:
    """A hole that an operator wants is visited, also where the agent had finished with its square."""
    square = turn.state.square(area.area_id)
    if not isinstance(area, Hole) or area.word != "accepted" or square is None or square.word == "rejected":
        return
    if square.state in ("done", "skipped"):
        turn.area(square.area_id, "mapped", Decision(why=f"{area.area_id} {area.why}", by=by))


def _undo(turn: Turn, by: str) -> str:
    if not turn.state.undo:
        raise NotPossibleError("there is nothing to undo")
    step = turn.state.undo[-1]
    under_way = {entry.area_id for entry in turn.state.outstanding.values()}
    for old in step.before:
        now = _known(turn, old.area_id)
        visited = isinstance(now, Hole) and now.dose_e_per_a2 > 0
        if now.state in ("busy", "exposed", "done") or visited:
            raise NotPossibleError(f"{old.area_id} is {now.state} by now: '{step.what}' cannot be undone")
    for old in step.before:
        now = _known(turn, old.area_id)
        restored: Square | Hole = old
        if isinstance(old, Square) and isinstance(now, Square):
            restored = replace(
                old,
                holes=now.holes,
                holes_ever=now.holes_ever,
                groups=now.groups,
                map_frame_id=now.map_frame_id,
                lattice=now.lattice,
                pitch_um=now.pitch_um,
            )
            if now.state == "mapped" and old.state in OPEN_STATES:
                restored = replace(restored, state="mapped")  # it was mapped meanwhile, and is not mapped again
        elif isinstance(old, Hole) and isinstance(now, Hole):
            restored = replace(old, group=now.group)
        if restored.state == "busy" and old.area_id not in under_way:
            restored = replace(
                restored, state="mapped" if isinstance(restored, Square) and restored.holes else "queued"
            )
        turn.emit(ev.AreaPlaced(area=restored, request="undo", decision=Decision(why=f"undone by {by}", by=by)))
    turn.emit(ev.UndoneOnce(by=by))
    return f"undone: {step.what}"
