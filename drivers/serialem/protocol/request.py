"""Requests: run a command, ask for an image, hand one over, ask whether a script may start."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.serialem.protocol.image import ImageHeader, kind_of
from drivers.serialem.protocol.packet import (
    HEADER_BYTES,
    Function,
    MalformedError,
    Refusal,
    check_size,
    longs_of,
    make_packet,
)
from drivers.serialem.protocol.texts import number_of, pack_text, padded, text_of, unpack_texts

MOST_ARGUMENTS = 19
PUT_PART_BYTES = 336_200_000


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument as SerialEM gets it: as a number and as text.

    Parameters
    ----------
    number
        Its value; of a text, what `number_of` reads from it.
    text
        Its text; empty means that the argument was left out.
    """

    number: float = 0.0
    text: str = ""

    @classmethod
    def of(cls, value: "float | str | Argument | None") -> "Argument":
        """The argument for a Python value; None is one that is left out."""
        if isinstance(value, Argument):
            return value
        if value is None:
            return cls()
        if isinstance(value, str):
            return cls(number_of(value), value)
        value = int(value) if isinstance(value, bool | np.integer) else value
        if not isinstance(value, int | float | np.floating):
            raise MalformedError(f"argument {value!r}: a number or a text was expected")
        if not math.isfinite(value):
            raise MalformedError(f"argument {value}: SerialEM takes finite numbers only")
        return cls(float(value), text_of(value if isinstance(value, int) else float(value)))

    @property
    def missing(self) -> bool:
        """Whether it was left out."""
        return not self.text

    @property
    def integer(self) -> int:
        """Its value as SerialEM takes it where an integer is due: cut towards 0."""
        return math.trunc(self.number) if math.isfinite(self.number) else 0


@dataclass(frozen=True, slots=True)
class Command:
    """Request of function 1: run the command with this code."""

    code: int
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True, slots=True)
class OkToRun:
    """Request of function 3: whether a script may start."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """Request of function 2: the next part of an image, please."""


@dataclass(frozen=True, slots=True)
class GetImage:
    """Request of function 4: the image of a buffer (0 is A), or its FFT."""

    buffer: int
    fft: bool = False


@dataclass(frozen=True, slots=True)
class PutImage:
    """Request of function 5: an image for a buffer; its ``byte_count`` bytes follow the reply.

    Parameters
    ----------
    kind
        Type number of the pixels, see `DTYPES`.
    columns, rows
        Size in pixels.
    byte_count
        Bytes of the image, top row first.
    to_buffer, base_buffer
        Where it goes, and the buffer whose scope information it takes over; 0 is A.
    more_binning
        Binning relative to the base buffer.
    capture_flag
        -1 is "processed".
    parts
        In how many parts the client sends it.
    """

    kind: int
    columns: int
    rows: int
    byte_count: int
    to_buffer: int
    base_buffer: int
    more_binning: int = 1
    capture_flag: int = -1
    parts: int = 1

    @classmethod
    def of(
        cls,
        image: NDArray[Any],
        to_buffer: int,
        base_buffer: int | None = None,
        *,
        more_binning: int = 1,
        capture_flag: int = -1,
    ) -> "PutImage":
        """The request for an image of shape (rows, columns), top row first."""
        if image.ndim != 2:
            raise MalformedError(f"image of shape {image.shape}: (rows, columns) expected")
        rows, columns = image.shape
        return cls(
            kind_of(image.dtype),
            columns,
            rows,
            image.nbytes,
            to_buffer,
            to_buffer if base_buffer is None else base_buffer,
            more_binning,
            capture_flag,
            max(1, math.ceil(image.nbytes / PUT_PART_BYTES)),
        )

    def array(self, pixels: "bytes | bytearray | memoryview") -> NDArray[Any]:
        """The image, shape (rows, columns), top row first, from the bytes that followed."""
        return ImageHeader(self.kind, self.byte_count // max(1, self.rows), self.columns, self.rows).array(pixels)


Request = Command | OkToRun | Handshake | GetImage | PutImage


def command(code: int, *values: "float | str | Argument | None") -> Command:
    """The request to run a command with these arguments; None is one that is left out."""
    if len(values) > MOST_ARGUMENTS:
        raise MalformedError(f"{len(values)} arguments; at most {MOST_ARGUMENTS} fit")
    return Command(code, tuple(Argument.of(value) for value in values))


def encode_request(request: Request) -> bytes:
    """The bytes of a request, to be sent with one call.

    Raises
    ------
    MalformedError
        If the request cannot be put into bytes.
    """
    match request:
        case Command(code, arguments):
            return _encode_command(code, arguments)
        case OkToRun():
            return make_packet(Function.OK_TO_RUN)
        case Handshake():
            return make_packet(Function.CHUNK_HANDSHAKE)
        case GetImage(buffer, fft):
            return make_packet(Function.GET_IMAGE, buffer, int(fft))
        case PutImage() as put:
            return make_packet(
                Function.PUT_IMAGE,
                put.kind,
                put.columns,
                put.rows,
                put.byte_count,
                put.to_buffer,
                put.base_buffer,
                put.more_binning,
                put.capture_flag,
                put.parts,
            )


def _encode_command(code: int, arguments: Sequence[Argument]) -> bytes:
    last = len(arguments)
    if last > MOST_ARGUMENTS:
        raise MalformedError(f"{last} arguments; at most {MOST_ARGUMENTS} fit")
    if not last:
        return make_packet(Function.REGULAR_COMMAND, code, 0, 1, rest=bytes(4))
    items = (Argument(), *arguments)
    packed = bytes(4 * len(items)) + struct.pack(f"<{len(items)}d", *(item.number for item in items))
    packed += b"".join(pack_text(item.text) for item in items)
    words, array = padded(packed)
    return make_packet(Function.REGULAR_COMMAND, code, last, words, rest=array)


def decode_request(packet: bytes) -> Request:
    """The request that one whole packet holds.

    Raises
    ------
    MalformedError
        With the ``code`` to answer: unknown function, too short, wrong length.
    """
    if len(packet) < HEADER_BYTES:
        message = f"request of {len(packet)} bytes; at least {HEADER_BYTES} expected"
        raise MalformedError(message, Refusal.REQUEST_TOO_SHORT)
    function = int(struct.unpack_from("<i", packet, 4)[0])
    match function:
        case Function.REGULAR_COMMAND:
            return _decode_command(packet)
        case Function.CHUNK_HANDSHAKE | Function.OK_TO_RUN:
            longs_of(packet, 0, "request")
            check_size(packet, 8, "request without arguments")
            return OkToRun() if function == Function.OK_TO_RUN else Handshake()
        case Function.GET_IMAGE:
            buffer, fft = longs_of(packet, 2, "image request")
            check_size(packet, 16, "image request")
            return GetImage(buffer, bool(fft))
        case Function.PUT_IMAGE:
            longs = longs_of(packet, 9, "request to take an image")
            check_size(packet, 44, "request to take an image")
            return PutImage(*longs)
    raise MalformedError(f"function {function}: there are 1 to 5", Refusal.UNKNOWN_FUNCTION)


def _decode_command(packet: bytes) -> Command:
    code, last, words = longs_of(packet, 3, "command")
    if words < 0:
        raise MalformedError(f"command {code}: array of {words} words")
    check_size(packet, 20 + 4 * words, f"command {code} with an array of {words} words")
    if last == 0:  # the array is junk
        return Command(code)
    if not 0 < last <= MOST_ARGUMENTS:
        raise MalformedError(f"command {code}: {last} arguments; 0 to {MOST_ARGUMENTS} expected")
    count = last + 1
    if 4 * words < 12 * count:
        raise MalformedError(f"command {code}: {words} words do not hold {last} arguments")
    numbers = struct.unpack_from(f"<{count}d", packet, 20 + 4 * count)
    texts = unpack_texts(packet[20 + 12 * count :], count, f"command {code}")
    return Command(code, tuple(Argument(n, t) for n, t in zip(numbers[1:], texts[1:], strict=True)))
