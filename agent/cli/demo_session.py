"""The demo's two programs and what the terminal shows of their session."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import yaml
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from agent import control_messages as say
from agent.control import ControlClient
from agent.errors import CryonautError, LinkError
from agent.messages import Event
from agent.settings import Settings

Programs = dict[str, "subprocess.Popen[bytes]"]
QUIET = ("frame_received", "area_changed", "command_ended", "groups_planned", "noticed")


@contextlib.contextmanager
def program(arguments: list[str], log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A ``cryonaut`` command as a process of its own; asked to end in good order on every way out."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "agent.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serialem_config(endpoint: str, port: int, session: Path) -> str:
    """The driver's config for a simulated SerialEM; a real one would have config/serialem.yaml."""
    values = {
        "daemon": {"endpoint": endpoint, "ledger": str(session / "driver.sqlite")},
        "serialem": {"port": port, "retry_s": 0.2},
        "presets": {"low": {"shot": "Record", "low_dose": False, "mag_index": 3}},
        "safety": {"look_again_s": 0.5, "wait_s": 1.0},
    }
    return str(yaml.safe_dump(values, sort_keys=False))


def leginon_config(endpoint: str, session: Path, port: int) -> str:
    """The driver's config for a simulated Leginon; a real one would have config/leginon.yaml."""
    values = {
        "daemon": {"endpoint": endpoint, "folder": str(session / "leginon")},
        "http": {"port": port},
    }
    return str(yaml.safe_dump(values, sort_keys=False))


def watch(console: Console, settings: Settings, programs: "Programs", session: Path, leader: str = "") -> bool:
    """Show the session until it ends; True when it ended by itself in good order.

    A ``leader`` among the programs is the microscope software: when it has ended well, the session is over.
    """
    show = _Show(settings)
    with ControlClient(settings.endpoints.control, timeout_s=2.0) as client:
        _wait_for(client, programs, session)
        console.print(
            f"Simulated session {settings.session.name}; look: http://{settings.web.address}/\nIn another terminal: "
            f"cryonaut control status --endpoint {settings.endpoints.control}",
            soft_wrap=True,
            highlight=False,
        )
        live = console.is_terminal
        with Live(console=console, refresh_per_second=4) if live else contextlib.nullcontext() as screen:
            while True:
                if _alive(programs, session, leader):
                    leader = ""
                    client.ask(say.Stop())
                try:
                    status = client.ask(say.GetStatus()).status
                    new = client.ask(say.GetEvents(after=show.seq, most=1000)).events
                except LinkError:
                    continue
                if status is None:
                    continue
                fresh = show.take(status, list(new))
                if screen is not None:
                    screen.update(show.screen())
                else:
                    for text in fresh:
                        console.print(text, soft_wrap=True, highlight=False)
                if status.phase in ("stopped", "fault"):
                    console.print(f"\n{status.phase}: {status.why}")
                    console.print(show.summary())
                    return status.phase == "stopped"
                time.sleep(0.25)


def _wait_for(client: ControlClient, programs: "Programs", session: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        _alive(programs, session)
        try:
            client.ask(say.GetStatus())
            return
        except LinkError:
            if time.monotonic() > deadline:
                raise


def _alive(programs: "Programs", session: Path, leader: str = "") -> bool:
    """Whether the leader has ended well; the end of any other program is an error."""
    for title, process in list(programs.items()):
        if process.poll() is not None:
            if title == leader and process.returncode == 0:
                del programs[title]
                return True
            log = session / f"{title}.log"
            tail = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise CryonautError(f"the {title} ended early; {log} says: {' / '.join(tail)}")
    return False


class _Show:
    """What is on the screen."""

    def __init__(self, settings: Settings) -> None:
        self.seq = 0
        self.lines: deque[str] = deque(maxlen=10)
        self.status: say.Status | None = None
        self.bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.squares = self.bars.add_task("squares", total=settings.squares.per_grid)
        self.holes = self.bars.add_task("exposures", total=settings.squares.per_grid * settings.holes.per_square)

    def take(self, status: say.Status, events: "list[Event]") -> list[str]:
        """Take news in; returns the lines that are worth printing."""
        fresh = []
        for event in events:
            self.seq = event.seq
            if event.name not in QUIET:
                clock = datetime.fromtimestamp(event.utc).strftime("%H:%M:%S")
                fresh.append(f"{clock} {event.text}")
        self.lines.extend(fresh)
        self.status = status
        counts = status.counts
        self.bars.update(self.squares, completed=counts["squares_mapped"])
        self.bars.update(self.holes, completed=counts["exposures"])
        return fresh

    def summary(self) -> str:
        """Counts in one line."""
        c = self.status.counts if self.status else {}
        names = ("squares", "squares_mapped", "holes", "exposures", "good")
        found, mapped, holes, exposed, good = (c.get(name, 0) for name in names)
        return (
            f"{found} squares found, {mapped} mapped; {holes} holes found, {exposed} exposed, {good} good micrographs"
        )

    def screen(self) -> RenderableType:
        """The live display."""
        s = self.status
        if s is None:
            return Text("starting …")
        head = Text.assemble((s.phase, "bold"), f"  {s.working_on or 'thinking'}", style="")
        log = Text("\n".join(text[:150] for text in self.lines), style="dim", no_wrap=True, overflow="ellipsis")
        return Panel(Group(head, self.bars, Text(self.summary()), Text(), log), title=f"grid {s.grid_id or '–'}")
