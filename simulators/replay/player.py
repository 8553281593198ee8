"""Plays a recorded session to a daemon: as it was, and, once the new session goes its own way, as far as it knows."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec.structs import replace
from numpy.typing import NDArray

from agent.control import ControlClient
from agent.control_messages import AnyVerb, Resume
from agent.errors import BadFileError, LinkError
from agent.messages import (
    PROTOCOL,
    AnyWork,
    Command,
    CommandResult,
    ErrorKind,
    Expose,
    Focus,
    Frame,
    Goto,
    Hello,
    Look,
    MapSquare,
    Measured,
    ScopeState,
    Taken,
)
from agent.recording.cues import Cue, cues
from agent.recording.record import Record
from agent.session import events as ev
from agent.session.state import State, grid_of
from simulators.replay.faults import LATE_S, SPOIL, Mischief, ReplayFault
from simulators.replay.host import Host
from simulators.replay.link import DriverLink
from simulators.replay.places import Places, Translator

Timing = Literal["exact", "fast", "burst"]
LOOK_S = 0.1
RESEND_S = 0.3
MOST_COMMANDS = 20  # times as many as were recorded: then a replay that goes its own way is ended


@dataclass
class Played:
    """What came of it.

    ``diverged`` says where the new session left the recorded one (empty: never); ``missing`` lists what it asked for
    and the recording does not hold; ``beyond`` is what it would have done next.
    """

    diverged: str = ""
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    beyond: str = ""
    resumed: int = 0  # how often nobody was there to resume it, and the replay did
    frames: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process, meanwhile


class Player:
    """Plays ``record`` to the daemon of ``host``.

    Parameters
    ----------
    record
        What to play.
    host
        Whom to play it to.
    timing, speed
        ``exact``: each input when it came, ``speed`` times as fast; ``fast``: as soon as the one before is answered;
        ``burst``: frames without waiting for anything, which also leaves the order of answers open.
    after
        Event number up to which the daemon knows the session already: those inputs are left out.
    attach
        Event number up to which inputs come as fast as in ``fast``, whatever ``timing`` says: the agent joins a session
        that has begun, and catches up.
    faults
        What goes wrong.
    progress
        Told after each input how many of how many were given.
    """

    def __init__(
        self,
        record: Record,
        host: Host,
        *,
        timing: Timing = "fast",
        speed: float = 1.0,
        after: int = 0,
        attach: int = 0,
        faults: tuple[ReplayFault, ...] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.record = record
        self.host = host
        self.timing = timing
        self.speed = speed
        self.attach = attach
        self.progress = progress
        self.mischief = Mischief(faults)
        self.played = Played()
        self.link = DriverLink(host.drivers, hello_of(record))
        self._cues = [cue for cue in cues(record) if cue.seq > after]
        self._works = {
            item.event.command.command_id: item.event.command.work
            for item in record.happened
            if isinstance(item.event, ev.CommandIssued)
        }
        joined = (item.seq for item in record.happened if isinstance(item.event, ev.DriverJoined))
        self._joined = next(joined, 0)
        self._places = Places(record)
        self._translator = Translator(record.state)
        self._allowed: set[str] = set()
        self._free = timing == "burst"  # answers of models come as they come
        self._pixels: dict[str, asyncio.Task[NDArray[Any]]] = {}
        self._begun = (0.0, 0.0)  # clock here, time then
        self._sent: set[str] = set()  # frames on their way

    async def run(self) -> Played:
        """Play to the end."""
        begun, used = time.monotonic(), time.process_time()
        while self._cues and self._cues[0].kind == "request" and self._cues[0].seq < self._joined:
            await self._cue(self._cues.pop(0))  # said before there was a driver
        await self.link.open()
        try:
            await self._play()
        finally:
            for task in self._pixels.values():
                task.cancel()
            await asyncio.gather(*self._pixels.values(), return_exceptions=True)
            await self.link.close()
        self.played.seconds = time.monotonic() - begun
        self.played.cpu_seconds = time.process_time() - used
        self.played.notes += self.mischief.happened
        return self.played

    async def _play(self) -> None:
        left = list(self._cues)
        while left and not self.played.diverged:
            cue = left[0]
            self._fetch(left)
            await self._pace(cue)
            if await self._cue(cue):
                left.pop(0)
                self.progress(len(self._cues) - len(left), len(self._cues))
        await self._all_safe()
        await self.host.allow(None)
        self._free = True
        if self.played.diverged and self.link.hello.can_pilot:
            await self._go_on([cue for cue in left if cue.kind == "request"])
        else:
            await self._until(lambda: False)
            waiting = [c for name, c in self.link.commands.items() if name not in self.link.results]
            if waiting:
                self.played.beyond = _words(waiting[0].work)

    # ------------------------------------------------------------------------------------------ as it was

    async def _cue(self, cue: Cue) -> bool:
        """Give one cue; False when the session has gone its own way and does not want it."""
        match cue.what:
            case Frame() as frame:
                if frame.command_id and not await self._same_command(frame.command_id):
                    return False
                return await self._frame(frame)
            case CommandResult() as result:
                await self._all_safe()
                if not await self._same_command(result.command_id):
                    return False
                await self.link.tell(replace(result, session_id=self.link.session_id))
            case Measured() as measured:
                area_id = self._translator.area(measured.area_id, self.host.state())
                if area_id is None:
                    self.played.missing.append(f"{measured.area_id}: measured then, not found now")
                    return True
                await self.link.send(replace(measured, session_id=self.link.session_id, area_id=area_id))
                await self.link.until(lambda: cue.about in self.link.safe or cue.about in self.link.refused)
            case tuple() as order:
                grids = tuple(dict.fromkeys(grid_of(area_id) for area_id in order))
                await self.link.send(Look(request_id=cue.about, grid_ids=grids, order=True))
                await self.link.until(lambda: cue.about in self.link.views or cue.about in self.link.refused)
            case str() as why if cue.kind == "taken":
                await self.link.send(Taken(why=why))
                await self._until(lambda: self.host.state().phase in ("paused", "fault", "stopped"))
            case None:
                await self._finding(cue.about)
            case verb:
                await self._all_safe()
                await self._request(verb, cue.about)  # type: ignore[arg-type]
        return True

    async def _same_command(self, command_id: str) -> bool:
        """Whether the daemon asks for what it asked for then."""
        if not await self._until(lambda: command_id in self.link.commands):
            state = self.host.state()
            held = "; ".join(f"{cause}: {why}" for cause, why in state.suspensions.items())
            then = _words(self._works[command_id]) if command_id in self._works else command_id
            self.played.diverged = f"{command_id} was: {then}; now nothing is asked for ({held or state.phase})"
            return False
        was, now = self._works.get(command_id), self.link.commands[command_id].work
        if was != now:
            self.played.diverged = f"{command_id} was: {_words(was) if was else '-'}; now it is: {_words(now)}"
            return False
        self.link.working_on = command_id
        return True

    async def _finding(self, frame_id: str) -> None:
        if self.timing == "burst" or frame_id in self.link.refused:
            return
        self._allowed.add(frame_id)
        await self.host.allow(frame_id)
        if frame_id in self._sent or frame_id in self.link.safe:
            await self.link.until(lambda: frame_id in self.link.answered)

    async def _request(self, verb: AnyVerb, request_id: str) -> None:
        def ask() -> tuple[bool, str]:
            with ControlClient(self.host.control, timeout_s=60.0) as operator:
                reply = operator.ask(verb, request_id)
                return reply.ok, reply.text

        taken, text = await asyncio.to_thread(ask)
        if not taken:
            self.played.notes.append(f"request {verb.__struct_config__.tag} was taken then, now: {text}")

    async def _frame(self, frame: Frame) -> bool:
        try:
            image = await self._load(frame.frame_id)
        except BadFileError as error:
            self.played.missing.append(str(error))
            if frame.command_id:
                self.played.diverged = f"{frame.frame_id} cannot be read any more"
            return not frame.command_id
        sent = replace(frame, session_id=self.link.session_id)
        fault = self.mischief.due(sent)
        spoil = SPOIL.get(fault) if fault else None
        if spoil is not None:
            sent, image = spoil(sent, image)
        await self._deliver(sent, image, fault)
        if frame.frame_id in self.link.refused:
            reason = self.link.refused[frame.frame_id].reason
            self.played.notes.append(f"{frame.frame_id} was refused: {reason}")
            if frame.command_id:
                await self.link.tell(self._result(frame.command_id, ErrorKind.FRAME_WRONG, reason, image_taken=True))
                self.played.diverged = f"{frame.frame_id} was refused"
        return True

    async def _deliver(self, frame: Frame, image: NDArray[Any], fault: str | None) -> None:
        name = frame.frame_id
        self._sent.add(name)
        self.played.frames += 1
        if fault == "late":
            await asyncio.sleep(LATE_S)
        if fault == "truncated":
            await self.link.send(frame, image.tobytes()[: image.nbytes // 2])
        elif fault != "lost":
            await self.link.send_frame(frame, image)
        if fault == "doubled":
            await self.link.send_frame(frame, image)
        if fault == "killed_daemon":
            await self.link.close()
            await self.host.kill()
            await self.link.open()
            await self.link.send_frame(frame, image)
        if fault == "dropped_driver":
            await self.link.close()
            await self.link.open()
            await self.link.send_frame(frame, image)
        if self.timing == "burst" and fault is None:
            return
        await self._safe(frame, image, again=fault == "lost")

    async def _safe(self, frame: Frame, image: NDArray[Any], *, again: bool = False) -> None:
        """Wait until a frame is on disk or refused; send it again when it was lost or the daemon asks for it."""
        name = frame.frame_id
        while not (name in self.link.safe or name in self.link.refused):
            if again or self.link.wanted_again(name):
                await asyncio.sleep(RESEND_S)
                await self.link.send_frame(frame, image)
                again = False
            await self.link.news(LOOK_S)

    async def _all_safe(self) -> None:
        """In a burst: wait until everything that was sent is on disk."""
        for name in list(self._sent):
            if name not in self.link.safe and name not in self.link.refused:
                frame = self.record.frames[name].frame if name in self.record.frames else None
                if frame is not None:
                    sent = replace(frame, session_id=self.link.session_id)
                    await self._safe(sent, await self._load(name))
            self._sent.discard(name)

    # ------------------------------------------------------------------------------------------ its own way

    async def _go_on(self, requests: list[Cue]) -> None:
        """Answer whatever the session asks for by what was recorded there, until it has nothing left to ask for."""
        most = MOST_COMMANDS * max(len(self._works), 50)
        held = 0
        while True:
            waiting = [c for name, c in self.link.commands.items() if name not in self.link.results]
            if waiting:
                if len(self.link.results) > most:
                    self.played.notes.append(f"ended after {most} commands")
                    return
                held = 0
                await self._answer(waiting[0])
                continue
            if await self._until(lambda: any(n not in self.link.results for n in self.link.commands)):
                continue
            state = self.host.state()
            if state.phase in ("stopped", "fault"):
                return
            if requests:
                await self._translated(requests.pop(0), state)
            elif held < 3 and state.phase == "collecting" and {"errors", "moves"} & state.suspensions.keys():
                held += 1
                self.played.resumed += 1
                await self._request(Resume(), f"replay-resume-{state.seq}")
            else:
                held_by = "; ".join(f"{cause}: {why}" for cause, why in state.suspensions.items())
                self.played.notes.append(f"ended in phase {state.phase}: {held_by or state.why}")
                return

    async def _translated(self, cue: Cue, state: State) -> None:
        verb = self._translator.verb(cue.what, state)
        if verb is None:
            self.played.notes.append(f"a request of then is about nothing that was found now: {cue.what}")
        else:
            await self._request(verb, cue.about)

    async def _answer(self, command: Command) -> None:
        self.link.working_on = command.command_id
        grid_id = getattr(command.work, "grid_id", "") or self.host.state().grid_id
        shots, missing = self._places.shots(command.work, grid_id)
        self.played.missing += missing
        for number, received in enumerate(shots, 1):
            name = f"{command.command_id}-F{number:03d}"
            try:
                image = await asyncio.to_thread(self.record.pixels, received.frame.frame_id)
            except BadFileError as error:
                missing.append(str(error))
                continue
            frame = replace(
                received.frame, frame_id=name, command_id=command.command_id, session_id=self.link.session_id
            )
            self._sent.add(name)
            self.played.frames += 1
            await self.link.send_frame(frame, image)
            await self._safe(frame, image)
            self._sent.discard(name)
        if self._places.needs_frame(command.work) and not shots:
            text = missing[0] if missing else "never recorded"
            # an exposure that was never made counts as made, with an unknown outcome: no other hole takes its place
            await self.link.tell(self._result(command.command_id, ErrorKind.SCRIPT, text, image_taken=True))
        else:
            await self.link.tell(self._result(command.command_id))

    def _result(
        self, command_id: str, error: ErrorKind | None = None, message: str = "", *, image_taken: bool = False
    ) -> CommandResult:
        work = self.link.commands[command_id].work
        dose = None
        if isinstance(work, Expose):
            dose = work.dose_e_per_a2 if error is None or image_taken else 0.0
        return CommandResult(
            command_id=command_id,
            session_id=self.link.session_id,
            status="failed" if error else "done",
            error=error,
            message=message[:2000],
            dose_e_per_a2=dose,
        )

    # ------------------------------------------------------------------------------------------ waiting

    async def _until(self, what: Any) -> bool:
        """Wait until ``what()``; False as soon as the session waits for something else, or for nothing at all."""
        seen = -1
        while not what():
            state = self.host.state()
            if seen == state.seq and self._stands_still(state) and not what():
                return False
            seen = state.seq
            await self.link.news(LOOK_S)
        return True

    def _stands_still(self, state: State) -> bool:
        """Whether nothing can happen in the session before something comes from here."""
        if any(self._free or frame_id in self._allowed for frame_id in state.pending):
            return False
        if any(name not in self.link.safe and name not in self.link.refused for name in self._sent):
            return False
        return all(
            entry.command.command_id in self.link.commands or not state.may_send(entry.command.work)
            for entry in state.outstanding.values()
        )

    async def _pace(self, cue: Cue) -> None:
        if self.timing != "exact" or cue.kind == "finding":
            return
        if cue.seq <= self.attach or not self._begun[1]:
            self._begun = (time.monotonic(), cue.utc)
            return
        wait_s = (cue.utc - self._begun[1]) / self.speed - (time.monotonic() - self._begun[0])
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    # ------------------------------------------------------------------------------------------ pixels

    def _fetch(self, left: list[Cue]) -> None:
        """Begin to read the pixels of the next two frames."""
        for cue in [cue for cue in left[:12] if cue.kind == "frame"][:2]:
            if cue.about not in self._pixels:
                self._pixels[cue.about] = asyncio.create_task(asyncio.to_thread(self.record.pixels, cue.about))

    async def _load(self, frame_id: str) -> NDArray[Any]:
        task = self._pixels.pop(frame_id, None)
        return await task if task is not None else await asyncio.to_thread(self.record.pixels, frame_id)


def hello_of(record: Record) -> Hello:
    """How the driver of a recorded session says who it is.

    Raises
    ------
    LinkError
        If none ever joined.
    """
    joined = next((item.event for item in record.happened if isinstance(item.event, ev.DriverJoined)), None)
    if joined is None:
        raise LinkError(f"{record.folder}: no driver ever joined this session: there is nothing to replay")
    # readings and valves belong to that night's machine
    state = ScopeState(stage=joined.state.stage, grid_id=joined.state.grid_id, level=joined.state.level)
    return Hello(
        protocol=PROTOCOL, driver=joined.driver, software=f"replay of {joined.software}"[:2000],
        can_pilot=joined.can_pilot, state=state,
    )  # fmt: skip


def _words(work: AnyWork) -> str:
    place = f" at ({work.x_um:.2f}, {work.y_um:.2f}) µm" if isinstance(work, MapSquare | Focus | Expose | Goto) else ""
    about = getattr(work, "area_id", "") or getattr(work, "grid_id", "")
    return " ".join(filter(None, (str(work.__struct_config__.tag), about))) + place
