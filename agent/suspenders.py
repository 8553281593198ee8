"""Suspenders: hold the session while a reading of the microscope is out of bounds, and a settling time after."""

from collections.abc import Collection, Mapping, Sequence

from agent.session.inputs import Held
from agent.settings import Suspender


class Suspenders:
    """Watches readings; gives a `Held` when one trips and another when it was good for its settling time.

    Parameters
    ----------
    rules
        What is watched.
    tripped
        Causes that held the session when the daemon ended; they hold until the reading is seen good for long enough.
    """

    def __init__(self, rules: Sequence[Suspender], tripped: Collection[str] = ()) -> None:
        self._rules = rules
        # rule -> since when the reading is good again
        self._tripped: dict[int, float | None] = {n: None for n, rule in enumerate(rules) if rule.cause in tripped}

    def feed(self, readings: Mapping[str, float], now_s: float) -> list[Held]:
        """Take in readings at a monotonic time in seconds."""
        found: list[Held] = []
        for number, rule in enumerate(self._rules):
            value = readings.get(rule.reading)
            if value is None:
                continue
            problem = _problem(rule, value)
            if problem:
                if number not in self._tripped:
                    found.append(Held(cause=rule.cause, detail=problem))
                self._tripped[number] = None
            elif self._tripped.get(number, 0.0) is None:
                self._tripped[number] = now_s
        return found + self.due(now_s)

    def due(self, now_s: float) -> list[Held]:
        """What has settled by now."""
        settled = [
            number
            for number, good_since in self._tripped.items()
            if good_since is not None and now_s - good_since >= self._rules[number].settle_s
        ]
        for number in settled:
            del self._tripped[number]
        still = {self._rules[number].cause for number in self._tripped}
        over = dict.fromkeys(self._rules[number].cause for number in settled)
        return [Held(cause=cause) for cause in over if cause not in still]


def _problem(rule: Suspender, value: float) -> str:
    if rule.above is not None and value > rule.above:
        return f"{rule.reading} {value:.4g} is above {rule.above:.4g}; goes on {rule.settle_s:g} s after it is back"
    if rule.below is not None and value < rule.below:
        return f"{rule.reading} {value:.4g} is below {rule.below:.4g}; goes on {rule.settle_s:g} s after it is back"
    return ""
