"""Replies to everything but images: values and errors of a command, refusals, and the two short ones."""

import struct
from dataclasses import dataclass

from drivers.serialem.protocol.packet import MalformedError, Refusal, check_size, longs_of, make_packet, raise_refusal
from drivers.serialem.protocol.texts import pack_text, padded, unframed, unpack_texts

MOST_VALUES = 6

# Error field of a reply to a command
FINE = 0
SCRIPT_ERROR = 1
NORMAL_EXIT = -123456
EXIT_WITH_CODE = -654321
USER_STOP = -234561

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
    packed += b"".join(pack_text(value) for value in reply.values if isinstance(value, str))
    words, array = padded(packed)
    return make_packet(0, count - 1, reply.error, words, rest=array)


def decode_reply(packet: bytes) -> Reply:
    """The reply to a command.

    Raises
    ------
    RefusedError
        If the server carried out nothing and says why.
    MalformedError
        If this is no reply to a command.
    """
    raise_refusal(packet)
    highest, error, words = longs_of(packet, 3, "reply to a command")
    if words < 0:
        raise MalformedError(f"reply to a command: array of {words} words")
    check_size(packet, 20 + 4 * words, f"reply with an array of {words} words")
    count = highest + 1
    if not 0 <= count <= MOST_VALUES or 4 * words < 12 * count:
        raise MalformedError(f"reply to a command: {count} values in {words} words; 0 to {MOST_VALUES} expected")
    is_text = struct.unpack_from(f"<{count}i", packet, 20)
    numbers = struct.unpack_from(f"<{count}d", packet, 20 + 4 * count)
    texts = iter(unpack_texts(packet[20 + 12 * count :], sum(map(bool, is_text)), "reply to a command"))
    return Reply(tuple(next(texts) if text else n for text, n in zip(is_text, numbers, strict=True)), error)


def encode_refusal(code: int) -> bytes:
    """The 8 bytes of a reply that refuses."""
    if code >= 0:
        raise MalformedError(f"refusal {code}: a negative code was expected")
    return make_packet(code)


def encode_done() -> bytes:
    """The 8 bytes that answer `PutImage`: send the pixels."""
    return make_packet(0)


def decode_done(packet: bytes) -> None:
    """Check the answer to `PutImage`; raises `RefusedError`."""
    raise_refusal(packet)
    longs_of(packet, 0, "answer to an image")
    check_size(packet, 8, "answer to an image")


def encode_ok_to_run(ok: bool) -> bytes:
    """The answer to `OkToRun`."""
    return make_packet(0, int(ok))


def decode_ok_to_run(packet: bytes) -> bool:
    """Whether a script may start; False also while external control is already on."""
    raise_refusal(packet)
    (ok,) = longs_of(packet, 1, "answer to OKtoRun")
    check_size(packet, 12, "answer to OKtoRun")
    return bool(ok)
