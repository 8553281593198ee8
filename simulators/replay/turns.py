"""Models whose answers wait for their turn: recorded inputs were taken in one order, and so are those of a replay."""

import asyncio

import structlog

from agent.inference import Analyst
from agent.settings import InferenceSettings, QualitySettings

log = structlog.get_logger("replay")


class PacedAnalyst(Analyst):
    """Models as they are; what they say about a frame is handed in when it is the frame's turn."""

    def __init__(
        self, settings: InferenceSettings, quality: QualitySettings | None = None, *, paced: bool = True
    ) -> None:
        super().__init__(settings, quality)
        self._allowed: set[str] = set()
        self._paced = paced
        self._news = asyncio.Condition()

    async def turn(self, frame_id: str) -> None:
        """Wait until it is this frame's turn; models have looked at the next ones meanwhile."""
        log.debug("answer.waits", frame=frame_id)
        async with self._news:
            await self._news.wait_for(lambda: not self._paced or frame_id in self._allowed)

    async def allow(self, frame_id: str | None) -> None:
        """It is this frame's turn; None: everybody's."""
        async with self._news:
            if frame_id is None:
                self._paced = False
            else:
                self._allowed.add(frame_id)
            self._news.notify_all()


def line(frame_id: str | None) -> bytes:
    """A turn as a line of text, for a program of its own; ids of frames hold no line breaks."""
    return f"{frame_id or ''}\n".encode()


def turn_in(text: bytes) -> str | None:
    """The frame whose turn a line tells; None: everybody's."""
    return text.decode().strip() or None
