"""Errors that speak to the person who can act.

::

    CryonautError
    ├── ConfigError          a file, key or value of the configuration
    ├── BadMessageError      bytes from a peer that are not a message of this protocol
    ├── BadFileError         an image or session file that cannot be read
    ├── JournalError         the session's record: in use, damaged, not writable
    ├── EnvelopeError        a command outside the interlocks
    └── LinkError            a peer that does not answer
"""


class CryonautError(Exception):
    """Base of all errors that are shown to a person as one line."""


class ConfigError(CryonautError):
    """A configuration that cannot be used: which file, which key, which value, what is allowed."""


class BadMessageError(CryonautError, ValueError):
    """Bytes from a peer that are not a message of this protocol."""


class BadFileError(CryonautError):
    """A file that cannot be read: which, and why."""


class JournalError(CryonautError):
    """The session's record is in use, damaged or cannot be written."""


class EnvelopeError(CryonautError):
    """A command outside the interlocks; nothing was sent."""


class LinkError(CryonautError):
    """A peer that cannot be reached or does not answer in time."""
