"""The bytes of SerialEM's external-Python socket, both directions; no sockets inside.

Everything is little-endian and unpadded. A packet is ``int32 total | int32 code | ...``; ``total`` counts itself. A
request's code is one of `Function`, a reply's code is 0 or negative.

    ProtocolError
    ├── MalformedError    bytes that do not follow the layout; ``code`` is what a server answers
    └── RefusedError      the server answered a negative code: busy, STOP, ...
"""

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

PORT = 48888
HEADER_BYTES = 8
IMAGE_HEADER_BYTES = 32
MOST_ARGUMENTS = 19
MOST_VALUES = 6
GET_PART_BYTES = 33_620_000
PUT_PART_BYTES = 336_200_000
MOST_PACKET_BYTES = 64 * 1024 * 1024  # of anything but pixels
BUFFERS = "ABCDEFGHIJKLMNOPQRST"
FFT_BUFFERS = "ABCDEFGH"

# Error field of a reply to a command
FINE = 0
SCRIPT_ERROR = 1
NORMAL_EXIT = -123456
EXIT_WITH_CODE = -654321
USER_STOP = -234561


class Function(IntEnum):
    """Function codes of requests."""

    REGULAR_COMMAND = 1
    CHUNK_HANDSHAKE = 2
    OK_TO_RUN = 3
    GET_IMAGE = 4
    PUT_IMAGE = 5


class Refusal(IntEnum):
    """Negative codes of replies."""

    UNKNOWN_FUNCTION = -1
    OUT_OF_MEMORY = -2
    REPLY_TOO_BIG = -3
    REQUEST_TOO_SHORT = -4
    REQUEST_TOO_BIG = -5
    WRONG_LENGTH = -6
    BUSY = -9
    STOPPED = -10


_REASONS = {
    -1: "it does not know this function",
    -2: "it is out of memory",
    -3: "its reply does not fit (SerialEM 4.0 can send no more than 1024 bytes)",
    -4: "the request is too short",
    -5: "the request is too big",
    -6: "the request has the wrong length",
    -9: "it is busy, or its operator is using it",
    -10: "its operator pressed STOP",
}


class ProtocolError(Exception):
    """Anything that is not as the protocol has it."""


class MalformedError(ProtocolError):
    """Bytes that do not follow the layout.

    Parameters
    ----------
    message
        What was expected and what came.
    code
        The negative code with which a server answers it.
    """

    def __init__(self, message: str, code: int = Refusal.WRONG_LENGTH) -> None:
        super().__init__(message)
        self.code = int(code)


class RefusedError(ProtocolError):
    """SerialEM answered with a negative code instead of carrying out the request."""

    def __init__(self, code: int) -> None:
        super().__init__(f"SerialEM refused the request with {code}: {_REASONS.get(code, 'no known reason')}")
        self.code = code

    @property
    def busy(self) -> bool:
        """Whether SerialEM is in other hands and may serve later."""
        return self.code == Refusal.BUSY

    @property
    def stopped(self) -> bool:
        """Whether somebody pressed STOP."""
        return self.code == Refusal.STOPPED


# -------------------------------------------------------------------------------------------------- text and numbers

_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")


def number_of(text: str) -> float:
    """The number at the start of a text as C's ``atof`` reads it; 0 where there is none."""
    found = _NUMBER.match(text)
    return float(found[1]) if found else 0.0


def text_of(value: float) -> str:
    """A number's text as the `serialem` module writes it: ``%d`` of an int, ``%f`` with its last zeros cut (``1.``)."""
    if isinstance(value, int):
        return str(int(value))
    return f"{value:f}".rstrip("0")


def _pack_text(text: str) -> bytes:
    try:
        packed = text.encode()
    except UnicodeEncodeError as error:
        raise MalformedError(f"text {text!r} cannot be written as UTF-8") from error
    if b"\0" in packed:
        raise MalformedError(f"text {text!r} holds a NUL, which ends texts on this wire")
    return packed + b"\0"


def _unpack_text(packed: bytes) -> str:
    """UTF-8, or else the western code page: SerialEM passes on the bytes it has."""
    try:
        return packed.decode()
    except UnicodeDecodeError:
        return packed.decode("cp1252", errors="replace")


def _unpack_texts(packed: bytes, count: int, what: str) -> list[str]:
    texts, start = [], 0
    for number in range(count):
        end = packed.find(b"\0", start)
        if end < 0:
            raise MalformedError(f"{what}: text {number + 1} of {count} has no end")
        texts.append(_unpack_text(packed[start:end]))
        start = end + 1
    return texts


def _array(packed: bytes, items: int) -> tuple[int, bytes]:
    """Number of words of an array with ``items`` items, and its bytes with padding."""
    words = (len(packed) + 5) // 4
    return words, packed.ljust(4 * words, b"\0")


# -------------------------------------------------------------------------------------------------- packets


def packet_size(start: bytes) -> int:
    """Bytes of the whole packet from its first four.

    Raises
    ------
    MalformedError
        If no packet can have that size.
    """
    if len(start) < 4:
        raise MalformedError(f"a packet starts with 4 bytes of length; got {len(start)}", Refusal.REQUEST_TOO_SHORT)
    size = int(struct.unpack_from("<i", start)[0])
    if size < HEADER_BYTES:
        raise MalformedError(f"packet of {size} bytes; the shortest has {HEADER_BYTES}", Refusal.REQUEST_TOO_SHORT)
    if size > MOST_PACKET_BYTES:
        raise MalformedError(f"packet of {size} bytes; at most {MOST_PACKET_BYTES} are taken", Refusal.REQUEST_TOO_BIG)
    return size


def _packet(code: int, *longs: int, rest: bytes = b"") -> bytes:
    total = 8 + 4 * len(longs) + len(rest)
    try:
        return struct.pack(f"<{2 + len(longs)}i", total, code, *longs) + rest
    except struct.error as error:
        raise MalformedError(f"{longs} does not fit into 32-bit integers") from error


def _longs(packet: bytes, count: int, what: str) -> tuple[int, ...]:
    """The ``count`` integers after the packet's header."""
    if len(packet) < 8 + 4 * count:
        message = f"{what}: {len(packet)} bytes, at least {8 + 4 * count} expected"
        raise MalformedError(message, Refusal.REQUEST_TOO_SHORT)
    if packet_size(packet) != len(packet):
        raise MalformedError(f"{what}: {len(packet)} bytes, but it says {packet_size(packet)}")
    return struct.unpack_from(f"<{count}i", packet, 8)


def _exactly(packet: bytes, size: int, what: str) -> None:
    if len(packet) != size:
        raise MalformedError(f"{what}: {len(packet)} bytes, {size} expected")


# -------------------------------------------------------------------------------------------------- requests


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
            return _packet(Function.OK_TO_RUN)
        case Handshake():
            return _packet(Function.CHUNK_HANDSHAKE)
        case GetImage(buffer, fft):
            return _packet(Function.GET_IMAGE, buffer, int(fft))
        case PutImage() as put:
            return _packet(
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
        return _packet(Function.REGULAR_COMMAND, code, 0, 1, rest=bytes(4))
    items = (Argument(), *arguments)
    packed = bytes(4 * len(items)) + struct.pack(f"<{len(items)}d", *(item.number for item in items))
    packed += b"".join(_pack_text(item.text) for item in items)
    words, array = _array(packed, len(items))
    return _packet(Function.REGULAR_COMMAND, code, last, words, rest=array)


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
            _longs(packet, 0, "request")
            _exactly(packet, 8, "request without arguments")
            return OkToRun() if function == Function.OK_TO_RUN else Handshake()
        case Function.GET_IMAGE:
            buffer, fft = _longs(packet, 2, "image request")
            _exactly(packet, 16, "image request")
            return GetImage(buffer, bool(fft))
        case Function.PUT_IMAGE:
            longs = _longs(packet, 9, "request to take an image")
            _exactly(packet, 44, "request to take an image")
            return PutImage(*longs)
    raise MalformedError(f"function {function}: there are 1 to 5", Refusal.UNKNOWN_FUNCTION)


def _decode_command(packet: bytes) -> Command:
    code, last, words = _longs(packet, 3, "command")
    if words < 0:
        raise MalformedError(f"command {code}: array of {words} words")
    _exactly(packet, 20 + 4 * words, f"command {code} with an array of {words} words")
    if last == 0:  # the array is junk
        return Command(code)
    if not 0 < last <= MOST_ARGUMENTS:
        raise MalformedError(f"command {code}: {last} arguments; 0 to {MOST_ARGUMENTS} expected")
    count = last + 1
    if 4 * words < 12 * count:
        raise MalformedError(f"command {code}: {words} words do not hold {last} arguments")
    numbers = struct.unpack_from(f"<{count}d", packet, 20 + 4 * count)
    texts = _unpack_texts(packet[20 + 12 * count :], count, f"command {code}")
    return Command(code, tuple(Argument(n, t) for n, t in zip(numbers[1:], texts[1:], strict=True)))


# -------------------------------------------------------------------------------------------------- replies

Value = float | str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command answered.

    Parameters
    ----------
    values
        Up to 6 reported values, numbers and texts.
    error
        0, `SCRIPT_ERROR` (the first value is the message, empty while message boxes are on), `NORMAL_EXIT`,
        `EXIT_WITH_CODE` or `USER_STOP`.
    """

    values: tuple[Value, ...] = ()
    error: int = FINE

    @property
    def message(self) -> str:
        """The message of a script error without SerialEM's frame; empty where there is none."""
        if self.error != SCRIPT_ERROR or not self.values:
            return ""
        return unframed(str(self.values[0]))


def encode_reply(reply: Reply) -> bytes:
    """The bytes of a reply to a command."""
    count = len(reply.values)
    if count > MOST_VALUES:
        raise MalformedError(f"{count} values; at most {MOST_VALUES} fit", Refusal.REPLY_TOO_BIG)
    is_text = [isinstance(value, str) for value in reply.values]
    numbers = [0.0 if isinstance(value, str) else float(value) for value in reply.values]
    packed = struct.pack(f"<{count}i{count}d", *is_text, *numbers)
    packed += b"".join(_pack_text(value) for value in reply.values if isinstance(value, str))
    words, array = _array(packed, count)
    return _packet(0, count - 1, reply.error, words, rest=array)


def decode_reply(packet: bytes) -> Reply:
    """The reply to a command.

    Raises
    ------
    RefusedError
        If the server carried out nothing and says why.
    MalformedError
        If this is no reply to a command.
    """
    _raise_refusal(packet)
    highest, error, words = _longs(packet, 3, "reply to a command")
    if words < 0:
        raise MalformedError(f"reply to a command: array of {words} words")
    _exactly(packet, 20 + 4 * words, f"reply with an array of {words} words")
    count = highest + 1
    if not 0 <= count <= MOST_VALUES or 4 * words < 12 * count:
        raise MalformedError(f"reply to a command: {count} values in {words} words; 0 to {MOST_VALUES} expected")
    is_text = struct.unpack_from(f"<{count}i", packet, 20)
    numbers = struct.unpack_from(f"<{count}d", packet, 20 + 4 * count)
    texts = iter(_unpack_texts(packet[20 + 12 * count :], sum(map(bool, is_text)), "reply to a command"))
    return Reply(tuple(next(texts) if text else n for text, n in zip(is_text, numbers, strict=True)), error)


def encode_refusal(code: int) -> bytes:
    """The 8 bytes of a reply that refuses."""
    if code >= 0:
        raise MalformedError(f"refusal {code}: a negative code was expected")
    return _packet(code)


def encode_done() -> bytes:
    """The 8 bytes that answer `PutImage`: send the pixels."""
    return _packet(0)


def decode_done(packet: bytes) -> None:
    """Check the answer to `PutImage`; raises `RefusedError`."""
    _raise_refusal(packet)
    _longs(packet, 0, "answer to an image")
    _exactly(packet, 8, "answer to an image")


def encode_ok_to_run(ok: bool) -> bytes:
    """The answer to `OkToRun`."""
    return _packet(0, int(ok))


def decode_ok_to_run(packet: bytes) -> bool:
    """Whether a script may start; False also while external control is already on."""
    _raise_refusal(packet)
    (ok,) = _longs(packet, 1, "answer to OKtoRun")
    _exactly(packet, 12, "answer to OKtoRun")
    return bool(ok)


def _raise_refusal(packet: bytes) -> None:
    if len(packet) < HEADER_BYTES:
        raise MalformedError(f"reply of {len(packet)} bytes; at least {HEADER_BYTES} expected")
    size, code = struct.unpack_from("<2i", packet)
    if code < 0:
        raise RefusedError(code)
    if code > 0:
        raise MalformedError(f"reply with code {code} and size {size}: 0 or a negative code was expected")


# -------------------------------------------------------------------------------------------------- messages

_FRAME_TOP = "SCRIPT ERROR WITH THIS MESSAGE:"


def framed(message: str) -> str:
    """A script error's message as SerialEM sends it while message boxes are off."""
    return f"\r\n{_FRAME_TOP}\r\n{message}\r\n* * * * * * * * * *\r\n"


def unframed(text: str) -> str:
    """The message itself, whether framed or not."""
    _, top, rest = text.partition(_FRAME_TOP)
    lines = (rest if top else text).strip().splitlines()
    while lines and not lines[-1].strip(" *"):
        lines.pop()
    return "\n".join(lines).strip()


# -------------------------------------------------------------------------------------------------- images

UINT8, INT16, FLOAT32, UINT16, RGB = 0, 1, 2, 6, 16
DTYPES: dict[int, str] = {UINT8: "|u1", INT16: "<i2", FLOAT32: "<f4", UINT16: "<u2"}


def kind_of(dtype: "np.dtype[Any]") -> int:
    """SerialEM's type number of pixels.

    Raises
    ------
    MalformedError
        If SerialEM has no such type.
    """
    for kind, known in DTYPES.items():
        if dtype == np.dtype(known):
            return kind
    raise MalformedError(f"pixels of {dtype}: SerialEM has uint8, int16, uint16 and float32")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The 32 bytes before an image.

    Parameters
    ----------
    kind
        Type number of the pixels, see `DTYPES`; 16 is RGB.
    row_bytes
        Bytes from one row to the next.
    columns, rows
        Size in pixels.
    byte_count
        Bytes of the whole image; 0 is an empty buffer, the other fields mean nothing then.
    parts
        In how many parts it comes.
    """

    kind: int
    row_bytes: int
    columns: int
    rows: int
    byte_count: int = -1
    parts: int = 0

    def __post_init__(self) -> None:
        """Count the bytes and the parts where they were not given."""
        if self.byte_count < 0:
            object.__setattr__(self, "byte_count", self.row_bytes * self.rows)
        if self.parts < 1:
            object.__setattr__(self, "parts", -(-self.byte_count // GET_PART_BYTES))

    @classmethod
    def of(cls, image: NDArray[Any]) -> "ImageHeader":
        """The header of an image, (rows, columns) or (rows, columns, 3) for RGB; rows are not padded."""
        if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
            return cls(RGB, 3 * image.shape[1], image.shape[1], image.shape[0])
        if image.ndim != 2:
            raise MalformedError(f"image of shape {image.shape}: (rows, columns) expected")
        return cls(kind_of(image.dtype), image.shape[1] * image.itemsize, image.shape[1], image.shape[0])

    @property
    def part_sizes(self) -> tuple[int, ...]:
        """Bytes of each part, in order."""
        if self.byte_count == 0:
            return ()
        size = -(-self.byte_count // self.parts)
        return tuple(min(size, self.byte_count - at) for at in range(0, self.byte_count, size))

    def array(self, pixels: "bytes | bytearray | memoryview") -> NDArray[Any]:
        """The image without a copy, shape (rows, columns), top row first; RGB has a third axis.

        Raises
        ------
        MalformedError
            If the sizes do not agree with each other, or the type is unknown.
        """
        dtype = np.dtype("|u1") if self.kind == RGB else np.dtype(DTYPES.get(self.kind, "V"))
        if dtype.kind == "V":
            raise MalformedError(f"image type {self.kind}: known are {', '.join(map(str, [*DTYPES, RGB]))}")
        samples = 3 if self.kind == RGB else 1
        packed = self.columns * samples * dtype.itemsize
        if min(self.rows, self.columns) < 1 or self.row_bytes < packed or self.byte_count != self.row_bytes * self.rows:
            raise MalformedError(f"{self}: the sizes do not agree")
        if len(pixels) != self.byte_count:
            raise MalformedError(f"image of {len(pixels)} bytes; {self.byte_count} expected")
        rows = np.frombuffer(pixels, np.uint8).reshape(self.rows, self.row_bytes)[:, :packed]
        if self.row_bytes != packed:
            rows = np.ascontiguousarray(rows)
        shape = (self.rows, self.columns, 3) if samples == 3 else (self.rows, self.columns)
        return rows.reshape(-1).view(dtype).reshape(shape)


NO_IMAGE = ImageHeader(UINT8, 0, 0, 0, 0, 1)


def encode_image_header(header: ImageHeader) -> bytes:
    """The 32 bytes that a server sends before an image."""
    return _packet(0, header.kind, header.row_bytes, header.columns, header.rows, header.byte_count, header.parts)


def decode_image_header(packet: bytes) -> ImageHeader | None:
    """The header of the image that follows, or None for an empty buffer.

    Raises
    ------
    RefusedError
        If the server refused (8 bytes instead of 32).
    MalformedError
        If no image can follow such a header.
    """
    _raise_refusal(packet)
    kind, row_bytes, columns, rows, byte_count, parts = _longs(packet, 6, "image header")
    _exactly(packet, IMAGE_HEADER_BYTES, "image header")
    if byte_count == 0:
        return None
    if byte_count < 0 or not 0 < parts <= byte_count:
        raise MalformedError(f"image header: {byte_count} bytes in {parts} parts")
    return ImageHeader(kind, row_bytes, columns, rows, byte_count, parts)


def buffer_index(letter: str) -> tuple[int, bool]:
    """Number of a buffer and whether it is an FFT: ``"A"`` is (0, False), ``"BF"`` is (1, True).

    Raises
    ------
    MalformedError
        If there is no such buffer.
    """
    name = letter.upper()
    if len(name) == 1 and name in BUFFERS:
        return BUFFERS.index(name), False
    if len(name) == 2 and name[1] == "F" and name[0] in FFT_BUFFERS:
        return FFT_BUFFERS.index(name[0]), True
    raise MalformedError(f"buffer {letter!r}: there are A to T, and AF to HF for their FFTs")
