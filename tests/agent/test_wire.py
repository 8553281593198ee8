"""The one place that decodes peers' bytes: nothing that comes in can do more than be refused."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from agent import control_messages as say
from agent import wire
from agent.errors import BadMessageError
from tests.agent import samples
from tests.helpers import frame_of, image_of

DIALECTS = [wire.FROM_DRIVER, wire.TO_DRIVER, wire.CONTROL, wire.REPLY, wire.PUBLISHED]
VALID = [
    *(wire.encode(one) for one in (*samples.FROM_DRIVER, *samples.TO_DRIVER, *samples.PUBLISHED)),
    *(wire.encode(say.Control(request_id="r", verb=verb)) for verb in samples.VERBS),
]


def decodes_or_refuses(raw: bytes, dialect: wire.Dialect) -> None:
    said = "taken"
    try:
        wire.decode(raw, dialect)
    except BadMessageError as error:
        said = str(error)
    assert 0 < len(said) <= 500
    assert "\n" not in said


@bounded(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=200), dialect=st.sampled_from(DIALECTS))
def test_no_bytes_do_more_than_be_refused(raw: bytes, dialect: wire.Dialect) -> None:
    decodes_or_refuses(raw, dialect)


@bounded(max_examples=500, deadline=None)
@given(
    valid=st.sampled_from(VALID),
    edits=st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 1_000),
    dialect=st.sampled_from(DIALECTS),
)
def test_damaged_messages_do_no_more_than_be_refused(
    valid: bytes, edits: list[tuple[int, int]], cut: int, dialect: wire.Dialect
) -> None:
    raw = bytearray(valid)
    for place, value in edits:
        raw[place % len(raw)] = value
    decodes_or_refuses(bytes(raw), dialect)
    decodes_or_refuses(bytes(raw[: cut % len(raw)]), dialect)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@bounded(max_examples=300, deadline=None)
@given(valid=st.sampled_from(samples.FROM_DRIVER), field=st.integers(0, 40), value=json_like)
def test_any_value_in_any_field_is_taken_or_refused(valid: Any, field: int, value: Any) -> None:
    plain = msgspec.to_builtins(valid)
    plain[list(plain)[field % len(plain)]] = value
    decodes_or_refuses(msgspec.msgpack.encode(plain), wire.FROM_DRIVER)


def test_deep_nesting_is_refused() -> None:
    deep = b"\x81\xa1a" * 100_000 + b"\xc0"
    decodes_or_refuses(b"\x82\xa4kind\xa9heartbeat\xa1x" + deep, wire.FROM_DRIVER)


def test_a_header_beyond_the_limit_is_refused_with_both_numbers() -> None:
    with pytest.raises(BadMessageError, match=rf"{wire.MAX_HEADER_BYTES + 1} bytes: at most {wire.MAX_HEADER_BYTES}"):
        wire.decode(bytes(wire.MAX_HEADER_BYTES + 1), wire.FROM_DRIVER)


@pytest.mark.parametrize("dtype", ["|u1", "|i1", "<u2", "<i2", "<f4"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (33, 20)])
def test_pixels_are_viewed_without_a_copy_and_cannot_be_written(dtype: str, shape: tuple[int, int]) -> None:
    image = image_of(dtype, shape)
    frame = frame_of(image)
    header, pixels = wire.frame_parts(frame, image)
    assert wire.decode(header, wire.FROM_DRIVER) == frame
    seen = wire.view_pixels(frame, pixels)
    assert np.shares_memory(seen, image)
    assert not seen.flags.writeable
    assert seen.dtype == np.dtype(dtype)
    assert np.array_equal(seen, image)
    assert wire.digest(seen) == frame.digest


@bounded(max_examples=60, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), size=st.integers(0, 5_000))
def test_a_wrong_number_of_bytes_is_refused_with_both_numbers(rows: int, columns: int, size: int) -> None:
    frame = frame_of(image_of(shape=(rows, columns)))
    expected = rows * columns * 2
    if size == expected:
        assert wire.view_pixels(frame, bytes(size)).shape == (rows, columns)
        return
    with pytest.raises(BadMessageError, match=rf"{size} bytes of pixels, but {rows} x {columns} of <u2 are {expected}"):
        wire.view_pixels(frame, bytes(size))


def test_a_header_that_claims_more_than_any_frame_is_refused_before_memory_is_asked_for() -> None:
    frame = frame_of(image_of(), shape=(65_536, 65_536), dtype="<f4")
    with pytest.raises(BadMessageError, match=r"17179869184 bytes: at most"):
        wire.view_pixels(frame, b"")


@pytest.mark.parametrize("given_", [np.float64, np.int32, np.uint32, ">u2", bool])
def test_pixels_of_other_types_travel_as_float32(given_: Any) -> None:
    image = np.arange(12).reshape(3, 4).astype(given_)
    plain, name = wire.plain_pixels(image)
    assert name == "<f4"
    assert np.array_equal(plain, image.astype(np.float32))


def test_a_slice_of_a_larger_image_travels_in_c_order() -> None:
    image = image_of(shape=(20, 20))[::2, 1::3]
    plain, name = wire.plain_pixels(image)
    frame = frame_of(plain)
    _, pixels = wire.frame_parts(frame, plain)
    assert name == "<u2"
    assert np.array_equal(wire.view_pixels(frame, pixels), image)


def test_one_changed_bit_changes_the_digest() -> None:
    image = image_of()
    other = image.copy()
    other[-1, -1] ^= 1
    assert wire.digest(image) != wire.digest(other)
    assert wire.digest(image) == wire.digest(image.tobytes()) == wire.digest(memoryview(image.tobytes()))
