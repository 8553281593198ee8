"""``cryonaut session``: recorded sessions as files."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

app = App(name="session", help="Recorded sessions: a session folder is a recording (docs/recordings.md).")


@app.command
def verify(session: Path, /) -> None:
    """Check every row, every hash and every frame of a session folder; exit status 1 when something is damaged.

    Such as: `cryonaut session verify sessions/tonight`

    Parameters
    ----------
    session
        Session folder.
    """
    import sys

    from rich.console import Console
    from rich.progress import Progress

    from agent import recording

    record = recording.read(session)
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("frames", total=len(record.shots))
        verdict = recording.verify(record, lambda done, _: bar.update(task, completed=done))
    for trouble in verdict.troubles:
        print(f"{trouble.severity}: {trouble.where}: {trouble.what}")
    usable = f"{verdict.events} events and {verdict.frames} of {verdict.all_frames} frames"
    print(f"{session}: whole: {usable}" if verdict.whole else f"{session}: damaged; usable are {usable}")
    if not verdict.whole:
        sys.exit(1)


@app.command
def show(session: Path, /, *, events: bool = False) -> None:
    """Say what a recording holds: who made it, what was found, exposed and judged.

    Such as: `cryonaut session show sessions/tonight --events`

    Parameters
    ----------
    session
        Session folder.
    events
        List every event, too.
    """
    from rich.console import Console
    from rich.table import Table

    from agent import recording
    from agent.report import collect
    from agent.words import text_of

    record = recording.read(session)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in collect.facts(record):
        table.add_row(name, value)
    if record.manifest is not None:
        table.add_row("made by", record.manifest.software)
        table.add_row("with", ", ".join(f"{k} {v}" for k, v in record.manifest.versions.items()))
        if record.manifest.source:
            table.add_row("source", record.manifest.source)
    figures = collect.counts(record)
    table.add_row("squares", f"{figures.squares_found} found, {figures.squares_mapped} mapped")
    table.add_row("holes", f"{figures.holes_found} found, {figures.holes_exposed} exposed")
    table.add_row("micrographs", f"{figures.micrographs}, {figures.judged} judged, {figures.good} good")
    table.add_row("phase", f"{record.state.phase}: {record.state.why}")
    console = Console()
    console.print(table, highlight=False)
    if events:
        for item in record.happened:
            print(f"{item.seq:7d}  {collect.when(item.utc)}  {text_of(item.event)}")


@app.command
def trim(
    session: Path,
    out: Path,
    /,
    *,
    until: int | None = None,
    without: Annotated[tuple[Literal["low", "medium", "high"], ...], Parameter(negative="")] = (),
    pack: bool = False,
) -> None:
    """Write a smaller copy of a recording: its beginning, without some pixels, or with packed ones.

    Such as:

    - `cryonaut session trim sessions/tonight small --until 400 --pack`
    - `cryonaut session trim sessions/tonight small --without high`

    Parameters
    ----------
    session
        Session folder.
    out
        New folder.
    until
        Number of the last event to keep (`cryonaut session show --events`).
    without
        Leave the pixels of this level out; may be given again.
    pack
        Compress pixels without loss.
    """
    from agent import recording
    from agent.recording.trim import trim as copy

    record = recording.read(session)
    copy(record, out, until=until, without=without, pack=pack)
    made = recording.read(out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"{out}: {made.rows} of {record.rows} events, {len(made.shots)} frames, {size:.1f} MB")


@app.command
def prune(
    folder: Path = Path("sessions"), /, *, older_than_days: float, keep_record: bool = False, yes: bool = False
) -> None:
    """List sessions whose last event is long ago; with --yes delete them, or with --keep-record their pixels only.

    Sessions that a daemon has open, folders without a journal and links are never touched.

    Such as:

    - `cryonaut session prune /var/lib/cryonaut/sessions --older-than-days 90`
    - `cryonaut session prune --older-than-days 30 --keep-record --yes`

    Parameters
    ----------
    folder
        Where session folders are (`session.folder` in the config).
    older_than_days
        Age of the last event.
    keep_record
        Keep journal, report and everything but the pixels.
    yes
        Do it; without, it is only said what would be done.
    """
    import time
    from datetime import UTC, datetime

    from agent.retention import old_sessions
    from agent.retention import prune as delete

    total = 0
    found = old_sessions(folder, days=older_than_days, now_utc=time.time())
    for session in found:
        freed = delete(session, keep_record=keep_record) if yes else session.size_bytes
        total += freed
        last = datetime.fromtimestamp(session.last_utc, UTC)
        print(f"{'deleted' if yes else 'would go'}: {session.folder}, last event {last:%Y-%m-%d}, {freed / 1e9:.2f} GB")
    what = "freed" if yes else "would be freed; --yes does it"
    print(f"{len(found)} sessions, {total / 1e9:.2f} GB {what}")
