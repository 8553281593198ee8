"""What the policy expects of holes and squares, for every page: worked out in a process of its own.

It takes a tenth of a second and more of pure Python, which in this process would hold up frames, whatever the thread.
"""

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from agent.session.state import State
from agent.settings import Settings
from agent.web.live.expecting import Ask, Begin, Teller, read_told, write

log = structlog.get_logger("web")
SHARE = 0.02  # of a core at most: what is expected is worked out anew no sooner
AGAIN_S = 60.0  # after a failure


class Expected:
    """Asks the program `agent.web.live.expecting`, which is started when a page asks for the first time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="page-expected")
        self._process: subprocess.Popen[bytes] | None = None
        self._teller = Teller()
        self._known: State | None = None
        self._not_before = 0.0
        self._closed = False

    async def of_area(self, state: State, area_id: str) -> bytes:
        """What is expected of one hole or square, as JSON; ``null`` where nothing is known of it."""
        return await self._asked(state, Ask(area_id=area_id)) or b"null"

    async def of_grid(self, state: State, grid_id: str) -> bytes:
        """Expected share of good micrographs by id of hole or square, as JSON."""
        return await self._asked(state, Ask(grid_id=grid_id)) or b"{}"

    @property
    def pid(self) -> int | None:
        """Process id of the program; None before it is needed and after it has ended."""
        return self._process.pid if self._process is not None else None

    def close(self) -> None:
        """End the program."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._end()

    async def _asked(self, state: State, ask: Ask) -> bytes | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, state, ask)

    def _answer(self, state: State, ask: Ask) -> bytes | None:
        now = time.monotonic()
        if self._closed or (self._process is None and now < self._not_before):
            return None
        try:
            process = self._process or self._start()
            stdin, stdout = process.stdin, process.stdout
            assert stdin is not None and stdout is not None  # noqa: S101, PT018  (both were asked for)
            fresh = self._known is None or (state.grids is not self._known.grids and now >= self._not_before)
            for message in (*(self._teller.tell(state) if fresh else ()), ask):
                write(stdin, message)
            stdin.flush()
            told = read_told(stdout)
        except (OSError, EOFError, ValueError) as error:
            if not self._closed:
                log.warning("page.expects_nothing", error=str(error), again_s=AGAIN_S)
            self._end()
            self._not_before = now + AGAIN_S
            return None
        if fresh:
            self._known = state
            self._not_before = time.monotonic() + told.took_s / SHARE
        return told.body

    def _start(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "agent.web.live.expecting"]
        process = subprocess.Popen(  # noqa: S603  (this program itself)
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._process = process
        if process.stdin is not None:
            write(process.stdin, Begin(settings=self.settings.model_dump_json().encode()))
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        self._teller, self._known = Teller(), None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass  # what was not sent any more
