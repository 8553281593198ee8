"""A Leginon driver beside a daemon in this process, and pictures with known squares and holes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.daemon import Daemon
from agent.settings import Settings
from drivers.leginon.run import LeginonDriver
from drivers.leginon.settings import LeginonSettings
from simulators.clock import SimClock
from simulators.leginon.calls import Calls
from simulators.microscope import Exposure, MicroscopeSettings, Preset, VirtualMicroscope
from simulators.specimen import SpecimenSettings
from tests.helpers import running, settings_in, until

OPTICS = MicroscopeSettings(
    presets={
        "low": Preset(12000.0, (512, 512), 6e-6, 1.0, rotation_deg=3.0),
        "medium": Preset(1500.0, (512, 512), 4e-4, 1.5, rotation_deg=1.0),
        "high": Preset(8.0, (64, 64), 40.0, 3.0),
    }
)
GRID = SpecimenSettings(seed=3, grid_radius_um=400.0, foil="gold", ice="good")
ADVISOR = {
    "session__mode": "advisor",
    "session__autonomy": "suggest",
    "squares__min_score": 0.0,
    "holes__min_score": 0.0,
}


def scope(seed: int = 3, **changes: Any) -> VirtualMicroscope:
    grid = SpecimenSettings(**{"seed": seed, "grid_radius_um": 400.0, "foil": "gold", "ice": "good", **changes})
    return VirtualMicroscope({"G1": grid}, OPTICS, SimClock(float("inf")))


def session_settings(folder: Path, **changes: Any) -> Settings:
    return settings_in(folder, **(ADVISOR | changes))


def driver_settings(folder: Path, endpoint: str, **sections: Any) -> LeginonSettings:
    values: dict[str, Any] = {
        "daemon": {"endpoint": endpoint, "folder": str(folder / "leginon")},
        "http": {"port": 0, "answer_s": 60.0},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return LeginonSettings.model_validate(values)


class Scene(NamedTuple):
    """What runs: the daemon, the driver, and Leginon's client to it."""

    daemon: Daemon
    driver: LeginonDriver
    calls: Calls


@asynccontextmanager
async def driving(settings: LeginonSettings) -> AsyncIterator[LeginonDriver]:
    """A driver as a task of this process; it ends in good order with the block."""
    driver = LeginonDriver(settings)
    task = asyncio.create_task(driver.run())
    ready = asyncio.create_task(driver.ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        ready.cancel()
        if task.done():
            await task
        yield driver
    finally:
        ready.cancel()
        driver.stop()
        await asyncio.gather(task, return_exceptions=True)
    task.result()


@asynccontextmanager
async def scene(folder: Path, changes: dict[str, Any] | None = None, **sections: Any) -> AsyncIterator[Scene]:
    """A daemon and a driver that have met."""
    async with running(session_settings(folder, **(changes or {}))) as daemon:
        settings = driver_settings(folder, daemon.endpoints["drivers"], **sections)
        async with driving(settings) as driver:
            await until(lambda: driver.shell.connected, 60.0, "the driver meets its daemon")
            yield Scene(daemon, driver, Calls(driver.url))


def blocks(centres: list[tuple[float, float]], side: float, shape: tuple[int, int] = (256, 256)) -> NDArray[np.float32]:
    """Bright squares on dark bars, with a little noise: a tile that any finder can read."""
    rng = np.random.default_rng(1)
    image = rng.normal(20.0, 3.0, shape).astype(np.float32)
    for x, y in centres:
        x0, x1, y0, y1 = (round(v) for v in (x - side / 2, x + side / 2 + 1, y - side / 2, y + side / 2 + 1))
        image[max(0, y0) : y1, max(0, x0) : x1] += 200.0
    return image


def raster(pitch: float, count: int, first: float) -> list[tuple[float, float]]:
    return [(first + pitch * i, first + pitch * j) for j in range(count) for i in range(count)]


def discs(pitch: float, radius: float, shape: tuple[int, int] = (256, 256)) -> tuple[NDArray[np.float32], list[Any]]:
    """Bright holes on a darker foil, on a square lattice, and their centres."""
    rng = np.random.default_rng(2)
    image = rng.normal(100.0, 4.0, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    centres = []
    for cy in np.arange(pitch, shape[0] - radius, pitch):
        for cx in np.arange(pitch, shape[1] - radius, pitch):
            image += 60.0 * np.clip(radius + 0.5 - np.hypot(x - cx, y - cy), 0.0, 1.0)
            centres.append((float(cx), float(cy)))
    return image.astype(np.float32), centres


def to_stage(taken: Exposure, microscope: VirtualMicroscope, x: float, y: float) -> tuple[float, float]:
    return microscope.specimen.pixel_to_stage(taken.believed, x, y)
