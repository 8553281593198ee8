"""Faults on demand: what goes wrong, at which occasion, so that a test can say what must follow."""

import threading
from dataclasses import dataclass
from typing import Literal

FaultKind = Literal[
    "stuck_stage",  # a stage move never arrives
    "dark_frame",  # the camera gives no signal
    "saturated_frame",
    "camera_error",  # the camera reports an error, nothing was exposed
    "autofocus_fails",
    "eucentric_fails",
    "load_fails",
    "beam_lost",  # the beam current falls to nothing
    "valves_closed",  # somebody closes the column valves
]
Occasion = Literal["move", "low", "medium", "high", "focus", "eucentric", "load"]
OCCASIONS: dict[FaultKind, tuple[Occasion, ...]] = {
    "stuck_stage": ("move",),
    "dark_frame": ("low", "medium", "high"),
    "saturated_frame": ("low", "medium", "high"),
    "camera_error": ("low", "medium", "high"),
    "autofocus_fails": ("focus",),
    "eucentric_fails": ("eucentric",),
    "load_fails": ("load",),
    "beam_lost": ("high",),
    "valves_closed": ("high",),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """``kind`` happens at the ``at``-th ``occasion`` (1 is the first), ``times`` times in a row; 0 means for ever."""

    kind: FaultKind
    occasion: Occasion
    at: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        allowed = OCCASIONS[self.kind]
        if self.occasion not in allowed:
            raise ValueError(f"{self.kind} cannot happen at {self.occasion}; it can at {', '.join(allowed)}")


class FaultPlan:
    """Counts occasions and says which faults are due; safe to ask from several threads."""

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self.faults = faults
        self.counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def due(self, occasion: Occasion) -> set[FaultKind]:
        """Count one more ``occasion`` and give the faults that happen at it."""
        with self._lock:
            number = self.counts.get(occasion, 0) + 1
            self.counts[occasion] = number
        return {
            fault.kind
            for fault in self.faults
            if fault.occasion == occasion
            and number >= fault.at
            and (fault.times == 0 or number < fault.at + fault.times)
        }


def parse(text: str) -> Fault:
    """A fault written as ``kind:occasion[:at[:times]]``, such as ``dark_frame:medium:2``.

    Raises
    ------
    ValueError
        With what is allowed.
    """
    kind, _, rest = text.partition(":")
    occasion, *numbers = rest.split(":")
    if kind not in OCCASIONS:
        raise ValueError(f"fault {kind!r}: there are {', '.join(OCCASIONS)}")
    try:
        at, times = ([int(n) for n in numbers] + [1, 1])[:2]
    except ValueError as error:
        raise ValueError(f"fault {text!r}: write kind:occasion[:at[:times]] with whole numbers") from error
    return Fault(kind, occasion, at, times)  # type: ignore[arg-type]
