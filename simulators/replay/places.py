"""A recorded session asked anew: which frames answer a command, and which area is which in another session."""

from typing import Any

from msgspec.structs import replace

from agent import geometry
from agent.control_messages import Accept, AnyVerb, Reject
from agent.messages import AcquireAtlas, AnyWork, Expose, Level, MapSquare
from agent.recording.record import Record
from agent.session import events as ev
from agent.session.state import Hole, Square, State, is_hole

LEAST_REACH_UM = 0.6  # about the radius of a hole: a micrograph this near shows the same hole
Point = tuple[float, float]


class Places:
    """The frames of a record by place; of several at one place the next one that was not shown yet, then the last."""

    def __init__(self, record: Record) -> None:
        self._by: dict[tuple[str, Level], list[ev.FrameReceived]] = {}
        for received in record.frames.values():
            self._by.setdefault((received.grid_id, received.frame.level), []).append(received)
        self._shown: set[str] = set()

    @staticmethod
    def needs_frame(work: AnyWork) -> bool:
        """Whether the work is done only when a frame came of it."""
        return isinstance(work, AcquireAtlas | MapSquare | Expose)

    def shots(self, work: AnyWork, grid_id: str) -> tuple[list[ev.FrameReceived], list[str]]:
        """The recorded frames that answer ``work``, and what of it was never recorded, in words."""
        match work:
            case AcquireAtlas(grid_id=grid, positions_um=positions):
                found: dict[str, ev.FrameReceived] = {}
                missing = []
                for point in positions:
                    received, why = self._near(grid, "low", point)
                    if received is None:
                        missing.append(why)
                    else:
                        found.setdefault(received.frame.frame_id, received)
                return list(found.values()), missing
            case MapSquare(x_um=x, y_um=y):
                return _one(*self._near(grid_id, "medium", (x, y)), work.area_id)
            case Expose():
                point = (work.x_um + work.image_shift_x_um, work.y_um + work.image_shift_y_um)
                return _one(*self._near(grid_id, "high", point), work.area_id)
            case _:
                return [], []

    def _near(self, grid_id: str, level: Level, point: Point) -> tuple[ev.FrameReceived | None, str]:
        group = self._by.get((grid_id, level), [])
        ranked = sorted(
            (round(geometry.distance(geometry.centre_um(r.frame), point), 4), n) for n, r in enumerate(group)
        )
        if not ranked:
            return None, f"no {level}-mag frame of grid {grid_id} was recorded"
        away, first = ranked[0]
        frame = group[first].frame
        reach = max(0.5 * min(frame.shape) * geometry.micron_per_pixel(frame), LEAST_REACH_UM)
        if away > reach:
            text = f"no {level}-mag frame was recorded at ({point[0]:.2f}, {point[1]:.2f}) µm of grid {grid_id}"
            return None, f"{text}; the nearest is {away:.2f} µm away, more than {reach:.2f}"
        same = [group[n] for distance, n in ranked if distance - away <= 1e-3]
        chosen = next((r for r in same if r.frame.frame_id not in self._shown), same[-1])
        self._shown.add(chosen.frame.frame_id)
        return chosen, ""


def _one(received: ev.FrameReceived | None, why: str, area_id: str) -> tuple[list[ev.FrameReceived], list[str]]:
    return ([received], []) if received is not None else ([], [f"{area_id}: {why}"])


class Translator:
    """Finds what stood at the place of a recorded area, in a session in which ids may mean other places.

    Parameters
    ----------
    then
        The last state of the recorded session.
    """

    def __init__(self, then: State) -> None:
        self.then = then

    def area(self, area_id: str, now: State) -> str | None:
        """Id of the area that lies where ``area_id`` lay; None where nothing was found there."""
        old = self.then.area(area_id)
        if old is None:
            return area_id if now.area(area_id) is not None else None
        same = now.area(area_id)
        if same is not None and geometry.distance((same.x_um, same.y_um), (old.x_um, old.y_um)) < 1e-6:
            return area_id
        found = [(geometry.distance((a.x_um, a.y_um), (old.x_um, old.y_um)), a.area_id) for a in _like(old, now)]
        gap, name = min(found, default=(float("inf"), ""))
        return name if gap <= _reach(old) else None

    def verb(self, verb: Any, now: State) -> AnyVerb | None:
        """The same request about the same places; None when none of them is known now."""
        known: AnyVerb
        if isinstance(verb, Accept | Reject):
            ids = tuple(i for i in (self.area(area_id, now) for area_id in verb.area_ids) if i is not None)
            return replace(verb, area_ids=ids) if ids else None
        for name in ("area_id", "square_id"):
            if asked := getattr(verb, name, ""):
                here = self.area(asked, now)
                if here is None:
                    return None
                verb = replace(verb, **{name: here})
        known = verb
        return known


def _like(area: Square | Hole, state: State) -> list[Square | Hole]:
    squares = [square for grid in state.grids.values() for square in grid.squares.values()]
    if not is_hole(area.area_id):
        return list(squares)
    return [hole for square in squares for hole in square.holes.values()]


def _reach(area: Square | Hole) -> float:
    return 0.5 * area.size_um if isinstance(area, Square) else max(area.radius_um, 0.2)
