#!Python
"""Ask Cryonaut about the image in buffer A and put its answer into the Navigator: a script for SerialEM itself.

Load it in SerialEM as a Python script (4.1 and later), or run it as a script of Acquire at Items. It needs no Cryonaut
on the microscope PC, only ``pip install pyzmq msgspec numpy xxhash`` for SerialEM's Python. Change the lines below; the
daemon runs with ``mode: advisor``. Where `cryonaut driver serialem --mode advisor` runs, this script is not needed.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from typing import Any

import msgspec
import numpy as np
import serialem as sem  # type: ignore[import-not-found]
import xxhash
import zmq

DAEMON = os.environ.get("CRYONAUT_DAEMON", "tcp://127.0.0.1:5870")  # endpoints.drivers of the daemon
BUFFER = "A"
GRID = ""  # id of the grid; empty: the one that the session is at
LEVELS_NM = {"low": (60.0, 5000.0), "medium": (1.0, 60.0), "high": (0.01, 1.0)}  # pixel sizes of the levels
LEVELS_NM = json.loads(os.environ.get("CRYONAUT_LEVELS_NM", "null")) or LEVELS_NM
ACQUIRE_ABOVE = 0.5  # Acquire is switched on from this score
LEAST_SCORE = 0.05  # below, no point is made
WAIT_S = 120.0

PROTOCOL = 1
CORNER = 0.5  # SerialEM counts from the corner of the first pixel, Cryonaut from its centre
RED, GREEN, BLUE, YELLOW = 0, 1, 2, 3
DTYPES = ("|u1", "|i1", "<u2", "<i2", "<f4")


def level_of(pixel_nm: float) -> str:
    """Which level has this pixel size."""
    for level, (low, high) in LEVELS_NM.items():
        if low <= pixel_nm < high:
            return level
    raise SystemExit(f"no level has a pixel size of {pixel_nm:g} nm: change LEVELS_NM in this script")


def frame_of(buffer: str) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Header and pixels of the image in a buffer."""
    about = sem.ImageProperties(buffer)
    level = level_of(about[4])
    image = np.ascontiguousarray(np.asarray(sem.bufferImage(buffer)))
    if image.dtype.str not in DTYPES and image.dtype.str.replace("=", "<") not in DTYPES:
        image = image.astype("<f4")
    rows, columns = image.shape
    a, b, c, d, dx, dy = sem.BufImageToStageMatrix(buffer, 0)
    x, y = columns / 2, rows / 2
    centre = (a * x + b * y + dx, c * x + d * y + dy)
    stage_x, stage_y, stage_z = sem.ReportStageXYZ()
    shift = (centre[0] - stage_x, centre[1] - stage_y)
    if max(map(abs, shift)) > 100:  # the overview of a montage
        (stage_x, stage_y), shift = centre, (0.0, 0.0)
    header = {
        "kind": "frame",
        "frame_id": f"S{uuid.uuid4()}",
        "level": level,
        "pixel_size_angstrom": about[4] * 10 or math.sqrt(abs(a * d - b * c)) * 1e4,
        "shape": (rows, columns),
        "dtype": image.dtype.str,
        "digest": xxhash.xxh3_128_hexdigest(image.data),
        "stage": {"x_um": stage_x, "y_um": stage_y, "z_um": stage_z, "tilt_deg": sem.ReportTiltAngle()},
        "image_shift_um": shift,
        "image_to_stage": (a, b, c, d),
        "exposure_s": max(0.0, about[3]),
        "grid_id": GRID,
        "taken_utc": time.time(),
    }
    return header, image


def ask(header: dict[str, Any], image: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The daemon's targets for one frame."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(DAEMON)
    deadline = time.monotonic() + WAIT_S
    hello = {"kind": "hello", "protocol": PROTOCOL, "driver": f"serialem-script-{os.getpid()}", "software": "SerialEM"}
    socket.send(msgspec.msgpack.encode(hello))
    session = ""
    try:
        while time.monotonic() < deadline:
            if not socket.poll(500):
                continue
            message: dict[str, Any] = msgspec.msgpack.decode(socket.recv_multipart()[-1])
            kind = message["kind"]
            if kind == "welcome" and not session:
                session = message["session_id"]
                socket.send_multipart([msgspec.msgpack.encode({**header, "session_id": session}), image.data.cast("B")])
            elif kind == "refused":
                raise SystemExit(f"Cryonaut refused the image: {message['reason']}")
            elif kind == "targets" and message["frame_id"] == header["frame_id"]:
                return message
        raise SystemExit(f"no answer from Cryonaut at {DAEMON} within {WAIT_S:g} s; does `cryonaut run` run there?")
    finally:
        if session:
            socket.send(msgspec.msgpack.encode({"kind": "goodbye", "why": "the script has its answer"}))
            time.sleep(0.05)
        socket.close()
        context.term()


def put(targets: dict[str, Any], z_um: float) -> int:
    """Points into the Navigator, best first; gives how many."""
    if sem.ReportIfNavOpen() == 0:
        sem.OpenNavigator()
    groups: dict[str, int] = {}  # a planned group, else all holes of a square: what the hole combiner takes together
    count = 0
    for target in targets["targets"]:
        if target["score"] < LEAST_SCORE:
            continue
        square, _, hole = target["area_id"].rpartition("-H")
        group = f"{square} {target.get('group')}" if square and hole else ""
        if group and group not in groups:
            groups[group] = int(sem.GetUniqueNavID())
        x, y = target["x"] + CORNER, target["y"] + CORNER
        index = int(sem.AddImagePosAsNavPoint(BUFFER, x, y, z_um, groups.get(group, 0), 1))
        score, state = target["score"], target.get("state", "found")
        wanted = state in ("found", "queued") and score >= ACQUIRE_ABOVE
        colour = GREEN if wanted else YELLOW if score >= ACQUIRE_ABOVE / 2 else RED
        note = ": ".join(part for part in (f"Cryonaut {score:.2f}", target.get("why", "")) if part)
        sem.ChangeItemLabel(index, target["area_id"][-16:])
        sem.ChangeItemNote(index, note[:250])
        sem.ChangeItemColor(index, BLUE if state in ("done", "exposed", "mapped") else colour)
        sem.SetItemAcquire(index, int(wanted))
        count += 1
    return count


def main() -> None:
    """One image, one answer."""
    sem.NoMessageBoxOnError(1)
    header, image = frame_of(BUFFER)
    targets = ask(header, image)
    count = put(targets, header["stage"]["z_um"])
    note = f" ({targets['note']})" if targets.get("note") else ""
    sem.Echo(f"Cryonaut: {count} points from a {header['level']}-mag image{note}")


if __name__ == "__main__":
    main()
