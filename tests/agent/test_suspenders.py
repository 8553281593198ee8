"""Suspenders: traces of readings and what must follow from each."""

from agent.session.inputs import Held
from agent.settings import Suspender
from agent.suspenders import Suspenders

BEAM = Suspender(reading="beam_current", below=0.5, settle_s=10.0)
VACUUM = Suspender(reading="vacuum_pa", above=1e-4, settle_s=5.0)


def causes(held: object) -> list[tuple[str, bool]]:
    return [(h.cause, bool(h.detail)) for h in held if isinstance(h, Held)]  # type: ignore[attr-defined]


def test_a_reading_out_of_bounds_trips_once_and_clears_after_its_settling_time() -> None:
    watch = Suspenders([BEAM])
    assert causes(watch.feed({"beam_current": 0.6}, 0.0)) == []
    assert causes(watch.feed({"beam_current": 0.4}, 1.0)) == [("reading:beam_current", True)]
    assert causes(watch.feed({"beam_current": 0.3}, 2.0)) == []
    assert causes(watch.feed({"beam_current": 0.7}, 3.0)) == []
    assert causes(watch.due(12.9)) == []
    assert causes(watch.due(13.0)) == [("reading:beam_current", False)]
    assert causes(watch.due(14.0)) == []


def test_chatter_about_the_limit_starts_the_settling_time_again_and_is_told_once() -> None:
    watch = Suspenders([BEAM])
    told = []
    for second in range(60):
        told += causes(watch.feed({"beam_current": 0.4 if second % 7 == 0 else 0.6}, float(second)))
    assert told == [("reading:beam_current", True)]
    assert causes(watch.due(56 + 1 + 10.0)) == [("reading:beam_current", False)]


def test_a_trip_says_value_limit_and_what_must_happen() -> None:
    (held,) = Suspenders([VACUUM]).feed({"vacuum_pa": 3e-3}, 0.0)
    assert held.detail == "vacuum_pa 0.003 is above 0.0001; goes on 5 s after it is back"


def test_the_limit_itself_is_inside() -> None:
    assert causes(Suspenders([BEAM, VACUUM]).feed({"beam_current": 0.5, "vacuum_pa": 1e-4}, 0.0)) == []


def test_a_reading_that_is_not_reported_changes_nothing() -> None:
    watch = Suspenders([BEAM])
    list(watch.feed({"beam_current": 0.1}, 0.0))
    assert causes(watch.feed({}, 100.0)) == []


def test_two_rules_on_one_reading_hold_until_both_have_settled() -> None:
    soft = Suspender(reading="vacuum_pa", above=1e-4, settle_s=1.0)
    hard = Suspender(reading="vacuum_pa", above=1e-2, settle_s=60.0)
    watch = Suspenders([soft, hard])
    assert ("reading:vacuum_pa", True) in causes(watch.feed({"vacuum_pa": 1.0}, 0.0))
    assert causes(watch.feed({"vacuum_pa": 1e-6}, 1.0)) == []
    assert causes(watch.due(5.0)) == [], "the rule of 60 s still holds"
    assert causes(watch.due(61.0)) == [("reading:vacuum_pa", False)]


def test_what_settles_is_told_once_even_when_two_tasks_ask() -> None:
    watch = Suspenders([BEAM, VACUUM])
    list(watch.feed({"beam_current": 0.0, "vacuum_pa": 1.0}, 0.0))
    list(watch.feed({"beam_current": 1.0, "vacuum_pa": 0.0}, 1.0))
    first = iter(watch.feed({"beam_current": 1.0, "vacuum_pa": 0.0}, 20.0))
    told = [next(first)]  # the first task waits for the journal here …
    told += watch.due(20.0)  # … while the heartbeat asks
    told += first
    assert sorted(held.cause for held in told) == ["reading:beam_current", "reading:vacuum_pa"]


def test_a_hold_that_the_journal_knows_ends_when_the_reading_is_seen_good() -> None:
    watch = Suspenders([BEAM], tripped={"reading:beam_current"})
    assert causes(watch.due(1e9)) == []
    assert causes(watch.feed({"beam_current": 1.0}, 5.0)) == []
    assert causes(watch.due(15.0)) == [("reading:beam_current", False)]
