"""The control socket: an operator's requests come in with a name and a role, and are answered at once."""

import time
import uuid
from pathlib import Path
from typing import Any

import structlog
import zmq
import zmq.asyncio

from agent import control_messages as say
from agent import wire
from agent.core import Core
from agent.errors import BadMessageError, CryonautError, LinkError
from agent.keys import Keyring, Peer, arm_client
from agent.messages import Event
from agent.session import NotPossibleError
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.state import Hole, Square
from agent.words import area_of, text_of, who

log = structlog.get_logger("control")


class ControlServer:
    """Answers control requests; a socket of its own, so that a stop never waits behind a frame."""

    def __init__(self, socket: "zmq.asyncio.Socket", core: Core, keyring: Keyring, folder: Path) -> None:
        self.socket = socket
        self.core = core
        self.keyring = keyring
        self.folder = folder
        self.begun = time.monotonic()

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            peer, *parts = await self.socket.recv_multipart(copy=False)
            reply = await self._answer(parts)
            try:
                await self.socket.send_multipart([peer.bytes, wire.encode(reply)])
            except zmq.ZMQError as error:  # whoever asked has gone; what was asked is done all the same
                log.info("peer.unreachable", error=str(error))

    async def _answer(self, parts: list[zmq.Frame]) -> say.Reply:
        request_id = ""
        try:
            if len(parts) != 1:
                raise BadMessageError(f"{len(parts)} parts: a control request has one")
            known = self.keyring.who(parts[0])
            control = wire.decode(wire.part_buffer(parts[0]), wire.CONTROL)
            request_id = control.request_id
            if known is None:
                raise BadMessageError("this key is not known (any more)")
            return await self._carry_out(known, control)
        except CryonautError as error:
            return say.Reply(request_id=request_id, ok=False, text=str(error))

    async def _carry_out(self, peer: Peer, control: say.Control) -> say.Reply:
        verb, request_id = control.verb, control.request_id
        if isinstance(verb, say.OBSERVER_VERBS):
            return self._look(request_id, verb)
        if peer.role != "operator":
            raise BadMessageError(f"{peer.name} is {peer.role}: {verb.__struct_config__.tag} needs role operator")
        seq = await self.core.find(f"control:{request_id}")
        if seq is not None:
            return say.Reply(request_id=request_id, ok=True, text="done before", seq=seq)
        try:
            what = inp.Controlled(request_id=request_id, by=peer.name, verb=verb)
            outcome = await self.core.submit(what)
        except NotPossibleError as error:
            return say.Reply(request_id=request_id, ok=False, text=str(error))
        log.info("control", by=peer.name, verb=verb.__struct_config__.tag, answer=outcome.answer)
        return say.Reply(request_id=request_id, ok=True, text=outcome.answer, seq=outcome.seq)

    def _look(self, request_id: str, verb: say.AnyVerb) -> say.Reply:
        match verb:
            case say.GetEvents(after=after, most=most):
                start = max(0, self.core.state.seq - most) if after < 0 else after
                lines = tuple(self._lines(start, most))
                return say.Reply(request_id=request_id, ok=True, text=f"{len(lines)} events", events=lines)
            case say.GetAreas(square_id=square_id):
                areas = self._areas(square_id)
                return say.Reply(request_id=request_id, ok=True, text=f"{len(areas)} areas", areas=areas)
            case _:
                status = self.status()
                return say.Reply(request_id=request_id, ok=True, text=status.phase, status=status)

    def _lines(self, after: int, most: int) -> list[Event]:
        rows = self.core.journal.replay(after=after, most=most)
        last = self.core.state.seq
        return [as_line(row.seq, row.utc, ev.decode_event(row.body)) for row in rows if row.seq <= last]

    def _areas(self, square_id: str) -> tuple[say.Area, ...]:
        state = self.core.state
        if square_id:
            square = state.square(square_id)
            if square is None:
                raise BadMessageError(f"there is no square {square_id}")
            found: list[Square | Hole] = list(square.holes.values())
        else:
            found = list(state.grid.squares.values()) if state.grid else []
        return tuple(
            say.Area(
                area_id=area.area_id,
                x_um=area.x_um,
                y_um=area.y_um,
                score=area.score,
                label=area.label,
                state=area.state,
                why=area.why,
                by=area.by,
                children=len(area.holes) if isinstance(area, Square) else 0,
            )
            for area in found
        )

    def status(self) -> say.Status:
        """Where the session stands."""
        state = self.core.state
        squares = [s for grid in state.grids.values() for s in grid.squares.values()]
        holes = [h for square in squares for h in square.holes.values()]
        judged = [h for h in holes if h.quality is not None]
        return say.Status(
            session_id=state.session_id,
            epoch=state.epoch,
            phase="suspended" if state.suspensions and state.phase == "collecting" else state.phase,
            why=state.why,
            mode=state.mode,
            autonomy=state.autonomy,
            driver=state.driver,
            driver_well=bool(state.driver) and "link" not in state.suspensions,
            agent_well=not self.core.journal_trouble,
            suspensions=state.suspensions,
            grid_id=state.grid_id,
            working_on=", ".join(
                f"{entry.command.work.__struct_config__.tag} {entry.area_id or entry.command.command_id}"
                for entry in state.outstanding.values()
            ),
            counts={
                "grids": len(state.grids),
                "frames": state.frames,
                "squares": len(squares),
                "squares_mapped": sum(1 for s in squares if s.map_frame_id),
                "holes": len(holes),
                "exposures": state.exposures,
                "good": sum(1 for h in judged if h.quality_label == "good"),
                "pending": len(state.pending),
            },
            thresholds=state.thresholds,
            spent={
                "hours": round((self.core.clock() - state.started_utc) / 3600, 4),
                "dose_e_per_a2": state.dose_e_per_a2,
            },
            degraded=state.degraded,
            last_seq=state.seq,
            folder=str(self.folder),
            uptime_s=round(time.monotonic() - self.begun, 1),
        )


def as_line(seq: int, utc: float, event: ev.AnyEvent) -> Event:
    """The event as watchers and `control events` get it."""
    return Event(
        seq=seq, utc=utc, name=ev.kind_of(event), text=text_of(event)[:2000], area_id=area_of(event), by=who(event)
    )


class ControlClient:
    """The other end: sends one request at a time and waits for its answer.

    Raises
    ------
    LinkError
        When no daemon answers in time.
    """

    def __init__(
        self, endpoint: str, *, key: Path | None = None, server_key: Path | None = None, timeout_s: float = 5.0
    ) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        try:
            arm_client(self._socket, key, server_key)
            self._socket.connect(endpoint)
        except BaseException:
            self.close()
            raise

    def ask(self, verb: say.AnyVerb, request_id: str | None = None) -> say.Reply:
        """The daemon's answer to ``verb``."""
        request = say.Control(request_id=request_id or uuid.uuid4().hex, verb=verb)
        self._socket.send(wire.encode(request))
        deadline = time.monotonic() + self.timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if self._socket.poll(int(left * 1000) + 1):
                reply: Any = wire.decode(self._socket.recv_multipart()[-1], wire.REPLY)
                if reply.request_id in (request.request_id, ""):
                    return reply  # type: ignore[no-any-return]
        raise LinkError(
            f"no daemon answers at {self.endpoint} within {self.timeout_s:g} s: is `cryonaut run` up, is the endpoint"
            " that of its config (endpoints.control), and does it know your key?"
        )

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)
        self._context.term()

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
