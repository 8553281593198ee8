"""Tiles on their way: pixels on disk from the moment Leginon is answered until the daemon has told what is on them."""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadFileError


class Spool:
    """One folder of ``<frame id>.npy``; safe to call from several threads, each with frames of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def put(self, frame_id: str, image: NDArray[Any]) -> None:
        """Write the pixels and wait until they are on disk."""
        part = self.folder / f"{frame_id}.part"
        with part.open("wb") as file:
            np.save(file, image)
            file.flush()
            os.fdatasync(file.fileno())
        part.replace(self.folder / f"{frame_id}.npy")
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def get(self, frame_id: str) -> NDArray[Any]:
        """The pixels, shape (rows, columns).

        Raises
        ------
        BadFileError
            If they are not there any more, or damaged.
        """
        path = self.folder / f"{frame_id}.npy"
        try:
            image: NDArray[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadFileError(f"{path}: cannot be read: {error}") from error
        return image

    def drop(self, frame_id: str) -> None:
        """The pixels are not needed here any more."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / f"{frame_id}.npy").unlink()

    def tidy(self, wanted: set[str]) -> None:
        """Remove what no frame of ``wanted`` needs: left by a crash between two steps."""
        for path in self.folder.iterdir():
            if path.suffix == ".part" or (path.suffix == ".npy" and path.stem not in wanted):
                path.unlink(missing_ok=True)
