"""Time for simulators: a night in minutes, with waits that can be cut short."""

import threading
import time


class SimClock:
    """Counts simulated seconds; a wait of ``s`` seconds takes ``s / speed`` real ones.

    Parameters
    ----------
    speed
        How much faster than a real microscope; ``inf`` waits not at all.
    """

    def __init__(self, speed: float = 60.0) -> None:
        if not speed > 0:
            raise ValueError(f"speed {speed}: must be above 0")
        self.speed = speed
        self.elapsed_s = 0.0
        self._lock = threading.Lock()

    def spend(self, seconds: float) -> None:
        """Let simulated time pass."""
        with self._lock:
            self.elapsed_s += seconds
        if self.speed != float("inf"):
            time.sleep(seconds / self.speed)
