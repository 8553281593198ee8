"""The hole finder, and the combiner that makes one item for multiple Records of many holes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from simulators.serialem.buffers import Point
from simulators.serialem.combiner import combine
from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.holes import centre_hole
from simulators.serialem.navigator import POINT, NavItem
from simulators.serialem.program import SerialEM, linear


@command("SetHoleFinderParams")
def set_hole_finder_params(sem: SerialEM, call: Call) -> Values:
    """Diameter and spacing in µm, 1 for a hexagonal array."""
    diameter, spacing = call.number(1), call.number(2)
    if diameter < 0.05 or spacing < 0.15 or spacing - 0.1 < diameter:
        raise ScriptError("Size must be at least 0.05 and spacing at least 0.15, and 0.1 more than the size")
    finder = sem.hole_finder
    finder.diameter_um, finder.spacing_um, finder.hexagonal = diameter, spacing, call.integer(3) != 0
    return None


@command("ReportHoleFinderParams")
def report_hole_finder_params(sem: SerialEM, call: Call) -> Values:
    """Diameter, spacing, hexagonal, largest error in µm."""
    finder = sem.hole_finder
    return finder.diameter_um, finder.spacing_um, int(finder.hexagonal), 0.1


@command("FindHoles")
def find_holes(sem: SerialEM, call: Call) -> Values:
    """Find the holes of an image, A unless another is named."""
    sem.navigator.need_open()
    image = sem.buffers.get(call.text(1, "A"))
    sem.wait(3.0)
    sem.hole_finder.find(image)
    sem.say(f"Hole finder: {len(sem.hole_finder.found)} holes")
    return None


@command("ClearHoleFinder")
def clear_hole_finder(sem: SerialEM, call: Call) -> Values:
    """Forget the holes found."""
    sem.hole_finder.clear()
    return None


@command("GetFoundHolePositions")
def get_found_hole_positions(sem: SerialEM, call: Call) -> Values:
    """Stage x and y of the holes found, into two array variables; how many."""
    image = sem.hole_finder.need()
    places = [image.point(x, y)[0] for x, y in sem.hole_finder.found]
    for place, axis in ((1, 0), (2, 1)):
        sem.script.variables[call.text(place).upper()] = "\n".join(f"{p[axis]:.4f}" for p in places)
    return len(places)


@command("MakeNavPointsAtHoles")
def make_nav_points_at_holes(sem: SerialEM, call: Call) -> Values:
    """A point at each hole whose mean is within limits, all in one group and with Acquire on; nothing is reported."""
    nav, finder = sem.navigator, sem.hole_finder
    nav.need_open()
    image = finder.need()
    if call.has(1) and call.integer(1) > 2:
        raise ScriptError("The layout type must be less than 3")
    low = call.number(2) if call.has(2) and call.number(2) > -900_000 else -math.inf
    high = call.number(3) if call.has(3) and call.number(3) > -900_000 else math.inf
    group, made = nav.unique_id(), 0
    for x, y in finder.found:
        if not low <= _mean(image.pixels, x, y, 250.0 * finder.diameter_um / (image.pixel_nm or 1.0)) <= high:
            continue
        (x_um, y_um), piece, inside = image.point(x, y)
        extra = {} if piece < 0 else {"PieceOn": str(piece), "XYinPc": f"{inside[0]:.1f} {inside[1]:.1f}"}
        nav.add(NavItem(nav.next_label(), x_um, y_um, image.stage_um[2], acquire=True, group=group, extra=extra))
        made += 1
    sem.say(f"Hole finder made {made} Navigator points")
    return None


def _mean(pixels: np.ndarray, x: float, y: float, half_px: float) -> float:
    half = max(1, int(half_px))
    part = pixels[max(0, int(y) - half) : int(y) + half + 1, max(0, int(x) - half) : int(x) + half + 1]
    return float(part.mean()) if part.size else math.nan


@command("FindAndCenterOneHole")
def find_and_center_one_hole(sem: SerialEM, call: Call) -> Values:
    """Image x, y of the hole nearest to the middle; with a fourth argument shifts it there, if within that part of it.

    The third value is 0, or -1 when the shift was larger than allowed and not made.
    """
    image, diameter, limit = sem.buffers.get(call.text(1)), call.number(2), call.number(4)
    x, y = centre_hole(image, diameter)
    if limit <= 0:
        return x, y, 0
    where = image.to_stage(x, y)
    dx, dy = where[0] - image.centre_um[0], where[1] - image.centre_um[1]
    now = sem.scope.image_shift_um
    if math.hypot(dx, dy) > limit * diameter or sem.shift_to(now[0] + dx, now[1] + dy):
        return x, y, -1
    return x, y, 0


def _stage_vectors(sem: SerialEM) -> list[Point]:
    image = sem.hole_finder.need()
    return [linear(image.matrix_or_refuse(), vector) for vector in sem.hole_finder.vectors]


@command("ReportLastHoleVectors")
def report_last_hole_vectors(sem: SerialEM, call: Call) -> Values:
    """The two vectors of the lattice: 0 stage µm, below 0 image pixels, a magnification index image shift units."""
    kind = call.integer(1)
    if kind < 0:
        sem.hole_finder.need()
        return tuple(value for vector in sem.hole_finder.vectors for value in vector)
    vectors = _stage_vectors(sem)
    if kind > 0:
        sem.level_of_index(kind)
        vectors = [sem.stage_to_shift(vector) for vector in vectors]
    return tuple(value for vector in vectors for value in vector)


@command("UseHoleVectorsForMulti")
def use_hole_vectors_for_multi(sem: SerialEM, call: Call) -> Values:
    """The lattice found becomes that of the multiple Records."""
    vectors = [sem.stage_to_shift(vector) for vector in _stage_vectors(sem)]
    sem.multishot.vectors = (vectors[0], vectors[1])
    return tuple(value for vector in vectors for value in vector)


@command("CombineHolesToMulti")
def combine_holes_to_multi(sem: SerialEM, call: Call) -> Values:
    """Points with Acquire on into patterns: 0 all in view, 1 in the selected polygon, 2 in the selected one's group."""
    nav = sem.navigator
    nav.need_open()
    kind = min(2, max(0, call.integer(1)))
    points = [item for item in nav.items if item.kind == POINT and item.acquire and not item.holes]
    if kind:
        if not nav.selected:
            raise ScriptError("Error trying to combine hole for multiple Records: there is no current item")
        chosen = nav.item(0)
        if kind == 1:
            points = [item for item in points if _inside(item, chosen)]
        else:
            points = [item for item in points if chosen.group and item.group == chosen.group]
    if len(points) < 2:
        raise ScriptError("Error trying to combine hole for multiple Records: too few Acquire points")
    first, second = (sem.shift_to_stage(vector) for vector in sem.multishot.need_vectors())
    columns, rows = sem.multishot.holes
    patterns = combine([(p.x_um, p.y_um) for p in points], first, second, columns, rows)
    nav.before_combining = list(nav.items)
    keep = [item for item in nav.items if not any(item is point for point in points)]
    made = [
        NavItem(
            points[pattern.members[0]].label,
            *pattern.centre_um,
            points[pattern.members[0]].z_um,
            acquire=True,
            note="; ".join(dict.fromkeys(points[n].note for n in pattern.members if points[n].note))[:250],
            group=points[pattern.members[0]].group,
            holes=(columns, rows),
            skipped=pattern.skipped,
        )
        for pattern in patterns
    ]
    nav.items = keep + made
    nav.selected = len(nav.items)
    return None


@command("UndoHoleCombining")
def undo_hole_combining(sem: SerialEM, call: Call) -> Values:
    """Give the points back that were combined last."""
    nav = sem.navigator
    if not nav.before_combining:
        raise ScriptError("It is no longer possible to undo the last hole combination")
    nav.items, nav.before_combining = nav.before_combining, []
    nav.selected = len(nav.items)
    return None


def _inside(item: NavItem, polygon: NavItem) -> bool:
    """Whether a point lies in a polygon, by the crossings of a ray."""
    corners = list(zip(polygon.xs_um, polygon.ys_um, strict=True))
    if len(corners) < 4:
        raise ScriptError("Error trying to combine hole for multiple Records: the current item is not a polygon")
    odd = False
    for (x0, y0), (x1, y1) in pairwise(corners):
        if (y0 > item.y_um) != (y1 > item.y_um):
            odd ^= item.x_um < x0 + (item.y_um - y0) / (y1 - y0) * (x1 - x0)
    return odd
