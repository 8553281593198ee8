"""Groups of holes that share a stage position and are reached by image shift, each with a focus spot off the holes."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.policy import lattice, patterns
from agent.session.state import Group, Hole

Points = NDArray[np.float64]  # shape (n, 2), x and y in micrometres
ACCEPTED = 100.0  # what a hole is worth that an operator accepted: more than any group of others
TURNS, CLEAR_UM = 24, 0.05  # directions that are tried for a focus spot; how far it should stay off a hole's edge
SELF_UM = 0.05  # nearer than this to a stage position is the hole that it stands on


class Pattern(NamedTuple):
    """How holes are put together: freely, or in patterns of ``size`` holes across on their lattice."""

    kind: Literal["free", "square", "hexagonal"] = "free"
    size: int = 3


FREE = Pattern()


class Plan(NamedTuple):
    """The groups of one square, and what is to be said about them (empty: nothing)."""

    groups: list[Group]
    note: str = ""


class _Members(NamedTuple):
    """One group: its stage position, and rows of its holes in the order in which they are shot."""

    place_um: tuple[float, float]
    rows: list[int]


def group_holes(
    holes: Sequence[Hole],
    *,
    most: int,
    max_shift_um: float,
    obstacles: Sequence[Hole],
    first_number: int = 0,
    pattern: Pattern = FREE,
    symmetry: str = "",
    beam_um: float | None = None,
) -> Plan:
    """Few groups with the ``most`` best holes that few stage moves can reach.

    Each hole lies within ``max_shift_um`` of its group's stage position. Free groups are greedy: the position from
    which the largest sum of scores can still be reached comes next, its holes by distance, nearest first. Patterns
    follow the lattice of the holes, and are laid so that what the wanted holes are worth comes together; the middle is
    shot first, then ring by ring. What a pattern cannot reach is grouped freely. The order of groups is a walk to the
    nearest one left. Holes that an operator accepted are always in and do not count.

    Parameters
    ----------
    holes
        The holes that may be exposed.
    most
        How many of them at the most.
    max_shift_um
        Longest image shift; 0 makes every hole a group of its own.
    obstacles
        All known holes of the square: the focus spot keeps away from them, and they show the lattice.
    first_number
        Number of the first group.
    pattern
        What a group looks like.
    symmetry
        Of the lattice as the finder saw it: ``square``, ``hexagonal``, or empty.
    beam_um
        Diameter of the beam, of which nothing of a focus spot should reach a hole; None: not known.
    """
    accepted = np.array([hole.word == "accepted" for hole in holes], bool)
    if not holes or (most <= 0 and not accepted.any()):
        return Plan([])
    points = np.array([(hole.x_um, hole.y_um) for hole in holes])
    worth = np.array([ACCEPTED if hole.word == "accepted" else hole.score + 10.0 * hole.priority for hole in holes])
    members: list[_Members] = []
    left, note = np.ones(len(holes), bool), ""
    if pattern.kind != "free":
        made, note = _patterned(holes, obstacles, points, worth, accepted, most, max_shift_um, pattern, symmetry)
        members += made
        for one in made:
            left[one.rows] = False
            most -= int((~accepted[one.rows]).sum())
    members += _free(points, worth, accepted, left, most, max_shift_um)
    around = obstacles or holes
    groups = [
        _group(number, one, holes, around, max_shift_um, beam_um)
        for number, one in enumerate(_walk(members), first_number)
    ]
    return Plan(groups, note)


def _free(
    points: Points, worth: Points, accepted: NDArray[np.bool_], left: NDArray[np.bool_], most: int, max_shift_um: float
) -> list[_Members]:
    near = np.hypot(*(points[:, None, :] - points[None, :, :]).transpose(2, 0, 1)) <= max_shift_um
    np.fill_diagonal(near, True)
    left = left & accepted if most <= 0 else left.copy()
    members = []
    while left.any():
        reach = near & left
        full = np.minimum(reach.sum(axis=1), max(most, 1))
        mean = (reach * worth).sum(axis=1) / np.maximum(reach.sum(axis=1), 1)
        centre = int(np.argmax(np.where(left, full * mean, -np.inf)))
        inside = np.flatnonzero(reach[centre])
        chosen = _best(inside, worth, accepted, most)
        most -= int((~accepted[chosen]).sum())
        distances = [float(np.hypot(*(points[i] - points[centre]))) for i in chosen]
        order = [i for _, i in sorted(zip(distances, chosen, strict=True))]
        members.append(_Members((float(points[centre, 0]), float(points[centre, 1])), order))
        left[inside] = False
        if most <= 0:
            left &= accepted
    return members


def _patterned(
    holes: Sequence[Hole],
    obstacles: Sequence[Hole],
    points: Points,
    worth: Points,
    accepted: NDArray[np.bool_],
    most: int,
    max_shift_um: float,
    pattern: Pattern,
    symmetry: str,
) -> tuple[list[_Members], str]:
    """Groups on the lattice, and what is to be said of them; none where there is no such lattice."""
    free = f"no {pattern.kind} lattice was found here: groups are free"
    if pattern.kind == "free" or symmetry != pattern.kind:
        return [], free
    known = {hole.area_id: (hole.x_um, hole.y_um) for hole in (*holes, *obstacles)}
    every = np.array(list(known.values()))
    found = lattice.fit(every, pattern.kind)
    if found is None:
        return [], free
    size = patterns.fitting_size(found, pattern.size, max_shift_um)
    note = f"{size} holes across on a {pattern.kind} lattice of {found.pitch_um:.2f} µm"
    if size < pattern.size:
        note += f" ({pattern.size} would need {patterns.reach_um(found, pattern.size):.2f} µm of image shift)"
    own = found._replace(indices=found.indices[: len(holes)])
    tiles = patterns.cut(own, size, worth)
    middles, tile = np.unique(tiles.centres, axis=0, return_inverse=True)
    tile = tile.ravel()
    places = [_place(found, every, middle) for middle in middles]
    away = np.hypot(*(points - np.array(places)[tile]).T)
    near = away <= max(max_shift_um, 1e-6)  # a pattern of one hole stands on that hole
    value = np.bincount(tile, np.where(near, worth, 0.0))
    members = []
    for k in np.argsort(-value, kind="stable").tolist():
        inside = np.flatnonzero((tile == k) & near)
        chosen = np.array(_best(inside, worth, accepted, most), np.int64)
        if len(chosen):
            most -= int((~accepted[chosen]).sum())
            members.append(_Members(places[k], patterns.spiral(own, tiles, chosen)))
    return members, note


def _best(rows: NDArray[np.int64], worth: Points, accepted: NDArray[np.bool_], most: int) -> list[int]:
    """Of these holes the accepted ones, and the ``most`` best others."""
    order = rows[np.argsort(-worth[rows], kind="stable")]
    return [int(i) for i in order if accepted[i]] + [int(i) for i in order if not accepted[i]][: max(most, 0)]


def _place(found: lattice.Lattice, every: Points, middle: NDArray[np.int64]) -> tuple[float, float]:
    """Stage position of a pattern: its middle hole, or where that would be."""
    there = np.flatnonzero((found.indices == middle).all(axis=1))
    x, y = every[there[0]] if len(there) else found.place_um(middle)
    return round(float(x), 4), round(float(y), 4)


def _group(
    number: int,
    members: _Members,
    holes: Sequence[Hole],
    around: Sequence[Hole],
    reach_um: float,
    beam_um: float | None,
) -> Group:
    x_um, y_um = members.place_um
    focus_x_um, focus_y_um = focus_spot(x_um, y_um, around, reach_um, beam_um)
    return Group(
        number=number,
        x_um=x_um,
        y_um=y_um,
        focus_x_um=focus_x_um,
        focus_y_um=focus_y_um,
        hole_ids=tuple(holes[i].area_id for i in members.rows),
    )


def focus_spot(
    x_um: float, y_um: float, holes: Sequence[Hole], reach_um: float, beam_um: float | None = None
) -> tuple[float, float]:
    """The point near (x, y) that lies farthest from every hole: where autofocus burns nothing that is wanted.

    First the holes' own spacing around (x, y) is searched; where the beam would touch a hole there, also farther out,
    up to ``reach_um``, for the nearest spot that it would not.
    """
    places = np.array([(hole.x_um, hole.y_um) for hole in holes])
    edges = np.array([hole.radius_um for hole in holes]) + (beam_um or 0.0) / 2
    distances = np.hypot(places[:, 0] - x_um, places[:, 1] - y_um)
    others = distances[distances > SELF_UM]
    pitch = float(others.min()) if others.size else max(reach_um, 2.0)
    near = _around(x_um, y_um, [pitch * share for share in (0.5, math.sqrt(0.5), 1 / math.sqrt(3))])
    gaps = _gaps(near, places)
    best, free = near[_first_most(gaps)], _gaps(near, places, edges)
    if free.max() < CLEAR_UM and reach_um > pitch:
        wide = _around(x_um, y_um, np.arange(pitch, reach_um + 1e-9, pitch / 4).tolist())
        clear = _gaps(wide, places, edges)
        best = wide[int(np.argmax(clear >= CLEAR_UM))] if (clear >= CLEAR_UM).any() else best
    return (round(float(best[0]), 4), round(float(best[1]), 4))


def clearance_um(group: Group, holes: Sequence[Hole], beam_um: float | None) -> float:
    """How far the beam at the focus spot stays off the nearest hole's edge; negative where it overlaps one."""
    spot = np.array([(group.focus_x_um, group.focus_y_um)])
    places = np.array([(hole.x_um, hole.y_um) for hole in holes]).reshape(-1, 2)
    edges = np.array([hole.radius_um for hole in holes]) + (beam_um or 0.0) / 2
    return float(_gaps(spot, places, edges)[0]) if len(places) else math.inf


def _around(x_um: float, y_um: float, radii_um: Sequence[float]) -> Points:
    angles = np.arange(TURNS) * (2 * math.pi / TURNS)
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    return np.concatenate([(x_um, y_um) + radius * ring for radius in radii_um])


def _gaps(spots: Points, places: Points, edges: Points | float = 0.0) -> Points:
    """Distance of each spot from the nearest hole (from its edge, where ``edges`` says how far that is out)."""
    away = np.hypot(*(spots[:, None, :] - places[None, :, :]).transpose(2, 0, 1))
    return np.asarray((away - edges).min(axis=1))


def _first_most(values: Points) -> int:
    """The first of the largest, where differences below 1e-9 are none."""
    best = 0
    for i, value in enumerate(values.tolist()):
        if value > values[best] + 1e-9:
            best = i
    return best


def _walk(members: list[_Members]) -> list[_Members]:
    """From the first to the nearest one left, and so on."""
    left = list(members)
    ordered = [left.pop(0)]
    while left:
        here = np.array(ordered[-1].place_um)
        gaps = [float(np.hypot(*(np.array(one.place_um) - here))) for one in left]
        ordered.append(left.pop(int(np.argmin(gaps))))
    return ordered
