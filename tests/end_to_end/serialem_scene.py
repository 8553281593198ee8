"""SerialEM's simulator with the real driver before it, over real sockets, for short sessions without waiting."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.settings import check
from drivers.serialem.run import Hooks, build
from drivers.serialem.settings import SerialEMSettings
from drivers.shell import Shell
from simulators.clock import SimClock
from simulators.faults import Fault, FaultPlan
from simulators.microscope import MicroscopeSettings, VirtualMicroscope
from simulators.serialem.server import SerialEMServer
from simulators.specimen import SpecimenSettings
from tests.end_to_end.scene import GRID, QUICK

QUICK_SAFETY = {"look_again_s": 0.1, "wait_s": 0.2, "release_s": 0.2, "every_s": 0.3, "abandon_s": 5.0}


def driver_settings(endpoint: str, port: int, ledger: Path, **changes: Any) -> SerialEMSettings:
    """The driver's config for the simulator; ``changes`` like ``safety__valves="leave"`` on top."""
    values: dict[str, Any] = {
        "daemon": {"endpoint": endpoint, "ledger": str(ledger)},
        "serialem": {"port": port, "retry_s": 0.1, "connect_s": 1.0},
        "presets": {"low": {"shot": "Record", "low_dose": False, "mag_index": 3}},
        "safety": dict(QUICK_SAFETY),
        "advisor": {
            "poll_s": 0.1,
            "after_stop_s": 0.5,
            "levels_nm": {"low": (500.0, 5_000.0), "medium": (10.0, 500.0), "high": (0.01, 1.0)},
        },
    }
    for name, value in changes.items():
        *parents, last = name.split("__")
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return check(SerialEMSettings, values, "test")


@dataclass
class Rig:
    """What a test can reach: the microscope, SerialEM before it, the driver's hooks and its shell."""

    scope: VirtualMicroscope
    server: SerialEMServer
    hooks: Any
    shell: Shell

    @property
    def log(self) -> list[str]:
        """Names of the commands that SerialEM carried out."""
        return [name for name, _ in self.server.log]

    def no_place_twice(self) -> bool:
        """Whether every exposed place was exposed once."""
        places = [(grid, round(x, 1), round(y, 1)) for grid, x, y, _ in self.scope.ledger]
        return len(set(places)) == len(places)


class Cable:
    """A cable between driver and SerialEM that can be pulled and put back."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._ends: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        """Put it back."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def pull(self) -> None:
        """Break every connection; from now on nobody answers."""
        for end in (self._listener, *self._ends):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._listener, self._ends = None, []

    close = pull

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def microscope(
    *,
    grids: dict[str, SpecimenSettings] | None = None,
    settings: MicroscopeSettings = QUICK,
    faults: tuple[Fault, ...] = (),
    speed: float = float("inf"),
    **server: Any,
) -> Iterator[SerialEMServer]:
    """SerialEM's simulator before a virtual microscope."""
    scope = VirtualMicroscope(grids or {"G1": GRID}, settings, SimClock(speed), FaultPlan(faults))
    with SerialEMServer(scope, **({"gap_s": 0.0, "busy_wait_s": 0.05} | server)) as made:
        yield made


@contextmanager
def driven(endpoint: str, server: SerialEMServer, ledger: Path, port: int = 0, **changes: Any) -> Iterator[Rig]:
    """The real driver before a running simulator, in a thread of its own."""
    hooks, shell = build(driver_settings(endpoint, port or server.port, ledger, **changes))
    with running(hooks, shell):
        yield Rig(server.scope, server, hooks, shell)


@contextmanager
def running(hooks: Hooks, shell: Shell) -> Iterator[None]:
    """Let a driver run; it ends in good order with the block."""
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            asyncio.run(shell.run())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=serve, name="serialem-driver")
    thread.start()
    try:
        yield
    finally:
        if thread.is_alive():  # a driver that failed has closed its loop: what it failed of is told below
            with contextlib.suppress(RuntimeError):
                shell.stop()
        thread.join(30)
        hooks.close()
    assert not thread.is_alive(), "the driver did not end"
    assert not failed, failed
