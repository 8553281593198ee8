"""The virtual microscope with its driver as one process: what `cryonaut simulate microscope` and the demo start."""

import asyncio
from pathlib import Path

from agent.settings import EnvelopeSettings
from drivers.shell import Shell
from simulators.clock import SimClock
from simulators.driver import SimulatedDriver
from simulators.faults import Fault, FaultPlan
from simulators.microscope import MicroscopeSettings, VirtualMicroscope
from simulators.specimen import SpecimenSettings


def build(
    grids: dict[str, SpecimenSettings],
    *,
    endpoint: str,
    ledger: Path,
    speed: float = 60.0,
    settings: MicroscopeSettings | None = None,
    faults: tuple[Fault, ...] = (),
    envelope: EnvelopeSettings | None = None,
) -> tuple[VirtualMicroscope, Shell]:
    """A virtual microscope and the shell that joins it to a daemon at ``endpoint``."""
    scope = VirtualMicroscope(grids, settings, SimClock(speed), FaultPlan(faults))
    limits = envelope or EnvelopeSettings()
    shell = Shell(SimulatedDriver(scope, limits), endpoint, ledger=ledger, envelope=limits)
    return scope, shell


def run(shell: Shell) -> None:
    """Serve until interrupted."""
    asyncio.run(shell.run())
