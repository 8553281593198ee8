"""Packets of SerialEM's socket: their sizes, codes and errors, and how integers lie in them.

ProtocolError
├── MalformedError    bytes that do not follow the layout; ``code`` is what a server answers
└── RefusedError      the server answered a negative code: busy, STOP, ...
"""

import struct
from enum import IntEnum

PORT = 48888
HEADER_BYTES = 8
IMAGE_HEADER_BYTES = 32
MOST_PACKET_BYTES = 64 * 1024 * 1024  # of anything but pixels


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


def make_packet(code: int, *longs: int, rest: bytes = b"") -> bytes:
    """A packet with this code and these integers, and what follows them."""
    total = 8 + 4 * len(longs) + len(rest)
    try:
        return struct.pack(f"<{2 + len(longs)}i", total, code, *longs) + rest
    except struct.error as error:
        raise MalformedError(f"{longs} does not fit into 32-bit integers") from error


def longs_of(packet: bytes, count: int, what: str) -> tuple[int, ...]:
    """The ``count`` integers after the packet's header."""
    if len(packet) < 8 + 4 * count:
        message = f"{what}: {len(packet)} bytes, at least {8 + 4 * count} expected"
        raise MalformedError(message, Refusal.REQUEST_TOO_SHORT)
    if packet_size(packet) != len(packet):
        raise MalformedError(f"{what}: {len(packet)} bytes, but it says {packet_size(packet)}")
    return struct.unpack_from(f"<{count}i", packet, 8)


def check_size(packet: bytes, size: int, what: str) -> None:
    """Refuse a packet that does not have this size."""
    if len(packet) != size:
        raise MalformedError(f"{what}: {len(packet)} bytes, {size} expected")


def raise_refusal(packet: bytes) -> None:
    """Raise `RefusedError` where a reply's code is negative."""
    if len(packet) < HEADER_BYTES:
        raise MalformedError(f"reply of {len(packet)} bytes; at least {HEADER_BYTES} expected")
    size, code = struct.unpack_from("<2i", packet)
    if code < 0:
        raise RefusedError(code)
    if code > 0:
        raise MalformedError(f"reply with code {code} and size {size}: 0 or a negative code was expected")
