"""What somebody is told, and when: each trouble once when it has come and once when it is over. A pure follow-up.

`conditions` reads the troubles off a state, `Told` turns them into notices, `agent.notifier` sends those.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from agent.session.state import State

Mood = Literal["alarm", "warning", "info"]


class Condition(NamedTuple):
    """Something that holds now; told when it has held for ``after_s``."""

    text: str
    mood: Mood = "alarm"
    after_s: float = 0.0


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One message to people."""

    title: str
    text: str
    mood: Mood
    utc: float


def conditions(state: State, *, after_s: float, journal_trouble: str = "") -> dict[str, Condition]:
    """Everything that holds now and that somebody should know, by key."""
    found: dict[str, Condition] = {}
    if journal_trouble:
        found["journal"] = Condition(f"the journal cannot be written: {journal_trouble}")
    if state.phase == "fault":
        found["fault"] = Condition(f"stopped by a fault: {state.why}")
    if state.phase == "stopped":
        good = sum(h.quality_label == "good" for g in state.grids.values() for s in g.squares.values() for h in s.holes.values())  # fmt: skip  # noqa: E501
        found["ended"] = Condition(f"ended: {state.why}. {state.exposures} exposures, {good} good", "info")
    if state.phase == "idle" and state.why:  # without it has not begun
        found["waiting"] = Condition(f"waits for you: {state.why}", "warning")
    if state.phase == "paused" and state.why.startswith("taken over"):
        found["taken"] = Condition(f"paused: {state.why}", "warning")
    for cause, detail in state.suspensions.items():
        if state.phase not in ("stopped", "fault"):
            found[f"held by {cause}"] = Condition(f"held by {cause}: {detail}", "alarm", after_s)
    if state.idle_told:
        found["idle"] = Condition("nothing was finished for a while (link.idle_notice_s)", "warning")
    if state.degraded:
        found["degraded"] = Condition(f"a model was replaced by its fallback: {state.degraded}", "warning")
    return found


class Told:
    """Remembers what is going on and what was told of it, so that each is told once down and once up.

    ``told`` holds the keys whose beginning was told; it is all that has to survive a restart.
    """

    def __init__(self, name: str, told: frozenset[str] = frozenset()) -> None:
        self.name = name
        self.told = set(told)
        self._since: dict[str, float] = {}
        self._text: dict[str, str] = {}

    def follow(self, now: Mapping[str, Condition], utc: float) -> list[Notice]:
        """The notices that follow from what holds at ``utc``."""
        notices = []
        for key, condition in now.items():
            since = self._since.setdefault(key, utc)
            self._text[key] = condition.text
            if key not in self.told and utc - since >= condition.after_s:
                self.told.add(key)
                notices.append(self._notice(condition.text, condition.mood, utc))
        for key in [key for key in self._since.keys() | self.told if key not in now]:
            self._since.pop(key, None)
            text = self._text.pop(key, key)
            if key in self.told:
                self.told.discard(key)
                notices.append(self._notice(f"over: {text}", "info", utc))
        return notices

    def _notice(self, text: str, mood: Mood, utc: float) -> Notice:
        return Notice(title=f"{self.name}: {text}"[:120], text=text, mood=mood, utc=utc)
