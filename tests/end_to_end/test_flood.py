"""A flood of frames and of nonsense: memory stays bounded, and the next good frame is served."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from agent import wire
from agent.messages import PROTOCOL, Frame, Heartbeat, Hello, Refused, Targets, Welcome
from tests.ports import free_endpoints

pytestmark = [pytest.mark.timeout(180), pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
MB = 1 << 20


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def test_a_flood_of_frames_and_nonsense_leaves_memory_bounded_and_the_next_frame_served(tmp_path: Path) -> None:
    ends = free_endpoints("drivers", "control", "events")
    changes = [f"endpoints.{name}={end}" for name, end in ends.items()]
    changes += [
        "endpoints.health=''",
        "web.address=''",
        f"session.folder={tmp_path}",
        "session.mode=advisor",
        "session.autonomy=suggest",
        "inference.quality=quality-simple",  # the flood is about what comes in, not about what models take
    ]
    changes += ["limits.free_disk_gb=0", "limits.frames_waiting=4"]
    command = [sys.executable, "-m", "agent.cli", "run", *(part for change in changes for part in ("--set", change))]
    log = tmp_path / "daemon.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
    context = zmq.Context()
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(ends["drivers"])
    try:
        socket.send(wire.encode(Hello(protocol=PROTOCOL, driver="flood")))
        assert socket.poll(20_000), log.read_text()
        welcome = wire.decode(socket.recv_multipart()[-1], wire.TO_DRIVER)
        assert isinstance(welcome, Welcome)
        image = np.random.default_rng(0).integers(0, 4000, (2048, 2048), dtype=np.uint16)  # 8 MB

        answered: set[str] = set()

        def frame(number: int, level: str = "high") -> Frame:
            return Frame(
                frame_id=f"F{number:05d}",
                session_id=welcome.session_id,
                level=level,  # type: ignore[arg-type]
                pixel_size_angstrom=1.0,
                shape=(2048, 2048),
                dtype="<u2",
                digest=wire.digest(image),
            )

        def flood(first: int, count: int) -> None:
            """Send ``count`` frames as fast as they go, those refused again, and nonsense between them."""
            waiting = list(range(first, first + count))
            sent: set[int] = set()
            rng = np.random.default_rng(first)
            deadline = time.monotonic() + 120
            while waiting or sent:
                assert time.monotonic() < deadline, log.read_text()[-1000:]
                if waiting and len(sent) < 8:
                    number = waiting.pop(0)
                    socket.send_multipart(wire.frame_parts(frame(number), image), copy=False)
                    sent.add(number)
                    socket.send_multipart([rng.bytes(200), rng.bytes(50)])
                    socket.send(wire.encode(Heartbeat(progress=number)))
                while socket.poll(0 if waiting and len(sent) < 8 else 200):
                    message = wire.decode(socket.recv_multipart()[-1], wire.TO_DRIVER)
                    about = getattr(message, "about", "")
                    if about == "hello":  # the daemon took us for gone: as any driver, say who it is and go on
                        socket.send(wire.encode(Hello(protocol=PROTOCOL, driver="flood")))
                        waiting.extend(sorted(sent))
                        sent.clear()
                    if isinstance(message, Targets):
                        answered.add(message.frame_id)
                    if about.startswith("F"):
                        sent.discard(int(about[1:]))
                        if isinstance(message, Refused):
                            assert message.retry, message
                            waiting.append(int(about[1:]))

        flood(0, 40)
        before = resident_mb(process.pid)
        flood(1000, 160)  # 1.3 GB of pixels
        after = resident_mb(process.pid)
        print(f"resident memory: {before:.0f} MB after 40 frames, {after:.0f} MB after 200")
        assert after < before + 150
        assert after < 900
        flood(90_000, 1)
        deadline = time.monotonic() + 90
        while "F90000" not in answered:
            assert time.monotonic() < deadline, log.read_text()[-1000:]
            socket.send(wire.encode(Heartbeat(progress=200)))
            if socket.poll(1000):
                message = wire.decode(socket.recv_multipart()[-1], wire.TO_DRIVER)
                if isinstance(message, Targets):
                    answered.add(message.frame_id)
                elif getattr(message, "about", "") == "hello":
                    socket.send(wire.encode(Hello(protocol=PROTOCOL, driver="flood")))
        assert process.poll() is None
    finally:
        socket.close(0)
        context.term()
        process.terminate()
        process.wait(20)
