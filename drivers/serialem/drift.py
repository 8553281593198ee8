"""Waiting for a still specimen: SerialEM's own task, and what its errors mean."""

import structlog

from agent.messages import ErrorKind
from drivers.base import WorkError
from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import BadReplyError, MissingCommandError, NoAnswerError, ScriptError
from drivers.serialem.settings import FocusSettings

log = structlog.get_logger("serialem")
STRIKES = 3  # errors without one success before, that mean "this microscope does not offer that"
ANGSTROM_PER_NM = 10.0


class DriftWait:
    """`DriftWaitTask` with the site's rate; where it never could be done, exposures go on without it.

    Parameters
    ----------
    client
        SerialEM.
    settings
        Rate and longest wait.
    """

    def __init__(self, client: SerialEMClient, settings: FocusSettings) -> None:
        self.client = client
        self.settings = settings
        self._worked = False
        self._strikes = 0  # errors before it ever worked

    @property
    def wanted(self) -> bool:
        """Whether there is something to wait for."""
        return self.settings.drift_angstrom_per_s > 0 and self._strikes < STRIKES

    def wait(self) -> None:
        """Wait until the specimen drifts slowly enough.

        Raises
        ------
        WorkError
            Of kind ``drift``, when it still drifts after the longest wait, or a wait failed that worked before.
        """
        rate, longest_s = self.settings.drift_angstrom_per_s, self.settings.drift_wait_s
        try:
            self.client.call("DriftWaitTask", rate, "A", longest_s, None, 1)
            self._worked = True
        except NoAnswerError as error:
            raise WorkError(ErrorKind.COMMAND_TIMEOUT, str(error), 0.0) from error
        except (ScriptError, MissingCommandError) as error:
            drift = self._last_angstrom_per_s()
            if drift is not None and drift > rate:
                text = f"drift of {drift:.1f} Å/s after {longest_s:g} s, above {rate:g} (focus.drift_angstrom_per_s)"
                raise WorkError(ErrorKind.DRIFT, text, 0.0) from error
            if self._worked:
                raise WorkError(ErrorKind.DRIFT, str(error), 0.0) from error
            self._strikes += 1
            log.warning("drift.not_offered", error=str(error), then="exposures do not wait for it")

    def _last_angstrom_per_s(self) -> float | None:
        """The last drift that SerialEM measured while it waited, the first value, nm/s; None where there is none."""
        try:
            return ANGSTROM_PER_NM * abs(self.client.number("GetWaitTaskDrift"))
        except (ScriptError, MissingCommandError, BadReplyError):
            return None
