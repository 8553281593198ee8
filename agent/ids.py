"""Ids that sort by time: UUID version 7 (RFC 9562, section 5.7)."""

import os
import time


def new_id() -> str:
    """A new id as 32 hexadecimal digits in the usual groups; later ids sort after earlier ones."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (2**48 - 1)) << 80
    value |= 0x7 << 76 | (random >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | (random & (2**62 - 1))
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
