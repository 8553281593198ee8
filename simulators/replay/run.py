"""One recorded session, replayed: settings, a daemon, a player, and the record of what came of it."""

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agent import recording
from agent.errors import ConfigError, CryonautError, LinkError
from agent.messages import Level
from agent.policy import lessons
from agent.ports import free_ports
from agent.recording.decisions import Line, decisions, fingerprint
from agent.recording.record import Record
from agent.recording.trim import copy_rows
from agent.session import events as ev
from agent.settings import Settings, check
from simulators.replay.faults import ReplayFault
from simulators.replay.host import Host, own_host, program_host
from simulators.replay.player import Played, Player, Timing
from simulators.replay.store import LinkedStore
from simulators.replay.turns import PacedAnalyst

MODEL_OF: dict[Level, str] = {"low": "squares", "medium": "holes", "high": "quality"}


@dataclass(frozen=True)
class Options:
    """How to replay.

    Parameters
    ----------
    timing, speed
        See `simulators.replay.player.Player`.
    base
        Settings in the place of the recorded ones; the section ``session`` stays the recorded one.
    changes
        ``{"squares.per_grid": 5}``-like changes on top.
    start
        Event number from which to replay; what came before is taken over as it was.
    attach
        Event number up to which the replay catches up as fast as it can.
    faults
        What goes wrong.
    """

    timing: Timing = "fast"
    speed: float = 1.0
    base: dict[str, Any] | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    start: int = 0
    attach: int = 0
    faults: tuple[ReplayFault, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Both records, and what happened on the way."""

    then: Record
    now: Record
    played: Played

    @property
    def lines(self) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
        """The decisions of then and of now; of now at most as many as the recording can answer for."""
        return decisions(self.then), decisions(self.now)

    @property
    def first_difference(self) -> tuple[Line | None, Line | None] | None:
        """The first two decisions that differ; None when all are the same.

        A recording that ends before its session does is a beginning: what the replay decides after its end is not
        compared.
        """
        then, now = self.lines
        for one, other in zip(then, now, strict=False):
            if one.text != other.text:
                return one, other
        if len(now) < len(then):
            return then[len(now)], None
        if len(now) > len(then) and self.then.state.phase in ("stopped", "fault"):
            return None, now[len(then)]
        return None

    @property
    def same(self) -> bool:
        """Whether every decision is the same, byte for byte."""
        return self.first_difference is None

    @property
    def fingerprints(self) -> tuple[str, str]:
        """One hash of the decisions of each."""
        then, now = self.lines
        return fingerprint(then), fingerprint(now[: len(then)] if self.same else now)


def recorded_settings(record: Record) -> dict[str, Any]:
    """The settings with which a session began.

    Raises
    ------
    ConfigError
        If its manifest does not hold them.
    """
    epoch = next((item.event for item in record.happened if isinstance(item.event, ev.EpochBegan)), None)
    known = record.manifest.configs if record.manifest else {}
    if epoch is None or epoch.config not in known:
        raise ConfigError(
            f"{record.folder}: the settings of this session (config {epoch.config if epoch else '–'}) are not in its"
            " manifest; give --config FILE"
        )
    return dict(known[epoch.config])


def settings_for(record: Record, out: Path, options: Options, *, fixed_ports: bool) -> Settings:
    """Settings of the replay's daemon: the recorded ones, or others, on free ports and below ``out``.

    Raises
    ------
    ConfigError
        If they are not known, or a change is not allowed.
    """
    values = dict(options.base) if options.base is not None else recorded_settings(record)
    if options.base is not None:
        values["session"] = _recorded_session(record, values)
    for dotted, value in options.changes.items():
        *parents, last = dotted.split(".")
        inner = values
        for parent in parents:
            inner[parent] = dict(inner.get(parent) or {})
            inner = inner[parent]
        inner[last] = value
    values["session"] = {**values.get("session", {}), "folder": str(out)}
    names = ("drivers", "control", "events")
    ports = free_ports(len(names)) if fixed_ports else ["*"] * len(names)
    values["endpoints"] = {n: f"tcp://127.0.0.1:{p}" for n, p in zip(names, ports, strict=True)} | {"health": ""}
    values["web"] = {"address": ""}
    # a busy machine is no lost driver, and a reading of that night is not known any more
    link = {"lost_after_s": 600.0, "safe_after_s": 600.0, "idle_notice_s": 1e6, "heartbeat_s": 1.0}
    values["link"] = link
    values["limits"] = {"free_disk_gb": 0.0, "frame_mb": 1024}
    if record.state.prior is not None and "policy.prior_file" not in options.changes:  # as it was that night
        taught = out / "prior.json"
        out.mkdir(parents=True, exist_ok=True)
        taught.write_bytes(lessons.encode(record.state.prior))
        values["policy"] = {**(values.get("policy") or {}), "prior_file": str(taught)}
    return check(Settings, values, str(record.folder))


def _recorded_session(record: Record, values: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(recorded_settings(record)["session"])
    except ConfigError:
        opened = next((item.event for item in record.happened if isinstance(item.event, ev.SessionOpened)), None)
        if opened is None:
            return dict(values.get("session") or {})
        grids = [{"id": grid_id, "slot": slot} for grid_id, slot in opened.grids]
        return {"name": opened.name, "mode": opened.mode, "autonomy": opened.autonomy, "grids": grids}


async def replay(
    record: Record,
    out: Path,
    options: Options | None = None,
    *,
    make: Callable[..., PacedAnalyst] = PacedAnalyst,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Replay ``record`` into a new session folder below ``out``; ``progress`` hears how many inputs were given.

    Raises
    ------
    ConfigError
        If the settings are not known, or not allowed.
    CryonautError
        If the folder exists already, or the record holds nothing to replay.
    """
    options = options or Options()
    killed = any(fault.kind == "killed_daemon" for fault in options.faults)
    settings = settings_for(record, out, options, fixed_ports=killed)
    folder = out / settings.session.name
    if folder.resolve() == record.folder.resolve() or folder.exists():
        raise CryonautError(f"{folder}: exists already; a replay needs a folder of its own (--out)")
    if not record.shots:
        raise CryonautError(f"{record.folder}: holds no frame: there is nothing to replay")
    start = _whole_step(record, options.start)
    if start:
        _take_over(record, folder, start)
    context: AbstractAsyncContextManager[Host]
    paced = options.timing != "burst"
    if killed:
        context = program_host(settings, paced=paced)
    else:
        store = partial(LinkedStore, record=record)
        context = own_host(settings, paced=paced, make=make, store=store)
    async with context as host:
        player = Player(
            record,
            host,
            timing=options.timing,
            speed=options.speed,
            after=start,
            attach=options.attach,
            faults=options.faults,
            progress=progress,
        )
        playing = asyncio.create_task(player.run())
        await asyncio.wait({playing, host.running or playing}, return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():  # why it ended is told where the daemon is closed
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
            raise LinkError(f"{record.folder}: the daemon of the replay ended before the replay did")
        played = await playing
    return Outcome(record, recording.read(folder), played)


def _whole_step(record: Record, seq: int) -> int:
    """The last event up to ``seq`` after which the session stood still: what one input leads to is one commit."""
    times = [0.0, *(item.utc for item in record.happened)]
    seq = min(seq, len(times) - 1)
    while 0 < seq < len(times) - 1 and times[seq] == times[seq + 1]:
        seq -= 1
    return seq


def _take_over(record: Record, folder: Path, last: int) -> None:
    """Put the first ``last`` events of a record and their pixels into a new session folder."""
    copy_rows(record.folder, folder, last)
    for shot in record.shots:
        source = record.folder / shot.received.file
        if shot.seq <= last and source.is_file():
            target = folder / shot.received.file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
