"""The live page's routes: the page, its stream, snapshots, pictures, and the one way back – a `Control` message."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agent import control_messages as say
from agent.desk import Desk, as_line
from agent.errors import BadFileError, BadMessageError, CryonautError
from agent.journal import naming
from agent.report.pictures import sheet
from agent.session import events as ev
from agent.session.state import Grid, is_hole
from agent.web.access import Access
from agent.web.app import render
from agent.web.guard import caller_of, get, post
from agent.web.live import outlook
from agent.web.live.expected import Expected
from agent.web.live.hub import BEAT_S, Hub
from agent.web.live.pictures import SIDES, Pictures, atlas_key
from agent.web.live.records import frame_record, hole_record, key_of
from agent.web.page import Page

FOR_EVER = "private, max-age=31536000, immutable"  # a picture's address holds the digest of its pixels
MOST_LINES = 300
MOST_STORY = 60
MOST_MARKS = 5_000
STORY = (
    "command_issued", "command_ended", "area_changed", "area_placed", "micrograph_judged", "error_counted",
    "groups_planned", "frame_received", "objects_detected", "area_measured", "square_favoured",
)  # fmt: skip
_control: "msgspec.json.Decoder[say.Control]" = msgspec.json.Decoder(say.Control)
Made = Callable[[], Awaitable[bytes]]


class Live:
    """The routes of one daemon."""

    def __init__(self, desk: Desk, hub: Hub, pictures: Pictures, expected: Expected) -> None:
        self.desk = desk
        self.core = desk.core
        self.hub = hub
        self.pictures = pictures
        self.expected = expected

    def page(self) -> Page:
        """The page for `agent.web.app.create_app`."""
        picture = "/picture/{frame}/{key}"
        routes = (
            get("/", self.show),
            get("/stream", self.stream),
            get("/api/session", self.session),
            get("/api/grid/{grid}", self.grid),
            get("/api/area/{area}", self.area),
            get("/api/outlook/{grid}", self.outlook),
            get("/api/preview", self.preview),
            get("/atlas/{grid}/{key}.jpg", self.atlas),
            get(f"{picture}/spectrum.jpg", self.spectrum),
            get(f"{picture}/tile-{{halvings:int}}-{{column:int}}-{{row:int}}.jpg", self.tile),
            get(f"{picture}/{{side:int}}.jpg", self.thumbnail),
            post("/control", self.control),
        )
        return Page("live", routes, title="Session", path="/", folder=Path(__file__).parent)

    async def show(self, request: Request) -> Response:
        """The page itself; everything in it comes by the routes below."""
        return render(request, "live/live.html.jinja", session=self.core.state.name or "session")

    async def stream(self, request: Request) -> Response:
        """Server-sent events: ``hello``, then ``news`` as it happens and a ``beat`` where nothing does."""
        access: Access = request.app.state.access
        authorization = request.headers.get("authorization", "")
        cookie = request.cookies.get(access.cookie_name, "")
        try:
            queue = self.hub.join(caller_of(request).peer.name)
        except OverflowError as error:
            return answer({"error": str(error)}, 503)

        async def messages() -> AsyncIterator[bytes]:
            try:
                yield b"retry: 1500\n\n"
                while (body := await self._next(queue)) is not None:
                    await self.hub.precedence.turn()
                    if access.who(authorization, cookie) is None:
                        return  # revoked while it looked
                    yield body
            finally:
                self.hub.leave(queue)

        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(messages(), media_type="text/event-stream", headers=headers)

    async def _next(self, queue: "asyncio.Queue[bytes | None]") -> bytes | None:
        try:
            async with asyncio.timeout(5 * BEAT_S):
                return await queue.get()
        except TimeoutError:
            return None

    async def session(self, _: Request) -> Response:
        """The session as a whole, its last events and its trends."""
        state = self.core.state
        rows = await self.core.rows(max(0, state.seq - MOST_LINES))
        lines = [as_line(row.seq, row.utc, ev.decode_event(row.body)) for row in rows]
        return answer({"summary": self.hub.summary(), "lines": lines, "points": list(self.hub.history.points)})

    async def grid(self, request: Request) -> Response:
        """A grid with its squares, holes and the places of its frames."""
        state = self.core.state  # one state for all of it: the news after its number lead on from here
        grid = state.grids.get(request.path_params["grid"])
        if grid is None:
            return answer({"error": "there is no such grid"}, 404)
        squares = grid.squares.values()
        low = await self.hub.history.frames(grid.atlas_frames)
        maps = await self.hub.history.frames(s.map_frame_id for s in squares if s.map_frame_id)
        return await asyncio.to_thread(lambda: answer(self._snapshot(grid, low, maps, state.seq)))

    def _snapshot(
        self, grid: Grid, low: list[ev.FrameReceived], maps: list[ev.FrameReceived], seq: int
    ) -> dict[str, Any]:
        squares = grid.squares.values()
        on = sheet(low)
        whole = grid.state not in ("waiting", "loading", "loaded", "mapping")
        atlas = None
        if on is not None and whole:
            url = f"/atlas/{grid.grid_id}/{atlas_key(low)}.jpg"
            atlas = {"url": url, "x": on.x_um, "y": on.y_um, "um_per_px": on.um_per_px, "w": on.columns, "h": on.rows}
        return {
            "seq": seq,
            "id": grid.grid_id,
            "state": grid.state,
            "why": grid.why,
            "frames": [frame_record(received) for received in (*low, *maps)],
            "squares": [self.hub.square(square) for square in squares],
            "holes": [hole_record(hole) for square in squares for hole in square.holes.values()],
            "atlas": atlas,
        }

    async def area(self, request: Request) -> Response:
        """One square or hole: why it was chosen and what became of it."""
        area_id = request.path_params["area"]
        area = self.core.state.area(area_id)
        if area is None:
            return answer({"error": "there is no such area"}, 404)
        path = self.core.journal.path
        rows = await asyncio.to_thread(lambda: naming(path, f'"{area_id}"', STORY, MOST_STORY))
        await self.hub.precedence.turn()
        events = [(row, ev.decode_event(row.body)) for row in rows]
        frame_id = area.frame_id if is_hole(area_id) else getattr(area, "map_frame_id", "")
        received = await self.hub.history.frame(frame_id) if frame_id else None
        expects = await self.expected.of_area(self.core.state, area_id)
        return answer(
            {
                "id": area_id,
                "features": area.features,
                "frame": frame_record(received) if received is not None else None,
                "marks": marks_in([event for _, event in events]),
                "expects": msgspec.Raw(expects),
                "story": [as_line(row.seq, row.utc, event) for row, event in events],
                "decisions": [
                    {"seq": row.seq, **msgspec.to_builtins(event.decision)}
                    for row, event in events
                    if hasattr(event, "decision") and not isinstance(event, ev.GroupsPlanned)
                ],
            }
        )

    async def outlook(self, request: Request) -> Response:
        """Expected share of good micrographs by hole and by square of a grid."""
        body = await self.expected.of_grid(self.core.state, request.path_params["grid"])
        return Response(body, media_type="application/json")

    async def preview(self, request: Request) -> Response:
        """What another threshold would change."""
        name = request.query_params.get("name", "")
        try:
            value = float(request.query_params.get("value", ""))
            found = outlook.preview(self.core.state, self.hub.settings, name, value)
        except (ValueError, KeyError, OverflowError):
            return answer({"error": "name a threshold and a value"}, 400)
        return answer(found)

    async def control(self, request: Request) -> Response:
        """Carry out what an operator asks for, through the desk that the control socket has, too."""
        try:
            asked = _control.decode(await request.body())
        except ValueError as error:
            return answer({"ok": False, "text": f"not a request: {error}"}, 400)
        try:
            reply = await self.desk.answer(caller_of(request).peer, asked)
        except (BadMessageError, CryonautError) as error:
            reply = say.Reply(request_id=asked.request_id, ok=False, text=str(error))
        return answer(reply, 200 if reply.ok else 409)

    async def atlas(self, request: Request) -> Response:
        """The atlas of a grid as one picture."""
        grid = self.core.state.grids.get(request.path_params["grid"])
        frames = await self.hub.history.frames(grid.atlas_frames) if grid is not None else []
        on = sheet(frames)
        if on is None or atlas_key(frames) != request.path_params["key"]:
            return answer({"error": "there is no such atlas (any more)"}, 404)
        return await picture(lambda: self.pictures.atlas(frames, on))

    async def thumbnail(self, request: Request) -> Response:
        """A frame, shrunk."""
        side = request.path_params["side"]
        if side not in SIDES:
            return answer({"error": f"sides are {SIDES}"}, 404)
        return await self._of_frame(request, lambda received: self.pictures.thumbnail(received, side))

    async def tile(self, request: Request) -> Response:
        """A part of a frame at full or a power of two smaller resolution."""
        halvings, column, row = (request.path_params[name] for name in ("halvings", "column", "row"))
        if halvings > 8:
            return answer({"error": "at most 8 halvings"}, 404)
        return await self._of_frame(request, lambda received: self.pictures.tile(received, halvings, column, row))

    async def spectrum(self, request: Request) -> Response:
        """A micrograph's power spectrum, with the fit of its CTF once there is one (the page asks anew then)."""

        async def make(received: ev.FrameReceived) -> bytes:
            hole = self.core.state.hole(received.area_id)
            return await self.pictures.spectrum(received, hole.features if hole is not None else {})

        return await self._of_frame(request, make)

    async def _of_frame(self, request: Request, make: Callable[[ev.FrameReceived], Awaitable[bytes]]) -> Response:
        received = await self.hub.history.frame(request.path_params["frame"])
        if received is None or key_of(received.frame) != request.path_params["key"]:
            return answer({"error": "there is no such frame"}, 404)
        return await picture(lambda: make(received))


def marks_in(events: list[ev.AnyEvent]) -> list[dict[str, Any]]:
    """What the last run of each detector found, in pixels of the micrograph."""
    last = {event.detector: event for event in events if isinstance(event, ev.ObjectsDetected)}
    return [
        {"x": o.x, "y": o.y, "diameter_nm": o.diameter_nm, "group": o.group or event.detector, "score": o.score}
        for event in last.values()
        for o in event.objects[:MOST_MARKS]
    ]


async def picture(make: Made) -> Response:
    """A picture that may be kept for ever, or why there is none."""
    try:
        return Response(await make(), media_type="image/jpeg", headers={"cache-control": FOR_EVER})
    except (BadFileError, ValueError) as error:
        return answer({"error": str(error)}, 404)


def answer(body: Any, status: int = 200) -> Response:
    """Plain data as JSON."""
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")
