"""What is read for safety: column valves, nitrogen, pump, vacuum, and the beam as micrographs show it."""

import statistics
from collections import deque

import structlog

from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import BadReplyError, MissingCommandError, ScriptError
from drivers.serialem.settings import SafetySettings

log = structlog.get_logger("serialem")
STRIKES = 3  # errors in a row, without one success before, that mean "this microscope does not have that"
RECENT = 3  # micrographs whose median is "the beam now": one on a grid bar is no lost beam


class BeamTrend:
    """The beam as mean counts of micrographs show it, relative to the first ones of a grid.

    Parameters
    ----------
    baseline
        How many micrographs make the reference.
    """

    def __init__(self, baseline: int) -> None:
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=RECENT)
        self._baseline = baseline

    def feed(self, mean_counts: float) -> float | None:
        """Take the mean counts of one more micrograph; gives the beam, 1 is as at the start, None is not known yet."""
        self._last.append(mean_counts)
        if len(self._first) < self._baseline:
            self._first.append(mean_counts)
        reference = statistics.median(self._first)
        if len(self._last) < RECENT or reference <= 0:
            return None
        return statistics.median(self._last) / reference

    def forget(self) -> None:
        """Another grid, another reference."""
        self._first.clear()
        self._last.clear()


class Watch:
    """Reads the microscope's own guards; what a microscope does not have is left out after a few errors.

    Parameters
    ----------
    settings
        What to read.
    """

    def __init__(self, settings: SafetySettings) -> None:
        self.settings = settings
        self.valves_open = True
        self.readings: dict[str, float] = {}
        self.beam = BeamTrend(settings.baseline)
        self._strikes: dict[str, int] = {}
        self._worked: set[str] = set()

    def read(self, client: SerialEMClient) -> None:
        """Read everything once.

        Raises
        ------
        ScriptError
            If the column valves cannot be read although they could be before: exposures must not go on then.
        """
        self._read_valves(client)
        if self.settings.nitrogen:
            self._into("dewars_filling", client, "AreDewarsFilling")
            self._into("dewars_remaining_s", client, "DewarsRemainingTime")
        if self.settings.pump:
            self._into("pump_running", client, "IsPVPRunning")
        for gauge, name in self.settings.gauges.items():
            self._into(name, client, "ReportVacuumGauge", gauge, item=1)

    @property
    def waiting_for(self) -> str:
        """What exposures have to wait for, in words; empty when for nothing."""
        if not self.valves_open:
            return "the column valves are closed"
        if self.readings.get("dewars_filling", 0.0) > 0:
            return "the dewars are being filled"
        if self.readings.get("pump_running", 0.0) > 0:
            return "the pre-vacuum pump runs"
        return ""

    def saw(self, mean_counts: float) -> None:
        """Take the mean counts of a micrograph into the readings."""
        self.readings["mean_counts"] = mean_counts
        beam = self.beam.feed(mean_counts)
        if beam is not None:
            self.readings["beam_current"] = beam

    def _read_valves(self, client: SerialEMClient) -> None:
        name = "ReportColumnOrGunValve"
        try:
            self.valves_open = client.number(name) != 0  # -1 is "inconsistent": some filaments
        except ScriptError:
            if not self._gave_up(name):
                raise
        else:
            self._worked.add(name)

    def _into(self, reading: str, client: SerialEMClient, name: str, *arguments: str, item: int = 0) -> None:
        if self._strikes.get(name, 0) >= STRIKES:
            return
        try:
            self.readings[reading] = client.numbers(name, *arguments, least=item + 1)[item]
            self._worked.add(name)
        except (ScriptError, MissingCommandError, BadReplyError):
            self.readings.pop(reading, None)  # rather no reading than an old one
            self._gave_up(name)

    def _gave_up(self, name: str) -> bool:
        """Count an error; True when this microscope does not seem to have what ``name`` reads."""
        if name in self._worked:
            return False
        self._strikes[name] = self._strikes.get(name, 0) + 1
        if self._strikes[name] == STRIKES:
            log.warning("watch.not_there", command=name, then="this microscope does not report it; left out")
        return self._strikes[name] >= STRIKES
