"""``cryonaut replay``: recorded sessions through the real sockets to a real daemon."""

import itertools
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from agent.errors import ConfigError


def replay(
    *sessions: Path,
    exact: Annotated[bool, Parameter(negative="")] = False,
    fast: Annotated[bool, Parameter(negative="")] = False,
    burst: Annotated[bool, Parameter(negative="")] = False,
    speed: float = 1.0,
    config: Annotated[Path | None, Parameter(alias="-c")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    weights: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    from_: Annotated[str, Parameter(name="--from")] = "",
    attach: str = "before",
    fault: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    out: Path | None = None,
) -> None:
    """Play recorded sessions to a daemon again: the same decisions, or a report of what is different and why.

    Frames, results and operators' words come in their recorded order. With the settings and models of then every
    decision must be the same, byte for byte; with others the session goes its own way as far as the recording can
    answer. Exit status 1 when decisions differ although settings and models are the same and no harm was asked for.
    Several sessions are replayed at once, each to a daemon of its own. Such as:

    - `cryonaut replay sessions/tonight`
    - `cryonaut replay sessions/tonight --weights holes=holes-net --set holes.min_score=0.5`
    - `cryonaut replay sessions/tonight --from 412 --config config/screening.yaml`
    - `cryonaut replay sessions/tonight --fault dark:medium:2 --fault killed_daemon:5`
    - `cryonaut replay sessions/a sessions/b --exact --speed 50 --attach middle`

    Parameters
    ----------
    sessions
        Session folders.
    exact
        Everything at its original time.
    fast
        Everything as soon as what came before is answered (the default).
    burst
        Frames without waiting for any answer; the order of answers is then open.
    speed
        With --exact: so many times as fast.
    config
        Settings in the place of the recorded ones (YAML file or preset); the session itself stays the recorded one.
    set_
        Change one setting: `section.key=value`; may be given again.
    weights
        Another model: `squares=NAME`, `holes=NAME` or `quality=NAME`; or other weights of a model, by their manifest:
        `holes-net=mine/holes-net.yaml`; may be given again.
    from_
        Take the session over as it was up to this event (number, or `middle`), and replay from there.
    attach
        When the daemon joins: `before`, `middle`, `after` the acquisition, or an event number. What came before that is
        given to it as fast as it takes it, whatever the timing.
    fault
        `kind[:level][:number]`: lost, late, doubled, truncated, dark, wrong_magnification, killed_daemon or
        dropped_driver, at the n-th frame of that level (or of any); may be given again.
    out
        Folder for the new sessions and reports; one folder per session, which must not exist yet. By default `replays`,
        or `replays-2` and so on where one of the sessions was replayed before.
    """
    import asyncio
    import sys

    from agent import logs, recording
    from agent.errors import CryonautError
    from agent.memory import keep_frame_memory, spare_what_is_old

    if not sessions:
        raise ConfigError("replay: give at least one session folder")
    if exact + fast + burst > 1:
        raise ConfigError("replay: --exact, --fast and --burst exclude each other")
    if not speed > 0:
        raise ConfigError(f"--speed {speed:g}: must be above 0")
    timing: Literal["exact", "fast", "burst"] = "exact" if exact else "burst" if burst else "fast"
    changes, base = _changes(config, set_, weights)
    logs.configure(level="error")
    keep_frame_memory()  # the daemon of the replay lives in this process
    records = [recording.read(session) for session in sessions]
    names = [record.folder.resolve().name for record in records]
    if len(set(names)) != len(names):
        raise CryonautError(f"{', '.join(names)}: the names of the sessions must differ, each has a folder of its own")
    out = out or free_folder(names)
    spare_what_is_old()
    plain = not (changes or base or fault)
    made = asyncio.run(
        _replay_all(records, out, timing=timing, speed=speed, base=base, changes=changes, start=from_, attach=attach,
                    faults=fault)
    )  # fmt: skip
    good = True
    for record, outcome in zip(records, made, strict=True):
        good &= _tell(record, outcome, out / record.folder.resolve().name)
    if plain and timing != "burst" and not good:
        sys.exit(1)


def free_folder(names: list[str]) -> Path:
    """The first of ``replays``, ``replays-2`` … that holds no replay of these sessions."""
    numbered = (Path(f"replays-{number}" if number > 1 else "replays") for number in itertools.count(1))
    return next(folder for folder in numbered if not any((folder / name).exists() for name in names))


def _changes(
    config: Path | None, set_: tuple[str, ...], weights: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    from agent.cli.settings import load_settings
    from agent.cli.settings import parse as parse_changes
    from agent.inference import REGISTRY

    changes = parse_changes(set_)
    for text in weights:
        what, equals, name = text.partition("=")
        if equals and what in ("squares", "holes", "quality"):
            changes[f"inference.{what}"] = name
        elif equals and what in REGISTRY:
            changes["inference.weights"] = {**changes.get("inference.weights", {}), what: str(Path(name).resolve())}
        else:
            raise ConfigError(f"--weights {text!r}: write squares=, holes= or quality=NAME, or MODEL=MANIFEST.yaml")
    base = load_settings(config, ()).deciding() if config is not None else None
    return changes, base


async def _replay_all(
    records: "list[Any]", out: Path, *, start: str, attach: str, faults: tuple[str, ...], **options: Any
) -> "list[Any]":
    import asyncio
    from functools import partial

    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from simulators.replay.faults import parse
    from simulators.replay.run import Options
    from simulators.replay.run import replay as play

    try:
        parsed = tuple(parse(text) for text in faults)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True)
    jobs = []
    for record in records:
        task = bar.add_task(record.folder.resolve().name, total=None)
        at: dict[str, Any] = {"start": _event(start, record, "--from"), "attach": _event(attach, record, "--attach")}
        made = Options(faults=parsed, **at, **options)
        told = partial(_told, bar, task)
        jobs.append(play(record, out / record.folder.resolve().name, made, progress=told))
    with bar:
        return list(await asyncio.gather(*jobs))


def _told(bar: Any, task: Any, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _event(text: str, record: Any, option: str) -> int:
    words = {"": 0, "before": 0, "middle": record.rows // 2, "after": record.rows}
    if text in words:
        return int(words[text])
    if not text.isdecimal() or not 0 <= int(text) <= record.rows:
        raise ConfigError(f"{option} {text!r}: an event number from 0 to {record.rows}, or before, middle, after")
    return int(text)


def _tell(record: Any, outcome: Any, out: Path) -> bool:
    """Print what came of one replay and write its report; True when the decisions are the same."""
    from agent.recording.difference import compare
    from agent.report.difference import render

    played = outcome.played
    difference = compare(outcome.then, outcome.now)
    notes = [*played.notes]
    if played.diverged:
        notes.insert(0, f"It left the recording at {played.diverged}.")
    if played.resumed:
        notes.append(f"Held by errors {played.resumed} times; the replay resumed it, as nobody was there.")
    if played.missing:
        notes.append(f"{len(played.missing)} things it asked for were never recorded, the first: {played.missing[0]}")
    if played.beyond:
        notes.append(f"The recording ends here; next it would {played.beyond}.")
    page, _ = render(outcome.then, outcome.now, difference, out, notes)
    same = bool(outcome.same)
    then, now = difference.decisions
    verdict = f"the same {then} decisions, byte for byte ({outcome.fingerprints[0]})" if same else (
        f"different: {then} decisions then, {now} now, {len(difference.changes)} targets changed"
    )  # fmt: skip
    print(f"{record.folder}: {verdict}; {played.frames} frames in {played.seconds:.1f} s")
    for note in notes[:8]:
        print(f"  {note[:300]}")
    print(f"  report: {page}")
    return same
