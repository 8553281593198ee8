"""The simulated Leginon as one program: what `cryonaut simulate leginon` and the demo start."""

import contextlib
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from simulators.clock import SimClock
from simulators.leginon.calls import Calls
from simulators.leginon.program import LeginonProgram, Pace, Record
from simulators.microscope import VirtualMicroscope
from simulators.specimen import SpecimenSettings

WAIT_S = 60.0


class NoServerError(Exception):
    """Nobody answers at the address of ptolemy.cfg."""


def play(
    specimen: SpecimenSettings,
    *,
    url: str = "",
    scripts: Path | None = None,
    images: Path | None = None,
    pace: Pace,
    speed: float = 60.0,
    tell: Callable[[str], None] = print,
) -> tuple[Record, list[str]]:
    """Play a session in front of a virtual microscope; returns Leginon's record and the warnings of its log.

    Raises
    ------
    NoServerError
        If nobody answers at ``url``.
    """
    scope = VirtualMicroscope({"G1": specimen}, clock=SimClock(speed))
    calls = Calls(url) if url else None
    if calls is not None:
        _wait_for(calls, url)
    program = LeginonProgram(scope, calls, scripts=scripts, images=images, pace=pace, tell=tell)
    record = program.run()
    return record, program.warnings


def _wait_for(calls: Calls, url: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, HTTPException):
            if calls.is_there():
                return
        time.sleep(0.2)
    raise NoServerError(f"nobody answers at {url}: is `cryonaut driver leginon` up?")
