"""Suspenders: hold the session while a reading of the microscope is out of bounds, and a settling time after."""

from collections.abc import Iterator, Mapping, Sequence

from agent.session.inputs import Held
from agent.settings import Suspender


class Suspenders:
    """Watches readings; gives a `Held` when one trips and another when it was good for its settling time."""

    def __init__(self, rules: Sequence[Suspender]) -> None:
        self._rules = rules
        self._tripped: dict[int, float | None] = {}  # rule -> since when the reading is good again

    def feed(self, readings: Mapping[str, float], now_s: float) -> Iterator[Held]:
        """Take in readings at a monotonic time in seconds."""
        for number, rule in enumerate(self._rules):
            value = readings.get(rule.reading)
            if value is None:
                continue
            problem = _problem(rule, value)
            if problem:
                if number not in self._tripped:
                    yield Held(cause=_cause(rule), detail=problem)
                self._tripped[number] = None
            elif self._tripped.get(number, 0.0) is None:
                self._tripped[number] = now_s
        yield from self.due(now_s)

    def due(self, now_s: float) -> Iterator[Held]:
        """What has settled by now."""
        for number, good_since in list(self._tripped.items()):
            rule = self._rules[number]
            if good_since is not None and now_s - good_since >= rule.settle_s:
                del self._tripped[number]
                yield Held(cause=_cause(rule))


def _cause(rule: Suspender) -> str:
    return f"reading:{rule.reading}"


def _problem(rule: Suspender, value: float) -> str:
    if rule.above is not None and value > rule.above:
        return f"{rule.reading} {value:.4g} is above {rule.above:.4g}; goes on {rule.settle_s:g} s after it is back"
    if rule.below is not None and value < rule.below:
        return f"{rule.reading} {value:.4g} is below {rule.below:.4g}; goes on {rule.settle_s:g} s after it is back"
    return ""
