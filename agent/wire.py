"""Bytes to messages and back: the one place that decodes what peers send."""

from typing import Any, TypeVar

import msgspec
import numpy as np
import xxhash
import zmq
from numpy.typing import NDArray

from agent.control_messages import Control, Reply
from agent.errors import BadMessageError
from agent.messages import Frame, FromDriver, Published, ToDriver

MAX_PIXEL_BYTES = 1 << 30  # 1 GiB: above any single frame of today's cameras
MAX_HEADER_BYTES = 4 << 20

encode = msgspec.msgpack.Encoder().encode
T = TypeVar("T")


def _kinds(*types: type) -> tuple[str, ...]:
    return tuple(str(t.__struct_config__.tag) for t in types)  # type: ignore[attr-defined]


class Dialect(msgspec.Struct, frozen=True):
    """The messages that one socket understands."""

    decoder: Any
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, union: Any) -> "Dialect":
        """Dialect of a union of message types."""
        members = getattr(union, "__args__", (union,))
        return cls(msgspec.msgpack.Decoder(union), _kinds(*members))


FROM_DRIVER = Dialect.of(FromDriver)
TO_DRIVER = Dialect.of(ToDriver)
CONTROL = Dialect.of(Control)
REPLY = Dialect.of(Reply)
PUBLISHED = Dialect.of(Published)


def decode(raw: bytes | bytearray | memoryview, dialect: Dialect) -> Any:
    """The message in ``raw``.

    Raises
    ------
    BadMessageError
        If the bytes are no message of ``dialect``; the text names the field, or the unknown kind.
    """
    if len(raw) > MAX_HEADER_BYTES:
        raise BadMessageError(f"header of {len(raw)} bytes: at most {MAX_HEADER_BYTES} are taken")
    try:
        return dialect.decoder.decode(raw)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        text = str(error)
        if "`$.kind`" in text:
            text = f"unknown kind of message ({text}); known here: {', '.join(dialect.kinds)}"
        raise BadMessageError("".join(c if c.isprintable() else "?" for c in text[:500])) from error


def digest(pixels: bytes | memoryview | NDArray[Any]) -> str:
    """XXH3-128 of the pixel bytes, 32 hexadecimal digits: finds damage, is no signature."""
    data = pixels.data if isinstance(pixels, np.ndarray) else pixels
    return str(xxhash.xxh3_128_hexdigest(data))


def pixel_bytes(frame: Frame) -> int:
    """Number of bytes that the pixels of ``frame`` take."""
    rows, columns = frame.shape
    return rows * columns * np.dtype(frame.dtype).itemsize


def view_pixels(frame: Frame, part: memoryview | bytes) -> NDArray[Any]:
    """The received pixels as a read-only array of ``frame.shape``, without a copy.

    Raises
    ------
    BadMessageError
        If the number of bytes does not fit the shape and dtype of the header.
    """
    expected = pixel_bytes(frame)
    if expected > MAX_PIXEL_BYTES:
        raise BadMessageError(f"frame {frame.frame_id} of {expected} bytes: at most {MAX_PIXEL_BYTES} are taken")
    size = part.nbytes if isinstance(part, memoryview) else len(part)
    if size != expected:
        rows, columns = frame.shape
        raise BadMessageError(
            f"frame {frame.frame_id}: {size} bytes of pixels, but {rows} x {columns} of {frame.dtype} are {expected}"
        )
    image = np.frombuffer(part, dtype=frame.dtype).reshape(frame.shape)
    image.flags.writeable = False
    return image


def plain_pixels(image: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """``image`` C-ordered in one of the wire's dtypes, and the name of that dtype."""
    for name in ("|u1", "|i1", "<u2", "<i2", "<f4"):
        if image.dtype == np.dtype(name):
            return np.ascontiguousarray(image), name
    return np.ascontiguousarray(image, dtype="<f4"), "<f4"


def frame_parts(frame: Frame, image: NDArray[Any]) -> list[Any]:
    """The parts of one frame for ``send_multipart(..., copy=False)``; the caller keeps ``image`` unchanged."""
    return [encode(frame), image.data.cast("B") if image.size else b""]


def part_buffer(part: zmq.Frame | bytes) -> memoryview | bytes:
    """The bytes of a received part, without a copy where ZeroMQ kept them."""
    return part if isinstance(part, bytes) else part.buffer
