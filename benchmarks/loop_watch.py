"""What a daemon's loop does in a row: CPU time between two looks at its sockets, and while a frame is in hand.

CPU seconds of the loop's own thread: what else runs on the machine does not count.
"""

import asyncio
import gc
import selectors
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from agent.daemon import Daemon
from agent.messages import Accepted, Frame


class Busy(NamedTuple):
    """Milliseconds of CPU: of each row, while each frame was in hand, and of the longest collection of garbage."""

    rows_ms: list[float]
    frames_ms: list[float]
    garbage_ms: float


class WatchedSelector(selectors.DefaultSelector):
    """The loop's selector, which notes how long the loop's thread computed since it was asked last."""

    def __init__(self) -> None:
        super().__init__()
        self.rows_s: list[float] = []
        self._begun = 0.0

    def begin_anew(self) -> None:
        """Forget all rows, and the one under way."""
        self.rows_s, self._begun = [], 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready."""
        if self._begun:
            self.rows_s.append(time.thread_time() - self._begun)
        ready = super().select(timeout)
        self._begun = time.thread_time()
        return ready


class Watch:
    """Watches the loop of one daemon; `asked` answers over a pipe with what was since it was asked last."""

    def __init__(self, selector: WatchedSelector, pipe: Connection, daemon: Daemon) -> None:
        self.selector = selector
        self.stop = daemon.stop
        self.pipe = pipe
        self._frames_s: list[float] = []
        self._taken: dict[str, float] = {}
        self._garbage_s = [0.0]
        self._garbage_begun = 0.0
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, _: Any) -> None:
        if phase == "start":
            self._garbage_begun = time.thread_time()
        else:
            self._garbage_s.append(time.thread_time() - self._garbage_begun)

    def follow(self, daemon: Daemon) -> None:
        """Note when frames are taken in hand and when their acknowledgement is handed out."""
        take, send = daemon.intake.take, daemon.intake.links.send

        def taking(peer: bytes, frame: Frame, part: Any) -> None:
            self._taken[frame.frame_id] = time.thread_time()
            take(peer, frame, part)

        def sending(peer: bytes, message: Any) -> None:
            send(peer, message)
            if isinstance(message, Accepted) and (begun := self._taken.pop(message.about, None)) is not None:
                self._frames_s.append(time.thread_time() - begun)

        daemon.intake.take = taking  # type: ignore[method-assign]
        daemon.intake.links.send = sending  # type: ignore[method-assign]

    def asked(self) -> None:
        """Answer one question, and begin anew."""
        try:
            self.pipe.recv()
        except EOFError:  # the benchmark is gone
            asyncio.get_running_loop().remove_reader(self.pipe.fileno())
            self.stop()
            return
        rows = np.asarray(self.selector.rows_s) * 1e3
        self.pipe.send(
            Busy(
                rows_ms=[float(v) for v in rows[rows > 0.05]],
                frames_ms=[v * 1e3 for v in self._frames_s],
                garbage_ms=max(self._garbage_s) * 1e3,
            )
        )
        self._frames_s, self._garbage_s = [], [0.0]
        self.selector.begin_anew()


def run(daemon: Daemon, pipe: Connection, when_ready: Callable[[], object]) -> None:
    """Run a daemon with its loop watched; each message on ``pipe`` is answered with a `Busy`."""
    selector = WatchedSelector()

    async def watched() -> None:
        watch = Watch(selector, pipe, daemon)
        running = asyncio.create_task(daemon.run())
        ready = asyncio.create_task(daemon.ready.wait())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            when_ready()
            watch.follow(daemon)
            asyncio.get_running_loop().add_reader(pipe.fileno(), watch.asked)
        await running

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(watched())
