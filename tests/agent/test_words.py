"""Every event has a line of words, and comes back from the journal as it went in."""

import pytest

from agent import words
from agent.desk import as_line
from agent.session import events as ev
from tests.agent import samples

IDS = [f"{n}-{ev.kind_of(event)}" for n, event in enumerate(samples.EVENTS)]


@pytest.mark.parametrize("event", samples.EVENTS, ids=IDS)
def test_every_event_has_one_line_of_words(event: ev.AnyEvent) -> None:
    text = words.text_of(event)
    assert text.strip()
    assert "\n" not in text
    assert "None" not in text
    assert words.severity_of(event) in ("info", "warning", "alarm")
    assert words.who(event)
    line = as_line(5, 1.7e9, event)
    assert (line.name, line.seq, line.text) == (ev.kind_of(event), 5, text)


@pytest.mark.parametrize("event", samples.EVENTS, ids=IDS)
def test_every_event_comes_back_from_the_journal_as_it_went_in(event: ev.AnyEvent) -> None:
    assert ev.decode_event(ev.encode_event(event)) == event


def test_an_operators_name_is_the_one_who_did_it() -> None:
    assert words.who(ev.PhaseChanged(phase="paused", why="", by="ada")) == "ada"
    assert words.who(ev.AreaChanged(area_id="a", state="found", decision=samples.DECISION)) == "ada"
    assert words.who(ev.Suspended(cause="link", detail="x")) == "agent"


def test_an_event_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="danced"):
        ev.decode_event('{"event": "danced"}')
