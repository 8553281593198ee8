"""Codes of SerialEM's commands: one table serves every release since 4.0, which differ in how much of it they have.

The code of a command is its place in the list; new commands are appended. A running SerialEM must never be sent a code
that it does not have: it would answer an error and then stay stuck until somebody presses STOP.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# First release with this many commands; each list is the start of the next.
ENTRIES: dict[str, int] = {"4.0.0": 601, "4.0": 603, "4.1": 721, "4.2": 790, "4.3": 841}


class UnknownCommandError(Exception):
    """A command that the running SerialEM, or its Python interface, does not have."""


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """What is known of a command.

    Parameters
    ----------
    name, code
        As SerialEM has them.
    minimum
        Fewest arguments.
    keys
        One letter for each argument: D, S, I needed double, text, integer; lower case may be left out.
    external
        Whether the Python interface offers it.
    earlier_keys
        Its keys in a 4.1 beta of August 2023.
    """

    name: str
    code: int
    minimum: int
    keys: str
    external: bool
    earlier_keys: str

    @property
    def since(self) -> str:
        """First stable release that has it."""
        return next((release for release, count in ENTRIES.items() if self.code < count), "a later release")


@cache
def table() -> dict[str, CommandInfo]:
    """All commands by name, in the order of their codes."""
    rows = json.loads(files(__package__).joinpath("codes.json").read_text("utf-8"))
    return {
        name: CommandInfo(name, code, minimum, keys, bool(external), earlier[0] if earlier else keys)
        for code, (name, minimum, keys, external, *earlier) in enumerate(rows)
    }


@cache
def _by_code() -> tuple[CommandInfo, ...]:
    return tuple(table().values())


@cache
def _by_small_name() -> dict[str, CommandInfo]:
    return {name.lower(): info for name, info in table().items()}


def entries(version: str) -> int:
    """Number of commands of a release such as ``"4.2"`` or ``"4.1.25"``.

    Raises
    ------
    ValueError
        If the version is older than 4.0 or no version at all.
    """
    try:
        wanted = tuple(int(part) for part in version.split(".")[:3])
    except ValueError as error:
        raise ValueError(f"SerialEM version {version!r}: write it as 4.2 or 4.1.25") from error
    if wanted in ((4, 0, 0), (4, 0, 1)):
        return ENTRIES["4.0.0"]
    fitting = [count for release, count in ENTRIES.items() if tuple(map(int, release.split(".")))[:2] <= wanted[:2]]
    if len(wanted) < 2 or not fitting:
        raise ValueError(f"SerialEM version {version!r}: the driver knows 4.0 and later")
    return max(fitting)


def info_of(name: str) -> CommandInfo:
    """What is known of the command, in whatever case it is written.

    Raises
    ------
    UnknownCommandError
        If no SerialEM has it.
    """
    found = _by_small_name().get(name.lower())
    if found is None:
        raise UnknownCommandError(f"SerialEM has no command {name}")
    return found


def exists(name: str, entries: int) -> bool:
    """Whether a SerialEM with this many commands has the command and offers it to Python."""
    found = _by_small_name().get(name.lower())
    return found is not None and found.external and found.code < entries


def code_of(name: str, entries: int | None = None) -> int:
    """Code of a command.

    Parameters
    ----------
    name
        Such as ``"ReportStageXYZ"``.
    entries
        How many commands the running SerialEM has; None does not check.

    Raises
    ------
    UnknownCommandError
        If SerialEM, or this SerialEM, does not have it, or does not offer it to Python.
    """
    info = info_of(name)
    if not info.external:
        raise UnknownCommandError(f"{info.name} is a word of SerialEM's own scripts and cannot be called from Python")
    if entries is not None and info.code >= entries:
        raise UnknownCommandError(
            f"this SerialEM has {entries} commands and not yet {info.name} ({info.code}); it came with {info.since}"
        )
    return info.code


def command_at(code: int) -> CommandInfo | None:
    """The command with this code, or None beyond the table."""
    return _by_code()[code] if 0 <= code < len(_by_code()) else None
