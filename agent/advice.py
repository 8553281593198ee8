"""What a driver that leads itself is told when it asks how the session stands: squares, holes, expectations, order."""

import asyncio

import structlog
from msgspec.structs import replace

from agent.core import Core
from agent.errors import CryonautError
from agent.links import Links
from agent.messages import HoleSeen, Look, Refused, SquareSeen, View
from agent.policy.outlook import Outlook, outlook
from agent.session import inputs as inp
from agent.session.state import Grid, Hole, Square, State, grid_of
from agent.settings import Settings

log = structlog.get_logger("advice")
NOTHING = Outlook({}, {}, ())


def view(state: State, settings: Settings, look: Look) -> View:
    """The session as ``look`` asks for it: a pure function of the state."""
    asked = {grid_id: state.grids[grid_id] for grid_id in look.grid_ids if grid_id in state.grids}
    parents = [square for area_id in look.square_ids if (square := state.square(area_id)) is not None]
    expected = NOTHING
    if look.order or parents:
        expected = outlook(replace(state, grids=_learned_from(state, look)), settings)
    squares = [square for grid in asked.values() for square in grid.squares.values()]
    least = state.thresholds.get("square_score", 0.0)
    left = sorted((s for s in squares if _is_left(s)), key=lambda s: _place(s, least, expected)) if look.order else []
    return View(
        request_id=look.request_id,
        seq=state.seq,
        phase=state.phase,
        why=state.why[:2000],
        squares=tuple(_square(square, least, expected) for square in squares),
        holes=tuple(_hole(hole, state, expected) for square in parents for hole in square.holes.values()),
        order=tuple(square.area_id for square in left),
    )


def _learned_from(state: State, look: Look) -> dict[str, Grid]:
    """The grids that count: those looked at, those of the squares looked at, and those to learn from.

    For holes alone the squares without any are left out: nothing is learned from them.
    """
    wanted = {*look.grid_ids, *look.learn_from, *map(grid_of, look.square_ids)}
    grids = {grid_id: grid for grid_id, grid in {**state.past, **state.grids}.items() if grid_id in wanted}
    if look.order:
        return grids
    return {i: replace(g, squares={k: s for k, s in g.squares.items() if s.holes}) for i, g in grids.items()}


def _is_left(square: Square) -> bool:
    return not square.visited and square.word != "rejected"


def _place(square: Square, least: float, expected: Outlook) -> tuple[bool, int, bool, float, float, str]:
    """An operator's word first, then what is above the threshold, then what promises most."""
    promise = expected.squares.get(square.area_id)
    good = promise.expected_good if promise is not None else 0.0
    below = square.word != "accepted" and square.score < least
    return (square.word != "accepted", -square.priority, below, -good, -square.score, square.area_id)


def _square(square: Square, least: float, expected: Outlook) -> SquareSeen:
    promise = expected.squares.get(square.area_id)
    return SquareSeen(
        area_id=square.area_id,
        x_um=square.x_um,
        y_um=square.y_um,
        size_um=square.size_um,
        score=square.score,
        state=square.state,
        word=square.word,
        priority=square.priority,
        visited=square.visited,
        wanted=square.word == "accepted" or (square.word != "rejected" and square.score >= least),
        expected_good=promise.expected_good if promise else None,
        sigma=promise.sigma if promise else None,
        features=square.features,
    )


def _hole(hole: Hole, state: State, expected: Outlook) -> HoleSeen:
    promise = expected.holes.get(hole.area_id)
    least = state.thresholds.get("hole_score", 0.0)
    return HoleSeen(
        area_id=hole.area_id,
        x_um=hole.x_um,
        y_um=hole.y_um,
        radius_um=hole.radius_um,
        score=hole.score,
        state=hole.state,
        word=hole.word,
        priority=hole.priority,
        visited=hole.visited,
        wanted=hole.word == "accepted" or (hole.word != "rejected" and hole.score >= least),
        p_good=promise.p_good if promise else None,
        ctf_angstrom=promise.ctf_angstrom if promise else None,
        ctf_var=promise.ctf_var if promise else None,
        ice_nm=promise.ice_nm if promise else None,
        ice_var=promise.ice_var if promise else None,
        measured_ctf_angstrom=hole.features.get("ctf_resolution_angstrom") if hole.measurements else None,
        measured_ice_nm=hole.features.get("ice_thickness_nm") if hole.measurements else None,
        features=hole.seen_before,
    )


class Adviser:
    """Answers looks one after the other, beside the loop; an order is journalled before it is told."""

    def __init__(self, links: Links, core: Core, settings: Settings) -> None:
        self.links = links
        self.core = core
        self.settings = settings
        self._asked: asyncio.Queue[tuple[bytes, str, Look]] = asyncio.Queue(1_000)

    def take(self, peer: bytes, driver: str, look: Look) -> None:
        """Queue a question of ``driver``."""
        try:
            self._asked.put_nowait((peer, driver, look))
        except asyncio.QueueFull:
            reason = f"{self._asked.maxsize} questions wait already"
            self.links.send(peer, Refused(reason=reason, retry=True, about=look.request_id))

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            peer, driver, look = await self._asked.get()
            try:
                answer = await asyncio.to_thread(view, self.core.state, self.settings, look)
                if look.order:
                    why = "by expected good micrographs" if answer.order else "none is left"
                    await self.core.submit(inp.OrderAsked(driver=driver, order=answer.order, why=why))
            except CryonautError as error:
                self.links.send(peer, Refused(reason=str(error)[:2000], retry=True, about=look.request_id))
            except Exception as error:  # a defect of ours in one question must not end the night
                log.exception("advice.defect", request=look.request_id)
                reason = f"internal error: {type(error).__name__}: {error}"[:2000]
                self.links.send(peer, Refused(reason=reason, about=look.request_id))
            else:
                self.links.send(peer, answer)
