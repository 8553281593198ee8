"""Frames go first: the work of pages waits while one is in hand, and is done in small pieces, one after the other."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 0.1  # under a flood of frames pages get a slice of time after so long, and stay alive
SLICE_S = 0.005
LOOK_S = 0.004


class Precedence:
    """Gives pages their turns.

    Parameters
    ----------
    busy
        Whether a frame is in hand.
    patience_s
        Longest time that frames hold pages up.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: False, *, patience_s: float = PATIENCE_S) -> None:
        self.busy = busy
        self.patience_s = patience_s
        self._one = asyncio.Lock()
        self._slice_until = 0.0

    async def turn(self) -> None:
        """Wait for the turn of one piece of work; between two pieces the loop looks at its sockets."""
        loop = asyncio.get_running_loop()
        async with self._one:
            await asyncio.sleep(0)
            begun = loop.time()
            if begun < self._slice_until:
                return
            while self.busy():
                if loop.time() > begun + self.patience_s:
                    self._slice_until = loop.time() + SLICE_S
                    return
                await asyncio.sleep(LOOK_S)
