"""Request bodies: JSON text that comes without a Content-Type, most of it one nested list of pixels."""

import json
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.errors import BadMessageError

SMALLEST_SIDE = 16


class TileBody(msgspec.Struct, frozen=True):
    """``push_lm``."""

    image: list[list[float]]
    grid_id: int
    tile_id: int | None = None  # Leginon always sends one, Ptolemy's own client need not


class HoleImageBody(msgspec.Struct, frozen=True):
    """``push_and_evaluate_mm`` and ``push_mm``."""

    image: list[list[float]]
    grid_id: int
    square_id: int
    mm_img_id: int | None = None
    tile_id: int | None = None


class ImageBody(msgspec.Struct, frozen=True):
    """``process_stateless_*``."""

    image: list[list[float]]


_tile = msgspec.json.Decoder(TileBody, strict=False)
_hole_image = msgspec.json.Decoder(HoleImageBody, strict=False)
_image = msgspec.json.Decoder(ImageBody, strict=False)


def tile(raw: bytes) -> tuple[TileBody, NDArray[np.float32]]:
    """The body of ``push_lm`` and its pixels, shape (rows, columns)."""
    body: TileBody = _decode(_tile, raw)
    return body, pixels(body.image)


def hole_image(raw: bytes) -> tuple[HoleImageBody, NDArray[np.float32]]:
    """The body of ``push_and_evaluate_mm`` and its pixels, shape (rows, columns)."""
    body: HoleImageBody = _decode(_hole_image, raw)
    return body, pixels(body.image)


def image(raw: bytes) -> NDArray[np.float32]:
    """The pixels of a ``process_stateless_*`` body, shape (rows, columns)."""
    body: ImageBody = _decode(_image, raw)
    return pixels(body.image)


def fields(raw: bytes) -> dict[str, Any]:
    """A small body as a dictionary; no body at all is an empty one.

    Raises
    ------
    BadMessageError
        If it is no JSON object.
    """
    if not raw.strip():
        return {}
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadMessageError(f"the body is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadMessageError(f"the body is a JSON {type(values).__name__}; an object is expected")
    return values


def own_id(mark: str) -> int:
    """An id for an image that came without one: negative, the same for the same pixels (``mark``: their digest)."""
    return -1 - int(mark[:7], 16)


def whole(value: Any, name: str) -> int:
    """An integer, also where it comes as text or as 3.0.

    Raises
    ------
    BadMessageError
        If it is none.
    """
    try:
        number = int(value)
        if isinstance(value, bool) or number != float(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise BadMessageError(f"{name}: {value!r}; an integer is expected"[:200]) from error
    return number


def _decode(decoder: "msgspec.json.Decoder[Any]", raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        first = error
    if b"NaN" not in raw and b"Infinity" not in raw:  # which Python's json writes and JSON does not know
        raise BadMessageError(f"the body cannot be used: {first}"[:500])
    try:
        return msgspec.convert(json.loads(raw), decoder.type, strict=False)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BadMessageError(f"the body cannot be used: {error}"[:500]) from error


def pixels(rows: list[list[float]]) -> NDArray[np.float32]:
    """Nested rows as an array, shape (rows, columns); what is not finite becomes the mean of the rest.

    Raises
    ------
    BadMessageError
        If the rows differ in length or are fewer or shorter than an image can be.
    """
    width = len(rows[0]) if rows else 0
    if any(len(row) != width for row in rows):
        raise BadMessageError("image: its rows differ in length")
    if min(len(rows), width) < SMALLEST_SIDE:
        raise BadMessageError(f"image: {len(rows)} x {width} pixels; at least {SMALLEST_SIDE} x {SMALLEST_SIDE} needed")
    found = np.empty((len(rows), width), np.float32)
    with np.errstate(over="ignore"):
        for number, row in enumerate(rows):
            found[number] = row
    finite = np.isfinite(found)
    if not finite.all():
        found[~finite] = found[finite].mean() if finite.any() else 0.0
    return found
