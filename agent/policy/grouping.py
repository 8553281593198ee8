"""Groups of holes that share a stage position and are reached by image shift, each with a focus spot off the holes."""

import math
from collections.abc import Sequence

import numpy as np

from agent.session.state import Group, Hole


def group_holes(
    holes: Sequence[Hole], *, most: int, max_shift_um: float, obstacles: Sequence[Hole], first_number: int = 0
) -> list[Group]:
    """Few groups with the ``most`` best holes that few stage moves can reach.

    Each hole lies within ``max_shift_um`` of its group's stage position. Greedy: the position from which the largest
    sum of scores can still be reached comes next. The order of groups is a walk to the nearest one left; the holes of
    a group follow each other by distance, nearest first. Holes that an operator accepted are always in and do not
    count.

    Parameters
    ----------
    holes
        The holes that may be exposed.
    most
        How many of them at the most.
    max_shift_um
        Longest image shift; 0 makes every hole a group of its own.
    obstacles
        Holes that the focus spot must keep away from (all known holes of the square).
    first_number
        Number of the first group.
    """
    accepted = np.array([hole.word == "accepted" for hole in holes], bool)
    if not holes or (most <= 0 and not accepted.any()):
        return []
    points = np.array([(hole.x_um, hole.y_um) for hole in holes])
    worth = np.array([100.0 if hole.word == "accepted" else hole.score + 10.0 * hole.priority for hole in holes])
    near = np.hypot(*(points[:, None, :] - points[None, :, :]).transpose(2, 0, 1)) <= max_shift_um
    np.fill_diagonal(near, True)
    left = accepted.copy() if most <= 0 else np.ones(len(holes), bool)
    members: list[tuple[int, list[int]]] = []
    while left.any():
        reach = near & left
        full = np.minimum(reach.sum(axis=1), max(most, 1))
        mean = (reach * worth).sum(axis=1) / np.maximum(reach.sum(axis=1), 1)
        centre = int(np.argmax(np.where(left, full * mean, -np.inf)))
        inside = np.flatnonzero(reach[centre])
        best = inside[np.argsort(-worth[inside], kind="stable")]
        chosen = [int(i) for i in best if accepted[i]]
        plain = [int(i) for i in best if not accepted[i]][: max(most, 0)]
        most -= len(plain)
        chosen += plain
        distances = [float(np.hypot(*(points[i] - points[centre]))) for i in chosen]
        members.append((centre, [i for _, i in sorted(zip(distances, chosen, strict=True))]))
        left[inside] = False
        if most <= 0:
            left &= accepted
    members = _walk(members, points)
    around = np.array([(hole.x_um, hole.y_um) for hole in obstacles]) if obstacles else points
    groups = []
    for number, (centre, inside_list) in enumerate(members, first_number):
        x_um, y_um = (float(v) for v in points[centre])
        focus_x_um, focus_y_um = focus_spot(x_um, y_um, around, max_shift_um)
        ids = tuple(holes[i].area_id for i in inside_list)
        groups.append(
            Group(
                number=number,
                x_um=x_um,
                y_um=y_um,
                focus_x_um=focus_x_um,
                focus_y_um=focus_y_um,
                hole_ids=ids,
            )
        )
    return groups


def focus_spot(x_um: float, y_um: float, holes_um: np.ndarray, reach_um: float) -> tuple[float, float]:
    """The point near (x, y) that lies farthest from every hole: where autofocus burns nothing that is wanted.

    ``holes_um`` has shape (n, 2), (x, y) in micrometres; the search covers a disc of the hole spacing.
    """
    distances = np.hypot(holes_um[:, 0] - x_um, holes_um[:, 1] - y_um)
    others = distances[distances > 1e-6]
    pitch = float(others.min()) if others.size else max(reach_um, 2.0)
    best, best_gap = (x_um + pitch / 2, y_um), -1.0
    for radius in (0.5, math.sqrt(0.5), 1 / math.sqrt(3)):
        for step in range(24):
            angle = step * math.pi / 12
            px, py = x_um + radius * pitch * math.cos(angle), y_um + radius * pitch * math.sin(angle)
            gap = float(np.hypot(holes_um[:, 0] - px, holes_um[:, 1] - py).min())
            if gap > best_gap + 1e-9:
                best, best_gap = (px, py), gap
    return (round(best[0], 4), round(best[1], 4))


def _walk(members: list[tuple[int, list[int]]], points: np.ndarray) -> list[tuple[int, list[int]]]:
    ordered = [members.pop(0)]
    while members:
        here = points[ordered[-1][0]]
        gaps = [float(np.hypot(*(points[centre] - here))) for centre, _ in members]
        ordered.append(members.pop(int(np.argmin(gaps))))
    return ordered
