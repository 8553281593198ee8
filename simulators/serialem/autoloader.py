"""The autoloader: which grid is in which slot, and which came from where onto the stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulators.microscope import VirtualMicroscope

SLOTS = 12


@dataclass(slots=True)
class Autoloader:
    """Slots 1 to 12.

    Parameters
    ----------
    slots
        Slot to grid id, of the cassette that is in now.
    loaded
        Slot from which the grid on the stage came; 0 when the stage is empty.
    stage_grid
        The grid on the stage, whatever the cassette says; empty when there is none.
    """

    slots: dict[int, str] = field(default_factory=dict)
    loaded: int = 0
    stage_grid: str = ""

    @classmethod
    def of(cls, scope: VirtualMicroscope, slots: dict[int, str] | None = None) -> Autoloader:
        """The grids of a microscope in slots 1, 2, ..., the one on the stage loaded."""
        if slots is None:
            slots = dict(enumerate(scope.grids, start=1))
        loaded = next((slot for slot, grid in slots.items() if grid == scope.grid_id), 0)
        return cls(dict(slots), loaded, scope.grid_id)

    def change_cassette(self, slots: dict[int, str]) -> None:
        """Somebody exchanges the cassette while the grid on the stage stays there."""
        self.slots = dict(slots)

    def status(self, slot: int) -> int:
        """1 occupied, 0 empty, -1 no such slot; the home slot of the grid on the stage is empty."""
        if not 1 <= slot <= SLOTS:
            return -1
        return int(slot in self.slots and slot != self.loaded)
