"""Lengths as people type them: with a unit, or in the one that a command states."""

import math
import re

from agent.errors import ConfigError

ANGSTROM = {"a": 1.0, "å": 1.0, "angstrom": 1.0, "nm": 10.0, "pm": 0.01, "um": 1e4, "µm": 1e4}
LENGTH = re.compile(r"^\s*([0-9.eE+\-]+)\s*([A-Za-zÅåµμ]*)\s*$")


def pixel_size_angstrom(text: str | None, bare: str) -> float | None:
    """A pixel size such as ``1.11nm`` or ``11.1 A`` in Å; a number alone is in ``bare``; None stays None.

    Raises
    ------
    ConfigError
        When it is no length, or none that a pixel can have.
    """
    if text is None:
        return None
    found = LENGTH.match(text)
    unit = (found[2].replace("μ", "µ").lower() or bare.lower()) if found else ""
    try:
        value = float(found[1]) * ANGSTROM[unit] if found else math.nan
    except (ValueError, KeyError):
        value = math.nan
    if not 0 < value < 1e6:
        raise ConfigError(f"--pixel-size {text}: expected a length such as 1.11nm or 11.1A (a number alone: {bare})")
    return value
