"""Recorded sessions at speed: ``python -m benchmarks.replay [replay] [fold] [evaluate]`` prints a table of each.

- replay: ``--fast`` against the bare models on the same frames, in the same process and run (goal: ratio >= 0.9).
- fold: a journal of 100,000 events is read, decoded and folded (goal: < 2 s).
- evaluate: 200 small sessions (``--sessions``) judged here and on 1 and 2 local Dask workers; what grows with their
  number: memory of this process and the largest of a worker, after half of the sessions and at the end.

CPU seconds stand beside wall seconds: on a shared machine only they can be compared.
"""

import argparse
import asyncio
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agent import inference, logs, recording
from agent.cluster import Cluster
from agent.evaluation.many import run
from agent.evaluation.sessions import Variant, judge
from agent.journal import Draft, Journal
from agent.memory import keep_frame_memory, spare_what_is_old
from agent.messages import Frame, Stage
from agent.recording.record import Record
from agent.session import EMPTY, advance
from agent.session import events as ev
from agent.session.state import Decision, Hole, Square, hole_id, square_id
from benchmarks.small_sessions import write_session
from drivers.exchange.found import Found, FoundFrame, write
from simulators.replay.run import MODEL_OF, Options, recorded_settings, replay

EVENTS = 100_000
SESSIONS = 200
LARGE_FRAMES = 20
GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"


def _table(title: str, rows: Iterable[tuple[str, ...]]) -> None:
    print(f"\n{title}")
    rows = list(rows)
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cpu() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _timed(what: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), _cpu()
    result = what()
    return time.perf_counter() - wall, _cpu() - cpu, result


# ---------------------------------------------------------------------------------------------- replay


def _large(folder: Path) -> Path:
    """An advisor's session of 20 medium-mag frames of 2048 x 2048 pixels, as a camera gives them."""
    rows, columns = np.indices((2048, 2048), dtype=np.float32)
    foil = 100.0 + 60.0 * (np.hypot((columns + 30) % 110 - 55, (rows + 30) % 110 - 55) < 30)
    frames = []
    for number in range(LARGE_FRAMES):
        rng = np.random.default_rng(number)
        image = np.clip(rng.normal(foil, 12.0), 0, 65535).astype("<u2")
        stage = Stage(x_um=110.0 * number, y_um=0.0)
        frames.append(FoundFrame(f"map-{number}", "medium", _Pixels(image), 400.0, stage, taken_utc=1.0 + number))
    return write(Found("large", "benchmark", "drawn", frames=frames), folder)


class _Pixels:
    def __init__(self, image: Any) -> None:
        self.image = image

    def __call__(self) -> Any:
        return self.image


def _bare(record: Record, pixels: dict[str, Any], built: dict[str, Any]) -> None:
    """The models of the session on its frames, and nothing else; pixels were read before the clock starts."""
    for shot in record.shots:
        frame = shot.frame
        inference.ask(built[frame.level], frame.level, pixels[frame.frame_id], frame.pixel_size_angstrom)


def measure_replay() -> None:
    """``--fast`` against bare models."""
    keep_frame_memory()  # as `cryonaut replay` does
    rows = [("session", "frames", "bare wall", "replay wall", "ratio", "bare CPU", "replay CPU", "CPU ratio")]
    with tempfile.TemporaryDirectory() as folder:
        for path in (_large(Path(folder) / "large"), GOLDEN / "advisor", GOLDEN / "pilot"):
            record = recording.read(path)
            names = recorded_settings(record)["inference"]
            built: dict[str, Any] = {level: inference.build(names[family]) for level, family in MODEL_OF.items()}
            pixels = {shot.frame.frame_id: record.pixels(shot.frame.frame_id) for shot in record.shots}
            _bare(record, pixels, built)  # warm
            spare_what_is_old()  # as `cryonaut replay` does, too
            times = [_pair(record, pixels, built, Path(folder) / f"{path.name}-{turn}") for turn in range(3)]
            bare, replayed, bare_cpu, replay_cpu = (min(column) for column in zip(*times, strict=True))
            rows.append(
                (path.name, str(len(record.shots)), f"{bare:.2f} s", f"{replayed:.2f} s", f"{bare / replayed:.2f}",
                 f"{bare_cpu:.2f} s", f"{replay_cpu:.2f} s", f"{bare_cpu / replay_cpu:.2f}")
            )  # fmt: skip
    _table("Replay --fast against the bare models (goal: ratio >= 0.9 on camera-sized frames; best of 3)", rows)


def _pair(
    record: Record, pixels: dict[str, Any], built: dict[str, Any], out: Path
) -> tuple[float, float, float, float]:
    bare_wall, bare_cpu, _ = _timed(lambda: _bare(record, pixels, built))
    played = asyncio.run(replay(record, out, Options())).played
    return bare_wall, played.seconds, bare_cpu, played.cpu_seconds


# ---------------------------------------------------------------------------------------------- fold


def _events(count: int) -> Iterable[ev.AnyEvent]:
    """A long night: 40 squares of 200 holes, and frames, states and micrographs of them in turn."""
    yield ev.SessionOpened(session_id="s", name="long", config="c", version="0", mode="pilot", autonomy="unattended",
                           thresholds={}, grids=(("G1", None),))  # fmt: skip
    squares = [
        Square(area_id=square_id("G1", n), x_um=100.0 * n, y_um=0.0, size_um=90.0, score=0.5) for n in range(1, 41)
    ]
    yield ev.SquaresFound(grid_id="G1", frame_id="", model="m", fingerprint="", squares=tuple(squares))
    names = []
    for square in squares:
        holes = [
            Hole(area_id=hole_id(square.area_id, n), x_um=square.x_um + 0.2 * n, y_um=0.0, radius_um=0.6, score=0.5)
            for n in range(1, 201)
        ]
        names += [hole.area_id for hole in holes]
        yield ev.HolesFound(square_id=square.area_id, frame_id="", model="m", fingerprint="", holes=tuple(holes))
    made = 2 + len(squares)
    number = 0
    while made < count:
        name, frame_id = names[number % len(names)], f"F{number:06d}"
        frame = Frame(
            frame_id=frame_id,
            session_id="s",
            level="high",
            pixel_size_angstrom=1.0,
            shape=(8, 8),
            dtype="|u1",
            digest="0" * 32,
            stage=Stage(),
        )
        why = Decision(why="group 1: score 0.50", config="c", score=0.5)
        yield ev.AreaChanged(area_id=name, state="busy", decision=why)
        yield ev.FrameReceived(frame=frame, file=f"frames/high/{frame_id}.tif", grid_id="G1", area_id=name)
        yield ev.MicrographJudged(area_id=name, frame_id=frame_id, model="m", fingerprint="", score=0.7, label="good",
                                  features={"mean": 1.0})  # fmt: skip
        yield ev.AreaChanged(area_id=name, state="done", decision=Decision(why="micrograph is good", score=0.7))
        made += 4
        number += 1


def measure_fold() -> None:
    """100,000 events from disk to a state."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        drafts = [Draft(ev.kind_of(e), ev.encode_event(e)) for e in _events(EVENTS)][:EVENTS]
        for start in range(0, len(drafts), 1000):
            journal.append(drafts[start : start + 1000], utc=1.0 + start, epoch=1)
        journal.close()

        def decode() -> list[Any]:
            reader = Journal(Path(folder), write=False)
            found = [(row.seq, row.utc, ev.decode_event(row.body)) for row in reader.replay()]
            reader.close()
            return found

        def fold(entries: list[Any]) -> Any:
            state = EMPTY
            for seq, utc, event in entries:
                state = advance(state, event, seq=seq, utc=utc)
            return state

        read = _timed(decode)
        folded = _timed(lambda: fold(read[2]))
        whole = _timed(lambda: recording.read(Path(folder)))
        assert whole[2].whole
        assert whole[2].state == folded[2]
        rows = [("step", "wall", "CPU")]
        for name, (wall, cpu, _) in (
            ("read and decode", read), ("fold (goal: < 2 s)", folded),
            ("recording.read: both, every hash checked", whole),
        ):  # fmt: skip
            rows.append((name, f"{wall:.2f} s", f"{cpu:.2f} s"))
        _table(f"A journal of {EVENTS:,} events", rows)


# ---------------------------------------------------------------------------------------------- evaluate


def measure_evaluate(sessions: int = SESSIONS) -> None:
    """Many small sessions, here and on workers."""
    rows = [("workers", "sessions", "wall", "sessions per s", "CPU", "this process, half and end", "largest worker")]
    with tempfile.TemporaryDirectory() as folder:
        folders = [write_session(Path(folder) / f"small-{n}", n) for n in range(sessions)]
        tasks = [(judge, (path, Variant.of("holes=holes-template"))) for path in folders]
        for workers in (0, 1, 2):
            memory: list[tuple[float, float]] = []

            def told(done: int, total: int, memory: list[tuple[float, float]] = memory) -> None:
                if done in (total // 2, total):
                    memory.append((_resident_mb(), max(map(_resident_mb, _children()), default=0.0)))

            out = Path(folder) / f"rows-{workers}.parquet"
            wall, cpu, found = _timed(lambda: run(tasks, Cluster(workers=workers), out, told))  # noqa: B023
            assert not any(one.trouble for one in found)
            speed = f"{len(found) / wall:.1f}"
            own, theirs = (f"{memory[0][n]:.0f}, {memory[1][n]:.0f} MB" for n in (0, 1))
            name = str(workers) if workers else "none, here"
            rows.append(
                (name, str(len(found)), f"{wall:.1f} s", speed, f"{cpu:.1f} s", own, theirs if workers else "–")
            )
    _table("Evaluation of small sessions (two squares each, holes found anew)", rows)


def _resident_mb(process: str = "self") -> float:
    try:
        text = Path(f"/proc/{process}/statm").read_text(encoding="ascii")
    except OSError:  # it ended meanwhile
        return 0.0
    return int(text.split()[1]) * resource.getpagesize() / 1e6


def _children() -> list[str]:
    """Ids of all processes below this one."""
    parents: dict[str, str] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[file.parent.name] = file.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
    found, known = [], {str(os.getpid())}
    while new := [child for child, parent in parents.items() if parent in known and child not in known]:
        found += new
        known |= set(new)
    return found


PARTS = ("replay", "fold", "evaluate")


def main() -> None:
    """Measure what is named, or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them by default")
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="how many sessions are evaluated")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    logs.configure(level="error")
    measures: dict[str, Callable[[], None]] = {
        "replay": measure_replay,
        "fold": measure_fold,
        "evaluate": partial(measure_evaluate, options.sessions),
    }
    for name in sorted(options.parts or PARTS, key=["evaluate", "fold", "replay"].index):  # the last keeps memory
        measures[name]()


if __name__ == "__main__":
    main()
