"""What goes between the register and the daemon: tiles and hole images there, their answers and Leginon's reports.

Whatever Leginon was told is safe here first, and is handed on until the daemon has it; a daemon or driver that dies in
between changes nothing.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from numpy.typing import NDArray

from agent.errors import BadFileError, CryonautError, LinkError
from agent.ids import new_id
from agent.messages import Look, Measured, Stage, Targets, View
from drivers.base import Shot, WorkError
from drivers.leginon.layout import NoRoomError, Place, tile_place
from drivers.leginon.polygons import mean_inside, polygon_area
from drivers.leginon.register import Register
from drivers.leginon.register_rows import NewSquare, Tile
from drivers.leginon.settings import LeginonSettings
from drivers.leginon.spool import Spool
from drivers.shell import Shell

log = structlog.get_logger("leginon")
ASK_AGAIN_S = 10.0  # a frame without an answer for so long is sent again: it counts once
LOOK_ROUND_S = 1.0


class Courier:
    """Runs beside the shell, in its loop."""

    def __init__(self, shell: Shell, register: Register, spool: Spool, settings: LeginonSettings) -> None:
        self.shell = shell
        self.register = register
        self.spool = spool
        self.settings = settings
        self._sent: dict[str, tuple[float, int]] = {}  # frame id -> when, in which epoch
        self._images: dict[str, NDArray[Any]] = {}  # pixels of tiles on their way, to spare the disk
        self._answers: asyncio.Queue[Targets] = asyncio.Queue()
        self._asked: dict[str, asyncio.Future[Targets]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tiles_wanted = asyncio.Event()
        self._visits_wanted = asyncio.Event()
        self._news = asyncio.Condition()
        self._bound = ""
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Carry until cancelled."""
        self.spool.tidy({tile.frame_id for tile in self.register.waiting_tiles()})
        async with asyncio.TaskGroup() as tasks:
            for job in (self._carry_tiles, self._carry_visits, self._take_answers):
                tasks.create_task(job())

    def on_answer(self, targets: Targets) -> None:
        """An answer from the daemon; callable from any thread."""
        self._loop.call_soon_threadsafe(self._answers.put_nowait, targets)

    # ------------------------------------------------------------------------------------------ the link

    @property
    def session(self) -> str:
        """Id of the daemon's session, as far as known."""
        welcome = self.shell.welcome
        return welcome.session_id if welcome is not None else str(self.register.recall("session") or "")

    async def bind(self) -> bool:
        """Whether there is a daemon; its session is known to the register from then on."""
        welcome = self.shell.welcome
        if welcome is None:
            return False
        if self._bound != welcome.session_id:
            await asyncio.to_thread(self.register.bind, welcome.session_id)
            self._bound = welcome.session_id
        return self.shell.connected

    async def look(self, **what: Any) -> View:
        """The daemon's view; see `agent.messages.Look`."""
        return await self.shell.look(Look(request_id=new_id(), **what))

    def call(self, what: Callable[..., None], *args: Any) -> None:
        """Have something done in the loop; callable from any thread."""
        self._loop.call_soon_threadsafe(what, *args)

    # ------------------------------------------------------------------------------------------ tiles

    def tile_came(self, frame_id: str, image: NDArray[Any]) -> None:
        """A tile is in spool and register."""
        self._images[frame_id] = image
        self._tiles_wanted.set()

    async def _carry_tiles(self) -> None:
        while True:
            if await self.bind():
                for tile in await asyncio.to_thread(self.register.waiting_tiles):
                    if self._is_due(tile.frame_id):
                        await self._carry(tile)
            await _wait(self._tiles_wanted, LOOK_ROUND_S)

    def _is_due(self, frame_id: str) -> bool:
        sent, epoch = self._sent.get(frame_id, (0.0, -1))
        welcome = self.shell.welcome
        return welcome is not None and (epoch != welcome.epoch or time.monotonic() - sent > ASK_AGAIN_S)

    async def _carry(self, tile: Tile) -> None:
        welcome = self.shell.welcome
        try:
            image = await self._pixels(tile)
            shot = tile_shot(tile, image, self.settings.pixel_size_angstrom.low)
            self._sent[tile.frame_id] = (time.monotonic(), welcome.epoch if welcome is not None else -1)
            async with asyncio.timeout(ASK_AGAIN_S):
                await self.shell.send(shot, grid_id=tile.grid, frame_id=tile.frame_id)
        except (LinkError, TimeoutError):
            self._sent.pop(tile.frame_id, None)  # no daemon: once more when there is one
        except (WorkError, BadFileError, NoRoomError) as error:
            log.error("tile.failed", tile=tile.tile_id, grid=tile.grid_id, error=str(error))
            await asyncio.to_thread(self.register.fail_tile, tile, str(error)[:500])
            await self._done_with(tile)

    async def _pixels(self, tile: Tile) -> NDArray[Any]:
        kept = self._images.get(tile.frame_id)
        return await asyncio.to_thread(self.spool.get, tile.frame_id) if kept is None else kept

    async def _take_answers(self) -> None:
        while True:
            targets = await self._answers.get()
            future = self._asked.get(targets.frame_id)
            if future is not None:
                if not future.done():
                    future.set_result(targets)
                continue
            tile = await asyncio.to_thread(self.register.tile_of_frame, targets.frame_id)
            if tile is not None and tile.state == "waiting":
                await self._answered(tile, targets)

    async def _answered(self, tile: Tile, targets: Targets) -> None:
        try:
            image = await self._pixels(tile)
            squares = await asyncio.to_thread(new_squares, tile, targets, image, self.settings.pixel_size_angstrom.low)
            await asyncio.to_thread(self.register.add_squares, tile, squares, targets.note)
        except CryonautError as error:
            log.error("tile.failed", tile=tile.tile_id, error=str(error))
            await asyncio.to_thread(self.register.fail_tile, tile, str(error)[:500])
        else:
            log.info("tile.found", grid=tile.grid_id, tile=tile.tile_id, squares=len(squares), note=targets.note)
        await self._done_with(tile)

    async def _done_with(self, tile: Tile) -> None:
        self._images.pop(tile.frame_id, None)
        self._sent.pop(tile.frame_id, None)
        await asyncio.to_thread(self.spool.drop, tile.frame_id)
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until ``done()``, which is asked after each piece of news; put a time limit round it."""
        async with self._news:
            while not await asyncio.to_thread(done):
                await self._news.wait()

    # ------------------------------------------------------------------------------------------ hole images

    async def ask(self, shot: Shot, *, grid_id: str, area_id: str, frame_id: str) -> Targets:
        """The daemon's answer to an image; put a time limit round it.

        Raises
        ------
        WorkError
            If the daemon refuses the image for good.
        """
        async with self._locks.setdefault(frame_id, asyncio.Lock()):
            future: asyncio.Future[Targets] = self._loop.create_future()
            self._asked[frame_id] = future
            try:
                while True:
                    if await self.bind():
                        await self.shell.send(shot, grid_id=grid_id, area_id=area_id, frame_id=frame_id)
                        if (await asyncio.wait({future}, timeout=ASK_AGAIN_S))[0]:
                            return future.result()
                    else:
                        await asyncio.sleep(0.1)
            finally:
                self._asked.pop(frame_id, None)
                self._locks.pop(frame_id, None)

    # ------------------------------------------------------------------------------------------ reports

    def visits_came(self) -> None:
        """Reports are in the register."""
        self._visits_wanted.set()

    async def _carry_visits(self) -> None:
        while True:
            if await self.bind():
                for visit in await asyncio.to_thread(self.register.untold):
                    told = Measured(
                        measured_id=f"{self.register.name}-V{visit.visit}",
                        session_id=self.session,
                        area_id=visit.area_id,
                        ctf_resolution_angstrom=visit.ctf,
                        ice_thickness_nm=visit.ice,
                    )
                    try:
                        await self.shell.tell(told)
                    except LinkError as error:
                        if self.shell.welcome is None or not self.shell.connected:
                            break
                        log.error("visit.refused", area=visit.area_id, error=str(error))
                    await asyncio.to_thread(self.register.told, visit)
                    await self._tell()
            await _wait(self._visits_wanted, LOOK_ROUND_S)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
    event.clear()


def tile_shot(tile: Tile, image: NDArray[Any], pixel_size_angstrom: float | None) -> Shot:
    """A tile as the daemon gets it.

    Raises
    ------
    NoRoomError
        If its grid has no place left.
    """
    place = tile_place(tile.place, tile.pitch_um, pixel_size_angstrom, max(tile.rows, tile.columns))
    ids = {"grid_id": tile.grid_id, "tile_id": tile.tile_id}
    return placed_shot(image, place, "low", pixel_size_angstrom, ids)


def placed_shot(
    image: NDArray[Any], place: Place, level: Any, pixel_size_angstrom: float | None, ids: dict[str, int]
) -> Shot:
    """An image at its place in the layout, with Leginon's ids."""
    scale = place.um_per_pixel
    return Shot(
        image,
        level=level,
        pixel_size_angstrom=pixel_size_angstrom or scale * 1e4,
        stage=Stage(x_um=place.x_um, y_um=place.y_um),
        image_to_stage=(scale, 0.0, 0.0, scale),
        nominal=True,
        pixel_size_known=pixel_size_angstrom is not None,
        foreign_ids={name: value for name, value in ids.items() if 0 <= value < 2**53},
    )


def new_squares(
    tile: Tile, targets: Targets, image: NDArray[Any], pixel_size_angstrom: float | None
) -> list[NewSquare]:
    """The squares of a tile's answer as the register keeps them."""
    place = tile_place(tile.place, tile.pitch_um, pixel_size_angstrom, max(tile.rows, tile.columns))
    found = []
    for target in targets.targets:
        area = polygon_area(target.vertices)
        found.append(
            NewSquare(
                area_id=target.area_id,
                x=target.x,
                y=target.y,
                vertices=target.vertices,
                brightness=mean_inside(image, target.vertices, (target.x, target.y)),
                area=area,
                score=target.score,
                x_um=target.x_um,
                y_um=target.y_um,
                side_um=max(area**0.5 * place.um_per_pixel, 1.0),
            )
        )
    return found
