"""The groups of commands, one module each; importing one registers its commands."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulators.serialem.program import SerialEM

NAMES = (
    "script", "stage", "optics", "camera", "images", "filing", "items", "holes", "multishot", "acquiring", "montages",
    "status",
)  # fmt: skip


def load() -> None:
    """Register the commands of all groups."""
    for name in NAMES:
        import_module(f"{__name__}.{name}")


def start(program: SerialEM) -> None:
    """What SerialEM shows when it has just been opened by its operator: images in some buffers."""
    from simulators.serialem.groups.camera import fill_buffers

    fill_buffers(program)
