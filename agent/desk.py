"""The desk: where a request of an operator is carried out, whichever way it came in – socket, page or terminal."""

import time
from pathlib import Path

import structlog

from agent import control_messages as say
from agent.core import Core
from agent.errors import BadMessageError
from agent.keys import Peer
from agent.messages import Event
from agent.session import NotPossibleError
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.state import Hole, Square
from agent.tally import Tally
from agent.words import area_of, text_of, who

log = structlog.get_logger("control")


class Desk:
    """Answers requests of known peers; what changes something is journalled with the name of whoever asked."""

    def __init__(self, core: Core, folder: Path) -> None:
        self.core = core
        self.folder = folder
        self.tally = Tally()
        self.begun = time.monotonic()

    async def answer(self, peer: Peer, control: say.Control) -> say.Reply:
        """Carry one request out.

        Raises
        ------
        BadMessageError
            If the peer may not ask for this, or asks about what there is not.
        """
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
            counts=self.tally.counts(state),
            thresholds=state.thresholds,
            spent={
                "hours": round(state.spent_s / 3600, 4),
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
