"""The fold: a state and the next event give the next state, and nothing else does."""

import math
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from agent import geometry
from agent.messages import AcquireAtlas, Expose, Focus, Frame, LoadGrid, Park
from agent.session import events as ev
from agent.session.state import (
    Anchor,
    Grid,
    Group,
    Hole,
    Outstanding,
    PendingFrame,
    Square,
    State,
    Timing,
    UndoStep,
    grid_of,
    number_of,
    square_of,
)

UNDO_DEPTH = 20
MOST_LATE_S, MOST_WAIT_S = 3_600.0, 6 * 3_600.0  # beyond, the driver's clock was set anew
EMPTY = State()


def fold(entries: Iterable[tuple[int, float, ev.AnyEvent]], state: State = EMPTY) -> State:
    """``state`` after all of ``entries``, each (number, time, event)."""
    for seq, utc, event in entries:
        state = advance(state, event, seq=seq, utc=utc)
    return state


def advance(state: State, event: ev.AnyEvent, *, seq: int, utc: float) -> State:
    """``state`` after the journal's row ``seq``, written at ``utc`` (seconds since 1970)."""
    return apply(replace(state, seq=seq, utc=utc), event)


def apply(state: State, event: ev.AnyEvent) -> State:
    """``state`` after ``event``; neither is changed."""
    match event:
        case ev.FrameReceived():
            return _frame(state, event)
        case ev.CommandIssued(command=command, area_id=area_id):
            entry = Outstanding(
                command=command,
                area_id=area_id,
                issued_utc=state.utc,
                issued_s=state.spent_s,
                on_grid=event.on_grid,
            )
            if isinstance(command.work, LoadGrid):
                state = replace(state, on_stage="")
            return replace(
                state,
                outstanding={**state.outstanding, command.command_id: entry},
                commands_issued=state.commands_issued + 1,
                commands_since_frame=state.commands_since_frame + 1,
                parked=False,
                here=area_id or state.here,
            )
        case ev.CommandEnded():
            return _ended(state, event)
        case ev.AreaChanged(area_id=area_id, state=new, decision=why):
            area = state.area(area_id)
            by = area.by if area is not None and area.word and why.by == "agent" else why.by  # whose word it is
            return _with_area(state, area_id, state_=new, why=why.why, by=by)
        case ev.MicrographJudged():
            return _judged(_analysed(state, event.frame_id), event)
        case ev.ObjectsDetected():
            return _detected(state, event)
        case ev.SquareFavoured(area_id=area_id):
            square = state.square(area_id)
            if square is None:
                return state
            more, rules = square.more_exposures + event.more_exposures, (*square.favoured, event.rule)
            priority = square.priority + event.priority
            return _with_area(state, area_id, more_exposures=more, favoured=rules, priority=priority)
        case ev.AreaMeasured():
            return _measured(state, event)
        case ev.PastRecalled(grid_id=grid_id, square=square, decision=why):
            known = state.past.get(grid_id) or Grid(grid_id=grid_id, state="done", why=why.why)
            known = replace(known, squares={**known.squares, square.area_id: square})
            return replace(state, past={**state.past, grid_id: known})
        case ev.HolesFound():
            return _holes(_analysed(state, event.frame_id), event)
        case ev.GroupsPlanned():
            return _grouped(state, event)
        case ev.SquaresFound(grid_id=grid_id, squares=squares):
            state = _analysed(state, event.frame_id)
            known = state.grids[grid_id]
            seen = {square.area_id: square for square in squares}
            return _with_grid(state, replace(known, squares={**known.squares, **seen}))
        case ev.FrameSetAside(frame_id=frame_id):
            return _analysed(state, frame_id)
        case ev.AreaPlaced(area=area):
            return _placed(state, area)
        case ev.GridAdded(grid_id=grid_id):
            return _with_grid(state, Grid(grid_id=grid_id))
        case ev.GridChanged(grid_id=grid_id, state=new_state, decision=why):
            before = state.grids[grid_id]
            grid = replace(before, state=new_state, why=why.why, looked_at=before.looked_at or new_state == "screened")
            if new_state == "loaded" and before.state in ("waiting", "loading"):
                grid = replace(grid, loads=grid.loads + 1, placement=None)
                state = replace(state, on_stage=grid_id)
            state = _with_grid(state, grid)
            current = grid_id if new_state in ("loaded", "mapping", "realigning", "screening") else state.grid_id
            return replace(state, grid_id=current)
        case ev.GridSteered(grid_id=grid_id, word=word):
            return _with_grid(state, replace(state.grids[grid_id], word=word))
        case ev.GridSighted(grid_id=grid_id, placement=placement):
            state = _analysed(state, event.frame_id)
            return _with_grid(state, replace(state.grids[grid_id], placement=placement))
        case ev.Remembered(what=what, before=before):
            return replace(state, undo=(*state.undo, UndoStep(what=what, before=before))[-UNDO_DEPTH:])
        case ev.UndoneOnce():
            return replace(state, undo=state.undo[:-1])
        case ev.ErrorCounted(error=error, area_id=area_id):
            key = f"{error} {area_id}"
            return replace(
                state,
                attempts={**state.attempts, key: state.attempts.get(key, 0) + 1},
                in_a_row={**state.in_a_row, str(error): state.in_a_row.get(str(error), 0) + 1},
            )
        case ev.ErrorsForgiven(errors=errors):
            return replace(state, in_a_row={k: v for k, v in state.in_a_row.items() if k not in errors})
        case _:
            return _session(state, event)


def _session(state: State, event: ev.AnyEvent) -> State:
    match event:
        case ev.SessionOpened():
            return replace(
                state,
                session_id=event.session_id,
                name=event.name,
                config=event.config,
                started_utc=state.utc,
                mode=event.mode,
                autonomy=event.autonomy,
                thresholds=event.thresholds,
                grids={grid_id: Grid(grid_id=grid_id, slot=slot) for grid_id, slot in event.grids},
            )
        case ev.PriorRead(prior=prior):
            return replace(state, prior=prior, timings={**prior.timings, **state.timings})
        case ev.EpochBegan(epoch=epoch, config=config):
            return replace(state, epoch=epoch, config=config, driver="", can_pilot=False)
        case ev.DriverJoined(driver=driver, can_pilot=can_pilot):
            if state.can_pilot and not can_pilot and driver != state.driver:
                return state  # an adviser beside the pilot: the pilot stays the session's driver
            return replace(state, driver=driver, can_pilot=can_pilot)
        case ev.DriverLeft():
            return replace(state, driver="", can_pilot=False)
        case ev.Suspended(cause=cause, detail=detail):
            return replace(state, suspensions={**state.suspensions, cause: detail})
        case ev.Unsuspended(cause=cause):
            left = {k: v for k, v in state.suspensions.items() if k != cause}
            since = 0 if cause == "moves" else state.commands_since_frame
            return replace(state, suspensions=left, commands_since_frame=since)
        case ev.PhaseChanged(phase=phase, why=why, stop_after=stop_after):
            return replace(state, phase=phase, why=why, stop_after=stop_after)
        case ev.SettingChanged(name="mode", after=after):
            return replace(state, mode=after)
        case ev.SettingChanged(name="autonomy", after=after):
            return replace(state, autonomy=after)
        case ev.SettingChanged(name=name, after=after):
            return replace(state, thresholds={**state.thresholds, name: float(after)})
        case ev.CommandCancelled(command_id=command_id):
            entry = state.outstanding.get(command_id)
            if entry is None:
                return state
            changed = replace(entry, cancelled=True)
            return replace(state, outstanding={**state.outstanding, command_id: changed})
        case ev.DegradedChanged(text=text):
            return replace(state, degraded=text)
        case ev.IdleTold():
            return replace(state, idle_told=True)
        case _:  # Requested, SafeOrdered, Released, Noticed: for the record, not for the state
            return state


def _frame(state: State, event: ev.FrameReceived) -> State:
    frame = event.frame
    grid = state.grids[event.grid_id]
    back = frame.level == "low" and grid.state == "realigning" and grid.anchor is not None
    pending = PendingFrame(
        frame_id=frame.frame_id,
        level=frame.level,
        file=event.file,
        grid_id=event.grid_id,
        area_id=event.area_id,
        seq=state.seq,
        like=grid.anchor.frame_id if back and grid.anchor else "",
    )
    outstanding = state.outstanding
    if entry := outstanding.get(frame.command_id):
        changed = replace(entry, frames=(*entry.frames, frame.frame_id))
        outstanding = {**outstanding, frame.command_id: changed}
    state = replace(
        state,
        pending={**state.pending, frame.frame_id: pending},
        outstanding=outstanding,
        frames=state.frames + 1,
        commands_since_frame=0,
        progress_utc=state.utc,
        idle_told=False,
    )
    state = _clocked(state, frame.taken_utc)
    if frame.level == "low":
        return state if back else _with_grid(state, _with_atlas_frame(grid, frame))
    if frame.level == "medium":
        return _with_area(state, event.area_id, map_frame_id=frame.frame_id, map_load=grid.loads)
    hole = state.hole(event.area_id)
    dose = hole.dose_e_per_a2 if hole is not None else 0.0
    if not frame.command_id:  # taken by the microscope software itself; the dose of commands comes with their results
        dose += frame.dose_e_per_a2 or 0.0
    state = _with_area(state, event.area_id, frame_id=frame.frame_id, defocus_um=frame.defocus_um, dose_e_per_a2=dose)
    return _with_area(state, square_of(event.area_id), visited=True)


def _with_atlas_frame(grid: Grid, frame: Frame) -> Grid:
    """One more frame of the atlas; the one nearest to the middle is what the grid is known by."""
    x_um, y_um = geometry.centre_um(frame)
    anchor = grid.anchor
    if not frame.nominal and (anchor is None or math.hypot(x_um, y_um) < math.hypot(anchor.x_um, anchor.y_um)):
        matrix = geometry.image_to_stage(frame)
        anchor = Anchor(frame_id=frame.frame_id, x_um=x_um, y_um=y_um, image_to_stage=matrix)
    return replace(grid, atlas_frames=(*grid.atlas_frames, frame.frame_id), anchor=anchor)


def _clocked(state: State, taken_utc: float) -> State:
    """Time goes on as the driver's frames tell it; where its clock was set anew, it goes on from here."""
    if taken_utc <= 0:
        return state
    began = state.clock_began_utc
    on_s = -1.0 if began is None else taken_utc - began - state.spent_s
    if began is None or not -MOST_LATE_S <= on_s <= MOST_WAIT_S:
        return replace(state, clock_began_utc=taken_utc - state.spent_s)
    return replace(state, spent_s=state.spent_s + max(on_s, 0.0))


def _analysed(state: State, frame_id: str) -> State:
    return replace(state, pending={k: v for k, v in state.pending.items() if k != frame_id})


def _judged(state: State, event: ev.MicrographJudged) -> State:
    hole = state.hole(event.area_id)
    if hole is None:
        return state
    return _with_area(
        state,
        event.area_id,
        quality=event.score,
        quality_label=event.label,
        features=event.features,
        looks=hole.seen_before,
    )


def _detected(state: State, event: ev.ObjectsDetected) -> State:
    hole = state.hole(event.area_id)
    if hole is None:
        return state
    others = {k: n for k, n in hole.detected.items() if not k.startswith(f"{event.detector} ")}
    mine = {f"{event.detector} {group}": n for group, n in event.counts.items()}
    return _with_area(state, event.area_id, detected={**others, **mine})


def _ended(state: State, event: ev.CommandEnded) -> State:
    result = event.result
    entry = state.outstanding.get(result.command_id)
    left = {k: v for k, v in state.outstanding.items() if k != result.command_id}
    state = replace(state, outstanding=left, commands_ended=state.commands_ended + 1)
    state = replace(state, progress_utc=state.utc, idle_told=False)
    if entry is None:
        return state
    state = replace(state, spent_s=max(state.spent_s, entry.issued_s + result.elapsed_s))
    took_s = result.elapsed_s or state.spent_s - entry.issued_s  # what the driver measured is the same on replay
    if result.status == "done" and took_s > 0:
        kind, work = str(entry.work.__struct_config__.tag), entry.work
        back = isinstance(work, AcquireAtlas) and state.grids[work.grid_id].state == "realigning"
        state = _timed(state, "realign_grid" if back else kind, took_s)
    match entry.work:
        case Expose(area_id=area_id, dose_e_per_a2=asked):
            if result.status in ("refused", "cancelled") and result.dose_e_per_a2 is None:
                return state
            dose = asked if result.dose_e_per_a2 is None else result.dose_e_per_a2
            hole = state.hole(area_id)
            if hole is not None:
                state = _with_area(state, area_id, dose_e_per_a2=hole.dose_e_per_a2 + dose)
            done = 1 if result.status == "done" else 0
            return replace(state, dose_e_per_a2=state.dose_e_per_a2 + dose, exposures=state.exposures + done)
        case Park() if result.status == "done":
            return replace(state, parked=True)
        case Focus() as work if result.status == "done":
            return _focused(state, entry.area_id, work)
    return state


def _timed(state: State, kind: str, took_s: float) -> State:
    known = state.timings.get(kind, Timing(count=0, mean_s=0.0))
    count = known.count + 1
    mean_s = known.mean_s + (max(took_s, 0.0) - known.mean_s) / min(count, 20)
    return replace(state, timings={**state.timings, kind: Timing(count=count, mean_s=mean_s)})


def _focused(state: State, area_id: str, work: Focus) -> State:
    square = state.square(area_id)
    if square is None:
        return state
    groups = {
        number: replace(g, focused=True) if (g.focus_x_um, g.focus_y_um) == (work.x_um, work.y_um) else g
        for number, g in square.groups.items()
    }
    return _with_square(state, replace(square, groups=groups))


def _holes(state: State, event: ev.HolesFound) -> State:
    square = state.square(event.square_id)
    if square is None:
        return state
    # what an operator placed, and what was visited, stays as it is
    beside = set(event.beside)
    kept = {k: h for k, h in square.holes.items() if h.must_stay or k in beside}
    holes = {hole.area_id: hole for hole in event.holes} | kept
    groups = {n: replace(g, hole_ids=tuple(i for i in g.hole_ids if i in holes)) for n, g in square.groups.items()}
    ever = max([square.holes_ever, *map(number_of, (*square.holes, *holes))])
    return _with_square(
        state,
        replace(square, holes=holes, holes_ever=ever, groups=groups, lattice=event.lattice, pitch_um=event.pitch_um),
    )


def _measured(state: State, event: ev.AreaMeasured) -> State:
    hole = state.hole(event.area_id)
    if hole is None:
        return _with_area(state, event.area_id, visited=True)
    features, shots = dict(hole.features), dict(hole.shots)
    for name, value in event.values().items():
        features[name] = hole.mean_with(name, value)
        shots[name] = shots.get(name, 0) + 1
    quality, label = (hole.quality, hole.quality_label) if event.quality is None else (event.quality, event.label)
    state = _with_area(
        state,
        event.area_id,
        measurements=hole.measurements + 1,
        features=features,
        shots=shots,
        looks=hole.seen_before,
        quality=quality,
        quality_label=label,
    )
    first = 0 if hole.visited else 1
    state = replace(state, exposures=state.exposures + first, progress_utc=state.utc, idle_told=False)
    return _with_area(state, square_of(event.area_id), visited=True)


def _grouped(state: State, event: ev.GroupsPlanned) -> State:
    square = state.square(event.square_id)
    if square is None:
        return state
    group_of = {hole_id: group.number for group in event.groups for hole_id in group.hole_ids}
    holes = {
        k: hole if hole.group == group_of.get(k) else replace(hole, group=group_of.get(k))
        for k, hole in square.holes.items()
    }
    groups: dict[int, Group] = {group.number: group for group in event.groups}
    return _with_square(state, replace(square, holes=holes, groups=groups))


def _placed(state: State, area: Square | Hole) -> State:
    if isinstance(area, Square):
        return _with_square(state, area)
    square = state.square(area.area_id)
    if square is None:
        return state
    before, groups = square.holes.get(area.area_id), square.groups
    if before is not None and (before.x_um, before.y_um) != (area.x_um, area.y_um):
        # moved: it is out of its group, whose stage position and focus spot were chosen for the old place
        area = replace(area, group=None)
        groups = {n: replace(g, hole_ids=tuple(i for i in g.hole_ids if i != area.area_id)) for n, g in groups.items()}
    ever = max(square.holes_ever, number_of(area.area_id))
    return _with_square(
        state, replace(square, holes={**square.holes, area.area_id: area}, holes_ever=ever, groups=groups)
    )


def _with_area(state: State, area_id: str, *, state_: str | None = None, **changes: Any) -> State:
    area = state.area(area_id)
    if area is None:
        return state
    if state_ is not None:
        changes["state"] = state_
    return _placed(state, replace(area, **changes))


def _with_square(state: State, square: Square) -> State:
    grid = state.grids[grid_of(square.area_id)]
    return _with_grid(state, replace(grid, squares={**grid.squares, square.area_id: square}))


def _with_grid(state: State, grid: Grid) -> State:
    return replace(state, grids={**state.grids, grid.grid_id: grid})
