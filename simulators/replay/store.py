"""Frames of a replay: one that comes as it was recorded gets the recorded file as its own, and no copy of it."""

import os
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from numpy.typing import NDArray

from agent.frames import FrameStore
from agent.messages import Frame
from agent.recording.record import Record


class LinkedStore(FrameStore):
    """A frame store beside a recording: a file that is never written into may have two names.

    The header inside a linked file names the recorded session.
    """

    def __init__(self, folder: Path, record: Record) -> None:
        super().__init__(folder)
        self.recorded = record.folder.resolve()
        self._files = {shot.frame.frame_id: shot for shot in record.shots}

    def save(self, frame: Frame, image: NDArray[Any]) -> str:
        """Link the recorded file, else write the pixels; the path relative to the session folder.

        Raises
        ------
        OSError
            If the disk is full or cannot be written.
        """
        shot = self._files.get(frame.frame_id)
        if shot is not None and replace(frame, session_id="") == replace(shot.frame, session_id=""):
            source, target = (self.recorded / shot.received.file).resolve(), self.folder / self.name_of(frame)
            try:
                if source.is_relative_to(self.recorded):
                    target.unlink(missing_ok=True)
                    os.link(source, target)
                    self.settle(target.parent)
                    return self.name_of(frame)
            except OSError:
                pass  # another disk, or one without links
        return super().save(frame, image)
