"""Tiles of a plane as PNG: greys, strokes and labels, at halving scales; nothing but what is asked for is read."""

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.web.annotate.ink import Plane
from models.organelles.annotation import BACKGROUND, STRUCTURE

SIDE = 512
# blue, green, red, opacity; orange and blue are told apart with every common colour blindness
_INK = np.zeros((3, 4), np.uint8)
_INK[STRUCTURE] = (0, 159, 230, 255)
_INK[BACKGROUND] = (233, 180, 86, 255)
_FILL, _LINE = (196, 200, 94, 70), (196, 200, 94, 255)


def levels(rows: int, columns: int) -> int:
    """How many scales there are; at the coarsest, a plane is one tile."""
    return max(1, int(np.ceil(np.log2(max(rows, columns) / SIDE))) + 1)


def window(plane: Plane, level: int, row: int, column: int) -> tuple[slice, slice] | None:
    """Rows and columns of a tile; None where there is none."""
    step = 1 << level
    top, left = row * SIDE * step, column * SIDE * step
    if not 0 <= level < levels(*plane.shape[:2]) or not (0 <= top < plane.shape[0] and 0 <= left < plane.shape[1]):
        return None
    bottom, right = min(plane.shape[0], top + SIDE * step), min(plane.shape[1], left + SIDE * step)
    return slice(top, bottom), slice(left, right)


def grey_tile(plane: Plane, level: int, row: int, column: int) -> bytes | None:
    """Greys, averaged at coarser scales."""
    at = window(plane, level, row, column)
    if at is None:
        return None
    part = np.ascontiguousarray(plane[at])
    if level:
        part = np.asarray(cv2.resize(part, _size(part, level), interpolation=cv2.INTER_AREA), np.uint8)
    return _png(part)


def ink_tile(plane: Plane, level: int, row: int, column: int) -> bytes | None:
    """Strokes in their colours, clear elsewhere; at coarser scales thin ones stay."""
    at = window(plane, level, row, column)
    return None if at is None else _png(_INK[_coarse(plane[at], level)])


def label_tile(plane: Plane, level: int, row: int, column: int) -> bytes | None:
    """Labels as a veil with an outline one pixel wide."""
    at = window(plane, level, row, column)
    if at is None:
        return None
    step = 1 << level
    rows, columns = at
    around = (
        slice(max(0, rows.start - step), min(plane.shape[0], rows.stop + step)),
        slice(max(0, columns.start - step), min(plane.shape[1], columns.stop + step)),
    )
    mask = _coarse(plane[around] > 0, level).astype(np.uint8)
    core = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    shown = np.zeros((*mask.shape, 4), np.uint8)
    shown[mask > 0] = _LINE
    shown[core > 0] = _FILL
    first = ((rows.start - around[0].start) // step, (columns.start - around[1].start) // step)
    wide, high = _size(plane[at], level)
    return _png(shown[first[0] : first[0] + high, first[1] : first[1] + wide])


def _coarse(part: NDArray[np.generic], level: int) -> NDArray[np.uint8]:
    """The largest value of each bin of ``2**level`` pixels."""
    values = np.asarray(part, np.uint8)
    if not level:
        return values
    step = 1 << level
    wide, high = _size(values, level)
    padded = np.zeros((high * step, wide * step), np.uint8)
    padded[: values.shape[0], : values.shape[1]] = values
    return np.asarray(padded.reshape(high, step, wide, step).max(axis=(1, 3)))


def _size(part: NDArray[np.generic], level: int) -> tuple[int, int]:
    # whole bins, so that a tile's edge is where its neighbour begins
    step = 1 << level
    return -(-part.shape[1] // step), -(-part.shape[0] // step)


def _png(picture: NDArray[np.uint8]) -> bytes:
    ok, code = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return code.tobytes() if ok else b""
