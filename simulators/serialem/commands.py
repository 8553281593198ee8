"""The registry of commands: a decorator puts a function under its SerialEM name, `run` finds and calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.serialem import codes
from drivers.serialem.protocol import Argument, Value

if TYPE_CHECKING:
    from simulators.serialem.program import SerialEM

Values = Value | Sequence[Value] | None
Handler = Callable[["SerialEM", "Call"], Values]


class ScriptError(Exception):
    """The command failed; its script ends or goes on as the client likes."""


class ScriptExit(Exception):  # noqa: N818 - leaving is no error
    """The script asked to end; ``with_code`` when it gave a number other than 0."""

    def __init__(self, *, with_code: bool) -> None:
        super().__init__("exit")
        self.with_code = with_code


class UserStop(Exception):  # noqa: N818 - a STOP is no error
    """Somebody pressed STOP while the command ran."""


@dataclass(frozen=True, slots=True)
class Call:
    """One command with its arguments, counted from 1 as SerialEM's manual does."""

    info: codes.CommandInfo
    arguments: tuple[Argument, ...] = ()

    def has(self, place: int) -> bool:
        """Whether the argument was given."""
        return 0 < place <= len(self.arguments) and not self.arguments[place - 1].missing

    def number(self, place: int, default: float = 0.0) -> float:
        """A number, or ``default`` where it was left out."""
        return self.arguments[place - 1].number if self.has(place) else default

    def integer(self, place: int, default: int = 0) -> int:
        """An integer, cut towards 0, or ``default`` where it was left out."""
        return self.arguments[place - 1].integer if self.has(place) else default

    def text(self, place: int, default: str = "") -> str:
        """A text, or ``default`` where it was left out."""
        return self.arguments[place - 1].text if self.has(place) else default

    @property
    def values(self) -> tuple[Value, ...]:
        """The arguments as the command reads them: numbers where its keys say D or I, else texts."""
        keys = self.info.keys.upper()
        return tuple(
            item.number if place < len(keys) and keys[place] in "DI" and not item.missing else item.text
            for place, item in enumerate(self.arguments)
        )

    def check(self) -> None:
        """Refuse a call with too few arguments."""
        given = next((n for n in range(self.info.minimum) if not self.has(n + 1)), self.info.minimum)
        if given < self.info.minimum:
            raise ScriptError(f"{self.info.name} needs {self.info.minimum} arguments and got {given}")


REGISTRY: dict[str, Handler] = {}


def command(*names: str) -> Callable[[Handler], Handler]:
    """Put a function under one or more names of SerialEM's command list."""

    def register(handler: Handler) -> Handler:
        for name in names:
            REGISTRY[codes.info_of(name).name] = handler
        return handler

    return register


def run(program: SerialEM, call: Call) -> tuple[Value, ...]:
    """Carry out a command and return what it reports.

    Raises
    ------
    ScriptError
        With a text for the script's author.
    """
    call.check()
    handler = REGISTRY.get(call.info.name)
    if handler is None:
        raise ScriptError(f"{call.info.name} is not in this simulator: nothing was done")
    values = handler(program, call)
    if values is None:
        return ()
    if isinstance(values, str | int | float):
        values = (values,)
    return tuple(value if isinstance(value, str) else float(value) for value in values)
