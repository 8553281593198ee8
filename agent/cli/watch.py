"""``cryonaut watch``: the session live in a terminal, over the control socket."""

import contextlib
import sys
import time
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agent.control_messages import Status
from agent.messages import Event

if TYPE_CHECKING:
    from rich.panel import Panel
    from rich.text import Text

MARK = {True: "[green]●[/]", False: "[red]■[/]"}
LOUD = ("suspended", "error_counted", "frame_set_aside", "safe_ordered", "driver_left", "degraded_changed", "idle_told")


def watch(
    *,
    endpoint: str = "tcp://127.0.0.1:5871",
    key: Path | None = None,
    lines: int = 12,
    every_s: float = 0.5,
) -> None:
    """Show a running session live: lamps, phase, counts, the square under way, events; Ctrl-C ends it.

    Such as:

    - `cryonaut watch`
    - `cryonaut watch --endpoint tcp://krios-pc:5871 --key anna.key_secret`

    Parameters
    ----------
    endpoint
        `endpoints.control` of the daemon.
    key
        Your secret key file, where the daemon asks for one; an observer's is enough.
    lines
        Events to show.
    every_s
        How often to ask.
    """
    from rich.console import Console
    from rich.live import Live

    from agent import control_messages as say
    from agent.control import ControlClient
    from agent.errors import LinkError

    console = Console()
    shown: deque[Event] = deque(maxlen=max(1, lines))
    after, heard = -1, time.monotonic()
    with ControlClient(endpoint, key=key, timeout_s=2.0) as client:
        status = _first(client.ask(say.GetStatus()))
        screen = Live(console=console, auto_refresh=False, screen=False) if console.is_terminal else None
        with screen or contextlib.nullcontext():
            while True:
                try:
                    reply = client.ask(say.GetStatus())
                    status = reply.status or status
                    for event in client.ask(
                        say.GetEvents(after=after, most=max(1, lines) if after < 0 else 1000)
                    ).events:
                        after = event.seq
                        shown.append(event)
                        if screen is None:
                            console.print(_line(event), highlight=False, soft_wrap=True)
                    heard = time.monotonic()
                except LinkError:
                    pass  # shown as stale below; the daemon may be started again at any moment
                if screen is not None and status is not None:
                    screen.update(picture(status, list(shown), time.monotonic() - heard), refresh=True)
                time.sleep(every_s)


def _first(reply: object) -> Status | None:
    status: Status | None = getattr(reply, "status", None)
    if not getattr(reply, "ok", False):
        print(f"cryonaut: {getattr(reply, 'text', 'refused')}", file=sys.stderr)
        sys.exit(1)
    return status


def picture(status: Status, events: list[Event], silent_s: float) -> "Panel":
    """The screen: what a person needs at one look."""
    from rich.console import Group
    from rich.markup import escape
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    counts = status.counts
    stale = f"  [white on red] no answer for {silent_s:.0f} s [/]" if silent_s > 3 else ""
    lamps = f"{MARK[status.agent_well]} agent   {MARK[status.driver_well]} microscope {escape(status.driver)}{stale}"
    colour = "red" if status.phase in ("fault", "suspended") or status.suspensions else "bold"
    phase = f"[{colour}]{status.phase}[/]  {escape(status.working_on or status.why)}"
    held = [f"[red]held by {escape(cause)}: {escape(why)}[/]" for cause, why in status.suspensions.items()]
    if status.degraded:
        held.append(f"[yellow]degraded: {escape(status.degraded)}[/]")
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    judged = counts.get("judged", 0)
    good = f"{counts['good']} of {judged}" + (f" ({100 * counts['good'] / judged:.0f} %)" if judged else "")
    cells = {
        "grid": status.grid_id or "–",
        "squares": f"{counts['squares_mapped']} of {counts['squares']}",
        "holes": str(counts["holes"]),
        "exposures": str(counts["exposures"]),
        "good": good,
        "hours": f"{status.spent['hours']:.2f}",
        "mode": f"{status.mode}, {status.autonomy}",
    }
    for name in cells:
        table.add_column(name)
    table.add_row(*map(escape, cells.values()))
    log = Text("\n").join(_line(event) for event in reversed(events))
    log.no_wrap, log.overflow = True, "ellipsis"
    parts = [Text.from_markup(line) for line in (lamps, phase, *held)]
    return Panel(Group(*parts, Text(), table, Text(), log), title=escape(Path(status.folder).name), title_align="left")


def _line(event: Event) -> "Text":
    from rich.text import Text

    clock = datetime.fromtimestamp(event.utc).strftime("%H:%M:%S")
    by = f" [{event.by}]" if event.by not in ("agent", "") else ""
    style = "yellow" if event.name in LOUD else "cyan" if by else ""
    return Text.assemble((clock, "dim"), " ", (event.text + by, style))
