"""Frames on their way to the daemon: sent again until it has them on disk or refuses them for good."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from agent import wire
from agent.errors import BadMessageError
from agent.messages import ErrorKind, Frame, Refused
from drivers.base import Image, Shot, WorkError

RESEND_AFTER_S = 5.0  # without an answer, twice as long each time
RESEND_AT_LEAST_EVERY_S = 60.0


class Deliveries:
    """Frames that the daemon has not on disk yet, by their ids; ``send`` puts the parts of a message on their way.

    Lives in one event loop.
    """

    def __init__(self, send: Callable[[list[Any]], None], way_is_free: Callable[[], bool]) -> None:
        self._send = send
        self._way_is_free = way_is_free  # else what was sent before still waits for the link
        self._waiting: dict[str, tuple[Frame, Image, asyncio.Future[Refused | None]]] = {}

    def __contains__(self, frame_id: str) -> bool:
        return frame_id in self._waiting

    async def deliver(self, frame: Frame, image: Image) -> Refused | None:
        """Send a frame until the daemon has it; its refusal, where it does not want it."""
        future: asyncio.Future[Refused | None] = asyncio.get_running_loop().create_future()
        self._waiting[frame.frame_id] = (frame, image, future)
        try:
            self._send(wire.frame_parts(frame, image))
            wait_s = RESEND_AFTER_S
            while not (await asyncio.wait({future}, timeout=wait_s))[0]:
                if self._way_is_free():
                    self._send(wire.frame_parts(frame, image))
                wait_s = min(2 * wait_s, RESEND_AT_LEAST_EVERY_S)
            return future.result()
        finally:
            self._waiting.pop(frame.frame_id, None)

    def settle(self, frame_id: str, refusal: Refused | None = None) -> None:
        """The daemon has a frame on disk, or does not want it."""
        _, _, future = self._waiting.pop(frame_id)
        if not future.done():
            future.set_result(refusal)

    def again(self, frame_id: str = "") -> None:
        """Send a frame anew if it is still on its way (without an id: all of them)."""
        for key, (frame, image, _) in list(self._waiting.items()):
            if frame_id in ("", key):
                self._send(wire.frame_parts(frame, image))

    def close(self) -> None:
        """The driver ends: nobody waits any longer."""
        for frame_id in list(self._waiting):
            self.settle(frame_id, Refused(reason="the driver ends"))


def frame_of(
    shot: Shot, *, session_id: str, grid_id: str, area_id: str, frame_id: str, command_id: str
) -> tuple[Frame, Image]:
    """The frame that a shot becomes, and its pixels as they go over the wire.

    Raises
    ------
    WorkError
        If the daemon could not even read it.
    """
    image, dtype = wire.plain_pixels(shot.image)
    frame = Frame(
        frame_id=frame_id,
        session_id=session_id,
        level=shot.level,
        pixel_size_angstrom=shot.pixel_size_angstrom,
        shape=(int(image.shape[0]), int(image.shape[1])),
        dtype=dtype,  # type: ignore[arg-type]
        digest=wire.digest(image),
        stage=shot.stage,
        image_shift_um=shot.image_shift_um,
        image_to_stage=shot.image_to_stage,
        defocus_um=shot.defocus_um,
        dose_e_per_a2=shot.dose_e_per_a2,
        exposure_s=shot.exposure_s,
        voltage_kv=shot.voltage_kv,
        cs_mm=shot.cs_mm,
        open_beam_counts=shot.open_beam_counts,
        grid_id=grid_id,
        area_id=area_id,
        command_id=command_id,
        taken_utc=time.time(),
        nominal=shot.nominal,
        pixel_size_known=shot.pixel_size_known,
        foreign_ids=shot.foreign_ids,
    )
    try:
        wire.decode(wire.encode(frame), wire.FROM_DRIVER)
    except BadMessageError as error:  # the daemon could not even say which frame it refuses
        raise WorkError(ErrorKind.FRAME_WRONG, f"frame {frame_id} cannot be sent: {error}") from error
    return frame, image


def as_taken(frame: Frame, refusal: Refused | None) -> Frame:
    """``frame``, which the daemon has taken.

    Raises
    ------
    WorkError
        If it refused it.
    """
    if refusal is not None:
        raise WorkError(ErrorKind.FRAME_WRONG, f"the daemon refused {frame.frame_id}: {refusal.reason}")
    return frame
