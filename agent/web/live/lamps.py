"""The lamps at the top of the page: is the agent well, is the microscope well, would anybody be told."""

import time
from collections.abc import Callable

from agent.core import Core
from agent.health import STUCK_AFTER_S

Lamp = dict[str, str]  # name, state ("well", "warn", "bad", "off"), text


class Lamps:
    """Reads the lamps off the daemon."""

    def __init__(
        self, core: Core, disk: Callable[[], str] = lambda: "", notices: Callable[[], tuple[str, str]] | None = None
    ) -> None:
        self.core = core
        self.disk = disk
        self.notices = notices

    def all(self) -> list[Lamp]:
        """Every lamp."""
        lamps = [self.agent(), self.microscope()]
        if self.notices is not None:
            state, text = self.notices()
            lamps.append(lamp("notices", state, text))
        return lamps

    def agent(self) -> Lamp:
        """Well while the core steps, the journal takes events, the disk has room and the chosen models answer."""
        state = self.core.state
        if time.monotonic() - self.core.last_step > STUCK_AFTER_S:
            return lamp("agent", "bad", "the core does not step")
        if self.core.journal_trouble:
            return lamp("agent", "bad", self.core.journal_trouble)
        if state.phase == "fault":
            return lamp("agent", "bad", f"fault: {state.why}")
        if text := self.disk():
            return lamp("agent", "bad", text)
        if state.degraded:
            return lamp("agent", "warn", f"degraded: {state.degraded}")
        return lamp("agent", "well", "well")

    def microscope(self) -> Lamp:
        """Well while a driver is connected and nothing outside holds the session."""
        state = self.core.state
        if not state.driver:
            return lamp("microscope", "bad", state.suspensions.get("link", "no driver is connected"))
        held = {cause: detail for cause, detail in state.suspensions.items() if cause not in ("errors", "disk")}
        if held:
            return lamp("microscope", "bad", "; ".join(f"{cause}: {detail}" for cause, detail in held.items()))
        return lamp("microscope", "well", f"{state.driver} connected")


def lamp(name: str, state: str, text: str) -> Lamp:
    """One lamp."""
    return {"name": name, "state": state, "text": text}
