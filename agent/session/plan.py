"""What the agent does next: at most one command at a time, and only when everything before it is known."""

from msgspec.structs import replace

from agent.messages import AcquireAtlas, ErrorKind, Expose, Focus, LoadGrid, MapSquare, Park
from agent.policy import atlas, grouping, itinerary, live, selection
from agent.session import events as ev
from agent.session.state import OPEN_STATES, Decision, Grid, Group, Hole, Square
from agent.session.turn import Turn

WAITING = "waiting for an operator to accept squares"


def plan(turn: Turn) -> None:
    """Emit what follows by itself from the state, until something has to be waited for."""
    while _next(turn):
        pass


def _next(turn: Turn) -> bool:
    """Take one step; True when another may follow at once."""
    state = turn.state
    if state.phase == "pausing" and not state.outstanding:
        turn.phase("paused", "the item under way has finished")
        return False
    if state.outstanding:
        return False
    if state.phase == "stopping":
        return _wind_up(turn)
    if not state.may_command:
        return False
    if state.pending or state.autonomy == "suggest":
        return False
    limit = turn.settings.interlocks.moves_without_frame
    if state.commands_since_frame >= limit:
        turn.suspend(
            "moves", f"{limit} commands in a row brought no frame (interlocks.moves_without_frame); resume after a look"
        )
        return False
    if spent := _spent(turn):
        turn.phase("stopping", spent)
        return True
    grid = state.grid
    if grid is None or grid.state in ("waiting", "done", "skipped", "screened"):
        return _next_grid(turn)
    if grid.state == "loading":
        return _load(turn, grid)
    if grid.state == "loaded":
        return _realign(turn, grid) if grid.loads > 1 and grid.anchor is not None else _begin_atlas(turn, grid)
    if grid.state == "realigning":
        return _end_realign(turn, grid)
    if grid.state == "mapping":
        return _end_atlas(turn, grid)
    return _screen(turn, grid)


def _spent(turn: Turn) -> str:
    state, budget = turn.state, turn.settings.budget
    if state.spent_s > budget.hours * 3600:  # by the driver's clock: a replay ends where the session ended
        return f"the time budget of {budget.hours:g} h is spent"
    if state.exposures >= budget.exposures:
        return f"the budget of {budget.exposures} exposures is spent"
    return ""


def _wind_up(turn: Turn) -> bool:
    state = turn.state
    square = _under_way(turn, state.grid) if state.grid else None
    if state.pending:
        return False
    if state.stop_after == "square" and square is not None and state.may_command and state.autonomy != "suggest":
        if turn.settings.policy.name == "learning":
            return _learned(turn, state.grids[state.grid_id], 0, only=square.area_id)
        return _collect(turn, square)
    if not state.parked and state.mode == "pilot":
        if not state.can_pilot:  # it is parked as soon as its driver is back; until then the driver keeps it safe
            return False
        turn.command(Park(why=state.why[:2000]), "", Decision(why=state.why))
        return False
    turn.phase("stopped", state.why)
    turn.emit(ev.Noticed(severity="info", text=f"session ended: {state.why}"))
    return False


def _next_grid(turn: Turn) -> bool:
    state, settings = turn.state, turn.settings
    for grid in state.grids.values():
        if grid.state == "loading":
            return _load(turn, grid)
    if (pinned := itinerary.pinned(state)) is not None:
        return _bring(turn, pinned, "an operator wants it next")
    if (look := itinerary.next_look(state, settings)) is not None:
        return _bring(turn, *look)
    screened = [grid for grid in itinerary.usable(state) if grid.state == "screened"]
    if screened and settings.policy.screening is not None:
        return _best_grid(turn)
    for grid in (*screened, *(grid for grid in itinerary.usable(state) if grid.state == "waiting")):
        return _bring(turn, grid, "it was left for another" if grid.state == "screened" else "")
    turn.phase("stopping", "every grid is done")
    return True


def _bring(turn: Turn, grid: Grid, why: str) -> bool:
    """Go to ``grid``: on with it where it is on the stage, else it is loaded."""
    said = f"{why}; " if why else ""
    if grid.grid_id == turn.state.on_stage and grid.state == "screened":
        turn.grid(grid.grid_id, "screening" if grid.squares else "loaded", f"{said}it is on the stage")
    elif grid.slot is None and grid.loads:
        turn.grid(grid.grid_id, "done", f"{said}it has no autoloader slot and cannot come back (session.grids)")
    elif grid.slot is None:
        turn.grid(grid.grid_id, "loaded", f"{said}on the stage already")
    else:
        turn.grid(grid.grid_id, "loading", f"{said}from slot {grid.slot}")
    return True


def _best_grid(turn: Turn) -> bool:
    """After a first look: on where most is to be had, changes of grids counted; it may be the one on the stage."""
    state, settings = turn.state, turn.settings
    grids = itinerary.usable(state)
    current = next((g for g in grids if g.grid_id == state.on_stage and g.state == "screened"), None)
    here = selection.offer(state, settings, current) if current is not None else selection.Offer(Grid(grid_id="-"))
    choice = live.choose(state, settings, here, _elsewhere(turn, current))
    if choice.square_id and current is not None:
        others = f"; {choice.runner_up} is next best" if choice.runner_up else ""
        turn.grid(current.grid_id, "screening", f"most is to be had here: {choice.square_id}{others}")
    elif choice.grid_id:
        back = "back to it: " if state.grids[choice.grid_id].state == "screened" else ""
        return _bring(turn, state.grids[choice.grid_id], back + choice.why)
    else:
        for grid in grids:
            if grid.state in ("screened", "waiting"):
                turn.grid(grid.grid_id, "done", "nothing is left on any grid that is worth its time")
    return True


def _elsewhere(turn: Turn, here: Grid | None) -> list[selection.Offer]:
    """What the other grids have to offer that can be gone to."""
    found = []
    for grid in itinerary.usable(turn.state):
        if here is not None and grid.grid_id == here.grid_id:
            continue
        if grid.state == "waiting":
            found.append(selection.Offer(grid))
        elif grid.state == "screened" and turn.settings.policy.screening is not None:
            found.append(selection.offer(turn.state, turn.settings, grid))
    return found


def _load(turn: Turn, grid: Grid) -> bool:
    if grid.slot is None:
        turn.grid(grid.grid_id, "loaded", "on the stage already")
        return True
    turn.command(LoadGrid(grid_id=grid.grid_id, slot=grid.slot), "", Decision(why=f"grid {grid.grid_id} is next"))
    return False


def _begin_atlas(turn: Turn, grid: Grid) -> bool:
    positions = atlas.positions(turn.settings.atlas, turn.settings.interlocks)
    if not positions:
        turn.grid(grid.grid_id, "skipped", "no atlas position lies inside the stage limits (interlocks)")
        return True
    turn.grid(grid.grid_id, "mapping", f"atlas of {len(positions)} frames")
    why = Decision(why=f"{len(positions)} low-mag frames cover the grid", config=turn.state.config)
    turn.command(AcquireAtlas(grid_id=grid.grid_id, positions_um=positions), "", why)
    return False


def _end_atlas(turn: Turn, grid: Grid) -> bool:
    if not grid.squares:
        why = f"no square on {len(grid.atlas_frames)} atlas frames"
        turn.emit(ev.ErrorCounted(error=ErrorKind.NO_SQUARES, area_id=grid.grid_id, why=why, will="next grid"))
        turn.emit(ev.Noticed(severity="warning", text=f"grid {grid.grid_id}: {why}"))
        turn.grid(grid.grid_id, "skipped", why)
        return True
    turn.grid(grid.grid_id, "screening", f"{len(grid.squares)} squares found")
    return True


def _realign(turn: Turn, grid: Grid) -> bool:
    """A grid is on the stage again: one low-mag frame shows how it lies now."""
    assert grid.anchor is not None  # noqa: S101 - see `_next`
    why = f"back on the stage: a frame like {grid.anchor.frame_id} shows how it lies now"
    turn.grid(grid.grid_id, "realigning", why)
    place = (round(grid.anchor.x_um, 3), round(grid.anchor.y_um, 3))
    turn.command(AcquireAtlas(grid_id=grid.grid_id, positions_um=(place,)), "", Decision(why=why))
    return False


def _end_realign(turn: Turn, grid: Grid) -> bool:
    if grid.placement is None:
        why = "it came back and was not known again by its low-mag frame: nothing more is exposed on it"
        turn.emit(ev.Noticed(severity="warning", text=f"grid {grid.grid_id}: {why}"))
        turn.grid(grid.grid_id, "done", why)
    else:
        turn.grid(grid.grid_id, "screening", "known again; squares that have a map get a new one before they go on")
    return True


def _under_way(turn: Turn, grid: Grid) -> Square | None:
    """The square at hand, else the first that was begun."""
    here = turn.state.square(turn.state.here) if turn.state.here else None
    begun = [s for s in grid.squares.values() if s.state == "mapped" and s.word != "rejected"]
    if here is not None and any(square.area_id == here.area_id for square in begun):
        return here
    return begun[0] if begun and turn.settings.policy.name == "score-order" else None


def _screen(turn: Turn, grid: Grid) -> bool:
    exposed = sum(1 for s in grid.squares.values() for hole in s.holes.values() if hole.frame_id)
    if exposed >= (limit := turn.settings.budget.exposures_per_grid):
        turn.grid(grid.grid_id, "done", f"the grid's budget of {limit} exposures is spent (budget.exposures_per_grid)")
        return True
    if (pinned := itinerary.pinned(turn.state)) is not None and pinned.grid_id != grid.grid_id:
        turn.grid(grid.grid_id, "screened", f"left for {pinned.grid_id}, which an operator wants next")
        return True
    if itinerary.is_look(turn.state, turn.settings, grid):
        return _look(turn, grid)
    if grid.word != "accepted" and not grid.looked_at and itinerary.next_look(turn.state, turn.settings) is not None:
        turn.grid(grid.grid_id, "screened", itinerary.seen_words(grid))
        return True
    if turn.settings.policy.name == "learning":
        return _learned(turn, grid, exposed)
    square = _under_way(turn, grid)
    if square is not None:
        return _collect(turn, square)
    state = turn.state
    ranked = selection.rank_squares(
        grid,
        min_score=state.thresholds["square_score"],
        per_grid=int(state.thresholds["squares_per_grid"]),
        autonomy=state.autonomy,
        envelope=turn.settings.interlocks,
    )
    if ranked:
        return _map(turn, ranked)
    return _leave(turn, grid, f"no square left that is wanted; {exposed} holes exposed")


def _leave(turn: Turn, grid: Grid, why: str) -> bool:
    """Nothing is left to do on this grid by itself: the next one, or waiting for an operator's word."""
    state = turn.state
    if state.autonomy == "approve":
        if not state.parked:  # nobody knows how long it waits: the specimen is not left under the beam
            turn.command(Park(why=WAITING), "", Decision(why=WAITING))
        else:
            turn.phase("idle", WAITING)
            turn.emit(ev.Noticed(severity="info", text=f"{WAITING}, or to skip {grid.grid_id}, or to stop"))
        return False
    turn.grid(grid.grid_id, "done", why)
    return True


def _look(turn: Turn, grid: Grid) -> bool:
    """One step of the first look at a grid: a few squares, a few holes in each, then it is set aside."""
    state, settings = turn.state, turn.settings
    look = settings.policy.screening
    assert look is not None  # noqa: S101 - see `itinerary.is_look`
    begun = [square for square in grid.squares.values() if square.map_frame_id]
    offered = selection.offer(state, settings, grid)
    for square, holes, _ in offered.mapped:
        shot = sum(1 for hole in square.holes.values() if hole.visited)
        if shot >= look.holes_per_square:
            continue
        if (planned := _groups(turn, square)) is not None:
            return _regroup(turn, square, planned)
        more = look.holes_per_square - shot
        choice = live.choose(state, settings, selection.Offer(grid, ((square, holes, more),)))
        if choice.square_id:
            what = f"screening {grid.grid_id}, shot {shot + 1} of {look.holes_per_square} in {square.area_id}; "
            return _take(turn, choice._replace(why=what + choice.why))
    if len(begun) < look.squares_per_grid and offered.unmapped:
        choice = live.choose(state, settings, selection.Offer(grid, (), offered.unmapped))
        if choice.square_id:
            what = f"screening {grid.grid_id}, square {len(begun) + 1} of {look.squares_per_grid}; "
            return _take(turn, choice._replace(why=what + choice.why))
    turn.grid(grid.grid_id, "screened", itinerary.seen_words(grid))
    turn.emit(ev.Noticed(severity="info", text=itinerary.seen_words(grid)))
    return True


def _learned(turn: Turn, grid: Grid, exposed: int, only: str = "") -> bool:
    """One step of the learning policy: groups where they are missing, else the place that pays most.

    With ``only`` nothing but this square is gone on with.
    """
    state, settings = turn.state, turn.settings
    offered = selection.offer(state, settings, grid)
    open_ = {square.area_id for square, _, _ in offered.mapped}
    for square in grid.squares.values():
        if square.state != "mapped" or square.word == "rejected" or (only and square.area_id != only):
            continue
        planned = _groups(turn, square)
        if planned is not None:
            return _regroup(turn, square, planned)
        if square.area_id not in open_:
            done = sum(1 for hole in square.holes.values() if hole.frame_id)
            why = Decision(why=f"{done} of {len(square.holes)} holes exposed, enough or all wanted")
            turn.area(square.area_id, "done", why)
            return True
    if only:
        offered = selection.Offer(grid, tuple(row for row in offered.mapped if row[0].area_id == only))
    alone = only or grid.word == "accepted"  # an operator wants this grid: others wait
    choice = live.choose(state, settings, offered, [] if alone else _elsewhere(turn, grid))
    if not choice.square_id and only:
        turn.area(only, "done", Decision(why=choice.why))
        return True
    if (
        not choice.square_id
        and choice.grid_id
        and settings.policy.screening is not None
        and state.autonomy != "approve"
    ):
        turn.grid(grid.grid_id, "screened", f"left: {choice.why}")
        return True
    if not choice.square_id:
        return _leave(turn, grid, f"{choice.why}; {exposed} holes exposed")
    return _take(turn, choice)


def _take(turn: Turn, choice: "live.Choice") -> bool:
    """Do what was chosen on the grid on the stage: map the square, or shoot a group of it."""
    square = turn.state.square(choice.square_id)
    assert square is not None  # noqa: S101 - it is among those that were offered
    if choice.group < 0:
        return _go_map(turn, square, _decision(turn, choice, square, square.frame_id))
    holes = [square.holes[hole_id] for hole_id in choice.hole_ids]
    return _shoot(turn, square, square.groups[choice.group], holes, choice)


def _decision(turn: Turn, choice: "live.Choice", area: Square | Hole, frame_id: str) -> Decision:
    word = f"accepted by {area.by}; " if area.word == "accepted" and isinstance(area, Hole) else ""
    return Decision(
        why=word + choice.why,
        by=area.by if area.word else "agent",
        model="learning",
        config=turn.state.config,
        frame_id=frame_id,
        score=choice.p_good,
        runner_up=choice.runner_up,
    )


def _map(turn: Turn, ranked: list[Square]) -> bool:
    square = ranked[0]
    decision = Decision(
        why=_why(square, f"first of {len(ranked)} squares still planned"),
        by=square.by if square.word else "agent",
        config=turn.state.config,
        frame_id=square.frame_id,
        score=square.score,
        runner_up=f"{ranked[1].area_id} ({ranked[1].score:.2f})" if len(ranked) > 1 else "",
    )
    return _go_map(turn, square, decision)


def _go_map(turn: Turn, square: Square, decision: Decision) -> bool:
    turn.area(square.area_id, "busy", decision)
    work = MapSquare(
        area_id=square.area_id,
        x_um=square.x_um,
        y_um=square.y_um,
        find_eucentric=turn.settings.squares.find_eucentric,
    )
    turn.command(work, square.area_id, decision)
    return False


def _why(area: Square | Hole, else_: str) -> str:
    if area.word == "accepted":
        return f"accepted by {area.by}"
    if area.priority:
        return f"priority {area.priority} by {area.by}"
    return f"{else_}: score {area.score:.2f}" + (f" ({area.why})" if area.why else "")


def _collect(turn: Turn, square: Square) -> bool:
    planned = _groups(turn, square)
    if planned is not None:
        return _regroup(turn, square, planned)
    for group in square.groups.values():
        here = [square.holes[hole_id] for hole_id in group.hole_ids if square.holes[hole_id].state in OPEN_STATES]
        if here:
            return _shoot(turn, square, group, here)
    done = sum(1 for hole in square.holes.values() if hole.frame_id)
    turn.area(
        square.area_id, "done", Decision(why=f"{done} of {len(square.holes)} holes exposed, enough or all wanted")
    )
    return True


def _regroup(turn: Turn, square: Square, planned: grouping.Plan) -> bool:
    groups = tuple(planned.groups)
    holes = sum(1 for group in groups for hole_id in group.hole_ids if square.holes[hole_id].state in OPEN_STATES)
    why = f"{holes} holes in {len(groups)} groups, image shift up to {turn.settings.holes.max_image_shift_um:g} µm"
    if turn.settings.policy.name == "learning":
        why += f"; {_quota(turn, square)} of them at the most, as they turn out"
    why += f"; {planned.note}" if planned.note else ""
    if (beam_um := turn.settings.exposure.beam_diameter_um) is not None and turn.settings.exposure.autofocus:
        why += "; " + _clearance(square, planned, beam_um)
    decision = Decision(why=why, config=turn.state.config)
    turn.emit(ev.GroupsPlanned(square_id=square.area_id, groups=groups, decision=decision))
    return True


def _clearance(square: Square, planned: grouping.Plan, beam_um: float) -> str:
    """Whether the beam at the focus spots stays off the holes, in words."""
    around = list(square.holes.values())
    gaps = [(grouping.clearance_um(group, around, beam_um), group.number) for group in planned.groups]
    gap_um, number = min(gaps, default=(0.0, 0))
    if gap_um >= 0:
        return f"a beam of {beam_um:g} µm at the focus spots stays {gap_um:.2f} µm off the holes"
    return f"at the focus spot of group {number} a beam of {beam_um:g} µm reaches {-gap_um:.2f} µm into a hole"


def _quota(turn: Turn, square: Square) -> int:
    return selection.quota(turn.state, turn.settings, square)


def _groups(turn: Turn, square: Square) -> grouping.Plan | None:
    """The groups of ``square`` where they have to change, else None: begun ones stay, the others are made anew."""
    holes = square.holes
    wanted = selection.wanted(turn.state, turn.settings, square)
    free = [hole_id for hole_id, hole in wanted.items() if hole.word != "accepted"]
    # who learns picks from all of them as they turn out, and keeps to the budget then
    quota = len(free) if turn.settings.policy.name == "learning" else _quota(turn, square)
    grouped = {i for group in square.groups.values() for i in group.hole_ids if holes[i].state in OPEN_STATES}
    accepted = wanted.keys() - set(free)
    if grouped <= wanted.keys() and accepted <= grouped and len(grouped - accepted) == quota:
        return None
    begun: list[Group] = []
    for group in square.groups.values():
        before = [i for i in group.hole_ids if holes[i].state not in OPEN_STATES]
        still = [i for i in group.hole_ids if i in wanted]
        if before or (group.focused and still):
            plain = [i for i in still if i not in accepted][:quota]
            quota -= len(plain)
            kept = {*before, *plain, *(i for i in still if i in accepted)}
            begun.append(replace(group, hole_ids=tuple(i for i in group.hole_ids if i in kept)))
    covered = {hole_id for group in begun for hole_id in group.hole_ids}
    wishes = turn.settings.holes
    fresh = grouping.group_holes(
        [hole for hole_id, hole in wanted.items() if hole_id not in covered],
        most=quota,
        max_shift_um=wishes.max_image_shift_um,
        obstacles=list(holes.values()),
        first_number=max((group.number for group in square.groups.values()), default=0) + 1,
        pattern=grouping.Pattern(wishes.pattern, wishes.pattern_size),
        symmetry=square.lattice,
        beam_um=turn.settings.exposure.beam_diameter_um,
    )
    return grouping.Plan([*begun, *fresh.groups], fresh.note)


def _shoot(turn: Turn, square: Square, group: Group, holes: list[Hole], choice: "live.Choice | None" = None) -> bool:
    exposure = turn.settings.exposure
    steps = selection.defocus_steps(*exposure.defocus_um, exposure.defocus_step_um)
    if exposure.autofocus and not group.focused:
        work = Focus(area_id=square.area_id, x_um=group.focus_x_um, y_um=group.focus_y_um, defocus_um=steps[0])
        why = f"group {group.number} of {square.area_id}: {len(holes)} holes, focus spot off the holes"
        if choice is not None:
            why += f"; the first, {holes[0].area_id}: {choice.why}"
        turn.command(work, square.area_id, Decision(why=why, runner_up=choice.runner_up if choice else ""))
        return False
    hole = holes[0]
    decision = (
        _decision(turn, choice, hole, square.map_frame_id)
        if choice is not None
        else Decision(
            why=_why(hole, f"group {group.number}"),
            by=hole.by if hole.word else "agent",
            config=turn.state.config,
            frame_id=square.map_frame_id,
            score=hole.score,
            runner_up=f"{holes[1].area_id} ({holes[1].score:.2f})" if len(holes) > 1 else "",
        )
    )
    turn.area(hole.area_id, "busy", decision)
    shot = Expose(
        area_id=hole.area_id,
        x_um=group.x_um,
        y_um=group.y_um,
        image_shift_x_um=round(hole.x_um - group.x_um, 4),
        image_shift_y_um=round(hole.y_um - group.y_um, 4),
        defocus_um=steps[turn.state.exposures % len(steps)],
        dose_e_per_a2=exposure.dose_e_per_a2,
    )
    turn.command(shot, hole.area_id, decision)
    return False
