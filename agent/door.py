"""The door for drivers: hellos, frames, results and heartbeats come in, commands and targets go out.

A frame is acknowledged after its pixels and its event are on disk. A command leaves only through `Door._dispatch`,
where the interlock stands.
"""

import time

import structlog
import zmq
import zmq.asyncio
from msgspec.structs import replace

from agent import interlock, wire
from agent.advice import Adviser
from agent.core import Core
from agent.errors import BadMessageError, CryonautError, EnvelopeError
from agent.intake import Intake
from agent.keys import Keyring
from agent.links import Link, Links
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
    Look,
    Measured,
    Past,
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
ASK_AGAIN_S = 5.0  # a command that its driver does not work on was lost, or its result was


class Door:
    """Serves every driver of one daemon."""

    def __init__(
        self,
        socket: "zmq.asyncio.Socket",
        links: Links,
        intake: Intake,
        adviser: Adviser,
        core: Core,
        settings: Settings,
        keyring: Keyring,
    ) -> None:
        self.socket = socket
        self.links = links
        self.intake = intake
        self.adviser = adviser
        self.core = core
        self.settings = settings
        self.keyring = keyring
        self.suspenders = Suspenders(settings.suspend_when, tripped=core.state.suspensions)
        self._sent: dict[str, float] = {}  # command id -> when it left in this epoch
        self._cancelled: set[str] = set()
        links.may_leave = self._may_leave
        core.listeners.append(self._heard_event)
        core.after_step.append(self._dispatch)

    async def run(self) -> None:
        """Take in what drivers send, until cancelled."""
        while True:
            peer, *parts = await self.socket.recv_multipart(copy=False)
            try:
                await self._take(peer.bytes, parts)
            except BadMessageError as error:
                await self._bad(peer.bytes, str(error))
            except CryonautError as error:
                self.links.send(peer.bytes, Refused(reason=str(error)[:2000], retry=True))
            except Exception as error:  # a defect of ours in one message must not end the night
                log.exception("door.defect")
                await self._bad(peer.bytes, f"internal error: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------------------------------ coming in

    async def _take(self, peer: bytes, parts: list[zmq.Frame]) -> None:
        if not parts:
            raise BadMessageError("empty message: a header is expected")
        known = self.keyring.who(parts[0])
        if known is None or (self.keyring.folder is not None and known.role != "driver"):
            raise BadMessageError("this key may not drive: a key with role driver is needed (`cryonaut keys new`)")
        message = wire.decode(wire.part_buffer(parts[0]), wire.FROM_DRIVER)
        link = self.links.by_peer.get(peer)
        if link is not None:
            link.heard = time.monotonic()
        if isinstance(message, Hello):
            await self._hello(peer, message)
            return
        if link is None:
            self.links.send(peer, Refused(reason="say hello first", retry=True, about="hello"))
            return
        match message:
            case Frame():
                if len(parts) != 2:
                    text = f"frame {message.frame_id}: {len(parts)} parts: a header and pixels are 2"
                    await self._bad(peer, text, about=message.frame_id)
                    return
                try:
                    self.intake.take(peer, message, parts[1])
                except BadMessageError as error:
                    await self._bad(peer, str(error), about=message.frame_id)
            case CommandResult():
                await self._result(peer, message)
            case Heartbeat(progress=progress, state=state, working_on=working_on):
                link.progress = progress
                if link is self.links.pilot():
                    self._ask_again(working_on)
                if state is not None:
                    link.scope = state
                    await self._report(state)
            case Measured():
                await self._measured(peer, message)
            case Past():
                await self._past(peer, message)
            case Look():
                self.adviser.take(peer, link.name, message)
            case Taken(why=why):
                await self.core.submit(inp.TakenOver(why=why))
            case Goodbye(why=why):
                self.links.by_peer.pop(peer, None)
                await self.core.submit(inp.Left(driver=link.name, why=why or "said goodbye"))

    async def _hello(self, peer: bytes, hello: Hello) -> None:
        if not OLDEST_PROTOCOL <= hello.protocol <= PROTOCOL:
            reason = (
                f"driver {hello.driver} speaks protocol {hello.protocol}, this daemon {OLDEST_PROTOCOL} to {PROTOCOL}:"
                " update the older of the two"
            )
            self.links.send(peer, Refused(reason=reason, about="protocol"))
            return
        for other in list(self.links.by_peer.values()):
            if other.name == hello.driver:
                self.links.by_peer.pop(other.peer)  # the same driver, connected again
            elif other.can_pilot and hello.can_pilot:
                reason = f"driver {other.name} pilots this microscope already; stop it first"
                self.links.send(peer, Refused(reason=reason, retry=True, about="pilot"))
                return
        outcome = await self.core.submit(inp.SaidHello(hello=hello))
        await self._report(hello.state)  # before anything is sent: what it says may hold the session
        self.links.by_peer[peer] = Link(peer, hello.driver, hello.can_pilot, scope=hello.state)
        state = self.core.state
        self.links.send(
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
            self.links.send(peer, Safe(why=state.why[:2000], epoch=state.epoch))
        if hello.can_pilot:
            # what the driver does not have under way is asked for again; it does nothing twice
            self._sent = {hello.running: time.monotonic()} if hello.running in state.outstanding else {}
            self._cancelled.clear()
        log.info("driver.joined", driver=hello.driver, software=hello.software, events=len(outcome.events))
        self._dispatch()
        self.intake.answer_owed()

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

    async def _result(self, peer: bytes, result: CommandResult) -> None:
        outcome = await self.core.submit(inp.ResultCame(result=result))
        self._sent.pop(result.command_id, None)
        self.links.send(peer, Accepted(about=result.command_id, seq=outcome.seq))

    async def _measured(self, peer: bytes, measured: Measured) -> None:
        about, state = measured.measured_id, self.core.state
        if measured.session_id != state.session_id:
            reason = f"measurement {about} is of session {measured.session_id}, not of {state.session_id}"
            self.links.send(peer, Refused(reason=reason, about=about))
        elif state.area(measured.area_id) is None:
            self.links.send(peer, Refused(reason=f"there is no area {measured.area_id}", about=about))
        else:
            seq = await self.core.find(f"measured:{about}")  # sent again: it counts once
            if seq is None:
                seq = (await self.core.submit(inp.MeasurementCame(measured=measured))).seq
            self.links.send(peer, Accepted(about=about, seq=seq))

    async def _past(self, peer: bytes, past: Past) -> None:
        about, state = past.past_id, self.core.state
        if past.session_id != state.session_id:
            reason = f"{about} is of session {past.session_id}, not of {state.session_id}"
            self.links.send(peer, Refused(reason=reason, about=about))
        elif past.grid_id in state.grids:
            reason = f"grid {past.grid_id} is this session's own: what is recalled needs another name"
            self.links.send(peer, Refused(reason=reason, about=about))
        else:
            seq = await self.core.find(f"past:{about}")
            if seq is None:
                seq = (await self.core.submit(inp.PastCame(past=past))).seq
            self.links.send(peer, Accepted(about=about, seq=seq))

    async def _report(self, state: ScopeState) -> None:
        await self.core.submit(inp.Reported(state=state))
        for held in self.suspenders.feed(state.readings, time.monotonic()):
            await self.core.submit(held)

    async def _bad(self, peer: bytes, why: str, about: str = "") -> None:
        if hold := self.links.refuse(peer, why, about):
            await self.core.insist(inp.Held(cause="errors", detail=hold))

    # ------------------------------------------------------------------------------------------ going out

    def _dispatch(self) -> None:
        """Send what the state says is to be sent: the only place where commands leave."""
        state, pilot = self.core.state, self.links.pilot()
        if pilot is None or self.core.journal_trouble:
            return
        for command_id, entry in state.outstanding.items():
            if entry.cancelled:
                if command_id not in self._cancelled:
                    self._cancelled.add(command_id)
                    self.links.send(pilot.peer, Cancel(command_id=command_id, epoch=state.epoch, why="cancelled"))
            elif command_id not in self._sent and state.may_send(entry.command.work):
                self._sent[command_id] = time.monotonic()
                self._gate(pilot, state, entry)

    def _may_leave(self, command: Command) -> bool:
        """Whether a command in the outbox is still wanted: a pause may have come since it was put there."""
        entry = self.core.state.outstanding.get(command.command_id)
        if entry is not None and not entry.cancelled and self.core.state.may_send(command.work):
            return True
        self._sent.pop(command.command_id, None)
        return False

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
        self.links.send(pilot.peer, command)

    def _heard_event(self, _seq: int, _utc: float, event: ev.AnyEvent) -> None:
        pilot = self.links.pilot()
        if pilot is None:
            return
        epoch = self.core.state.epoch
        if isinstance(event, ev.SafeOrdered):
            self.links.send(pilot.peer, Safe(why=event.why[:2000], epoch=epoch))
        elif isinstance(event, ev.Released):
            self.links.send(pilot.peer, Release(epoch=epoch))
        elif isinstance(event, ev.CommandCancelled) and event.command_id not in self._cancelled:
            self._cancelled.add(event.command_id)
            self.links.send(pilot.peer, Cancel(command_id=event.command_id, epoch=epoch, why=event.why[:2000]))

    # ------------------------------------------------------------------------------------------ time

    async def beat(self) -> None:
        """One heartbeat of the core task: tell drivers that we are well, notice who is silent or overdue."""
        now = time.monotonic()
        for link in list(self.links.by_peer.values()):
            silent = now - link.heard
            if silent > self.settings.link.lost_after_s and self.intake.idle:
                self.links.by_peer.pop(link.peer)
                await self.core.insist(inp.Left(driver=link.name, why=f"silent for {silent:.0f} s"))
            else:
                self.links.send(link.peer, Heartbeat(progress=self.core.steps, epoch=self.core.state.epoch))
        for command_id, sent in list(self._sent.items()):
            entry = self.core.state.outstanding.get(command_id)
            if entry is None:
                self._sent.pop(command_id)
            elif now - sent > entry.command.timeout_s + GRACE_S and self.links.pilot() is not None:
                await self.core.insist(inp.Overdue(command_id=command_id))
        for held in self.suspenders.due(now):
            await self.core.insist(held)
