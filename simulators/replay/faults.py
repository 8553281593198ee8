"""What can go wrong on a replay: frames that are lost, late, doubled or spoilt, a daemon that is killed, a driver."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from agent import wire
from agent.messages import LEVELS, Frame, Level

Kind = Literal[
    "lost",  # never arrives; the driver sends it again
    "late",  # arrives half a second later
    "doubled",  # arrives twice
    "truncated",  # half of its pixels are missing
    "dark",  # no signal
    "wrong_magnification",  # its header says eight times the pixel size
    "killed_daemon",  # the daemon dies by SIGKILL right after it was sent, and is started again
    "dropped_driver",  # the driver vanishes right after it was sent, and comes back
]
KINDS: tuple[Kind, ...] = get_args(Kind)
HARMLESS: tuple[Kind, ...] = ("lost", "late", "doubled", "killed_daemon", "dropped_driver")
LATE_S = 0.5


@dataclass(frozen=True, slots=True)
class ReplayFault:
    """``kind`` happens at the ``at``-th frame (1 is the first) of ``level``; of every level where that is empty."""

    kind: Kind
    level: Level | Literal[""] = ""
    at: int = 1


def parse(text: str) -> ReplayFault:
    """A fault written as ``kind[:level][:number]``, such as ``dark:medium:2`` or ``killed_daemon:5``.

    Raises
    ------
    ValueError
        With what is allowed.
    """
    kind, *rest = text.split(":")
    if kind not in KINDS:
        raise ValueError(f"fault {kind!r}: there are {', '.join(KINDS)}")
    level = rest.pop(0) if rest and rest[0] in LEVELS else ""
    try:
        (at,) = [int(number) for number in rest] or [1]
    except ValueError as error:
        raise ValueError(f"fault {text!r}: write kind[:low|medium|high][:number], such as dark:medium:2") from error
    return ReplayFault(kind, level, at)  # type: ignore[arg-type]


class Mischief:
    """Counts frames and says which fault is due at each."""

    def __init__(self, faults: Sequence[ReplayFault] = ()) -> None:
        self.faults = tuple(faults)
        self.happened: list[str] = []
        self._counts: dict[str, int] = {}

    def due(self, frame: Frame) -> Kind | None:
        """Count one more frame and give the fault that happens to it."""
        for name in ("", frame.level):
            self._counts[name] = self._counts.get(name, 0) + 1
        for fault in self.faults:
            if fault.level in ("", frame.level) and self._counts[fault.level] == fault.at:
                self.happened.append(f"{fault.kind} at {frame.frame_id}")
                return fault.kind
        return None


def _dark(frame: Frame, image: NDArray[Any]) -> tuple[Frame, NDArray[Any]]:
    black = np.zeros_like(image)
    return replace(frame, digest=wire.digest(black)), black


def _wrong(frame: Frame, image: NDArray[Any]) -> tuple[Frame, NDArray[Any]]:
    matrix = frame.image_to_stage
    turned = tuple(8.0 * v for v in matrix) if matrix else None
    return replace(frame, pixel_size_angstrom=8.0 * frame.pixel_size_angstrom, image_to_stage=turned), image


SPOIL: dict[Kind, Callable[[Frame, NDArray[Any]], tuple[Frame, NDArray[Any]]]] = {
    "dark": _dark,
    "wrong_magnification": _wrong,
}
