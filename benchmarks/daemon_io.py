"""How much the daemon costs: frame ingest against bare ZeroMQ, its own latency, commits, restart.

``python -m benchmarks.daemon_io`` prints, in one run:

* ingest of 4096 x 4096 uint16 and 11520 x 8184 uint8 frames over loopback (checked, hashed, on disk, journalled,
  acknowledged) as a ratio to bare pyzmq ``copy=False`` of the same bytes (goal >= 0.7);
* the daemon's own time from the last byte in to targets out, without the model (goal: 99 % under 20 ms);
* commit times of the journal, time from start to ready, and folding of a long journal (goal: ready under 5 s).

Each figure comes from real processes and real sockets; the model is replaced by one that answers at once.
"""

import argparse
import asyncio
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agent import wire
from agent.core import restore
from agent.inference import Analyst
from agent.journal import Draft, Journal
from agent.messages import PROTOCOL, Accepted, Frame, Hello, Level, Targets, Welcome
from agent.ports import free_ports
from agent.session import inputs as inp
from agent.session.state import State
from agent.settings import InferenceSettings, Settings, load
from models.detections import HoleFinding, QualityFinding, SquareFinding

WINDOW = 3  # frames under way at once, for both peers
FRAMES: dict[str, tuple[tuple[int, int], str]] = {
    "4096 x 4096 uint16": ((4096, 4096), "<u2"),
    "11520 x 8184 uint8": ((8184, 11520), "|u1"),
}


class NoModel(Analyst):
    """Answers at once that nothing was found."""

    async def analyse(self, frame: Frame, image: NDArray[Any]) -> inp.Analysed | inp.AnalysisFailed:
        """An empty finding."""
        findings = {
            "low": SquareFinding(squares=()),
            "medium": HoleFinding(holes=()),
            "high": QualityFinding(score=0.5, label="unknown"),
        }
        return inp.Analysed(frame=frame, finding=findings[frame.level], model="none", fingerprint="none", elapsed_s=0.0)


def settings_for(folder: Path, ports: list[int]) -> Settings:
    """An advisor's daemon on these ports."""
    ends = dict(zip(("drivers", "control", "events"), ports, strict=True))
    changes = {f"endpoints.{name}": f"tcp://127.0.0.1:{port}" for name, port in ends.items()}
    changes |= {"endpoints.health": "", "web.address": "", "session.folder": str(folder), "session.name": "bench"}
    changes |= {"session.mode": "advisor", "session.autonomy": "suggest"}
    return load(None, changes)


def serve(settings: Settings) -> None:
    """The daemon of the benchmark, in a process of its own."""
    from agent import logs
    from agent.daemon import Daemon
    from agent.memory import keep_frame_memory

    keep_frame_memory()  # as `cryonaut run` does
    logs.configure(json=True, level="error")
    asyncio.run(Daemon(settings, analyst=NoModel(InferenceSettings())).run())


def echo(port: int) -> None:
    """Bare ZeroMQ: take frames without a copy and acknowledge them."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind(f"tcp://127.0.0.1:{port}")
    while True:
        peer, header, pixels = socket.recv_multipart(copy=False)
        np.frombuffer(pixels.buffer, np.uint8)[0]
        socket.send_multipart([peer.bytes, header.bytes])


def connect(port: int) -> "zmq.Socket[bytes]":
    """A driver's socket."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(f"tcp://127.0.0.1:{port}")
    return socket


def hello(socket: "zmq.Socket[bytes]") -> str:
    """Be welcomed; gives the session's id."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        socket.send(wire.encode(Hello(protocol=PROTOCOL, driver="bench")))
        if socket.poll(500):
            message = wire.decode(socket.recv_multipart()[-1], wire.TO_DRIVER)
            if isinstance(message, Welcome):
                return message.session_id
    raise SystemExit("the daemon did not welcome the benchmark within 30 s")


def header_of(image: NDArray[Any], session_id: str, number: int, level: Level = "high") -> Frame:
    """The header of one frame."""
    return Frame(
        frame_id=f"B{number:06d}",
        session_id=session_id,
        level=level,
        pixel_size_angstrom=1.0,
        shape=(int(image.shape[0]), int(image.shape[1])),
        dtype=image.dtype.str if image.dtype.itemsize > 1 else "|u1",  # type: ignore[arg-type]
        digest=wire.digest(image),
    )


def push(
    socket: "zmq.Socket[bytes]", send: Callable[[int], None], acknowledged: Callable[[bytes], bool], count: int
) -> float:
    """Send ``count`` frames with at most `WINDOW` under way; gives the seconds until the last is acknowledged."""
    begun = time.perf_counter()
    sent = done = 0
    while done < count:
        while sent < count and sent - done < WINDOW:
            send(sent)
            sent += 1
        done += acknowledged(socket.recv_multipart()[-1])
    return time.perf_counter() - begun


def ingest(count: int, repeats: int, table: Table) -> None:
    """Frames per second, bare and through the daemon, in turn."""
    folder = Path(tempfile.mkdtemp(prefix="cryonaut-bench-"))
    ports = free_ports(4)
    settings = settings_for(folder, ports[:3])
    spawn = multiprocessing.get_context("spawn")
    daemon = spawn.Process(target=serve, args=(settings,), daemon=True)
    bare = spawn.Process(target=echo, args=(ports[3],), daemon=True)
    daemon.start()
    bare.start()
    try:
        raw, driver = connect(ports[3]), connect(ports[0])
        session_id = hello(driver)
        number = 0
        for name, (shape, dtype) in FRAMES.items():
            rng = np.random.default_rng(0)
            image = rng.integers(0, 250, shape, dtype=np.uint8).astype(dtype)
            ratios, speeds = [], []
            for turn in range(repeats + 1):
                frames = [header_of(image, session_id, number + i) for i in range(count)]
                number += count

                def send_raw(i: int, frames: list[Frame] = frames, image: NDArray[Any] = image) -> None:
                    raw.send_multipart(wire.frame_parts(frames[i], image), copy=False)

                def send(i: int, frames: list[Frame] = frames, image: NDArray[Any] = image) -> None:
                    driver.send_multipart(wire.frame_parts(frames[i], image), copy=False)

                def accepted(part: bytes) -> bool:
                    return isinstance(wire.decode(part, wire.TO_DRIVER), Accepted)

                bare_s = push(raw, send_raw, lambda _: True, count)
                daemon_s = push(driver, send, accepted, count)
                for file in (folder / "bench" / "frames" / "high").iterdir():
                    file.unlink()
                if turn:  # the first turn warms both up
                    ratios.append(bare_s / daemon_s)
                    speeds.append((count * image.nbytes / bare_s / 1e6, count * image.nbytes / daemon_s / 1e6))
            bare_mb, daemon_mb = (statistics.median(s) for s in zip(*speeds, strict=True))
            table.add_row(
                f"ingest {name}",
                f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
                ">= 0.7",
                f"{daemon_mb:.0f} MB/s against {bare_mb:.0f} MB/s bare",
            )
    finally:
        daemon.terminate()
        bare.terminate()
        daemon.join(10)
        bare.join(10)
        shutil.rmtree(folder, ignore_errors=True)


def latency(count: int, table: Table) -> None:
    """From the last byte of a small frame in to its targets out, without the model, seen from the driver."""
    folder = Path(tempfile.mkdtemp(prefix="cryonaut-bench-"))
    ports = free_ports(3)
    daemon = multiprocessing.get_context("spawn").Process(
        target=serve, args=(settings_for(folder, ports),), daemon=True
    )
    daemon.start()
    try:
        driver = connect(ports[0])
        session_id = hello(driver)
        image = np.random.default_rng(0).integers(0, 200, (512, 512), dtype=np.uint8)
        times = []
        for number in range(count + 20):
            frame = header_of(image, session_id, number, "low")
            begun = time.perf_counter()
            driver.send_multipart(wire.frame_parts(frame, image))
            while not isinstance(wire.decode(driver.recv_multipart()[-1], wire.TO_DRIVER), Targets):
                pass
            times.append((time.perf_counter() - begun) * 1e3)
        times = sorted(times[20:])
        p99 = times[int(0.99 * len(times))]
        table.add_row(
            "frame in to targets out, no model",
            f"p50 {statistics.median(times):.1f} ms, p99 {p99:.1f} ms ({20 / p99:.1f} x inside the goal)",
            "p99 < 20 ms",
            f"{count} frames of 512 x 512, checked, on disk, two commits each",
        )
    finally:
        daemon.terminate()
        daemon.join(10)
        shutil.rmtree(folder, ignore_errors=True)


def commits(count: int, table: Table) -> None:
    """Time of one commit, with synchronous=FULL."""
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name))
        times = []
        body = '{"event":"noticed","severity":"info","text":"' + "x" * 500 + '"}'
        for _ in range(count):
            begun = time.perf_counter()
            journal.append([Draft("noticed", body)], utc=0.0, epoch=1)
            times.append((time.perf_counter() - begun) * 1e3)
        times.sort()
        table.add_row(
            "journal commit (synchronous=FULL)",
            f"p50 {statistics.median(times):.2f} ms, p99 {times[int(0.99 * count)]:.2f} ms",
            "–",
            f"{count} commits",
        )
        rows = [Draft("noticed", body)] * 1000
        for _ in range(100):
            journal.append(rows, utc=0.0, epoch=1)
        begun = time.perf_counter()
        state: State = restore(journal)
        seconds = time.perf_counter() - begun
        table.add_row("fold a long journal", f"{seconds:.2f} s", "–", f"{state.seq} events")
        journal.close()


def restart(count: int, table: Table) -> None:
    """From the start of a fresh process to ready, on the session of a finished demo."""
    folder = Path(tempfile.mkdtemp(prefix="cryonaut-bench-"))
    times = []
    try:
        for _ in range(count):
            ports = free_ports(3)
            changes = ["endpoints.health=''", "web.address=''", f"session.folder={folder}", "session.name=restart"]
            names = ("drivers", "control", "events")
            changes += [f"endpoints.{n}=tcp://127.0.0.1:{p}" for n, p in zip(names, ports, strict=True)]
            command = [sys.executable, "-m", "agent.cli", "run", "--log", "json"]
            begun = time.perf_counter()
            process = subprocess.Popen(
                [*command, *(part for change in changes for part in ("--set", change))],
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            assert process.stderr is not None
            for line in process.stderr:
                if "daemon.ready" in line:
                    break
            times.append(time.perf_counter() - begun)
            process.kill()
            process.wait()
            process.stderr.close()
        median = statistics.median(times)
        text = f"median {median:.2f} s, max {max(times):.2f} s ({5 / median:.1f} x inside the goal)"
        table.add_row("killed, started again, ready", text, "< 5 s", f"{count} fresh processes, imports included")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run all, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10, help="frames per turn of the ingest")
    parser.add_argument("--turns", type=int, default=5, help="counted turns, bare and daemon in alternation")
    parser.add_argument("--only", choices=("ingest", "latency", "commits", "restart"))
    options = parser.parse_args()
    table = Table("what", "measured", "goal", "how", title="Cryonaut daemon", title_justify="left")
    if options.only in (None, "ingest"):
        ingest(options.frames, options.turns, table)
    if options.only in (None, "latency"):
        latency(500, table)
    if options.only in (None, "commits"):
        commits(500, table)
    if options.only in (None, "restart"):
        restart(5, table)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
