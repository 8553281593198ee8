"""Who runs SerialEM: nobody, an external script, or its own operator; and what STOP does to it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

START_STEP_S = 0.01


@dataclass(slots=True)
class Script:
    """What lasts as long as a script, that is from taking control to giving it back."""

    boxes_off: bool = False
    try_depth: int = 0
    allow_overwrite: bool = False
    suppress_reports: bool = False
    variables: dict[str, str | float] = field(default_factory=dict)
    restore: dict[str, Callable[[], None]] = field(default_factory=dict)

    @property
    def quiet(self) -> bool:
        """Whether an error goes to the client instead of to a box on SerialEM's screen."""
        return self.boxes_off or self.try_depth > 0


class Control:
    """External control: at most one script, started by the first request and ended by exit, STOP or a lost client.

    Parameters
    ----------
    remembers_stop
        Whether a STOP while idle is told to the next request (SerialEM 4.1 and later).
    busy_wait_s
        How long a start waits for a busy SerialEM, in real seconds.
    """

    def __init__(self, *, remembers_stop: bool = True, busy_wait_s: float = 5.0) -> None:
        self.remembers_stop = remembers_stop
        self.busy_wait_s = busy_wait_s
        self.script: Script | None = None
        self.running = ""  # name of the command that runs
        self.busy = False
        self.stuck = False
        self.stop_pending = False
        self.closing = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.RLock()

    @property
    def on(self) -> bool:
        """Whether SerialEM shows EXTERNAL CONTROL."""
        return self.script is not None

    @property
    def stopped(self) -> bool:
        """Whether STOP was pressed during the command that runs, or the server closes."""
        return self._stop.is_set() or self.closing.is_set()

    def start(self) -> bool:
        """Take control, waiting for a busy SerialEM; False when it stays busy."""
        deadline = time.monotonic() + self.busy_wait_s
        while self.busy and not self.closing.is_set():
            if time.monotonic() >= deadline:
                return False
            self.closing.wait(START_STEP_S)
        with self._lock:
            self.stop_pending = False
            self.script = Script()
        return True

    def end(self) -> None:
        """Give control back and restore what the script changed for its own time."""
        with self._lock:
            script, self.script = self.script, None
            for undo in reversed(list(script.restore.values() if script else ())):
                undo()

    def client_gone(self) -> None:
        """The connection is lost: the script ends and a STOP that waited for it is forgotten."""
        self.end()
        self.stop_pending = False

    def press_stop(self) -> None:
        """What the operator's STOP button does."""
        with self._lock:
            if self.running:
                self._stop.set()
                return
            self.stuck = False
            self.stop_pending = self.on and self.remembers_stop
            self.end()

    def begin_command(self, name: str) -> bool:
        """From now on STOP belongs to this command; False when one came just before, and nothing may run."""
        with self._lock:
            self._stop.clear()
            if self.stop_pending:
                return False
            self.running = name
            return True

    def finish_command(self) -> bool:
        """Whether STOP was pressed while the command ran."""
        with self._lock:
            self.running = ""
            pressed = self._stop.is_set()
            self._stop.clear()
            if pressed:
                self.stuck = False
        return pressed

    def wait_for_stop(self) -> None:
        """Hang until STOP is pressed or the server closes."""
        while not self.stopped:
            self._stop.wait(0.05)
