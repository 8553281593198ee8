"""What a test can do to SerialEM's commands: let them fail, hang, or wait in their middle; and the log of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from drivers.serialem import codes
from drivers.serialem.protocol import Value


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure that a test asked for."""

    message: str
    after: bool = False


class Hold:
    """A command that a test holds: it has begun, control is on, and its work waits until the test lets it go on.

    Parameters
    ----------
    command_name
        Which command; the next run of it is held, once.
    after
        Another command that must have run before.
    """

    def __init__(self, command_name: str, after: str = "") -> None:
        self.command_name = codes.info_of(command_name).name
        self.after = codes.info_of(after).name if after else ""
        self._reached, self._go = threading.Event(), threading.Event()

    @property
    def reached(self) -> bool:
        """Whether the command has begun."""
        return self._reached.is_set()

    def wait(self, seconds: float = 60.0) -> None:
        """Wait until the command has begun; `TimeoutError` when it does not."""
        if not self._reached.wait(seconds):
            raise TimeoutError(f"{self.command_name} did not begin within {seconds:g} s")

    def go(self) -> None:
        """Let it do its work."""
        self._go.set()

    def stay(self, closing: threading.Event) -> None:
        """Wait in the middle of the command until `go`, or until the server closes."""
        self._reached.set()
        while not (self._go.wait(0.02) or closing.is_set()):
            pass


class Disturbances:
    """The part of the server that tests reach into.

    ``log`` holds name and arguments of every command that was executed.
    """

    def __init__(self) -> None:
        self.log: list[tuple[str, tuple[Value, ...]]] = []
        self._troubles: dict[str, list[Trouble]] = {}
        self._trouble_at: dict[int, Trouble] = {}
        self._silent: set[str] = set()
        self._holds: list[Hold] = []

    def fail_next(self, command_name: str, message: str, *, times: int = 1, after: bool = False) -> None:
        """Let the next ``times`` runs of a command fail with ``message``, instead of or ``after`` its work."""
        name = codes.info_of(command_name).name
        self._troubles.setdefault(name, []).extend([Trouble(message, after)] * times)

    def fail_at(self, number: int, message: str, *, after: bool = False) -> None:
        """Let the ``number``-th command of `log` fail, counted from 1, whichever it is."""
        self._trouble_at[number] = Trouble(message, after)

    def never_answer(self, command_name: str) -> None:
        """Let this command hang from now on, until STOP is pressed; `answer_again` ends that."""
        self._silent.add(codes.info_of(command_name).name)

    def answer_again(self, command_name: str) -> None:
        """Undo `never_answer` for runs to come."""
        self._silent.discard(codes.info_of(command_name).name)

    def hold(self, command_name: str, *, after: str = "") -> Hold:
        """Hold the next run of a command in its middle, so that a test can act there at its own pace."""
        hold = Hold(command_name, after)
        self._holds.append(hold)
        return hold

    def count(self, command_name: str) -> int:
        """How often a command was executed."""
        return sum(name == command_name for name, _ in self.log)

    # ---------------------------------------------------------------------------------------------- for the server

    def trouble_of(self, name: str) -> Trouble | None:
        """The failure that was asked for of the command that was logged last, if any."""
        trouble = self._trouble_at.pop(len(self.log), None)
        if trouble is None and self._troubles.get(name):
            trouble = self._troubles[name].pop(0)
        return trouble

    def is_silent(self, name: str) -> bool:
        """Whether a command is never to be answered."""
        return name in self._silent

    def stay_where_held(self, name: str, closing: threading.Event) -> None:
        """Wait in the middle of a command that a test holds."""
        for hold in self._holds:
            if hold.command_name == name and (not hold.after or self.count(hold.after)):
                self._holds.remove(hold)
                hold.stay(closing)
                return
