"""SerialEM's bytes: each layout against examples typed in by hand, and both directions against each other."""

import contextlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.serialem import codes, protocol
from drivers.serialem.protocol import (
    Argument,
    Command,
    GetImage,
    Handshake,
    ImageHeader,
    MalformedError,
    OkToRun,
    PutImage,
    RefusedError,
    Reply,
    command,
)

# ---------------------------------------------------------------------------------------------- bytes by hand

REPORT_STAGE = bytes.fromhex("18000000 01000000 25010000 00000000 01000000 00000000")
STAGE_REPLY = bytes.fromhex(
    "3c000000 00000000 02000000 00000000 0a000000 00000000 00000000 00000000"
    "0000000000002440 00000000000034c0 0000000000003e40 00000000"
)
ADD_POINT = bytes.fromhex(
    "54000000 01000000 68020000 03000000 10000000"
    "00000000 00000000 00000000 00000000"
    "0000000000000000 000000000000f03f 0000000000000440 00000000000008c0"
    "00 312e00 322e3500 2d332e00 00000000"
)
POINT_REPLY = bytes.fromhex("24000000 00000000 00000000 00000000 04000000 00000000 000000000000f03f 00000000")
UNDEFINED = b"The variable nope is not defined"
ERROR_REPLY = (
    bytes.fromhex("44000000 00000000 00000000 01000000 0c000000 01000000 0000000000000000") + UNDEFINED + bytes(4)
)
EXIT_REPLY = bytes.fromhex("18000000 00000000 ffffffff 0f04f6ff 01000000 00000000")


@pytest.mark.parametrize(
    ("request_", "packet"),
    [
        pytest.param(command(293), REPORT_STAGE, id="ReportStageXYZ"),
        pytest.param(command(616, 1.0, 2.5, -3.0), ADD_POINT, id="AddStagePosAsNavPoint"),
        pytest.param(OkToRun(), bytes.fromhex("08000000 03000000"), id="OKtoRun"),
        pytest.param(Handshake(), bytes.fromhex("08000000 02000000"), id="handshake"),
        pytest.param(GetImage(1, True), bytes.fromhex("10000000 04000000 01000000 01000000"), id="image of BF"),
        pytest.param(
            PutImage(6, 3, 2, 12, 16, 0),
            bytes.fromhex(
                "2c000000 05000000 06000000 03000000 02000000 0c000000 10000000 00000000 01000000 ffffffff 01000000"
            ),
            id="image into Q",
        ),
    ],
)
def test_a_request_is_written_and_read_as_by_hand(request_: protocol.Request, packet: bytes) -> None:
    assert protocol.encode_request(request_) == packet
    assert protocol.decode_request(packet) == request_


@pytest.mark.parametrize(
    ("reply", "packet"),
    [
        pytest.param(Reply((10.0, -20.0, 30.0)), STAGE_REPLY, id="stage position"),
        pytest.param(Reply((1.0,)), POINT_REPLY, id="one number"),
        pytest.param(Reply((UNDEFINED.decode(),), protocol.SCRIPT_ERROR), ERROR_REPLY, id="script error"),
        pytest.param(Reply((), protocol.EXIT_WITH_CODE), EXIT_REPLY, id="exit"),
    ],
)
def test_a_reply_is_written_and_read_as_by_hand(reply: Reply, packet: bytes) -> None:
    assert protocol.encode_reply(reply) == packet
    assert protocol.decode_reply(packet) == reply


def test_small_replies_are_written_and_read_as_by_hand() -> None:
    assert protocol.encode_ok_to_run(True) == bytes.fromhex("0c000000 00000000 01000000")
    assert protocol.decode_ok_to_run(bytes.fromhex("0c000000 00000000 00000000")) is False
    assert protocol.encode_refusal(-9) == bytes.fromhex("08000000 f7ffffff")
    assert protocol.encode_done() == bytes.fromhex("08000000 00000000")
    protocol.decode_done(bytes.fromhex("08000000 00000000"))
    header = bytes.fromhex("20000000 00000000 06000000 06000000 03000000 02000000 0c000000 01000000")
    assert protocol.encode_image_header(ImageHeader.of(np.zeros((2, 3), np.uint16))) == header
    assert protocol.decode_image_header(header) == ImageHeader(6, 6, 3, 2)


# ---------------------------------------------------------------------------------------------- both ways

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
values = st.one_of(numbers, texts, st.none(), st.integers(-(2**40), 2**40))
any_long = st.integers(-(2**31), 2**31 - 1)


@given(st.integers(0, 840), st.lists(values, max_size=protocol.MOST_ARGUMENTS))
def test_a_command_survives_the_wire(code: int, arguments: list[float | str | None]) -> None:
    sent = command(code, *arguments)
    packet = protocol.encode_request(sent)
    assert struct.unpack_from("<i", packet)[0] == len(packet)
    assert protocol.decode_request(packet) == sent


@given(st.lists(st.one_of(numbers, texts), max_size=protocol.MOST_VALUES), st.sampled_from([0, 1, -123456, -234561]))
def test_a_reply_survives_the_wire(reported: list[float | str], error: int) -> None:
    reply = Reply(tuple(reported), error)
    packet = protocol.encode_reply(reply)
    words = struct.unpack_from("<i", packet, 16)[0]
    assert words >= 1
    assert len(packet) == 20 + 4 * words
    assert protocol.decode_reply(packet) == reply


@given(st.builds(PutImage, *[any_long] * 9) | st.builds(GetImage, any_long, st.booleans()))
def test_image_requests_survive_the_wire(request: protocol.Request) -> None:
    assert protocol.decode_request(protocol.encode_request(request)) == request


@given(st.binary(max_size=120))
def test_any_bytes_are_a_packet_or_malformed(packet: bytes) -> None:
    for decode in (
        protocol.decode_request,
        protocol.decode_reply,
        protocol.decode_image_header,
        protocol.decode_ok_to_run,
        protocol.decode_done,
        protocol.packet_size,
    ):
        with contextlib.suppress(MalformedError, RefusedError):
            decode(packet)


@given(st.data())
def test_a_damaged_command_is_a_command_or_malformed(data: st.DataObject) -> None:
    packet = bytearray(ADD_POINT)
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedError):
        assert isinstance(protocol.decode_request(bytes(packet)), protocol.Request)


# ---------------------------------------------------------------------------------------------- numbers and texts


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1."), (2.5, "2.5"), (-1.2345678, "-1.234568"), (7, "7"), (-3, "-3"), (0.0, "0.")]
)
def test_a_number_has_the_text_that_the_real_module_gives_it(value: float, text: str) -> None:
    assert Argument.of(value) == Argument(float(value), text)


@pytest.mark.parametrize(
    ("text", "number"), [("40200", 40200.0), (" -2.5e3um", -2500.0), ("A", 0.0), ("", 0.0), (".5", 0.5), ("inf", 0.0)]
)
def test_a_text_has_the_number_at_its_start(text: str, number: float) -> None:
    assert Argument.of(text) == Argument(number, text)


def test_an_argument_left_out_in_the_middle_is_an_empty_text() -> None:
    sent = command(286, 1.0, None, 3.0)
    assert sent.arguments[1] == Argument(0.0, "")
    assert sent.arguments[1].missing
    assert protocol.decode_request(protocol.encode_request(sent)) == sent


def test_the_array_of_a_command_without_arguments_is_not_read() -> None:
    junk = REPORT_STAGE[:-4] + b"\xff\xfe\xfd\xfc"
    assert protocol.decode_request(junk) == Command(293)


def test_more_room_than_needed_is_accepted() -> None:
    roomy = struct.pack("<5i", len(ADD_POINT) + 8, 1, 616, 3, 18) + ADD_POINT[20:] + bytes(8)
    assert protocol.decode_request(roomy) == protocol.decode_request(ADD_POINT)


def test_a_long_text_survives() -> None:
    sent = command(349, "x" * 20_000)
    assert protocol.decode_request(protocol.encode_request(sent)) == sent


def test_bytes_of_a_western_code_page_are_read() -> None:
    packet = ERROR_REPLY.replace(b"The variable nope", b"Probenh\xf6he \xb1 3 \xb5m")
    assert "Probenhöhe ± 3 µm" in str(protocol.decode_reply(packet).values[0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((math.nan,), "finite"),
        ((math.inf,), "finite"),
        (("a\0b",), "NUL"),
        ((object(),), "number or a text"),
        ((1,) * 20, "at most 19"),
        (("\ud800",), "UTF-8"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_a_reason(arguments: tuple[float, ...], says: str) -> None:
    with pytest.raises(MalformedError, match=says):
        protocol.encode_request(command(1, *arguments))


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        pytest.param("04000000", -4, id="shorter than any packet"),
        pytest.param("08000000 63000000", -1, id="unknown function"),
        pytest.param("0c000000 01000000 25010000", -4, id="shorter than its function needs"),
        pytest.param("18000000 01000000 25010000 00000000 02000000 00000000", -6, id="array longer than the packet"),
        pytest.param("14000000 01000000 25010000 00000000 ffffffff", -6, id="array of negative size"),
        pytest.param("18000000 01000000 25010000 03000000 01000000 00000000", -6, id="arguments do not fit"),
        pytest.param("18000000 01000000 25010000 14000000 01000000 00000000", -6, id="20 arguments"),
        pytest.param("0c000000 03000000 00000000", -6, id="OKtoRun with an argument"),
    ],
)
def test_a_wrong_request_has_the_code_that_serialem_answers(packet: str, code: int) -> None:
    with pytest.raises(MalformedError) as caught:
        protocol.decode_request(bytes.fromhex(packet))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("code", "busy", "stopped"), [(-9, True, False), (-10, False, True), (-6, False, False), (-77, False, False)]
)
def test_a_refusal_says_whether_serialem_is_busy_or_was_stopped(code: int, busy: bool, stopped: bool) -> None:
    with pytest.raises(RefusedError, match=str(code)) as caught:
        protocol.decode_reply(protocol.encode_refusal(code))
    assert (caught.value.busy, caught.value.stopped) == (busy, stopped)


def test_more_than_six_values_do_not_fit() -> None:
    with pytest.raises(MalformedError, match="at most 6"):
        protocol.encode_reply(Reply((0.0,) * 7))


@pytest.mark.parametrize("message", ["No image", "Two\nlines", ""])
def test_the_frame_of_a_message_comes_off(message: str) -> None:
    assert Reply((protocol.framed(message),), protocol.SCRIPT_ERROR).message == message
    assert Reply((message,), protocol.SCRIPT_ERROR).message == message
    assert Reply((message,)).message == ""


# ---------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("byte_count", "parts"),
    [
        (1, (1,)),
        (33_620_000, (33_620_000,)),
        (33_620_001, (16_810_001, 16_810_000)),
        (4096 * 4200 * 4, (22_937_600,) * 3),
        (7676 * 7420 * 2, (28_477_960,) * 4),
    ],
)
def test_an_image_comes_in_parts_of_at_most_33_62_million_bytes(byte_count: int, parts: tuple[int, ...]) -> None:
    header = ImageHeader(0, byte_count, byte_count, 1)
    assert header.part_sizes == parts
    assert sum(parts) == byte_count


def test_a_client_follows_the_number_of_parts_that_it_is_given() -> None:
    packet = struct.pack("<8i", 32, 0, 0, 10, 10, 1, 10, 4)
    header = protocol.decode_image_header(packet)
    assert header is not None
    assert header.part_sizes == (3, 3, 3, 1)


def test_no_bytes_are_an_empty_buffer() -> None:
    assert protocol.decode_image_header(struct.pack("<8i", 32, 0, 5, 6, 7, 8, 0, 9)) is None
    assert protocol.decode_image_header(protocol.encode_image_header(protocol.NO_IMAGE)) is None


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<f4", "<u2"])
def test_pixels_come_back_top_row_first(dtype: str) -> None:
    image = np.arange(12).reshape(3, 4).astype(dtype)
    header = protocol.decode_image_header(protocol.encode_image_header(ImageHeader.of(image)))
    assert header is not None
    again = header.array(image.tobytes())
    assert again.dtype == image.dtype
    assert np.array_equal(again, image)
    put = PutImage.of(image, 16)
    assert np.array_equal(put.array(image.tobytes()), image)


def test_padded_rows_and_colours_are_understood() -> None:
    padded = np.arange(16, dtype=np.uint8).reshape(2, 8)
    assert np.array_equal(ImageHeader(1, 8, 3, 2).array(padded.tobytes()), padded[:, :6].copy().view("<i2"))
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(ImageHeader.of(colours).array(colours.tobytes()), colours)


@pytest.mark.parametrize(
    ("header", "byte_count"),
    [
        (ImageHeader(9, 4, 4, 1), 4),
        (ImageHeader(0, 4, 4, 1), 3),
        (ImageHeader(1, 4, 4, 1), 4),
        (ImageHeader(0, 4, 4, 2, 4, 1), 4),
    ],
)
def test_an_image_whose_sizes_disagree_is_refused(header: ImageHeader, byte_count: int) -> None:
    with pytest.raises(MalformedError):
        header.array(bytes(byte_count))


def test_buffers_have_letters() -> None:
    assert protocol.buffer_index("A") == (0, False)
    assert protocol.buffer_index("t") == (19, False)
    assert protocol.buffer_index("HF") == (7, True)
    for wrong in ("", "U", "IF", "AA"):
        with pytest.raises(MalformedError, match="A to T"):
            protocol.buffer_index(wrong)


# ---------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize(
    ("name", "code", "keys"),
    [
        ("Exit", 8, "ds"),
        ("View", 69, ""),
        ("MoveStageTo", 286, "DDd"),
        ("ReportStageXYZ", 293, ""),
        ("IsVersionAtLeast", 356, "Ss"),
        ("AddImagePosAsNavPoint", 613, "SDDdii"),
        ("ReportNumExeFuncs", 710, ""),
        ("StartTry", 785, "i"),
    ],
)
def test_codes_are_serialems(name: str, code: int, keys: str) -> None:
    assert codes.code_of(name) == code
    assert codes.info_of(name.lower()).keys == keys
    assert codes.command_at(code) == codes.info_of(name)


@pytest.mark.parametrize(
    ("version", "entries"),
    [("4.0.0", 601), ("4.0", 603), ("4.0.28", 603), ("4.1", 721), ("4.1.25", 721), ("4.2.27", 790), ("4.3", 841)],
)
def test_each_release_has_its_number_of_commands(version: str, entries: int) -> None:
    assert codes.entries(version) == entries


@pytest.mark.parametrize("version", ["3.8", "new", "4"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(ValueError, match="SerialEM version"):
        codes.entries(version)


def test_a_command_that_is_not_there_yet_is_refused_with_the_release_that_has_it() -> None:
    assert codes.exists("StartTry", 790)
    assert not codes.exists("StartTry", 721)
    with pytest.raises(
        codes.UnknownCommandError, match=r"721 commands and not yet StartTry \(785\); it came with 4\.2"
    ):
        codes.code_of("StartTry", 721)
    with pytest.raises(codes.UnknownCommandError, match="no command MoveTheStage"):
        codes.code_of("MoveTheStage")
    with pytest.raises(codes.UnknownCommandError, match="cannot be called from Python"):
        codes.code_of("Loop")
    assert not codes.exists("Loop", 841)
    assert codes.command_at(841) is None
    assert codes.command_at(-1) is None


def test_codes_are_places_in_one_list() -> None:
    assert [info.code for info in codes.table().values()] == list(range(841))
    assert codes.info_of("ReportSpotSize").since == "4.0.0"
    assert codes.info_of("GetLowDoseAreaParams").since == "4.3"
    assert codes.info_of("AlignTo").earlier_keys == "Siiii"
