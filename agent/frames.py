"""The pixels of a session: one TIFF file per frame beside the journal, with its header inside."""

import os
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tifffile
from numpy.typing import NDArray

from agent.errors import BadFileError
from agent.messages import Frame
from agent.wire import digest

# what a damaged file leads to: tifffile.TiffFileError is a ValueError, the others come from damaged tags
DAMAGED = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, struct.error)


class FrameStore:
    """Writes and reads the frames of one session folder; safe to call from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for level in ("low", "medium", "high"):
            (folder / "frames" / level).mkdir(parents=True, exist_ok=True)

    def save(self, frame: Frame, image: NDArray[Any]) -> str:
        """Write the frame, wait until it is on disk, and return its path relative to the session folder.

        Raises
        ------
        OSError
            If the disk is full or cannot be written.
        """
        name = self.name_of(frame)
        path = self.folder / name
        path.unlink(missing_ok=True)  # not written into: in a replay it may be the recording's file
        header = msgspec.json.encode(frame).decode("ascii", "backslashreplace")
        with path.open("wb") as file:
            tifffile.imwrite(file, image, photometric="minisblack", metadata=None, description=header)
            file.flush()
            os.fdatasync(file.fileno())
        self.settle(path.parent)
        return name

    @staticmethod
    def name_of(frame: Frame) -> str:
        """Path of a frame's file, relative to the session folder."""
        return f"frames/{frame.level}/{file_name(frame.frame_id)}"

    @staticmethod
    def settle(folder: Path) -> None:
        """Wait until the names in ``folder`` are on disk."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def load(self, name: str, expected_digest: str | None = None) -> NDArray[Any]:
        """The pixels of a saved frame, shape (rows, columns).

        Raises
        ------
        BadFileError
            If the file is missing, damaged, or does not have the digest that the journal knows.
        """
        return load(self.folder, name, expected_digest)


def load(folder: Path, name: str, expected_digest: str | None = None) -> NDArray[Any]:
    """The pixels of a frame saved in a session folder, shape (rows, columns); nothing in the folder is touched.

    Raises
    ------
    BadFileError
        If the file is missing, damaged, or does not have the digest that the journal knows.
    """
    path = folder / name
    try:
        image: NDArray[Any] = np.ascontiguousarray(tifffile.imread(path))
    except MemoryError as error:
        raise BadFileError(f"{path}: too large for this machine's memory") from error
    except DAMAGED as error:
        raise BadFileError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if expected_digest is not None and (found := digest(image)) != expected_digest:
        raise BadFileError(f"{path}: digest {found}, but the journal says {expected_digest}")
    return image


def file_name(frame_id: str) -> str:
    """File name of a frame; ids hold only letters, digits and ``_.:-``, and ``:`` is no good in names."""
    return f"{frame_id.replace(':', '%3A')}.tif"
