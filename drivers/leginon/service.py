"""What each of Leginon's calls does: from ids and pixels to tables, with the daemon behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from msgspec.structs import replace
from numpy.typing import NDArray

from agent import wire
from agent.errors import BadMessageError, CryonautError, LinkError
from agent.messages import HoleSeen, SquareSeen, Targets, View
from agent.session.state import square_of
from drivers.base import WorkError
from drivers.leginon import body, feedback
from drivers.leginon.courier import Courier, placed_shot
from drivers.leginon.layout import SQUARE_FIELD_UM, NoRoomError, Place, image_place, tile_pitch_um, tile_place
from drivers.leginon.register import Register
from drivers.leginon.register_rows import Hole, HoleImage, NewHole, Parent
from drivers.leginon.settings import LeginonSettings
from drivers.leginon.spool import Spool
from drivers.leginon.table import holes_csv, squares_csv

log = structlog.get_logger("leginon")
GLANCE_S = 2.0  # so long a daemon is waited for where the answer is good without it
LOOK_S = 10.0  # and its answer is waited for so long
PATIENCE_S = 5.0  # and so long where it is not: it may just have been started


class NotNowError(CryonautError):
    """The daemon, or what it needs for an answer, is not there: asked again later it may be."""


class Service:
    """Leginon's calls. Every change is on disk before its call returns.

    Parameters
    ----------
    register, spool
        What this driver keeps.
    courier
        The way to the daemon.
    settings
        ``config/leginon.yaml``.
    """

    def __init__(self, register: Register, spool: Spool, courier: Courier, settings: LeginonSettings) -> None:
        self.register = register
        self.spool = spool
        self.courier = courier
        self.settings = settings
        self.answers = settings.answers
        self._pushing = asyncio.Lock()

    # ------------------------------------------------------------------------------------------ runs

    async def new_session(self) -> int:
        """Archive what there is and begin anew; called for every session name that a wizard proposes."""
        if self.answers.new_session == "keep":
            return self.register.run
        run = await asyncio.to_thread(self.register.new_run)
        log.info("run.begun", run=run)
        return run

    def _go_on_with(self, run: int, why: str) -> None:
        """A wizard was cancelled: its session never began, and the one before it goes on."""
        current = self.register.current_runs()
        if run not in current and len(current) == 1 and self.register.run_is_empty(current[0]):
            self.register.revive(run)
            log.info("run.goes_on", run=run, why=why)

    # ------------------------------------------------------------------------------------------ squares

    async def push_tile(self, raw: bytes) -> dict[str, Any]:
        """``push_lm``: the tile is on disk when this returns; its squares follow."""
        told, image = await asyncio.to_thread(body.tile, raw)
        mark = await asyncio.to_thread(wire.digest, image)
        async with self._pushing:  # places and ids one after the other; parsing went on beside
            tile_id = body.own_id(mark) if told.tile_id is None else told.tile_id
            return await asyncio.to_thread(self._push_tile, told.grid_id, tile_id, image, mark[:8])

    def _push_tile(self, grid_id: int, tile_id: int, image: NDArray[Any], mark: str) -> dict[str, Any]:
        run = self.register.run
        if self.register.run_is_empty(run):
            archived = self.register.archived_run_of(grid_id, tile_id)
            if archived is not None:
                self._go_on_with(archived, f"tile {tile_id} of its grid {grid_id} came")
                run = self.register.run
        frame_id = f"L{run}-T{tile_id}-{mark}"
        known = self.register.tile(tile_id, run)
        if known is not None:
            if known.frame_id != frame_id:
                raise BadMessageError(f"tile {tile_id} was pushed before, with other pixels; those count")
            return {"tile_id": tile_id, "stored": True, "again": True}
        self.spool.put(frame_id, image)
        rows, columns = image.shape
        pitch = tile_pitch_um(self.settings.pixel_size_angstrom.low, max(rows, columns))
        self.register.add_tile(
            session=self.courier.session,
            run=run,
            grid_id=grid_id,
            tile_id=tile_id,
            frame_id=frame_id,
            shape=(rows, columns),
            pitch_um=pitch,
        )
        self.courier.call(self.courier.tile_came, frame_id, image)
        return {"tile_id": tile_id, "stored": True}

    async def squares(self) -> str:
        """``current_lm_state``: every square of the session, once all tiles pushed were looked at."""
        runs = await self._all_found()
        squares = await asyncio.to_thread(self.register.squares, runs)
        names = await asyncio.to_thread(self.register.grid_names, self.courier.session)
        return squares_csv(squares, await self._squares_seen(names))

    async def _all_found(self) -> list[int]:
        runs = self.register.current_runs()

        def waiting() -> int:
            return sum(len(self.register.waiting_tiles(run)) for run in runs)

        if await asyncio.to_thread(waiting):
            try:
                await self._until_there()
            except NotNowError as error:
                raise NotNowError(f"{waiting()} tiles wait, nothing is lost: {error}") from error
        async with self._in_time(lambda: f"{waiting()} tiles are still being looked at"):
            await self.courier.until(lambda: not waiting())
        return runs

    async def _squares_seen(self, names: Iterable[str]) -> dict[str, SquareSeen]:
        """What the daemon says of the squares now, where it is there: without it the register is the answer."""
        with contextlib.suppress(NotNowError, LinkError, TimeoutError):
            await self._until_there(GLANCE_S)
            async with asyncio.timeout(min(LOOK_S, self.settings.http.answer_s)):  # it may have died a moment ago
                view = await self.courier.look(grid_ids=tuple(names))
            return {square.area_id: square for square in view.squares}
        return {}

    async def next_squares(self, grid_id: int) -> str:
        """``select_next_square``: every square not visited yet, in the order learned so far."""
        await self._all_told()
        names = await asyncio.to_thread(self.register.grid_names, self.courier.session, grid_id)
        async with self._in_time(lambda: "the order of squares was not there in time"):
            view = await self._view(grid_ids=tuple(names), order=True)
        squares = await asyncio.to_thread(self.register.squares, self.register.current_runs(), grid_id)
        by_area = {square.area_id: square for square in squares}
        left = [area_id for area_id in view.order if area_id in by_area and not by_area[area_id].visited]
        key = f"order {grid_id} {self.register.run}"
        if _is_paused(view):  # while paused nothing new is decided: the order stays
            before = await asyncio.to_thread(self.register.recall, key) or []
            place = {area_id: number for number, area_id in enumerate(before)}
            left.sort(key=lambda area_id: place.get(area_id, len(place)))
        else:
            await asyncio.to_thread(self.register.remember, key, left)
        log.info("order.given", squares=len(left), first=left[:3])
        return squares_csv(squares, {square.area_id: square for square in view.squares}, left)

    async def square_features(self) -> list[list[float]]:
        """What the models saw of each square of the session, in the order of `squares`, names in alphabetical order."""
        runs = await self._all_found()
        squares = await asyncio.to_thread(self.register.squares, runs)
        names = await asyncio.to_thread(self.register.grid_names, self.courier.session)
        seen = await self._squares_seen(names)
        return _features(seen[square.area_id].features for square in squares if square.area_id in seen)

    async def hole_features(self) -> list[list[float]]:
        """What the models saw of each hole of the session."""
        holes = await asyncio.to_thread(self.register.holes, self.register.current_runs())
        view = await self._holes_seen(holes)
        seen = {hole.area_id: hole for hole in view.holes}
        return _features(seen[hole.area_id].features for hole in holes if hole.area_id in seen)

    async def visit_square(self, square_id: int) -> bool:
        """``visit_square``; False when nobody was ever given this id."""
        known = await asyncio.to_thread(self.register.add_square_visit, self.courier.session, square_id)
        self.courier.visits_came()
        return known

    # ------------------------------------------------------------------------------------------ holes

    async def push_hole_image(self, raw: bytes) -> str:
        """``push_and_evaluate_mm``: the holes of this image, best first."""
        told, image = await asyncio.to_thread(body.hole_image, raw)
        mark = await asyncio.to_thread(wire.digest, image)
        if told.mm_img_id is None:
            told = replace(told, mm_img_id=body.own_id(mark))
        async with self._in_time(lambda: f"hole image {told.mm_img_id} was not looked at in time"):
            if not await self.courier.bind():
                await self._until_there()
            noted, area_id = await self._hole_image(told, image, mark)
            view = await self._view(square_ids=(area_id,)) if area_id else View(request_id="none", seq=0, phase="")
            if _is_paused(view) and self.answers.paused == "none":
                log.warning("holes.withheld", image=told.mm_img_id, why=f"session is {view.phase}: {view.why}")
                return holes_csv([], {}, shrunk=self._shrunk, learned=self._learned)
        if _is_paused(view):
            view = await self._after_pause(area_id)
        holes = await asyncio.to_thread(self.register.holes, image=noted.image)
        return self._holes(holes, view, leave_out_rejected=True)

    async def _hole_image(self, told: body.HoleImageBody, image: NDArray[Any], mark: str) -> tuple[HoleImage, str]:
        """Have an image looked at; returns what the register knows of it, and the area of its square."""
        pixel_size, shape = self.settings.pixel_size_angstrom.medium, (int(image.shape[0]), int(image.shape[1]))
        async with self._pushing:
            noted, parent, place = await asyncio.to_thread(self._place_image, told, mark[:8], shape)
        ids = {
            "grid_id": told.grid_id,
            "tile_id": -1 if told.tile_id is None else told.tile_id,
            "square_id": told.square_id,
            "mm_img_id": noted.mm_img_id,
        }
        shot = placed_shot(image, place, "medium", pixel_size, ids)
        targets = await self.courier.ask(shot, grid_id=parent.grid, area_id=parent.area_id, frame_id=noted.frame_id)
        area_id = parent.area_id or (square_of(targets.targets[0].area_id) if targets.targets else "")
        stranger = "" if parent.area_id else area_id
        await asyncio.to_thread(self.register.add_holes, noted, new_holes(targets), stranger)
        log.info("image.found", image=told.mm_img_id, area=area_id, holes=len(targets.targets), note=targets.note)
        return noted, area_id

    def _place_image(
        self, told: body.HoleImageBody, mark: str, shape: tuple[int, int]
    ) -> tuple[HoleImage, Parent, Place]:
        pixel_size = self.settings.pixel_size_angstrom
        longest = max(shape)
        pitch = tile_pitch_um(pixel_size.low, longest)
        parent = self.register.parent(self.courier.session, told.grid_id, told.square_id, pitch)
        if parent.side_um:
            self._go_on_with(parent.run, f"an image of its square {told.square_id} came")
        frame_id = f"L{parent.run}-M{told.mm_img_id}.{told.square_id}-{mark}"
        known = self.register.image_of_frame(frame_id)
        where, pitch = -1 if known is None else known.place, self.register.pitch_of(parent.grid)
        if known is None and not parent.side_um:  # a square that nobody knows: a place of its own on the grid
            where = self.register.take_place(parent.grid)
        noted = known or self.register.add_image(
            run=parent.run,
            grid=parent.grid,
            square_id=told.square_id,
            mm_img_id=told.mm_img_id or 0,
            frame_id=frame_id,
            shape=shape,
            place=where,
        )
        if parent.side_um:
            square = (parent.x_um, parent.y_um, parent.side_um)
            return noted, parent, image_place(noted.place, square, pixel_size.medium, longest)
        free = tile_place(noted.place, pitch, None, longest)
        return noted, parent, image_place(0, (free.x_um, free.y_um, SQUARE_FIELD_UM), pixel_size.medium, longest)

    async def _after_pause(self, area_id: str) -> View:
        while True:
            await asyncio.sleep(0.5)
            with contextlib.suppress(LinkError):
                view = await self._view(square_ids=(area_id,))
                if not _is_paused(view):
                    return view

    async def holes(self, hole_ids: Iterable[int] | None = None, *, open_only: bool = False) -> str:
        """Holes of the session, or those with these ids, as they are now."""
        runs = self.register.current_runs()
        if hole_ids is None:
            holes = await asyncio.to_thread(self.register.holes, runs)
        else:
            holes = await asyncio.to_thread(self.register.holes, hole_ids=tuple(hole_ids)) if tuple(hole_ids) else []
        if open_only:
            holes = [hole for hole in holes if not hole.visited]
        return self._holes(holes, await self._holes_seen(holes))

    async def _holes_seen(self, holes: list[Hole]) -> View:
        parents = sorted({square_of(hole.area_id) for hole in holes})
        seen: list[HoleSeen] = []
        with contextlib.suppress(LinkError, TimeoutError):
            if await self.courier.bind():
                for start in range(0, len(parents), 50):  # a header must not grow without bounds
                    async with asyncio.timeout(self.settings.http.answer_s):
                        view = await self._view(square_ids=tuple(parents[start : start + 50]))
                    seen += view.holes
        return View(request_id="holes", seq=0, phase="", holes=tuple(seen))

    def _holes(self, holes: list[Hole], view: View, *, leave_out_rejected: bool = False) -> str:
        seen = {hole.area_id: hole for hole in view.holes}
        if leave_out_rejected:
            wanted = [hole for hole in holes if hole.area_id not in seen or seen[hole.area_id].word != "rejected"]
            holes = wanted if len(wanted) > 1 else holes  # fewer than two rows break Leginon's lattice; those score 0
        return holes_csv(holes, seen, shrunk=self._shrunk, learned=self._learned)

    @property
    def _shrunk(self) -> bool:
        return self.answers.hole_coordinates == "shrunk"

    @property
    def _learned(self) -> bool:
        return self.answers.hole_score == "learned"

    async def visit_holes(self, values: dict[str, Any]) -> list[int]:
        """``visit_holes``: reports of exposures; returns the hole ids that nobody was ever given."""
        ids, ctfs, ices = (_list(values, name) for name in ("hole_ids", "ctfs", "ice_thicknesses"))
        reports = []
        for number, hole_id in enumerate(ids):
            ctf = feedback.ctf_angstrom(ctfs[number]) if number < len(ctfs) else None
            ice = feedback.ice_nm(ices[number]) if number < len(ices) else None
            reports.append((body.whole(hole_id, "hole_ids"), ctf, ice))
        unknown = await asyncio.to_thread(self.register.add_visits, self.courier.session, reports)
        self.courier.visits_came()
        if unknown:
            log.warning("visits.unknown", hole_ids=unknown)
        return unknown

    async def _all_told(self) -> None:
        async with self._in_time(lambda: "reports of exposures wait for the Cryonaut daemon"):
            await self._until_there()
            await self.courier.until(lambda: not self.register.untold())

    # ------------------------------------------------------------------------------------------ the daemon

    async def _until_there(self, seconds: float = PATIENCE_S) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self.settings.http.answer_s / 2)):
                while True:
                    if await self.courier.bind():
                        return
                    await asyncio.sleep(0.05)
        raise NotNowError(
            f"the Cryonaut daemon at {self.settings.daemon.endpoint} does not answer: is `cryonaut run` up?"
        )

    async def _view(self, **what: Any) -> View:
        await self._until_there()
        historical = await asyncio.to_thread(self.register.historical_names, self.courier.session)
        return await self.courier.look(learn_from=tuple(historical), **what)

    @asynccontextmanager
    async def _in_time(self, why: Any) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.settings.http.answer_s):
                yield
        except TimeoutError as error:
            raise NotNowError(f"{why()} (http.answer_s: {self.settings.http.answer_s:g} s)") from error
        except (LinkError, NoRoomError, WorkError) as error:
            raise NotNowError(str(error)) from error


def new_holes(targets: Targets) -> list[NewHole]:
    """The holes of an image's answer as the register keeps them."""
    return [NewHole(area_id=t.area_id, x=t.x, y=t.y, radius=t.radius_px or 0.0, score=t.score) for t in targets.targets]


def _features(found: Iterable[dict[str, float]]) -> list[list[float]]:
    rows = list(found)
    names = sorted({name for row in rows for name in row})
    return [[row.get(name, 0.0) for name in names] for row in rows]


def _is_paused(view: View) -> bool:
    return view.phase in ("paused", "fault")


def _list(values: dict[str, Any], name: str) -> list[Any]:
    found = values.get(name, [])
    if isinstance(found, int | float):  # one hole
        return [found]
    if not isinstance(found, list):
        raise BadMessageError(f"{name}: {found!r}; a list is expected"[:200])
    return found
