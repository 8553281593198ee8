"""The hooks of the driver shell: Leginon leads, so there is nothing to carry out, and answers go to whoever waits."""

from collections.abc import Callable

from agent.messages import AnyWork, ErrorKind, Goto, Park, ScopeState, Targets
from drivers.base import Desk, WorkError


class LeginonAdvisor:
    """Advisor's hooks for `drivers.shell.Shell`; ``on_answer`` gets each answer to a frame, in a worker thread."""

    can_pilot = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.software = "Leginon"
        self.on_answer: Callable[[Targets], None] = lambda targets: None

    def state(self) -> ScopeState:
        """Leginon does not say how its microscope is."""
        return ScopeState()

    def carry_out(self, work: AnyWork, desk: Desk) -> float | None:
        """An advisor carries nothing out."""
        if isinstance(work, Park | Goto):
            return None
        raise WorkError(ErrorKind.OUTSIDE_ENVELOPE, "Leginon drives this microscope; Cryonaut advises it", 0.0)

    def make_safe(self, why: str) -> None:
        """Leginon's own idle rules keep its microscope safe."""

    def answered(self, targets: Targets) -> None:
        """An answer to a frame."""
        self.on_answer(targets)
