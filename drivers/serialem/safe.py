"""The safe state: beam blanked, tilt 0, valves as the site says, control given back; each step on its own."""

import time
from collections.abc import Callable

import structlog

from drivers.serialem.errors import LinkLostError, SerialEMError, TakenOverError
from drivers.serialem.instrument import Instrument

log = structlog.get_logger("serialem")
TRIES = 3
WAIT_S = 0.5
LEVEL_DEG = 0.1


def make_safe(instrument: Instrument, why: str) -> list[str]:
    """Reach the safe state and say which steps failed after several tries; never raises for SerialEM's errors.

    Parameters
    ----------
    instrument
        The microscope.
    why
        For the log.
    """
    client, safety = instrument.client, instrument.settings.safety
    instrument.holding = True
    client.abandon(safety.abandon_s)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("blank the beam", instrument.blank),
        ("tilt to 0", lambda: _level(instrument)),
    ]
    if safety.valves == "close":
        steps.insert(1, ("close the column valves", lambda: _close(instrument)))
    failed: list[str] = []
    try:
        for what, step in steps:
            if problem := _try(step):
                failed.append(f"{what}: {problem}")
    except TakenOverError as error:  # a person is there: the rest is theirs
        failed.append(f"left to the person at the microscope: {error}")
    client.exit_control()
    if failed:
        log.error("safe_state.not_whole", why=why, failed=failed)
    else:
        log.info("safe_state.reached", why=why)
    return failed


def _try(step: Callable[[], None]) -> str:
    problem = ""
    for number in range(TRIES):
        if number:
            time.sleep(WAIT_S * number)
        try:
            step()
        except TakenOverError:
            raise
        except LinkLostError as error:
            problem = str(error)
        except SerialEMError as error:
            problem = str(error)
        else:
            return ""
    return problem


def _level(instrument: Instrument) -> None:
    if abs(instrument.client.number("ReportTiltAngle")) > LEVEL_DEG:
        instrument.client.call("TiltTo", 0)


def _close(instrument: Instrument) -> None:
    instrument.client.call("SetColumnOrGunValve", 0)
    instrument.valves_closed = True
