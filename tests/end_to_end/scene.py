"""A short session for end-to-end tests: one small grid, one atlas frame, a few holes, no waiting."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.settings import Settings, load
from drivers.shell import Shell
from simulators.faults import Fault
from simulators.microscope import MicroscopeSettings, Preset, VirtualMicroscope
from simulators.run import build
from simulators.specimen import SpecimenSettings

QUICK = MicroscopeSettings(
    presets={
        "low": Preset(12000.0, (512, 512), 6e-6, 1.0),
        "medium": Preset(2000.0, (512, 512), 2e-4, 1.5),
        "high": Preset(4.0, (256, 256), 40.0, 3.0),
    }
)
GRID = SpecimenSettings(seed=3, grid_radius_um=330.0, foil="gold", ice="good")


def quick_settings(folder: Path, ports: dict[str, str], **changes: Any) -> Settings:
    """Settings of the short session; ``changes`` like ``squares__per_grid=2`` on top."""
    values: dict[str, Any] = {
        "session.folder": str(folder),
        "session.name": "short",
        "endpoints.health": "",
        "web.address": "",
        "link.heartbeat_s": 0.1,
        "link.lost_after_s": 30.0,
        "atlas.radius_um": 320,
        "atlas.field_um": 600,
        "squares.min_score": 0.2,
        "squares.per_grid": 1,
        "holes.min_score": 0.2,
        "holes.per_square": 2,
        "limits.free_disk_gb": 0.0,
    }
    values |= {f"endpoints.{name}": endpoint for name, endpoint in ports.items()}
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    return load(None, values)


@contextmanager
def driver(
    endpoint: str,
    ledger: Path,
    *,
    faults: tuple[Fault, ...] = (),
    grids: dict[str, SpecimenSettings] | None = None,
    settings: MicroscopeSettings = QUICK,
    speed: float = float("inf"),
) -> Iterator[tuple[VirtualMicroscope, Shell]]:
    """A virtual microscope with its driver, running in a thread of its own."""
    scope, shell = build(
        grids or {"G1": GRID}, endpoint=endpoint, ledger=ledger, speed=speed, settings=settings, faults=faults
    )
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            asyncio.run(shell.run())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=serve, name="driver")
    thread.start()
    try:
        yield scope, shell
    finally:
        shell.stop()
        thread.join(30)
    assert not thread.is_alive(), "the driver did not end"
    assert not failed, failed
