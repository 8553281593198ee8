"""The last gate before the microscope: a command outside the envelope is refused, never clipped.

The daemon asks it right before the socket, and every driver asks its own copy, from its own file, right before
the microscope (`drivers.shell`).
"""

import math
from collections.abc import Iterator

from agent.errors import EnvelopeError
from agent.messages import AcquireAtlas, Command, Expose, Focus, Goto, LoadGrid, MapSquare, Park
from agent.settings import EnvelopeSettings


def check(command: Command, envelope: EnvelopeSettings, *, dose_so_far_e_per_a2: float = 0.0) -> None:
    """Return when ``command`` lies inside ``envelope``.

    Parameters
    ----------
    command
        The command that is about to leave.
    envelope
        The limits of this side of the link.
    dose_so_far_e_per_a2
        Dose that the command's area has had already.

    Raises
    ------
    EnvelopeError
        With the value, the limit and the key that sets it.
    """
    for problem in problems(command, envelope, dose_so_far_e_per_a2):
        raise EnvelopeError(f"{command.command_id}: {problem}")


def problems(command: Command, envelope: EnvelopeSettings, dose_so_far_e_per_a2: float = 0.0) -> Iterator[str]:
    """Everything about ``command`` that lies outside ``envelope``, in words."""
    match command.work:
        case AcquireAtlas(positions_um=positions):
            yield from _level("low", envelope)
            for x_um, y_um in positions:
                yield from _stage(x_um, y_um, envelope)
        case MapSquare(x_um=x_um, y_um=y_um):
            yield from _level("medium", envelope)
            yield from _stage(x_um, y_um, envelope)
        case Focus(x_um=x_um, y_um=y_um, defocus_um=defocus_um):
            yield from _level("high", envelope)
            yield from _stage(x_um, y_um, envelope)
            yield from _outside("defocus", defocus_um, envelope.defocus_um, "defocus_um", "µm")
        case Expose() as work:
            yield from _level("high", envelope)
            yield from _stage(work.x_um, work.y_um, envelope)
            yield from _outside("defocus", work.defocus_um, envelope.defocus_um, "defocus_um", "µm")
            shift = math.hypot(work.image_shift_x_um, work.image_shift_y_um)
            yield from _outside("image shift", shift, (0.0, envelope.image_shift_um), "image_shift_um", "µm")
            dose = dose_so_far_e_per_a2 + work.dose_e_per_a2
            limit = envelope.dose_per_area_e_per_a2
            yield from _outside("dose of the area", dose, (0.0, limit), "dose_per_area_e_per_a2", "e/Å²")
        case Goto(x_um=x_um, y_um=y_um, z_um=z_um, tilt_deg=tilt_deg):
            yield from stage_problems(x_um, y_um, z_um, tilt_deg, envelope)
        case LoadGrid() | Park():
            return


def reachable(x_um: float, y_um: float, envelope: EnvelopeSettings) -> str:
    """Why a stage position cannot be reached, or an empty text."""
    return next(_stage(x_um, y_um, envelope), "")


def stage_problems(
    x_um: float, y_um: float, z_um: float | None, tilt_deg: float | None, envelope: EnvelopeSettings
) -> Iterator[str]:
    """What is wrong with a stage position; None leaves an axis where it is."""
    yield from _stage(x_um, y_um, envelope)
    if z_um is not None:
        yield from _outside("stage z", z_um, envelope.stage_z_um, "stage_z_um", "µm")
    if tilt_deg is not None:
        yield from _outside("tilt", tilt_deg, envelope.tilt_deg, "tilt_deg", "°")


def _stage(x_um: float, y_um: float, envelope: EnvelopeSettings) -> Iterator[str]:
    yield from _outside("stage x", x_um, envelope.stage_x_um, "stage_x_um", "µm")
    yield from _outside("stage y", y_um, envelope.stage_y_um, "stage_y_um", "µm")


def _level(level: str, envelope: EnvelopeSettings) -> Iterator[str]:
    if level not in envelope.levels:
        yield f"{level} magnification is not among {', '.join(envelope.levels)} (interlocks.levels)"


def _outside(what: str, value: float, limits: tuple[float, float], key: str, unit: str) -> Iterator[str]:
    low, high = limits
    if not low <= value <= high:  # also true for NaN
        yield f"{what} {value:.4g} {unit} is outside {low:.4g}…{high:.4g} {unit} (interlocks.{key})"
