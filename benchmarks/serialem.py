"""How much the SerialEM client costs: images as a ratio to bare TCP, commands per second.

``python -m benchmarks.serialem`` prints, in one run:

* reads of a 4096 x 4096 uint16 image through the client and the protocol, as a ratio to a bare TCP transfer of the same
  bytes between the same two processes (goal >= 0.7);
* commands per second, each one request and one answer, with and without values.

The peer is a process of its own. It answers as SerialEM does, but from memory: what is measured is our client. With
``--simulator`` the whole simulator answers instead, with the pause of 20 ms that SerialEM's own client modules need.
"""

import argparse
import contextlib
import multiprocessing
import socket
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agent import logs
from drivers.serialem import protocol
from drivers.serialem.client import SerialEMClient

SHAPE = (4096, 4096)
BARE = b"GIVE"


def picture() -> NDArray[np.uint16]:
    """A noisy image of 33.5 MB."""
    return np.random.default_rng(0).integers(0, 4000, SHAPE, dtype=np.uint16)


def answer(told: Connection) -> None:
    """A peer from memory: SerialEM's answers, or the bare bytes of the image for `BARE`."""
    image = picture()
    pixels = image.reshape(-1).view(np.uint8).data
    head = protocol.encode_image_header(protocol.ImageHeader.of(image))
    values = protocol.encode_reply(protocol.Reply((1.0, 2.0, 3.0)))
    one = protocol.encode_reply(protocol.Reply((1.0,)))
    entries = protocol.encode_reply(protocol.Reply((841.0,)))
    known = {293: values, 356: one, 710: entries}
    listener = socket.create_server(("127.0.0.1", 0))
    told.send(listener.getsockname()[1])
    while True:
        near, _ = listener.accept()
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with near, contextlib.suppress(OSError):
            while packet := near.recv(1 << 16):
                if packet == BARE:
                    near.sendall(pixels)
                    continue
                match protocol.decode_request(packet):
                    case protocol.GetImage():
                        near.sendall(head)
                        near.sendall(pixels)
                    case protocol.Command(code):
                        near.sendall(known.get(code, one))


def simulate(told: Connection) -> None:
    """The simulator as the peer, with the image in buffer Q."""
    from simulators.clock import SimClock
    from simulators.microscope import MicroscopeSettings, Preset, VirtualMicroscope
    from simulators.serialem.buffers import ImageBuffer
    from simulators.serialem.server import SerialEMServer
    from simulators.specimen import SpecimenSettings

    presets = {name: Preset(5000.0, (64, 64), 1e-5, 1.0) for name in ("low", "medium", "high")}
    scope = VirtualMicroscope(
        {"G1": SpecimenSettings(grid_radius_um=200.0)}, MicroscopeSettings(presets=presets), SimClock(float("inf"))
    )
    with SerialEMServer(scope) as server:
        server.program.buffers.put("Q", ImageBuffer(picture()))
        told.send(server.port)
        told.recv()


@contextlib.contextmanager
def peer(target: Any) -> Iterator[int]:
    """A peer in a process of its own; gives its port."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=target, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join(10)


def bare(port: int, size: int, count: int) -> list[float]:
    """Seconds of each plain transfer of ``size`` bytes, into a fresh buffer as the client uses one."""
    times = []
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            begun = time.perf_counter()
            line.sendall(BARE)
            into = np.empty(size, np.uint8).data
            at = 0
            while at < size:
                at += line.recv_into(into[at:])
            times.append(time.perf_counter() - begun)
    return times


def through_client(port: int, buffer: str, count: int) -> list[float]:
    """Seconds of each read through the client."""
    client = SerialEMClient("127.0.0.1", port)
    client.ready()
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        image = client.buffer_image(buffer)
        times.append(time.perf_counter() - begun)
        if image is None or image.shape != SHAPE:
            raise SystemExit("the image did not come")
    client.close()
    return times


def commands_per_s(port: int, name: str, count: int, *arguments: float | str) -> float:
    """Commands per second."""
    client = SerialEMClient("127.0.0.1", port)
    client.ready()
    begun = time.perf_counter()
    for _ in range(count):
        client.call(name, *arguments)
    rate = count / (time.perf_counter() - begun)
    client.close()
    return rate


def main() -> None:
    """Run all, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10, help="images per turn")
    parser.add_argument("--turns", type=int, default=7, help="turns, bare and client in alternation")
    parser.add_argument("--commands", type=int, default=5000)
    parser.add_argument("--simulator", action="store_true", help="the whole simulator as the peer")
    options = parser.parse_args()
    logs.configure(level="warning")
    table = Table("what", "measured", "goal", "how", title="SerialEM client", title_justify="left")
    size = picture().nbytes
    with peer(answer) as port:
        ratios, speeds = [], []
        for turn in range(options.turns + 1):
            plain = statistics.median(bare(port, size, options.images))
            ours = statistics.median(through_client(port, "A", options.images))
            if turn:  # the first turn warms both up
                ratios.append(plain / ours)
                speeds.append((size / plain / 1e6, size / ours / 1e6))
        plain_mb, ours_mb = (statistics.median(each) for each in zip(*speeds, strict=True))
        table.add_row(
            "image 4096 x 4096 uint16",
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            ">= 0.7",
            f"{ours_mb:.0f} MB/s against {plain_mb:.0f} MB/s bare TCP",
        )
        for name, arguments in (("ReportStageXYZ", ()), ("MoveStageTo", (1.5, -2.5))):
            rate = statistics.median(commands_per_s(port, name, options.commands, *arguments) for _ in range(3))
            table.add_row(f"{name}{arguments or '()'}", f"{rate:.0f} /s", "–", f"3 x {options.commands}, from memory")
    if options.simulator:
        with peer(simulate) as port:
            ours = statistics.median(through_client(port, "Q", options.images))
            table.add_row("the same from the simulator", f"{size / ours / 1e6:.0f} MB/s", "–", "with its 20 ms pause")
            rate = commands_per_s(port, "ReportStageXYZ", options.commands)
            table.add_row("ReportStageXYZ(), simulator", f"{rate:.0f} /s", "–", f"{options.commands} commands")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
