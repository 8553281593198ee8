"""The one shell round every adapter: link to the daemon, its own interlock, its ledger, its dead-man's switch.

A command is done once, however often it is asked for. Silence of the daemon for ``safe_after_s`` leads to the safe
state. A frame or result is kept until the daemon has it on disk.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog
import zmq
import zmq.asyncio
from msgspec.structs import replace

from agent import interlock, wire
from agent.errors import BadMessageError, EnvelopeError, LinkError
from agent.ids import new_id
from agent.keys import arm_client
from agent.messages import (
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
    Look,
    Measured,
    Message,
    Past,
    Refused,
    Release,
    Safe,
    ScopeState,
    Taken,
    Targets,
    View,
    Welcome,
)
from agent.settings import EnvelopeSettings
from drivers.base import Image, Microscope, Shot
from drivers.deliveries import Deliveries, as_taken, frame_of
from drivers.hands import Hands
from drivers.ledger import Ledger
from drivers.questions import Questions

log = structlog.get_logger("driver")
RESEND_S = 1.0  # after a refusal that says: again
RESEND_AFTER_S = 5.0  # a result, without an answer
HELLO_EVERY_S = 1.0
GOODBYE_S = 0.5  # for the last words, and for what is under way to end


class Shell:
    """Runs one `Microscope` against one daemon.

    Parameters
    ----------
    microscope
        The hooks.
    endpoint
        ``endpoints.drivers`` of the daemon.
    ledger
        File in which the driver notes what it did.
    envelope
        This side's own interlocks, from its own file.
    key, server_key
        CURVE key files where the daemon asks for them.
    """

    def __init__(
        self,
        microscope: Microscope,
        endpoint: str,
        *,
        ledger: Path,
        envelope: EnvelopeSettings,
        key: Path | None = None,
        server_key: Path | None = None,
    ) -> None:
        self.microscope = microscope
        self.endpoint = endpoint
        self.ledger = Ledger(ledger)
        self.envelope = envelope
        self._key, self._server_key = key, server_key
        self.welcome: Welcome | None = None
        self.in_safe_state = False
        self.progress = 0
        self.refused = ""
        self._heard = time.monotonic()
        self._hello_waits = False  # a hello is in the outbox
        self._held = False  # the daemon ordered the safe state: nothing before Release or Welcome
        self._taken = False  # a person has the microscope: it is left alone until the daemon orders something
        self._running: Command | None = None
        self._idle = asyncio.Event()  # nothing is under way
        self._idle.set()
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._in_hand: set[tuple[str, str]] = set()  # sessions and ids of commands that wait or are under way
        self._dropped: set[str] = set()
        self._untaken: dict[str, tuple[CommandResult, float]] = {}  # results that the daemon has not acknowledged
        self._silent = False  # the daemon was silent for too long: only a new hello leads on
        self._outbox: asyncio.Queue[list[Any]] = asyncio.Queue()
        self._deliveries = Deliveries(self._outbox.put_nowait, self._outbox.empty)
        self._questions = Questions(self._send, self._outbox.empty)
        self._hands = Hands(microscope)
        self._safety = ThreadPoolExecutor(max_workers=1, thread_name_prefix="safety")
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop

    # ------------------------------------------------------------------------------------------ life

    async def run(self) -> None:
        """Serve until `stop`; on every way out the microscope reaches its safe state."""
        self._loop = asyncio.get_running_loop()
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.immediate = 1  # nothing is queued for a daemon that is not there
        socket.reconnect_ivl = 100
        socket.reconnect_ivl_max = 2_000
        socket.sndhwm = 100
        try:
            arm_client(socket, self._key, self._server_key)
            socket.connect(self.endpoint)
            async with asyncio.TaskGroup() as tasks:
                jobs = [self._receive(socket), self._post(socket), self._beat(), self._work()]
                running = [tasks.create_task(job) for job in jobs]
                await self._stop.wait()
                self._hands.cancel.set()
                with contextlib.suppress(zmq.ZMQError, TimeoutError):
                    async with asyncio.timeout(GOODBYE_S):
                        await socket.send_multipart([wire.encode(Goodbye(why="the driver was stopped"))])
                        await self._idle.wait()  # what was under way is cancelled: how it ended, and its dose, is known
                        await asyncio.sleep(0.05)
                for task in running:
                    task.cancel()
        finally:
            self._hands.cancel.set()
            self._stop.set()
            self._deliveries.close()
            self._questions.close()
            if not self._taken:
                await self._make_safe("the driver ends")
            await self._hands.rest()
            if self._hands.interrupted and not self._taken:  # it may have opened the beam after it was made safe
                await self._make_safe("the driver ends, and so has what was under way")
            self._safety.shutdown()
            self.ledger.close()
            socket.close(500)  # milliseconds for the goodbye to leave
            context.term()

    def stop(self) -> None:
        """End in good order; callable from any thread."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def taken_over(self, why: str) -> None:
        """A person works at the microscope's console: drop what runs, tell the daemon; callable from any thread."""
        self._taken = True
        self._hands.cancel.set()
        self._loop.call_soon_threadsafe(self._send, Taken(why=why))

    def advise(self, shot: Shot, *, grid_id: str = "", area_id: str = "", frame_id: str = "") -> Frame:
        """Send an image that the microscope software took by itself; blocks until it is safe (worker threads only).

        With a ``frame_id`` of its own an image may be sent again, after a crash as well: it counts once.
        """
        return self._hand_in(shot, area_id, grid_id=grid_id, frame_id=frame_id or new_id(), command_id="")

    async def send(self, shot: Shot, *, grid_id: str = "", area_id: str = "", frame_id: str = "") -> Frame:
        """`advise` for callers in the driver's own loop, who may give up; a frame id must not be under way twice."""
        ids = {"grid_id": grid_id, "frame_id": frame_id or new_id(), "command_id": ""}
        frame, image = await asyncio.to_thread(self._as_frame, shot, area_id=area_id, **ids)
        return as_taken(frame, await self._until_taken(frame, image))

    @property
    def connected(self) -> bool:
        """Whether the daemon was heard of within the last few heartbeats."""
        known = self.welcome
        return known is not None and time.monotonic() - self._heard < max(5.0, 3.0 * known.heartbeat_s)

    async def look(self, look: Look) -> View:
        """The session as the daemon has it now; waits for a daemon that is away (put a time limit round it).

        Raises
        ------
        LinkError
            If the daemon refuses the question, or the driver ends.
        """
        answer = await self._questions.ask(look.request_id, look)
        if isinstance(answer, View):
            return answer
        raise LinkError(f"the daemon refused {look.request_id}: {getattr(answer, 'reason', 'no answer')}")

    async def tell(self, what: Measured | Past) -> None:
        """Tell what was measured at an area, or recall a square, until the daemon has it on disk.

        Raises
        ------
        LinkError
            If the daemon refuses it, or the driver ends.
        """
        about = what.past_id if isinstance(what, Past) else what.measured_id
        answer = await self._questions.ask(about, what)
        if isinstance(answer, Refused):
            raise LinkError(f"the daemon refused {about}: {answer.reason}")

    # ------------------------------------------------------------------------------------------ the link

    async def _receive(self, socket: "zmq.asyncio.Socket") -> None:
        while True:
            parts = await socket.recv_multipart()
            try:
                message = wire.decode(parts[-1], wire.TO_DRIVER)
            except BadMessageError as error:
                log.warning("message.refused", why=str(error))
                continue
            self._heard = time.monotonic()
            await self._take(message)

    async def _take(self, message: Any) -> None:
        match message:
            case Welcome():
                await self._welcomed(message)
            case Accepted(about=about):
                if about in self._deliveries:
                    self._deliveries.settle(about)
                elif self._questions.answered(about, message):
                    pass
                elif self.welcome is not None:
                    self._untaken.pop(about, None)
                    await self._disk(self.ledger.take, self.welcome.session_id, about)
            case Refused():
                self._was_refused(message)
            case Command():
                await self._ordered(message)
            case Cancel(command_id=command_id):
                self._dropped.add(command_id)
                if self._running is not None and self._running.command_id == command_id:
                    self._hands.cancel.set()
                elif self.welcome is not None:  # whoever cancels waits for a result, also of what never came here
                    self._tell(await self._disk(self.ledger.drop, self.welcome.session_id, command_id))
            case Safe(why=why):
                self._held = True
                self._taken = False
                self._hands.cancel.set()
                await self._make_safe(why)
            case Release():
                self._held = False
                self.in_safe_state = False
            case View(request_id=request_id):
                self._questions.answered(request_id, message)
            case Targets():
                try:
                    await asyncio.to_thread(self.microscope.answered, message)
                except Exception:
                    log.exception("microscope.defect", frame=message.frame_id)
            case _:
                pass  # a heartbeat: hearing it is all

    async def _welcomed(self, welcome: Welcome) -> None:
        known = self.welcome
        if known is not None and welcome.session_id == known.session_id and welcome.epoch < known.epoch:
            log.warning("welcome.old_epoch", epoch=welcome.epoch, known=known.epoch)
            return
        self.welcome = welcome
        self.refused = ""
        self._held = self._silent = False
        finished = set(welcome.finished)
        self._untaken = {
            k: v for k, v in self._untaken.items() if k not in finished and v[0].session_id == welcome.session_id
        }
        self.in_safe_state = False
        for command_id in welcome.finished:
            await self._disk(self.ledger.take, welcome.session_id, command_id)
        self._deliveries.again()
        self._questions.again()
        log.info("daemon.joined", session=welcome.session_id, epoch=welcome.epoch)

    def _was_refused(self, message: Refused) -> None:
        if message.about == "hello":
            self._say_hello()
        elif not message.retry and self._questions.answered(message.about, message):
            pass
        elif message.about in self._questions:
            self._loop.call_later(RESEND_S, self._questions.again, message.about)
        elif message.about in self._deliveries:
            if message.retry:
                self._loop.call_later(RESEND_S, self._deliveries.again, message.about)
            else:
                self._deliveries.settle(message.about, message)
        else:
            if message.reason != self.refused:
                log.error("daemon.refused", why=message.reason)
            self.refused = message.reason

    def _send(self, message: Message) -> None:
        self._outbox.put_nowait([wire.encode(message)])

    async def _post(self, socket: "zmq.asyncio.Socket") -> None:
        while True:
            parts = await self._outbox.get()
            await socket.send_multipart(parts, copy=False)
            self._hello_waits = self._hello_waits and not self._outbox.empty()

    def _say_hello(self) -> None:
        if self._stop.is_set():
            return  # goodbye was the last word
        if self._hello_waits:
            return
        self._hello_waits = True
        known = self.welcome
        results = self.ledger.untaken(known.session_id if known else None)
        running = self._running.command_id if self._running else ""
        self._send(
            Hello(
                protocol=PROTOCOL,
                driver=self.microscope.name,
                software=self.microscope.software,
                can_pilot=self.microscope.can_pilot,
                session_id=known.session_id if known else "",
                epoch=known.epoch if known else 0,
                running=running,
                results=tuple(r for r in results if r.command_id != running),
                state=self._state(),
            )
        )

    def _state(self) -> ScopeState:
        return replace(self.microscope.state(), in_safe_state=self.in_safe_state, busy=self._running is not None)

    async def _beat(self) -> None:
        """Hello until welcomed; then heartbeats, and the dead-man's switch."""
        while True:
            now = time.monotonic()
            if self.welcome is None:
                self._say_hello()
                await asyncio.sleep(HELLO_EVERY_S)
                continue
            silent = now - self._heard > self.welcome.safe_after_s
            why = f"the daemon was silent for {now - self._heard:.0f} s" if silent else "the daemon ordered it"
            if silent and not self._silent:
                log.error("daemon.silent", why=why)
                self._held = self._silent = True
                self._hands.cancel.set()
            if self._held and not (self.in_safe_state or self._taken):
                await self._make_safe(why)
            if self._silent and not silent:  # it is heard again, and may never have noticed
                self._say_hello()
            for result, told in list(self._untaken.values()):
                if now - told > RESEND_AFTER_S and self._outbox.empty():
                    self._tell(result)
            if self._outbox.empty():  # else the daemon is not there, or not as fast: heartbeats must not pile up
                self._tell_state(self.welcome.epoch)
            await asyncio.sleep(self.welcome.heartbeat_s)

    def _tell_state(self, epoch: int) -> None:
        working = self._running.command_id if self._running else ""
        self._send(Heartbeat(progress=self.progress, working_on=working, state=self._state(), epoch=epoch))

    async def _make_safe(self, why: str) -> None:
        log.warning("safe_state", why=why)
        try:
            await self._loop.run_in_executor(self._safety, self.microscope.make_safe, why)
        except Exception:  # it is tried again with every heartbeat
            log.exception("safe_state.failed")
        else:
            self.in_safe_state = True

    async def _disk(self, what: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(what, *args)

    # ------------------------------------------------------------------------------------------ the work

    async def _ordered(self, command: Command) -> None:
        known = self.welcome
        if known is None or command.session_id != known.session_id or command.epoch < known.epoch:
            log.warning("command.old_epoch", command=command.command_id, epoch=command.epoch)
            return
        key = (command.session_id, command.command_id)
        if key in self._in_hand:  # it waits or is under way: its end will be told
            return
        self._in_hand.add(key)
        done = await self._disk(self.ledger.result, command)
        if done is not None:
            self._send(done)
        elif await self._disk(self.ledger.known, command):
            await self._ended(self._hands.result(command, "unknown", message="begun before, its end is not known"))
        else:
            self._commands.put_nowait(command)
            return
        self._in_hand.discard(key)

    async def _work(self) -> None:
        while True:
            command = await self._commands.get()
            # under way from here until its end is on disk: nobody may take it for one without an end meanwhile
            self._running = command
            self._idle.clear()
            self._taken = False
            self._hands.cancel.clear()
            try:
                if not await self._disk(self.ledger.known, command):  # else it was cancelled while it waited
                    await self._ended(await self._do(command))
            finally:
                self._running = None
                self._idle.set()
                self._in_hand.discard((command.session_id, command.command_id))

    async def _do(self, command: Command) -> CommandResult:
        if self._held or command.command_id in self._dropped:
            why = "the driver is in its safe state" if self._held else "cancelled before it began"
            return self._hands.result(command, "cancelled", message=why, dose=0.0)
        try:
            dose = 0.0
            if isinstance(command.work, Expose):
                dose = await self._disk(self.ledger.dose, command.session_id, command.work.area_id)
            interlock.check(command, self.envelope, dose_so_far_e_per_a2=dose)
        except EnvelopeError as error:
            log.error("command.refused", why=str(error))
            text = f"driver's own limits: {error}"
            return self._hands.result(command, "refused", error=ErrorKind.OUTSIDE_ENVELOPE, message=text, dose=0.0)
        await self._disk(self.ledger.begin, command)
        if self._held:
            self._hands.cancel.set()
        result = await self._hands.carry_out(command, self._sender(command))
        if self._held and not self._taken:  # its last step may have opened the beam after it was made safe
            await self._make_safe("what was under way has ended")
        return result

    async def _ended(self, result: CommandResult) -> None:
        await self._disk(self.ledger.end, result)
        self.progress += 1
        if result.status == "cancelled" and self.welcome is not None:
            # why it is handed back (closed valves, say) comes before it, or the same work is asked for at once again
            self._tell_state(self.welcome.epoch)
        self._tell(result)

    def _tell(self, result: CommandResult) -> None:
        """Send a result, and again until the daemon has it on disk."""
        self._untaken[result.command_id] = (result, time.monotonic())
        self._send(result)

    # ------------------------------------------------------------------------------------------ frames

    def _sender(self, command: Command) -> Callable[[Shot, str], Frame]:
        count = 0
        work: Any = command.work

        def send(shot: Shot, area_id: str) -> Frame:
            nonlocal count
            count += 1
            return self._hand_in(
                shot,
                area_id or getattr(work, "area_id", ""),
                grid_id=getattr(work, "grid_id", "") or self.microscope.state().grid_id,
                frame_id=f"{command.command_id}-F{count:03d}",
                command_id=command.command_id,
            )

        return send

    def _hand_in(self, shot: Shot, area_id: str, *, grid_id: str, frame_id: str, command_id: str) -> Frame:
        """Called from worker threads: send, wait, send again until the daemon has it or refuses it for good."""
        ids = {"grid_id": grid_id, "area_id": area_id, "frame_id": frame_id, "command_id": command_id}
        frame, image = self._as_frame(shot, **ids)
        future = asyncio.run_coroutine_threadsafe(self._until_taken(frame, image), self._loop)
        return as_taken(frame, future.result())

    def _as_frame(self, shot: Shot, **ids: str) -> tuple[Frame, Image]:
        if self.welcome is None:
            raise LinkError("no daemon has welcomed this driver yet")
        return frame_of(shot, session_id=self.welcome.session_id, **ids)

    async def _until_taken(self, frame: Frame, image: Image) -> Refused | None:
        if self._stop.is_set():
            return Refused(reason="the driver ends")
        return await self._deliveries.deliver(frame, image)
