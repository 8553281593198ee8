"""The one task that owns the session: takes inputs in order, journals what follows, and only then lets it out."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import structlog

from agent.errors import CryonautError, JournalError
from agent.journal import Draft, Entry, Journal
from agent.session import NotPossibleError, State, advance, step
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.state import State as Empty
from agent.settings import Settings

log = structlog.get_logger("core")


class Outcome(NamedTuple):
    """What became of an input."""

    events: list[ev.AnyEvent]
    answer: str
    seq: int


class Core:
    """The session of one folder. `submit` is the only way in; ``listeners`` hear of events after their commit."""

    def __init__(self, journal: Journal, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.journal = journal
        self.settings = settings
        self.clock = clock
        self.state = restore(journal)
        self.listeners: list[Callable[[int, float, ev.AnyEvent], None]] = []
        self.after_step: list[Callable[[], None]] = []
        self.journal_trouble = ""
        self.steps = 0
        self.last_step = time.monotonic()
        self._count = 0
        self._queue: asyncio.PriorityQueue[tuple[int, int, inp.AnyInput, asyncio.Future[Outcome]]] = (
            asyncio.PriorityQueue(maxsize=10_000)
        )
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    async def submit(self, what: inp.AnyInput) -> Outcome:
        """Hand an input in and wait until what follows from it is on disk.

        Raises
        ------
        NotPossibleError
            If an operator's request cannot be carried out.
        JournalError
            If the commit failed; nothing has happened then and the same input may be handed in again.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._count += 1
        priority = 0 if isinstance(what, inp.Controlled) else 1  # an operator's word does not wait behind frames
        await self._queue.put((priority, self._count, what, future))
        return await future

    async def insist(self, what: inp.AnyInput) -> bool:
        """Hand an input in until the journal takes it: a full disk must not lose it. False when it is no good."""
        while True:
            try:
                await self.submit(what)
                return True
            except JournalError:
                await asyncio.sleep(self.settings.link.heartbeat_s)
            except CryonautError as error:
                log.error("input.lost", input=type(what).__name__, error=str(error))
                return False

    def submit_soon(self, what: inp.AnyInput) -> None:
        """Hand an input in without waiting for what follows; for the core's own hooks."""
        self._count += 1
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # logged where it happened
        self._queue.put_nowait((1, self._count, what, future))

    async def find(self, key: str) -> int | None:
        """Number of the journalled event with this key; asked in line with the commits."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, self.journal.find, key)

    async def read(self, seq: int) -> ev.AnyEvent | None:
        """The journalled event with this number."""
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._disk, lambda: list(self.journal.replay(after=seq - 1, most=1)))
        return ev.decode_event(rows[0].body) if rows else None

    async def rows(self, after: int, most: int = 1000) -> list[Entry]:
        """Journalled rows after number ``after``."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, lambda: list(self.journal.replay(after=after, most=most)))

    async def run(self) -> None:
        """Take inputs until cancelled."""
        try:
            while True:
                _, _, what, future = await self._queue.get()
                try:
                    outcome = await self._take(what)
                except (NotPossibleError, CryonautError) as error:
                    if not future.done():
                        future.set_exception(error)
                except Exception as error:
                    # a defect of ours in one input must not end the night: it is told, and the next input is taken
                    log.exception("core.defect", input=type(what).__name__)
                    if not future.done():
                        future.set_exception(CryonautError(f"internal error: {type(error).__name__}: {error}"))
                else:
                    if not future.done():
                        future.set_result(outcome)
                self.steps += 1
                self.last_step = time.monotonic()
                for hook in self.after_step:
                    hook()
        finally:
            self._disk.shutdown()

    async def _take(self, what: inp.AnyInput) -> Outcome:
        utc = self.clock()
        events, state, answer = step(self.state, what, self.settings, utc)
        if not events:
            return Outcome([], answer, self.state.seq)
        drafts = [Draft(ev.kind_of(event), ev.encode_event(event), key_of(event)) for event in events]
        for draft in drafts:
            _must_be_readable(draft)
        loop = asyncio.get_running_loop()
        try:
            seq = await loop.run_in_executor(self._disk, self._commit, drafts, utc, state.epoch)
        except JournalError as error:
            if not self.journal_trouble:
                log.error("journal.failed", error=str(error))
            self.journal_trouble = str(error)
            raise
        if self.journal_trouble:
            log.info("journal.well_again")
            self.journal_trouble = ""
        first = self.state.seq + 1
        self.state = state
        for number, event in enumerate(events, first):
            for listener in self.listeners:
                listener(number, utc, event)
        return Outcome(events, answer, seq)

    def _commit(self, drafts: list[Draft], utc: float, epoch: int) -> int:
        return self.journal.append(drafts, utc=utc, epoch=epoch)


def _must_be_readable(draft: Draft) -> None:
    """Refuse what no restart could read back: a number that is none, a command beyond the bounds of the wire."""
    try:
        ev.decode_event(draft.body)
    except ValueError as error:
        log.error("event.unreadable", kind=draft.kind, error=str(error))
        raise CryonautError(f"internal error: event {draft.kind} cannot be journalled: {error}") from error


def key_of(event: ev.AnyEvent) -> str | None:
    """What makes an event unique in the journal, for those that may be asked for twice."""
    match event:
        case ev.FrameReceived(frame=frame):
            return f"frame:{frame.frame_id}"
        case ev.Requested(request_id=request_id):
            return f"control:{request_id}"
        case ev.PastRecalled(past_id=past_id):
            return f"past:{past_id}"
        case ev.AreaMeasured(measured_id=measured_id):
            return f"measured:{measured_id}"
        case ev.CommandIssued(command=command):
            return f"command:{command.command_id}"
        case ev.CommandEnded(result=result):
            return f"result:{result.command_id}"
        case _:
            return None


def restore(journal: Journal) -> State:
    """The state that a journal folds to.

    Raises
    ------
    JournalError
        If a row cannot be read by this version; the text names it.
    """
    state = Empty()
    for entry in journal.replay():
        try:
            event = ev.decode_event(entry.body)
        except ValueError as error:
            raise JournalError(
                f"{journal.path}: row {entry.seq} ({entry.kind}) cannot be read: {error};"
                " it may come from a newer version: update cryonaut"
            ) from error
        state = advance(state, event, seq=entry.seq, utc=entry.utc)
    return state
