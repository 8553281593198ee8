"""Multiple Records by image shift: in several holes, or several places in each, while the stage stands."""

from __future__ import annotations

import math

from simulators.serialem.buffers import Point
from simulators.serialem.combiner import offsets
from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.groups.camera import shoot
from simulators.serialem.groups.filing import current
from simulators.serialem.navigator import NavItem
from simulators.serialem.program import SerialEM

LEAVE = -8  # arguments below this leave the parameter as it is
IN_HOLE, IN_HOLES, FORCE_REGULAR, FORCE_CUSTOM = 1, 2, 16, 32


@command("SetMultishotParams")
def set_multishot_params(sem: SerialEM, call: Call) -> Values:
    """Shots, centre, radius, delay, save, early return, frames of it, beam tilt, where, second ring ..., holes x, y."""
    params = sem.multishot
    params.shots = _given(call, 1, params.shots)
    params.centre = _given(call, 2, params.centre)
    params.radius_um = _given_number(call, 3, params.radius_um)
    params.save = _given(call, 5, params.save)
    params.where = _given(call, 9, params.where)
    params.holes = _given(call, 13, params.holes[0]), _given(call, 14, params.holes[1])
    if min(params.holes) < 1:
        raise ScriptError(f"SetMultishotParams: a pattern of {params.holes[0]} x {params.holes[1]} holes is none")
    return None


@command("ReportMultishotParams")
def report_multishot_params(sem: SerialEM, call: Call) -> Values:
    """1: shots, centre, radius, save, where, beam tilt; 2: holes x, y; 3: shots of the second ring, and its radius."""
    params = sem.multishot
    match call.integer(1):
        case 1:
            return params.shots, params.centre, params.radius_um, params.save, params.where, 0
        case 2:
            return params.holes
        case 3:
            return 0, 0.0
    raise ScriptError(f"ReportMultishotParams {call.integer(1)}: 1 to 3 are allowed")


@command("SetCustomHoleShifts")
def set_custom_hole_shifts(sem: SerialEM, call: Call) -> Values:
    """Image shifts of holes from two array variables, in its units, for the present or a given magnification."""
    xs, ys = (sem.array_variable(call.text(place)) for place in (1, 2))
    if len(xs) != len(ys):
        raise ScriptError("The two variables do not have the same number of values")
    if call.has(3):
        sem.level_of_index(call.integer(3))
    sem.multishot.custom = list(zip(xs, ys, strict=True))
    return None


@command("SetRegularHoleVectors")
def set_regular_hole_vectors(sem: SerialEM, call: Call) -> Values:
    """The two steps of the lattice in image shift units."""
    if call.has(5):
        sem.level_of_index(call.integer(5))
    sem.multishot.vectors = ((call.number(1), call.number(2)), (call.number(3), call.number(4)))
    return None


@command("MultipleRecords")
def multiple_records(sem: SerialEM, call: Call) -> Values:
    """Records around here; how many there were. The image shift comes back to where it was."""
    params = sem.multishot
    where = _given(call, 9, params.where)
    if not 1 <= where < 2 * FORCE_CUSTOM:
        raise ScriptError(f"The ninth entry must be between 1 and {2 * FORCE_CUSTOM - 1}")
    holes: list[Point] = [(0.0, 0.0)]
    if where & IN_HOLES:
        if params.custom and not where & FORCE_REGULAR:
            holes = params.custom
        elif where & FORCE_CUSTOM:
            raise ScriptError("Multiple Records: no custom hole positions have been set")
        else:
            holes = list(offsets(*params.need_vectors(), *params.holes).values())
    save = bool(_given(call, 5, params.save))
    return record_at(sem, holes, _ring(sem, call) if where & IN_HOLE else [(0.0, 0.0)], save=save)


def _ring(sem: SerialEM, call: Call) -> list[Point]:
    """Shots around the middle of a hole, and the middle itself before (-1) or after (1) them."""
    params = sem.multishot
    count, centre = _given(call, 1, params.shots), _given(call, 2, params.centre)
    radius = _given_number(call, 3, params.radius_um)
    turns = [2 * math.pi * number / count for number in range(count)]
    around = [sem.stage_to_shift((radius * math.cos(turn), radius * math.sin(turn))) for turn in turns]
    middle = [(0.0, 0.0)]
    return middle + around if centre < 0 else around + middle if centre > 0 else around


def record_at(sem: SerialEM, holes: list[Point], shots: list[Point], *, save: bool) -> int:
    """Take a Record at every shot of every hole, image shift units from here; refuses all where one is out of reach."""
    begin = sem.scope.image_shift_um
    places = []
    for hole in holes:
        for shot in shots:
            x, y = sem.shift_to_stage((hole[0] + shot[0], hole[1] + shot[1]))
            places.append((begin[0] + x, begin[1] + y))
    limit = sem.shift_limit_um()
    far = max(math.hypot(*place) for place in places)
    if far > limit:
        raise ScriptError(f"Multiple Records: an image shift of {far:.2f} microns is beyond the limit of {limit:g}")
    try:
        for place in places:
            sem.check_stop()
            sem.shift_to(*place)
            shoot(sem, "R")
            if save and sem.current_file is not None:
                current(sem).append(sem.buffers.get("A"))
    finally:
        sem.shift_to(*begin)
    return len(places)


def holes_of(sem: SerialEM, item: NavItem) -> list[Point]:
    """Image shifts of the holes of a combined item, without the skipped ones; one without a pattern is one hole."""
    if not item.holes:
        return [(0.0, 0.0)]
    places = offsets(*sem.multishot.need_vectors(), *item.holes)
    return [shift for place, shift in places.items() if place not in item.skipped]


@command("ReportNumHoleAcquire")
def report_num_hole_acquire(sem: SerialEM, call: Call) -> Values:
    """Holes, items and Records that Acquire at Items would take, of items with at least so many holes."""
    sem.navigator.need_open()
    least = max(1, call.integer(1, 1))
    counts = [len(holes_of(sem, item)) for item in sem.navigator.items if item.acquire]
    counts = [count for count in counts if count >= least]
    return sum(counts), len(counts), sum(counts)


def _given(call: Call, place: int, otherwise: int) -> int:
    return call.integer(place) if call.has(place) and call.integer(place) >= LEAVE else otherwise


def _given_number(call: Call, place: int, otherwise: float) -> float:
    return call.number(place) if call.has(place) and call.number(place) >= LEAVE else otherwise
