"""Frames as pictures for a browser: thumbnails, tiles of large frames, power spectra, the atlas as one mosaic.

Work is done in two threads of its own, so that pages never take the models' threads; what was made is kept.
"""

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.drawing import stretch
from agent.errors import BadFileError
from agent.report.pictures import Plain, Sheet, assemble, load, shrunk, spectrum
from agent.session import events as ev

T = TypeVar("T")
Grey = NDArray[np.uint8]
SIDES = (96, 320, 1024)
TILE_PX = 512
SPECTRUM_PX = 320
MOST_BYTES = 48 << 20  # of encoded pictures
MOST_PIXELS = 120_000_000  # of frames kept as 8-bit grey for their tiles


class Kept(Generic[T]):
    """The values used last, up to a total size."""

    def __init__(self, most: int, size: Callable[[T], int]) -> None:
        self.most = most
        self.size = size
        self.total = 0
        self._values: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        """The value, which counts as used now."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: str, value: T) -> None:
        """Keep a value; the ones unused for longest make room."""
        if key in self._values:
            return
        self._values[key] = value
        self.total += self.size(value)
        while self.total > self.most and len(self._values) > 1:
            _, old = self._values.popitem(last=False)
            self.total -= self.size(old)


class Pictures:
    """Makes and keeps the pictures of one session folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: Kept[bytes] = Kept(MOST_BYTES, len)
        self._grey: Kept[Grey] = Kept(MOST_PIXELS, lambda grey: int(grey.size))
        self._being_made: dict[str, asyncio.Future[bytes]] = {}
        self._quick = ThreadPoolExecutor(1, thread_name_prefix="page")
        # atlas and spectra apart, so that a micrograph waits for none of them
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="page-atlas")

    def close(self) -> None:
        """Give the threads back."""
        for threads in (self._quick, self._slow):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _once(self, key: str, make: Callable[[], bytes], threads: ThreadPoolExecutor | None = None) -> bytes:
        """What ``make`` gives; made once, however many ask for it meanwhile."""
        made = self._made.get(key)
        if made is not None:
            return made
        making = self._being_made.get(key)
        if making is None:
            making = asyncio.get_running_loop().run_in_executor(threads or self._quick, make)
            self._being_made[key] = making
            making.add_done_callback(partial(self._was_made, key))
        return await asyncio.shield(making)  # whoever asked first may be gone; the others still want it

    def _was_made(self, key: str, making: "asyncio.Future[bytes]") -> None:
        self._being_made.pop(key, None)
        # kept in the same step: whoever asks next finds it in one of the two places.
        # An error is heard by whoever still waits; nobody may.
        if not making.cancelled() and making.exception() is None:
            self._made.put(key, making.result())

    async def thumbnail(self, received: ev.FrameReceived, side_px: int) -> bytes:
        """The frame with its longer side at most ``side_px``, contrast stretched, as JPEG.

        Raises
        ------
        BadFileError
            If the frame cannot be read.
        """
        key = f"{received.frame.digest} {side_px}"
        return await self._once(key, partial(self._thumbnail, received, side_px))

    def _thumbnail(self, received: ev.FrameReceived, side_px: int) -> bytes:
        image = load(self.folder, received)
        return jpeg(stretch(shrunk(image, side_px)), 80 if side_px > 400 else 74)

    async def tile(self, received: ev.FrameReceived, halvings: int, column: int, row: int) -> bytes:
        """One tile of `TILE_PX` pixels of the frame shrunk ``halvings`` times to the half, as JPEG.

        Raises
        ------
        BadFileError
            If the frame cannot be read.
        ValueError
            If there is no such tile.
        """
        key = f"{received.frame.digest} {halvings} {column} {row}"
        return await self._once(key, partial(self._tile, received, halvings, column, row))

    def _tile(self, received: ev.FrameReceived, halvings: int, column: int, row: int) -> bytes:
        key = f"{received.frame.digest} {halvings}"
        grey = self._grey.get(key)
        if grey is None:
            image = load(self.folder, received)
            low, high = limits(image)
            for _ in range(halvings):
                size = (max(1, (image.shape[1] + 1) // 2), max(1, (image.shape[0] + 1) // 2))
                image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
            grey = np.clip((image - low) * (255.0 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)
            self._grey.put(key, grey)
        part = grey[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]
        if part.size == 0:
            raise ValueError(f"no tile ({column}, {row})")
        return jpeg(np.ascontiguousarray(part), 82)

    async def spectrum(self, received: ev.FrameReceived, features: Mapping[str, float]) -> bytes:
        """The frame's power spectrum as JPEG, its right half the fitted CTF where ``features`` hold one.

        Raises
        ------
        BadFileError
            If the frame cannot be read, or is too small.
        """
        key = f"{received.frame.digest} spectrum {sorted(features.items())}"
        return await self._once(key, partial(self._spectrum, received, dict(features)), self._slow)

    def _spectrum(self, received: ev.FrameReceived, features: Mapping[str, float]) -> bytes:
        image = load(self.folder, received)
        drawn, _ = spectrum(image, received.frame.pixel_size_angstrom, features, SPECTRUM_PX)
        if drawn is None:
            raise BadFileError("too small for a power spectrum")
        return jpeg(np.ascontiguousarray(drawn[..., ::-1], np.uint8), 84)

    async def atlas(self, frames: Sequence[ev.FrameReceived], on: Sheet) -> bytes:
        """The atlas as one JPEG on its sheet.

        Raises
        ------
        BadFileError
            If no frame of it can be read.
        """
        return await self._once(atlas_key(frames), partial(self._atlas, tuple(frames), on), self._slow)

    def _atlas(self, frames: Sequence[ev.FrameReceived], on: Sheet) -> bytes:
        grey, notes = assemble(self.folder, frames, on)
        if grey is None:
            raise BadFileError("; ".join(notes)[:300] or "no frame of the atlas can be shown")
        return jpeg(grey, 82)


def atlas_key(frames: Sequence[ev.FrameReceived]) -> str:
    """Names the atlas of just these frames."""
    return "atlas-" + hashlib.sha256(" ".join(r.frame.digest for r in frames).encode()).hexdigest()[:16]


def limits(image: Plain) -> tuple[float, float]:
    """Grey values that become black and white: the same for all tiles of a frame, and as in its thumbnail."""
    step = max(1, math.isqrt(image.size // 1_000_000 + 1))
    low, high = (float(v) for v in np.percentile(image[::step, ::step], (0.5, 99.5)))
    return low, high


def jpeg(grey: Grey, quality: int) -> bytes:
    """``grey`` as a JPEG file."""
    done, raw = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise BadFileError("the picture could not be encoded")
    return bytes(raw.tobytes())
