"""Images on the wire: the head that goes before one, its parts, its types, and the names of buffers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.serialem.protocol.packet import (
    IMAGE_HEADER_BYTES,
    MalformedError,
    check_size,
    longs_of,
    make_packet,
    raise_refusal,
)

GET_PART_BYTES = 33_620_000
BUFFERS = "ABCDEFGHIJKLMNOPQRST"
FFT_BUFFERS = "ABCDEFGH"
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
    return make_packet(0, header.kind, header.row_bytes, header.columns, header.rows, header.byte_count, header.parts)


def decode_image_header(packet: bytes) -> ImageHeader | None:
    """The header of the image that follows, or None for an empty buffer.

    Raises
    ------
    RefusedError
        If the server refused (8 bytes instead of 32).
    MalformedError
        If no image can follow such a header.
    """
    raise_refusal(packet)
    kind, row_bytes, columns, rows, byte_count, parts = longs_of(packet, 6, "image header")
    check_size(packet, IMAGE_HEADER_BYTES, "image header")
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
