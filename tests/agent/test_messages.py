"""Messages: every kind crosses the wire unchanged, every number is bounded, every kind has a sample here."""

import math
from typing import Any, get_args

import msgspec
import pytest

from agent import control_messages as say
from agent import messages as m
from agent import wire
from agent.errors import BadMessageError
from agent.session import events as ev
from tests.agent import samples

ALL = [
    *((wire.FROM_DRIVER, one) for one in samples.FROM_DRIVER),
    *((wire.TO_DRIVER, one) for one in samples.TO_DRIVER),
    *((wire.PUBLISHED, one) for one in samples.PUBLISHED),
    *((wire.CONTROL, say.Control(request_id="r", verb=verb)) for verb in samples.VERBS),
    *((wire.REPLY, one) for one in samples.REPLIES),
]


def tag(message: Any) -> str:
    return str(message.__struct_config__.tag)


@pytest.mark.parametrize(("dialect", "message"), ALL, ids=[f"{n}-{tag(one)}" for n, (_, one) in enumerate(ALL)])
def test_every_kind_crosses_the_wire_unchanged(dialect: wire.Dialect, message: m.Message) -> None:
    assert wire.decode(wire.encode(message), dialect) == message


def test_every_kind_of_message_verb_work_and_event_has_a_sample() -> None:
    have: dict[Any, set[type]] = {
        m.FromDriver: {type(one) for one in samples.FROM_DRIVER},
        m.ToDriver: {type(one) for one in samples.TO_DRIVER},
        m.Published: {type(one) for one in samples.PUBLISHED},
        say.AnyVerb: {type(one) for one in samples.VERBS},
        m.AnyWork: {type(one) for one in samples.WORKS},
        ev.AnyEvent: {type(one) for one in samples.EVENTS},
    }
    for union, kinds in have.items():
        assert kinds == set(get_args(union))


@pytest.mark.parametrize(("dialect", "message"), ALL, ids=[f"{n}-{tag(one)}" for n, (_, one) in enumerate(ALL)])
def test_fields_that_a_newer_peer_adds_are_ignored(dialect: wire.Dialect, message: m.Message) -> None:
    plain = msgspec.to_builtins(message) | {"colour_of_the_room": {"deep": [1, 2, None]}}
    assert wire.decode(msgspec.msgpack.encode(plain), dialect) == message


def test_an_older_peer_may_leave_out_every_field_that_has_a_default() -> None:
    for dialect, message in ALL:
        fields = msgspec.structs.fields(type(message))
        needed = {field.encode_name for field in fields if field.required}
        plain = {k: v for k, v in msgspec.to_builtins(message).items() if k in needed or k == "kind"}
        assert type(wire.decode(msgspec.msgpack.encode(plain), dialect)) is type(message)


@pytest.mark.parametrize("dialect", [wire.FROM_DRIVER, wire.TO_DRIVER, wire.CONTROL, wire.PUBLISHED, wire.REPLY])
def test_an_unknown_kind_is_refused_by_name_with_those_that_are_known(dialect: wire.Dialect) -> None:
    with pytest.raises(BadMessageError, match=r"unknown kind.*'sing'") as caught:
        wire.decode(msgspec.msgpack.encode({"kind": "sing"}), dialect)
    for kind in dialect.kinds:
        assert kind in str(caught.value)


def test_a_kind_of_another_socket_is_refused() -> None:
    with pytest.raises(BadMessageError, match="unknown kind"):
        wire.decode(wire.encode(samples.TO_DRIVER[0]), wire.FROM_DRIVER)


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """Every place in plain data that holds a float."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from numbers(inner, (*path, index))
    elif isinstance(value, float):
        yield path


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, dict):
        return value | {path[0]: changed(value[path[0]], path[1:], new)}
    return [changed(one, path[1:], new) if index == path[0] else one for index, one in enumerate(value)]


INCOMING = [
    *((wire.FROM_DRIVER, one) for one in samples.FROM_DRIVER),
    *((wire.TO_DRIVER, one) for one in samples.TO_DRIVER if isinstance(one, m.Command)),
    *((wire.CONTROL, say.Control(request_id="r", verb=verb)) for verb in samples.VERBS),
]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -1e300], ids=str)
def test_nan_infinite_and_enormous_numbers_are_refused_in_every_field(bad: float) -> None:
    tried = 0
    for dialect, message in INCOMING:
        plain = msgspec.to_builtins(message)
        for path in numbers(plain):
            tried += 1
            with pytest.raises(BadMessageError, match="Expected"):
                wire.decode(msgspec.msgpack.encode(changed(plain, path, bad)), dialect)
    assert tried > 40


BOUNDED = [
    (m.Stage(), "x_um", 5_000.0),
    (m.Stage(), "tilt_deg", 90.0),
    (m.Stage(), "tilt_deg", -90.0),
    (samples.RESULT, "dose_e_per_a2", 100_000.0),
    (samples.RESULT, "dose_e_per_a2", 0.0),
    (samples.RESULT, "defocus_um", -1_000.0),
    (samples.FRAME, "pixel_size_angstrom", 1_000_000.0),
]


@pytest.mark.parametrize(("struct", "field", "limit"), BOUNDED)
def test_the_bound_itself_is_taken_and_the_next_number_is_not(struct: Any, field: str, limit: float) -> None:
    inside = msgspec.to_builtins(struct) | {field: limit}
    assert getattr(msgspec.convert(inside, type(struct)), field) == limit
    beyond = math.nextafter(limit, math.inf if limit > 0 else -math.inf)
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert(inside | {field: beyond}, type(struct))


@pytest.mark.parametrize("bad", ["", " a", "-a", "a b", "../x", "a/b", "ä", "a" * 97, "a\x00", "a\n"])
def test_an_id_that_could_be_a_path_or_a_control_character_is_refused(bad: str) -> None:
    plain = msgspec.to_builtins(samples.FRAME)
    with pytest.raises(BadMessageError, match="frame_id"):
        wire.decode(msgspec.msgpack.encode(plain | {"frame_id": bad}), wire.FROM_DRIVER)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (-1, 5), (65_537, 5), (5,), (5, 5, 5)])
def test_a_shape_without_pixels_or_beyond_any_camera_is_refused(shape: tuple[int, ...]) -> None:
    plain = msgspec.to_builtins(samples.FRAME) | {"shape": shape}
    with pytest.raises(BadMessageError, match="shape"):
        wire.decode(msgspec.msgpack.encode(plain), wire.FROM_DRIVER)


@pytest.mark.parametrize("dtype", ["float64", ">f4", "<f8", "O", "<u4", ""])
def test_only_the_pixel_types_of_the_protocol_are_taken(dtype: str) -> None:
    plain = msgspec.to_builtins(samples.FRAME) | {"dtype": dtype}
    with pytest.raises(BadMessageError, match="dtype"):
        wire.decode(msgspec.msgpack.encode(plain), wire.FROM_DRIVER)
