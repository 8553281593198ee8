"""``cryonaut control``: an operator's word to a running daemon."""

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from agent import control_messages as say
from agent.messages import Event

app = App(
    name="control",
    help="Speak to a running daemon: look, pause, resume, stop, change targets. All is journalled with your name.",
)


@Parameter(name="*")
@dataclass(frozen=True)
class Link:
    """How to reach the daemon.

    Parameters
    ----------
    endpoint
        `endpoints.control` of the daemon.
    key
        Your secret key file, where the daemon asks for one.
    json
        Print the daemon's answer as JSON.
    """

    endpoint: str = "tcp://127.0.0.1:5871"
    key: Path | None = None
    json: Annotated[bool, Parameter(negative="")] = False


LOCAL = Link()


def ask(link: Link, verb: say.AnyVerb) -> say.Reply:
    """Send one request; print its answer; exit status 1 where it could not be done."""
    from agent.control import ControlClient

    with ControlClient(link.endpoint, key=link.key) as client:
        reply = client.ask(verb)
    if link.json:
        print(msgspec.json.encode(reply).decode())
    elif not reply.ok:
        print(f"cryonaut: {reply.text}", file=sys.stderr)
    if not reply.ok:
        sys.exit(1)
    return reply


def tell(link: Link, verb: say.AnyVerb) -> None:
    """Send one request and print what was done."""
    reply = ask(link, verb)
    if not link.json:
        print(reply.text)


@app.command
def status(*, link: Link = LOCAL) -> None:
    """Show where the session stands."""
    reply = ask(link, say.GetStatus())
    if link.json or reply.status is None:
        return
    from rich.console import Console
    from rich.table import Table

    s = reply.status
    table = Table(show_header=False, box=None, padding=(0, 1))
    rows = [
        ("phase", f"[bold]{s.phase}[/] — {s.why}"),
        *((f"held by {cause}", f"[yellow]{detail}[/]") for cause, detail in s.suspensions.items()),
        ("working on", s.working_on or "nothing"),
        ("mode", f"{s.mode}, {s.autonomy}"),
        ("driver", f"{s.driver or 'none'} ({'well' if s.driver_well else 'not connected'})"),
        ("grid", s.grid_id or "none yet"),
        ("counts", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in s.counts.items())),
        ("thresholds", ", ".join(f"{name} {value:g}" for name, value in s.thresholds.items())),
        ("spent", f"{s.spent['hours']:.2f} h, {s.spent['dose_e_per_a2']:.0f} e/Å² in all"),
        *([("degraded", f"[yellow]{s.degraded}[/]")] if s.degraded else []),
        ("session", f"{s.folder} (epoch {s.epoch}, event {s.last_seq})"),
    ]
    for name, value in rows:
        table.add_row(f"[dim]{name}[/]", value)
    Console().print(table)


def line(event: Event) -> str:
    """One event as one line of text."""
    clock = datetime.fromtimestamp(event.utc, UTC).strftime("%H:%M:%S")
    by = f" [{event.by}]" if event.by != "agent" else ""
    return f"{event.seq:6d} {clock} {event.text}{by}"


@app.command
def events(*, follow: bool = False, most: int = 20, link: Link = LOCAL) -> None:
    """Show the last events of the journal.

    Parameters
    ----------
    follow
        Go on showing new ones until Ctrl-C.
    most
        How many at the start.
    """
    from agent.control import ControlClient

    after = -1
    with ControlClient(link.endpoint, key=link.key) as client:
        while True:
            reply = client.ask(say.GetEvents(after=after, most=most))
            for event in reply.events:
                print(msgspec.json.encode(event).decode() if link.json else line(event), flush=True)
                after = event.seq
            if not follow:
                return
            most = 1000
            if not reply.events:
                after = max(after, 0)
                time.sleep(0.5)


@app.command
def areas(square: str = "", *, link: Link = LOCAL) -> None:
    """List the squares of the grid, or the holes of one SQUARE."""
    reply = ask(link, say.GetAreas(square_id=square))
    if link.json:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("area", "x µm", "y µm", "score", "label", "state", "by", "why")
    for a in sorted(reply.areas, key=lambda item: -item.score):
        table.add_row(
            a.area_id, f"{a.x_um:.1f}", f"{a.y_um:.1f}", f"{a.score:.2f}", a.label, a.state, a.by, a.why, style=None
        )
    Console().print(table)


@app.command
def pause(*, now: bool = False, link: Link = LOCAL) -> None:
    """Send nothing more: after the item under way, or at once with --now."""
    tell(link, say.Pause(now=now))


@app.command
def resume(*, link: Link = LOCAL) -> None:
    """Go on after a pause or an error that held the session."""
    tell(link, say.Resume())


@app.command
def stop(*, after: Literal["item", "square"] = "item", link: Link = LOCAL) -> None:
    """Finish the item (or square) under way, park the microscope, end the session."""
    tell(link, say.Stop(after=after))


@app.command
def abort(*, link: Link = LOCAL) -> None:
    """Cancel what is under way, park the microscope, end the session."""
    tell(link, say.Abort())


@app.command
def emergency_stop(why: str = "", *, link: Link = LOCAL) -> None:
    """Safe state now; only `clear` leads on."""
    tell(link, say.EmergencyStop(why=why))


@app.command
def clear(*, link: Link = LOCAL) -> None:
    """After a fault or an emergency stop: I have looked, it may go on (paused)."""
    tell(link, say.Clear())


@app.command
def skip(area: str = "", *, link: Link = LOCAL) -> None:
    """Leave a square, a hole or a whole grid out; without AREA what is under way."""
    tell(link, say.Skip(area_id=area))


@app.command
def accept(*area: str, link: Link = LOCAL) -> None:
    """Visit these areas whatever a model thinks; brings back what was rejected or skipped."""
    tell(link, say.Accept(area_ids=area))


@app.command
def reject(*area: str, link: Link = LOCAL) -> None:
    """Do not visit these areas whatever a model thinks."""
    tell(link, say.Reject(area_ids=area))


@app.command
def add(x_um: float, y_um: float, *, square: str = "", link: Link = LOCAL) -> None:
    """Add a square, or a hole of --square, at a stage position in micrometres."""
    tell(link, say.AddTarget(x_um=x_um, y_um=y_um, square_id=square))


@app.command
def move(area: str, x_um: float, y_um: float, *, link: Link = LOCAL) -> None:
    """Move a target that was not visited yet to a stage position in micrometres."""
    tell(link, say.MoveTarget(area_id=area, x_um=x_um, y_um=y_um))


@app.command
def rerank(area: str, priority: int, *, link: Link = LOCAL) -> None:
    """Visit an area earlier (positive) or later (negative); 0 gives it back to the policy."""
    tell(link, say.Rerank(area_id=area, priority=priority))


@app.command
def pin(*area: str, link: Link = LOCAL) -> None:
    """Visit these areas, or this grid, next, the first one first: `cryonaut control pin G1-S004-H012`."""
    tell(link, say.Pin(area_ids=area))


@app.command
def ban(*area: str, link: Link = LOCAL) -> None:
    """Never visit these areas, a square with all its holes: `cryonaut control ban G1-S007`."""
    tell(link, say.Ban(area_ids=area))


@app.command
def budget(square: str, exposures: int | None = None, *, link: Link = LOCAL) -> None:
    """Allow so many exposures in one square; without a number as everywhere: `cryonaut control budget G1-S004 12`."""
    tell(link, say.SetBudget(area_id=square, exposures=exposures))


@app.command
def like(area: str, *, less: bool = False, forget: bool = False, link: Link = LOCAL) -> None:
    """More places like this square or hole, with --less fewer: `cryonaut control like G1-S004-H012`.

    Parameters
    ----------
    area
        Square or hole.
    less
        Fewer places like it.
    forget
        Take the wish back.
    """
    tell(link, say.Like(area_id=area, more=not less, forget=forget))


@app.command
def threshold(
    name: Literal["square_score", "hole_score", "squares_per_grid", "exposures_per_square"],
    value: float,
    *,
    link: Link = LOCAL,
) -> None:
    """Change a threshold from now on."""
    tell(link, say.SetThreshold(name=name, value=value))


@app.command
def autonomy(level: say.Autonomy, *, link: Link = LOCAL) -> None:
    """Set how much the agent may do by itself: suggest, approve (squares that you accept) or unattended."""
    tell(link, say.SetAutonomy(level=level))


@app.command
def mode(mode: say.Mode, *, link: Link = LOCAL) -> None:
    """Set who leads: the microscope software (advisor) or the agent (pilot)."""
    tell(link, say.SetMode(mode=mode))


@app.command
def goto(area: str = "", *, x_um: float | None = None, y_um: float | None = None, link: Link = LOCAL) -> None:
    """Go to an area or stage position without exposing it (while paused)."""
    tell(link, say.GoTo(area_id=area, x_um=x_um, y_um=y_um))


@app.command
def undo(*, link: Link = LOCAL) -> None:
    """Take the last accept, reject, skip, move or re-rank back."""
    tell(link, say.Undo())
