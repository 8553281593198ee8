"""Tells every open page what changed: one stream, encoded once for all of them, a few times a second at most."""

import asyncio
import time
from collections import deque
from typing import Any

import msgspec

from agent.core import Core
from agent.desk import Desk, as_line
from agent.messages import Event
from agent.session import events as ev
from agent.session.state import State
from agent.settings import Settings
from agent.tally import Tally
from agent.web.live import outlook
from agent.web.live.changes import between
from agent.web.live.history import History, Point, point_of
from agent.web.live.lamps import Lamps
from agent.web.live.records import FrameRecord, frame_record, hole_record, square_record
from agent.web.precedence import Precedence

PACE_S = 0.4  # changes are gathered for so long
BEAT_S = 2.0  # a page that hears nothing for three of these says that it is stale
MOST_WAITING = 64  # messages that a slow page may be behind before it has to load anew
MOST_LINES = 200
MOST_PAGES = 100
QUIET = frozenset({"remembered", "requested", "errors_forgiven"})

_encoder = msgspec.json.Encoder()


class Hub:
    """Follows the session and fans out; nothing is computed while no page is open."""

    def __init__(
        self, core: Core, desk: Desk, history: History, settings: Settings, lamps: Lamps, precedence: Precedence
    ) -> None:
        self.core = core
        self.desk = desk
        self.history = history
        self.settings = settings
        self.lamps = lamps
        self.precedence = precedence
        self.tally = Tally()
        self.plans = outlook.Plans()
        self.pages: dict[asyncio.Queue[bytes | None], str] = {}
        self._seen: State = core.state
        self._lines: deque[Event] = deque(maxlen=MOST_LINES)
        self._points: deque[Point] = deque(maxlen=MOST_LINES)
        self._frames: deque[FrameRecord] = deque(maxlen=MOST_LINES)
        self._news = asyncio.Event()
        core.listeners.append(self._heard)

    def _heard(self, seq: int, utc: float, event: ev.AnyEvent) -> None:
        if not self.pages:
            return
        if ev.kind_of(event) not in QUIET:
            self._lines.append(as_line(seq, utc, event))
        if isinstance(event, ev.FrameReceived):
            self._frames.append(frame_record(event))
        elif isinstance(event, ev.MicrographJudged):
            self._points.append(point_of(utc, event))
        self._news.set()

    def join(self, name: str) -> "asyncio.Queue[bytes | None]":
        """A queue of messages for one more page; None ends it.

        Raises
        ------
        OverflowError
            If more pages are open than anybody looks at.
        """
        if len(self.pages) >= MOST_PAGES:
            raise OverflowError(f"{MOST_PAGES} pages are open already")
        if not self.pages:
            self._forget()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_WAITING)
        queue.put_nowait(message("hello", {"seq": self.core.state.seq, "epoch": self.core.state.epoch}))
        self.pages[queue] = name
        self._news.set()  # everybody sees who else looks
        return queue

    def leave(self, queue: "asyncio.Queue[bytes | None]") -> None:
        """A page was closed."""
        self.pages.pop(queue, None)
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled; then end every stream."""
        try:
            while True:
                try:
                    async with asyncio.timeout(BEAT_S):
                        await self._news.wait()
                except TimeoutError:
                    self._send(message("beat", self.pulse()))
                    continue
                await self.precedence.turn()  # mostly it is a frame that makes the news: it is answered first
                self._news.clear()
                if self.pages:
                    self._send(self.news())
                    await asyncio.sleep(PACE_S)
        finally:
            for queue in self.pages:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(None)

    def _forget(self) -> None:
        self._seen = self.core.state
        for waiting in (self._lines, self._points, self._frames):
            waiting.clear()

    def _send(self, body: bytes) -> None:
        for queue in list(self.pages):
            try:
                queue.put_nowait(body)
            except asyncio.QueueFull:  # too slow: it loads anew when it is back
                self.pages.pop(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    def news(self) -> bytes:
        """What changed since the last call."""
        state = self.core.state
        changed = between(self._seen, state)
        body: dict[str, Any] = {
            "seq": state.seq,
            "summary": self.summary(),
            "squares": [self.square(square) for square in changed.squares],
            "holes": [hole_record(hole) for hole in changed.holes],
            "gone": changed.gone,
            "frames": list(self._frames),
            "lines": list(self._lines),
            "points": list(self._points),
        }
        self._forget()
        return message("news", body)

    def square(self, square: Any) -> Any:
        """A square's record with its counts."""
        counts = self.tally.of(square)
        return square_record(square, counts.exposed, counts.good)

    def summary(self) -> dict[str, Any]:
        """Everything about the session as a whole."""
        state = self.core.state
        grid = state.grid
        return {
            **msgspec.to_builtins(self.desk.status()),
            "name": state.name,
            "speed": self.settings.session.simulated_speed,
            "leader": outlook.leader(state),
            "queue": outlook.queue(state, self.settings),
            "forecast": outlook.forecast(state, self.settings, self.history.exposed_utc, self.core.clock(), self.plans),
            "shots": outlook.shots(self.settings),
            "undo": state.undo[-1].what if state.undo else "",
            "grids": [{"id": g.grid_id, "state": g.state, "why": g.why} for g in state.grids.values()],
            "grid_state": grid.state if grid is not None else "",
            "pages": sorted(self.pages.values()),
            **self.pulse(),
        }

    def pulse(self) -> dict[str, Any]:
        """What also changes when nothing happens: the lamps and the time."""
        state = self.core.state
        return {
            "utc": round(self.core.clock(), 2),
            "lamps": self.lamps.all(),
            "idle_s": round(max(0.0, self.core.clock() - state.progress_utc), 1) if state.progress_utc else None,
            "step_s": round(time.monotonic() - self.core.last_step, 2),
        }


def message(kind: str, body: Any) -> bytes:
    """One server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), _encoder.encode(body))
