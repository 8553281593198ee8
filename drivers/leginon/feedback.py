"""What Leginon's pipeline reports of an exposure, made sense of: units, nulls and nonsense."""

import math
from typing import Any

NANOMETRES_AS_METRES = 1e6  # beyond this a thickness was multiplied by 1e9 although it was in nm already
WORST_CTF_ANGSTROM = 1_000.0
ICE_NM = (-1_000.0, 10_000.0)


def ctf_angstrom(value: Any) -> float | None:
    """CTF resolution in Å (smaller is better), or None where nothing was measured (null, 0, NaN, nonsense)."""
    number = _number(value)
    return number if number is not None and 0.0 < number <= WORST_CTF_ANGSTROM else None


def ice_nm(value: Any) -> float | None:
    """Ice thickness in nm, or None; Leginon's appion sends nm multiplied by 1e9, and negative ones are measured too."""
    number = _number(value)
    if number is None:
        return None
    if abs(number) > NANOMETRES_AS_METRES:
        number /= 1e9
    return number if ICE_NM[0] <= number <= ICE_NM[1] else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
