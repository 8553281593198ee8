"""The door for drivers: hellos, frames, results and heartbeats come in, commands and targets go out.

A frame is acknowledged after its pixels and its event are on disk. A command leaves only through `Door._dispatch`,
where the interlock stands.
"""

import asyncio
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog
import zmq
import zmq.asyncio
from msgspec.structs import replace
from numpy.typing import NDArray

from agent import geometry, interlock, wire
from agent.answers import targets_for
from agent.core import Core
from agent.errors import BadMessageError, CryonautError, EnvelopeError, JournalError
from agent.frames import FrameStore
from agent.inference import Analyst
from agent.keys import Keyring
from agent.messages import (
    OLDEST_PROTOCOL,
    PROTOCOL,
    Accepted,
    Cancel,
    Command,
    CommandResult,
    ErrorKind,
    Expose,
    Frame,
    Goodbye,
    Heartbeat,
    Hello,
    Message,
    Refused,
    Release,
    Safe,
    ScopeState,
    Taken,
    Welcome,
)
from agent.metrics import METRICS
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.state import Outstanding, State
from agent.settings import Settings
from agent.suspenders import Suspenders

log = structlog.get_logger("door")
GRACE_S = 10.0  # a driver's own time limit comes first
BAD_FRAMES_IN_A_ROW = 3
ASK_AGAIN_S = 5.0  # a command that its driver does not work on was lost, or its result was
MOST_ANSWERS = 10_000
SMALLEST_PIXEL_UM, LARGEST_PIXEL_UM = 1e-7, 1e3


@dataclass
class Link:
    """One driver as the daemon knows it."""

    peer: bytes
    name: str
    can_pilot: bool
    heard: float
    progress: int = 0
    scope: ScopeState = field(default_factory=ScopeState)
    bad_in_a_row: int = 0


class Writing(NamedTuple):
    """Pixels on their way to disk; ``file`` gives their path once they are there."""

    image: NDArray[Any]
    file: "asyncio.Future[str]"


class Door:
    """Serves every driver of one daemon."""

    def __init__(
        self,
        socket: "zmq.asyncio.Socket",
        core: Core,
        store: FrameStore,
        analyst: Analyst,
        settings: Settings,
        keyring: Keyring,
    ) -> None:
        self.socket = socket
        self.core = core
        self.store = store
        self.analyst = analyst
        self.settings = settings
        self.keyring = keyring
        self.links: dict[bytes, Link] = {}
        self.suspenders = Suspenders(settings.suspend_when, tripped=core.state.suspensions)
        self._sent: dict[str, float] = {}  # command id -> when it left in this epoch
        self._cancelled: set[str] = set()
        self._known = core.journal.keys("frame:")  # frames on disk or on their way there
        self._writers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="frames")
        self._saving: asyncio.Queue[tuple[bytes, Frame, Writing | None]] = asyncio.Queue(settings.limits.frames_waiting)
        self._analysing: asyncio.Queue[tuple[Frame, str, NDArray[Any] | None]] = asyncio.Queue()
        self._images_held = 0
        self._askers: dict[str, str] = {}  # frame id -> name of the driver that sent it
        self._answers: dict[str, tuple[str, str]] = {}  # frame id -> note and model of its answer
        self._owed: dict[str, Frame] = {}  # answered while its driver was away
        self._places: dict[str, tuple[Frame, str, str]] = {}
        self._outbox: asyncio.Queue[tuple[bytes, Message]] = asyncio.Queue()
        core.listeners.append(self._heard_event)
        core.after_step.append(self._dispatch)

    # ------------------------------------------------------------------------------------------ tasks

    async def run(self) -> None:
        """Take in what drivers send, until cancelled."""
        while True:
            peer, *parts = await self.socket.recv_multipart(copy=False)
            try:
                await self._take(peer.bytes, parts)
            except BadMessageError as error:
                await self._bad(peer.bytes, str(error))
            except CryonautError as error:
                self._send(peer.bytes, Refused(reason=str(error)[:2000], retry=True))
            except Exception as error:  # a defect of ours in one message must not end the night
                log.exception("door.defect")
                await self._bad(peer.bytes, f"internal error: {type(error).__name__}: {error}")

    async def post(self) -> None:
        """Send what is in the outbox, in order, until cancelled."""
        while True:
            peer, message = await self._outbox.get()
            try:
                await self.socket.send_multipart([peer, wire.encode(message)], copy=True)
            except zmq.ZMQError as error:  # the peer is gone; what must not be lost is sent again at its next hello
                log.info("peer.unreachable", kind=type(message).__name__, error=str(error))

    async def save_frames(self) -> None:
        """Put frames on disk one after the other, journal and acknowledge them, until cancelled."""
        try:
            while True:
                peer, frame, written = await self._saving.get()
                begun = time.monotonic()
                try:
                    await self._save(peer, frame, written)
                except BadMessageError as error:
                    self._known.discard(f"frame:{frame.frame_id}")
                    await self._bad(peer, str(error), about=frame.frame_id)
                except (OSError, CryonautError) as error:
                    self._known.discard(f"frame:{frame.frame_id}")
                    METRICS.frames_refused.inc()
                    reason = f"{frame.frame_id}: {error}"[:2000]
                    self._send(peer, Refused(reason=reason, retry=True, about=frame.frame_id))
                except Exception as error:  # a defect of ours in one frame must not end the night
                    self._known.discard(f"frame:{frame.frame_id}")
                    log.exception("door.defect", frame=frame.frame_id)
                    await self._bad(peer, f"internal error: {type(error).__name__}: {error}", about=frame.frame_id)
                METRICS.ingest_seconds.observe(time.monotonic() - begun)
        finally:
            self._writers.shutdown(wait=True, cancel_futures=True)

    async def analyse_frames(self) -> None:
        """Ask the models about saved frames, one after the other, until cancelled."""
        while True:
            frame, file, image = await self._analysing.get()
            held = image is not None
            try:
                if image is None:
                    image = await asyncio.to_thread(self.store.load, file, frame.digest)
                what = await self.analyst.analyse(frame, image)
            except Exception as error:
                log.exception("analysis.failed", frame=frame.frame_id)
                what = inp.AnalysisFailed(frame_id=frame.frame_id, error=ErrorKind.MODEL_FAILED, why=str(error))
            image = None
            self._images_held -= held
            if isinstance(what, inp.Analysed):
                METRICS.inference_seconds.labels(level=frame.level).observe(what.elapsed_s)
            if not await self._insist(what):
                what = inp.AnalysisFailed(
                    frame_id=frame.frame_id, error=ErrorKind.MODEL_FAILED, why="its finding could not be worked with"
                )
                await self._insist(what)
            self._answer(frame, what)

    async def _insist(self, what: inp.AnyInput) -> bool:
        """Hand a finding in until the journal takes it: a full disk must not lose it."""
        while True:
            try:
                await self.core.submit(what)
                return True
            except JournalError:
                await asyncio.sleep(self.settings.link.heartbeat_s)
            except CryonautError as error:
                log.error("finding.lost", error=str(error))
                return False

    # ------------------------------------------------------------------------------------------ coming in

    async def _take(self, peer: bytes, parts: list[zmq.Frame]) -> None:
        if not parts:
            raise BadMessageError("empty message: a header is expected")
        known = self.keyring.who(parts[0])
        if known is None or (self.keyring.folder is not None and known.role != "driver"):
            raise BadMessageError("this key may not drive: a key with role driver is needed (`cryonaut keys new`)")
        message = wire.decode(wire.part_buffer(parts[0]), wire.FROM_DRIVER)
        link = self.links.get(peer)
        if link is not None:
            link.heard = time.monotonic()
        if isinstance(message, Hello):
            await self._hello(peer, message)
            return
        if link is None:
            self._send(peer, Refused(reason="say hello first", retry=True, about="hello"))
            return
        match message:
            case Frame():
                if len(parts) != 2:
                    text = f"frame {message.frame_id}: {len(parts)} parts: a header and pixels are 2"
                    await self._bad(peer, text, about=message.frame_id)
                    return
                try:
                    self._frame(peer, message, parts[1])
                except BadMessageError as error:
                    await self._bad(peer, str(error), about=message.frame_id)
            case CommandResult():
                await self._result(peer, message)
            case Heartbeat(progress=progress, state=state, working_on=working_on):
                link.progress = progress
                if link is self._pilot():
                    self._ask_again(working_on)
                if state is not None:
                    link.scope = state
                    await self._report(state)
            case Taken(why=why):
                await self.core.submit(inp.TakenOver(why=why))
            case Goodbye(why=why):
                self.links.pop(peer, None)
                await self.core.submit(inp.Left(driver=link.name, why=why or "said goodbye"))

    async def _hello(self, peer: bytes, hello: Hello) -> None:
        if not OLDEST_PROTOCOL <= hello.protocol <= PROTOCOL:
            reason = (
                f"driver {hello.driver} speaks protocol {hello.protocol}, this daemon {OLDEST_PROTOCOL} to {PROTOCOL}:"
                " update the older of the two"
            )
            self._send(peer, Refused(reason=reason, about="protocol"))
            return
        for other in list(self.links.values()):
            if other.name == hello.driver:
                self.links.pop(other.peer)  # the same driver, connected again
            elif other.can_pilot and hello.can_pilot:
                reason = f"driver {other.name} pilots this microscope already; stop it first"
                self._send(peer, Refused(reason=reason, retry=True, about="pilot"))
                return
        outcome = await self.core.submit(inp.SaidHello(hello=hello))
        await self._report(hello.state)  # before anything is sent: what it says may hold the session
        self.links[peer] = Link(peer, hello.driver, hello.can_pilot, time.monotonic(), scope=hello.state)
        state = self.core.state
        self._send(
            peer,
            Welcome(
                protocol=min(PROTOCOL, hello.protocol),
                session_id=state.session_id,
                epoch=state.epoch,
                heartbeat_s=self.settings.link.heartbeat_s,
                safe_after_s=self.settings.link.safe_after_s,
                finished=tuple(result.command_id for result in hello.results),
            ),
        )
        if state.phase == "fault":
            self._send(peer, Safe(why=state.why[:2000], epoch=state.epoch))
        if hello.can_pilot:
            # what the driver does not have under way is asked for again; it does nothing twice
            self._sent = {hello.running: time.monotonic()} if hello.running in state.outstanding else {}
            self._cancelled.clear()
        log.info("driver.joined", driver=hello.driver, software=hello.software, events=len(outcome.events))
        self._dispatch()
        for frame in list(self._owed.values()):
            self._answer(frame, None)

    def _ask_again(self, working_on: str) -> None:
        """Send what the driver should have and does not work on: the link may have lost it, or its result."""
        now = time.monotonic()
        lost = [i for i, sent in self._sent.items() if i != working_on and now - sent > ASK_AGAIN_S]
        for command_id in lost:
            entry = self.core.state.outstanding.get(command_id)
            if entry is not None and not entry.cancelled:
                log.warning("command.asked_again", command=command_id)
                del self._sent[command_id]
        self._dispatch()

    def _frame(self, peer: bytes, frame: Frame, part: zmq.Frame) -> None:
        if frame.session_id != self.core.state.session_id:
            reason = f"frame {frame.frame_id} is of session {frame.session_id}, not of {self.core.state.session_id}"
            self._send(peer, Refused(reason=reason, about=frame.frame_id))
            return
        limit = self.settings.limits.frame_mb << 20
        if (size := wire.pixel_bytes(frame)) > limit:
            raise BadMessageError(f"frame {frame.frame_id} of {size} bytes: limits.frame_mb allows {limit}")
        if self._saving.full():
            METRICS.frames_refused.inc()
            reason = f"{self._saving.maxsize} frames are waiting already (limits.frames_waiting)"
            self._send(peer, Refused(reason=reason, retry=True, about=frame.frame_id))
            return
        if not SMALLEST_PIXEL_UM <= (scale := geometry.micron_per_pixel(frame)) <= LARGEST_PIXEL_UM:
            raise BadMessageError(
                f"frame {frame.frame_id}: its pixels are {scale:.3g} µm (pixel_size_angstrom, image_to_stage);"
                f" {SMALLEST_PIXEL_UM:g} to {LARGEST_PIXEL_UM:g} µm are possible"
            )
        key = f"frame:{frame.frame_id}"
        written = None
        if key not in self._known:
            image = wire.view_pixels(frame, wire.part_buffer(part))
            self._known.add(key)
            # pixels of the next frame may go to disk while this one waits for its commit
            loop = asyncio.get_running_loop()
            written = Writing(image, loop.run_in_executor(self._writers, self._check_and_write, frame, image))
        self._saving.put_nowait((peer, frame, written))

    async def _save(self, peer: bytes, frame: Frame, written: "Writing | None") -> None:
        if written is not None:
            file = await written.file
            self._asked_by(frame, peer)
            outcome = await self.core.submit(inp.FrameCame(frame=frame, file=file))
            seq = outcome.seq
            METRICS.frames.labels(level=frame.level).inc()
            place = next((e for e in outcome.events if isinstance(e, ev.FrameReceived)), None)
            if place is not None:
                self._places[frame.frame_id] = (frame, place.grid_id, place.area_id)
            self._accept(peer, frame, seq)
            if frame.frame_id in self.core.state.pending:
                hold = self._images_held < self.settings.limits.frames_waiting
                self._images_held += hold
                self._analysing.put_nowait((frame, file, written.image if hold else None))
            else:
                self._answer(frame, None)
            return
        # sent again: nothing changes, the same answers
        known = await self.core.find(f"frame:{frame.frame_id}")
        if known is None:
            raise CryonautError("its first copy could not be stored")
        self._asked_by(frame, peer)
        self._accept(peer, frame, known)
        if frame.frame_id not in self.core.state.pending:
            event = await self.core.read(known)
            if isinstance(event, ev.FrameReceived):
                self._places[frame.frame_id] = (event.frame, event.grid_id, event.area_id)
            self._answer(frame, None)

    def _accept(self, peer: bytes, frame: Frame, seq: int) -> None:
        if link := self.links.get(peer):
            link.bad_in_a_row = 0
        self._send(peer, Accepted(about=frame.frame_id, seq=seq))

    def _check_and_write(self, frame: Frame, image: NDArray[Any]) -> str:
        if (found := wire.digest(image)) != frame.digest:
            raise BadMessageError(
                f"frame {frame.frame_id}: digest of the pixels is {found}, its header says {frame.digest}"
            )
        need = image.nbytes + (self.settings.limits.free_disk_gb * 1e9)
        if (free := shutil.disk_usage(self.store.folder).free) < need:
            raise CryonautError(
                f"disk of {self.store.folder} has {free / 1e9:.1f} GB left, limits.free_disk_gb keeps"
                f" {self.settings.limits.free_disk_gb:g} GB free"
            )
        return self.store.save(frame, image)

    async def _result(self, peer: bytes, result: CommandResult) -> None:
        outcome = await self.core.submit(inp.ResultCame(result=result))
        self._sent.pop(result.command_id, None)
        self._send(peer, Accepted(about=result.command_id, seq=outcome.seq))

    async def _report(self, state: ScopeState) -> None:
        await self.core.submit(inp.Reported(state=state))
        for held in self.suspenders.feed(state.readings, time.monotonic()):
            await self.core.submit(held)

    async def _bad(self, peer: bytes, why: str, about: str = "") -> None:
        """Refuse for good; after some in a row from one driver the session is held."""
        METRICS.messages_refused.inc()
        log.warning("message.refused", why=why)
        self._send(peer, Refused(reason=why[:2000], about=about))
        link = self.links.get(peer)
        if link is None:
            return
        link.bad_in_a_row += 1
        if link.bad_in_a_row == BAD_FRAMES_IN_A_ROW:
            detail = f"{BAD_FRAMES_IN_A_ROW} bad messages in a row from {link.name}, the last: {why}"
            await self._insist(inp.Held(cause="errors", detail=detail))

    # ------------------------------------------------------------------------------------------ going out

    def _send(self, peer: bytes, message: Message) -> None:
        self._outbox.put_nowait((peer, message))

    def _pilot(self) -> Link | None:
        return next((link for link in self.links.values() if link.can_pilot), None)

    def _dispatch(self) -> None:
        """Send what the state says is to be sent: the only place where commands leave."""
        state, pilot = self.core.state, self._pilot()
        if pilot is None or self.core.journal_trouble:
            return
        for command_id, entry in state.outstanding.items():
            if entry.cancelled:
                if command_id not in self._cancelled:
                    self._cancelled.add(command_id)
                    self._send(pilot.peer, Cancel(command_id=command_id, epoch=state.epoch, why="cancelled"))
            elif command_id not in self._sent and state.may_send(entry.command.work):
                self._sent[command_id] = time.monotonic()
                self._gate(pilot, state, entry)

    def _gate(self, pilot: Link, state: State, entry: Outstanding) -> None:
        command: Command = replace(entry.command, epoch=state.epoch)
        dose = 0.0
        if isinstance(command.work, Expose) and (hole := state.hole(command.work.area_id)) is not None:
            dose = hole.dose_e_per_a2
        try:
            interlock.check(command, self.settings.interlocks, dose_so_far_e_per_a2=dose)
        except EnvelopeError as error:
            log.error("command.refused", command=command.command_id, why=str(error))
            refused = CommandResult(
                command_id=command.command_id,
                session_id=state.session_id,
                status="refused",
                error=ErrorKind.OUTSIDE_ENVELOPE,
                message=str(error),
                dose_e_per_a2=0.0,
            )
            self.core.submit_soon(inp.ResultCame(result=refused))
            return
        METRICS.commands.labels(work=str(command.work.__struct_config__.tag)).inc()
        self._send(pilot.peer, command)

    def _answer(self, frame: Frame, what: inp.Analysed | inp.AnalysisFailed | None) -> None:
        place = self._places.get(frame.frame_id)
        if place is None:
            return
        if isinstance(what, inp.AnalysisFailed):
            self._answers[frame.frame_id] = (what.why[:2000], "")
        elif isinstance(what, inp.Analysed):
            self._answers[frame.frame_id] = (what.finding.note[:2000], what.model)
        for kept in (self._places, self._answers, self._owed, self._askers):
            while len(kept) > MOST_ANSWERS:
                kept.pop(next(iter(kept)))
        name = self._askers.get(frame.frame_id)  # not known after a start of the daemon: whoever is there then
        links = [link for link in self.links.values() if name is None or link.name == name]
        if not links:
            self._owed[frame.frame_id] = frame
            return
        self._owed.pop(frame.frame_id, None)
        self._askers.pop(frame.frame_id, None)
        note, model = self._answers.get(frame.frame_id, ("", ""))
        _, grid_id, area_id = place
        for link in links:
            self._send(link.peer, targets_for(self.core.state, frame, grid_id, area_id, note, model))

    def _asked_by(self, frame: Frame, peer: bytes) -> None:
        if link := self.links.get(peer):
            self._askers[frame.frame_id] = link.name

    def _heard_event(self, _seq: int, _utc: float, event: ev.AnyEvent) -> None:
        pilot = self._pilot()
        if pilot is None:
            return
        epoch = self.core.state.epoch
        if isinstance(event, ev.SafeOrdered):
            self._send(pilot.peer, Safe(why=event.why[:2000], epoch=epoch))
        elif isinstance(event, ev.Released):
            self._send(pilot.peer, Release(epoch=epoch))
        elif isinstance(event, ev.CommandCancelled) and event.command_id not in self._cancelled:
            self._cancelled.add(event.command_id)
            self._send(pilot.peer, Cancel(command_id=event.command_id, epoch=epoch, why=event.why[:2000]))

    # ------------------------------------------------------------------------------------------ time

    def resume_analysis(self) -> None:
        """After a start: queue the frames whose analysis was due when the daemon ended."""
        pending = self.core.state.pending
        if not pending:
            return
        wanted = {entry.seq: entry for entry in pending.values()}
        for row in self.core.journal.replay(after=min(wanted) - 1):
            if row.seq in wanted:
                event = ev.decode_event(row.body)
                if isinstance(event, ev.FrameReceived):
                    self._places[event.frame.frame_id] = (event.frame, event.grid_id, event.area_id)
                    self._analysing.put_nowait((event.frame, event.file, None))

    async def beat(self) -> None:
        """One heartbeat of the core task: tell drivers that we are well, notice who is silent or overdue."""
        now = time.monotonic()
        for link in list(self.links.values()):
            silent = now - link.heard
            if silent > self.settings.link.lost_after_s and self._saving.empty():
                self.links.pop(link.peer)
                await self._insist(inp.Left(driver=link.name, why=f"silent for {silent:.0f} s"))
            else:
                self._send(link.peer, Heartbeat(progress=self.core.steps, epoch=self.core.state.epoch))
        for command_id, sent in list(self._sent.items()):
            entry = self.core.state.outstanding.get(command_id)
            if entry is None:
                self._sent.pop(command_id)
            elif now - sent > entry.command.timeout_s + GRACE_S and self._pilot() is not None:
                await self._insist(inp.Overdue(command_id=command_id))
        for held in self.suspenders.due(now):
            await self._insist(held)
