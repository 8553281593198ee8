"""What can go wrong between us and SerialEM.

::

    SerialEMError
    ├── LinkLostError         no connection, or it broke; ``may_have_run`` says whether a command may have been executed
    │   └── NoAnswerError     no answer within the command's time limit
    ├── TakenOverError        the microscope is in other hands: let go
    │   ├── BusyError         SerialEM is busy and gives no control (-9)
    │   └── StoppedError      somebody pressed STOP; ``during`` names the command it interrupted
    ├── ScriptError           the command ran and SerialEM reports an error
    ├── MissingCommandError   this SerialEM does not have the command; nothing was sent
    └── BadReplyError         bytes that are no answer of SerialEM, or another refusal of its server
"""

from agent.errors import CryonautError


class SerialEMError(CryonautError):
    """Base of everything that the client raises."""


class LinkLostError(SerialEMError):
    """The connection is not there or broke.

    Parameters
    ----------
    message
        For the operator.
    may_have_run
        Whether the command was sent, so that SerialEM may have carried it out: it is never sent again by itself.
    """

    def __init__(self, message: str, *, may_have_run: bool = False) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class NoAnswerError(LinkLostError):
    """No answer in time; the connection is closed, as the answer could still come and be taken for another's."""


class TakenOverError(SerialEMError):
    """A person, or something else inside SerialEM, has the microscope."""


class BusyError(TakenOverError):
    """SerialEM gave no control within its five seconds."""


class StoppedError(TakenOverError):
    """STOP was pressed.

    Parameters
    ----------
    message
        For the operator.
    during
        The command that was interrupted; empty when STOP came between two commands.
    """

    def __init__(self, message: str, during: str = "") -> None:
        super().__init__(message)
        self.during = during


class ScriptError(SerialEMError):
    """SerialEM carried the command out, or tried to, and reports an error.

    Parameters
    ----------
    command
        Its name.
    message
        SerialEM's own words.
    """

    def __init__(self, command: str, message: str) -> None:
        super().__init__(f"SerialEM, {command}: {message or 'an error without a message (see its log)'}")
        self.command = command


class MissingCommandError(SerialEMError):
    """A command that the running SerialEM is too old for."""


class BadReplyError(SerialEMError):
    """An answer that cannot be understood; the connection is closed."""
