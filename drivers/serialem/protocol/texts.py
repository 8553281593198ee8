"""Texts and numbers as they lie in the arrays of SerialEM's packets, and the frame round a script error's message."""

import re

from drivers.serialem.protocol.packet import MalformedError

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


def pack_text(text: str) -> bytes:
    """A text in UTF-8 with the NUL that ends it."""
    try:
        packed = text.encode()
    except UnicodeEncodeError as error:
        raise MalformedError(f"text {text!r} cannot be written as UTF-8") from error
    if b"\0" in packed:
        raise MalformedError(f"text {text!r} holds a NUL, which ends texts on this wire")
    return packed + b"\0"


def unpack_text(packed: bytes) -> str:
    """UTF-8, or else the western code page: SerialEM passes on the bytes it has."""
    try:
        return packed.decode()
    except UnicodeDecodeError:
        return packed.decode("cp1252", errors="replace")


def unpack_texts(packed: bytes, count: int, what: str) -> list[str]:
    """So many texts, each ended by a NUL."""
    texts, start = [], 0
    for number in range(count):
        end = packed.find(b"\0", start)
        if end < 0:
            raise MalformedError(f"{what}: text {number + 1} of {count} has no end")
        texts.append(unpack_text(packed[start:end]))
        start = end + 1
    return texts


def padded(packed: bytes) -> tuple[int, bytes]:
    """Number of words of an array, which is never 0, and its bytes with padding."""
    words = (len(packed) + 5) // 4
    return words, packed.ljust(4 * words, b"\0")


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
