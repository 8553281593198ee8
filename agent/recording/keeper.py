"""Keeps a running session's manifest: settings and versions at the start, the sums of everything at the end."""

import asyncio
import threading
from pathlib import Path

import structlog

from agent.core import Core
from agent.errors import CryonautError
from agent.journal import Journal
from agent.recording.manifest import (
    FrameSum,
    Manifest,
    read_manifest,
    versions,
    write_manifest,
)
from agent.session import events as ev
from agent.settings import Settings

log = structlog.get_logger("recording")


class Keeper:
    """Writes the manifest of one session folder; a manifest that cannot be written never harms the session."""

    def __init__(self, folder: Path, core: Core, settings: Settings, models: dict[str, str]) -> None:
        self.folder = folder
        self.core = core
        self.settings = settings
        self.models = models
        self._lock = threading.Lock()
        self._stopped = asyncio.Event()
        core.listeners.append(self._heard)

    def _heard(self, seq: int, utc: float, event: ev.AnyEvent) -> None:
        if isinstance(event, ev.PhaseChanged) and event.phase == "stopped":
            self._stopped.set()

    async def run(self) -> None:
        """Write the sums as soon as the session has ended, and stay until cancelled: the daemon may be killed later."""
        while True:
            await self._stopped.wait()
            self._stopped.clear()
            await asyncio.to_thread(self.end)

    def begin(self) -> None:
        """Note with what this start of the daemon works."""
        self._write(ended=False)

    def end(self) -> None:
        """Note how much there is: the daemon ends, or the session has."""
        self._write(ended=True)

    def _write(self, *, ended: bool) -> None:
        with self._lock:
            try:
                write_manifest(self.folder, self._made(ended=ended))
            except (OSError, CryonautError) as error:
                log.error("manifest.not_written", error=str(error))

    def _made(self, *, ended: bool) -> Manifest:
        state = self.core.state
        before, _ = read_manifest(self.folder)
        known = before.configs if before is not None and before.session_id == state.session_id else {}
        journal = Journal(self.folder, write=False, damaged_too=True)
        try:
            seq, chain = journal.head
            sums = frame_sums(self.folder, journal) if ended else ()
        finally:
            journal.close()
        return Manifest(
            session_id=state.session_id,
            name=state.name,
            ended=ended,
            events=seq,
            chain=chain,
            configs={**known, self.settings.decision_hash(): self.settings.deciding()},
            models=self.models,
            versions=versions(),
            frames=sums,
        )


def frame_sums(folder: Path, journal: Journal) -> tuple[FrameSum, ...]:
    """Size and digest of every frame that the journal knows; no pixel is read for it."""
    found = []
    for entry in journal.of_kind("frame_received"):
        event = ev.decode_event(entry.body)
        if isinstance(event, ev.FrameReceived):
            path = folder / event.file
            size = path.stat().st_size if path.is_file() else 0
            found.append(FrameSum(file=event.file, bytes=size, digest=event.frame.digest))
    return tuple(found)
