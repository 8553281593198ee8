"""``cryonaut session``: recorded sessions as files."""

from pathlib import Path
from typing import Annotated, Any, Literal

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


@app.command
def export(
    session: Path,
    out: Path,
    /,
    *,
    form: Annotated[Literal["csv", "star", "nav", "zarr", "pacetomo", ""], Parameter(name="--as")] = "",
    grid: str = "",
    rich: str = "vesicles under 65 nm",
    at_least: int = 20,
    reach: float = 12.0,
) -> None:
    """Write a recording for other programs; the form follows from the name of OUT.

    - `cryonaut session export sessions/tonight targets.csv` – every square and hole
    - `cryonaut session export sessions/tonight targets.nav` – polygons and points for SerialEM's Navigator (merge it)
    - `cryonaut session export sessions/tonight micrographs.star` – micrographs with one optics group per image shift,
      and the holes of each square as coordinates, for RELION
    - `cryonaut session export sessions/tonight atlas.zarr` – the atlas as OME-Zarr (extra `zarr`)
    - `cryonaut session export sessions/tonight tilt --as pacetomo --at-least 30` – tilt series at holes with so many
      vesicles, for PACEtomo: target files and Navigator points; again while the session runs, only what is new is added

    Parameters
    ----------
    session
        Session folder.
    out
        File or, for zarr, folder to write.
    form
        Form, where the name does not say it.
    grid
        Which grid's atlas; the first by default.
    rich
        For pacetomo: what a hole has to be rich in, detector and group.
    at_least
        For pacetomo: fewest of them on the micrograph of a hole.
    reach
        For pacetomo: largest image shift between the targets of one batch, in µm.
    """
    from agent import recording
    from agent.errors import ConfigError
    from drivers.exchange import export as to

    wanted = form or out.suffix.removeprefix(".").lower()
    record = recording.read(session)
    match wanted:
        case "csv":
            made = to.to_csv(record, out)
        case "nav":
            made = to.to_nav(record, out)
        case "star":
            made = to.to_star(record, out)
        case "zarr":
            made = to.to_zarr(record, out, grid)
        case "pacetomo":
            _to_pacetomo(record, out, rich, at_least, reach)
            return
        case _:
            raise ConfigError(f"{out}: name it .csv, .star, .nav or .zarr, or give --as")
    found = list(to.areas(record))
    print(f"{made}: {len(found)} squares and holes, {len(record.shots)} frames in the recording")


def _to_pacetomo(record: Any, folder: Path, what: str, at_least: int, reach_um: float) -> None:
    from agent.errors import ConfigError
    from drivers.exchange.pacetomo import export as to_pacetomo

    if at_least < 1 or not 0 < reach_um <= 30:
        raise ConfigError(f"--at-least {at_least} --reach {reach_um:g}: at least 1, and a reach above 0 up to 30 µm")
    made = to_pacetomo(record, folder, what, at_least, reach_um)
    if not made:
        print(f"{folder}: no new hole with at least {at_least} {what}")
        return
    for batch in made:
        print(f"{folder / batch.file}: {len(batch.series)} tilt series, {sum(s.count for s in batch.series)} {what}")
    print("Merge the newest pacetomo-NN.nav into the Navigator; its items with Acquire start the batches.")


@app.command(name="import")
def import_(program: Literal["epu", "serialem", "leginon"], source: Path, out: Path, /) -> None:
    """Make a recording of a session of another program; what is missing or odd is listed, not guessed.

    - `cryonaut session import epu /data/Supervisor_20250108 sessions/krios`
    - `cryonaut session import serialem /data/SEM-night sessions/night` – .nav, .mdoc, MRC, TIFF, EER
    - `cryonaut session import leginon /data/export sessions/leginon` – MRC images and a CSV of targets

    Parameters
    ----------
    program
        Which program it comes from.
    source
        Its folder (for serialem also a single .nav or .mdoc, for leginon a single .csv).
    out
        New session folder.
    """
    from rich.console import Console
    from rich.progress import Progress

    from agent import recording
    from drivers.exchange.epu import read_epu
    from drivers.exchange.found import write
    from drivers.exchange.leginon import read_leginon
    from drivers.exchange.serialem import read_serialem

    read = {"epu": read_epu, "serialem": read_serialem, "leginon": read_leginon}[program]
    found = read(source)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("images", total=len(found.frames))
        write(found, out, lambda done, _: bar.update(task, completed=done))
    record = recording.read(out)
    holes = sum(len(square.holes) for square in found.squares.values())
    print(f"{out}: {len(found.squares)} squares, {holes} holes, {len(record.shots)} images from {found.software}")
    for text in found.odd[:20]:
        print(f"  odd: {text}")
    if len(found.odd) > 20:
        print(f"  and {len(found.odd) - 20} more: `cryonaut session verify {out}` lists them all")


@app.command
def learned(session: Path, /, *, out: Path, good_ctf_angstrom: float = 6.0) -> None:
    """Write what a session taught, so that the next one of the project begins with it (`policy.prior_file`).

    Such as: `cryonaut session learned sessions/tonight --out project.json`

    Parameters
    ----------
    session
        Session folder, also of a session that runs.
    out
        File to write; sessions that began with such a file hand its lessons on with their own.
    good_ctf_angstrom
        `policy.good_ctf_angstrom` of the session.
    """
    from agent import recording
    from agent.policy import lessons

    state = recording.read(session).state
    prior = lessons.lessons(state, good_ctf_angstrom, str(session))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(lessons.encode(prior))
    print(f"{out}: {prior.exposures} exposures of {prior.sessions} sessions")
