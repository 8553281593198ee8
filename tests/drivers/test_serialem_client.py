"""The client against SerialEM's simulator over a real socket, and against peers that behave badly."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from drivers.serialem import codes, protocol
from drivers.serialem.client import SETUP, SerialEMClient
from drivers.serialem.errors import (
    BadReplyError,
    BusyError,
    LinkLostError,
    MissingCommandError,
    NoAnswerError,
    ScriptError,
    StoppedError,
)
from drivers.serialem.limits import CLASSES, DEFAULT_LIMITS_S, limit_s
from simulators.serialem.buffers import ImageBuffer
from simulators.serialem.server import SerialEMServer
from tests.end_to_end.serialem_scene import Cable, microscope

pytestmark = pytest.mark.timeout(30)
SETUP_NAMES = [name for name, _ in SETUP]


@pytest.fixture
def server() -> Iterator[SerialEMServer]:
    with microscope() as made:
        yield made


@pytest.fixture
def client(server: SerialEMServer) -> Iterator[SerialEMClient]:
    made = SerialEMClient("127.0.0.1", server.port, limits_s={"quick": 5.0})
    yield made
    made.close()


def names(server: SerialEMServer) -> list[str]:
    return [name for name, _ in server.log]


# -------------------------------------------------------------------------------------------------- commands


def test_a_command_gives_none_one_value_or_a_tuple(client: SerialEMClient) -> None:
    assert client.call("Echo", "hello") is None
    assert client.call("ReportTiltAngle") == 0.0
    assert client.call("ReportStageXYZ") == (0.0, 0.0, 0.0)
    assert client.call("SetPersistentVar", "cryo", "µ grün") is None
    assert client.call("GetVariable", "cryo") == "µ grün"
    assert client.numbers("ReportStageXYZ", least=3) == (0.0, 0.0, 0.0)
    with pytest.raises(BadReplyError, match="4 numbers"):
        client.numbers("ReportStageXYZ", least=4)


@pytest.mark.parametrize(
    ("version", "entries", "known"),
    [("4.0.0", 601, "4.0"), ("4.0", 603, "4.0"), ("4.1", 721, "4.1"), ("4.2", 790, "4.2"), ("4.3", 841, "4.3")],
)
def test_version_and_number_of_commands_are_found_without_an_unknown_code(
    version: str, entries: int, known: str
) -> None:
    with microscope(version=version) as server:
        client = SerialEMClient("127.0.0.1", server.port)
        client.ready()
        assert client.version == known
        assert client.entries == (601 if known == "4.0" else entries)
        assert not server.control.stuck
        with pytest.raises(MissingCommandError) if entries < 841 else contextlib.nullcontext():
            client.call("ReportLoadedSlot")
        assert not server.control.stuck, "a code that this SerialEM does not have was sent"
        client.close()


def test_a_script_error_has_serialems_words_and_leaves_the_connection(
    client: SerialEMClient, server: SerialEMServer
) -> None:
    with pytest.raises(ScriptError, match="stage limit") as caught:
        client.call("MoveStageTo", 5000, 0)
    assert "SCRIPT ERROR" not in str(caught.value)
    assert "* *" not in str(caught.value)
    assert client.call("ReportTiltAngle") == 0.0
    assert server.connections == 1


def test_set_up_is_repeated_whenever_control_has_ended(client: SerialEMClient, server: SerialEMServer) -> None:
    def set_ups() -> int:
        return names(server).count(SETUP_NAMES[0])

    client.call("ReportTiltAngle")
    assert names(server)[: len(SETUP)] == SETUP_NAMES
    client.call("ReportTiltAngle")
    assert set_ups() == 1
    generation = client.generation
    client.exit_control()
    assert not server.control.on
    assert client.generation > generation
    client.exit_control()  # nothing to give back
    assert names(server).count("Exit") == 1
    client.call("ReportTiltAngle")
    assert set_ups() == 2
    server.press_stop()
    with pytest.raises(StoppedError):
        client.call("ReportTiltAngle")
    client.call("ReportTiltAngle")
    assert set_ups() == 3
    client.close()
    client.call("ReportTiltAngle")
    assert set_ups() == 4
    assert server.count("ReportNumExeFuncs") == 2, "the version is asked for once a connection"


def test_a_busy_serialem_is_told_as_such(client: SerialEMClient, server: SerialEMServer) -> None:
    server.set_busy(True)
    with pytest.raises(BusyError, match="-9"):
        client.call("ReportTiltAngle")
    assert not client.in_control
    server.set_busy(False)
    assert client.call("ReportTiltAngle") == 0.0


def test_stop_during_a_command_names_it(server: SerialEMServer, client: SerialEMClient) -> None:
    server.never_answer("Record")

    def press() -> None:
        while server.control.running != "Record":
            time.sleep(0.005)
        server.press_stop()

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(StoppedError) as caught:
        client.call("Record")
    thread.join()
    assert caught.value.during == "Record"
    assert not client.in_control


# -------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("dtype", ["|u1", "<i2", "<u2", "<f4"])
def test_images_come_top_row_first_in_their_own_type(
    client: SerialEMClient, server: SerialEMServer, dtype: str
) -> None:
    image = (np.arange(37)[None] + 100 * np.arange(53)[:, None]).astype(dtype)
    server.program.buffers.put("Q", ImageBuffer(image))
    found = client.buffer_image("Q")
    assert found is not None
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, image)
    assert client.buffer_image("S") is None
    assert client.call("ReportTiltAngle") == 0.0


@pytest.mark.parametrize("gap_s", [0.0, 0.02])
def test_large_images_come_in_parts(gap_s: float) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 60_000, (6000, 6001), dtype=np.uint16)
    with microscope(gap_s=gap_s) as server:
        server.program.buffers.put("Q", ImageBuffer(image))
        client = SerialEMClient("127.0.0.1", server.port)
        assert image.nbytes > 2 * protocol.GET_PART_BYTES
        found = client.buffer_image("Q")
        np.testing.assert_array_equal(found, image)
        assert client.call("ReportTiltAngle") == 0.0
        client.close()


# -------------------------------------------------------------------------------------------------- link


def test_nobody_there_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    client = SerialEMClient("127.0.0.1", port, connect_s=0.5)
    with pytest.raises(LinkLostError, match="EnableExternalPython") as caught:
        client.call("ReportTiltAngle")
    assert not caught.value.may_have_run


def test_a_command_is_never_sent_again_by_itself(server: SerialEMServer) -> None:
    """The cable is pulled while Record runs: one exposure, one error, and the next command works again."""
    cable = Cable(server.port)
    client = SerialEMClient("127.0.0.1", cable.port)
    client.call("ReportTiltAngle")
    held = server.hold("Record")

    def pull() -> None:
        held.wait()
        cable.pull()

    thread = threading.Thread(target=pull)
    thread.start()
    with pytest.raises(LinkLostError) as caught:
        client.call("Record")
    thread.join()
    assert caught.value.may_have_run
    held.go()
    cable.mend()
    assert client.call("ReportTiltAngle") == 0.0
    assert server.count("Record") == 1
    client.close()
    cable.pull()


def test_a_connection_that_died_while_idle_is_made_anew(server: SerialEMServer) -> None:
    cable = Cable(server.port)
    client = SerialEMClient("127.0.0.1", cable.port)
    client.call("ReportTiltAngle")
    cable.pull()
    cable.mend()
    assert client.call("ReportTiltAngle") == 0.0
    client.close()
    cable.pull()


def test_silence_ends_in_an_error_within_the_limit_of_the_class(server: SerialEMServer) -> None:
    client = SerialEMClient("127.0.0.1", server.port, limits_s={"move": 0.2})
    client.ready()
    server.never_answer("MoveStageTo")
    begun = time.monotonic()
    with pytest.raises(NoAnswerError) as caught:
        client.call("MoveStageTo", 1, 1)
    assert time.monotonic() - begun < min(DEFAULT_LIMITS_S.values()), "the limit of another class was waited for"
    assert caught.value.may_have_run
    assert not client.in_control
    client.close()
    server.press_stop()


def test_another_thread_can_end_a_wait(server: SerialEMServer, client: SerialEMClient) -> None:
    client.ready()
    server.never_answer("Montage")
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            client.call("Montage")
        except LinkLostError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while server.control.running != "Montage":
        time.sleep(0.005)
    client.abandon(0.05)
    thread.join(5.0)
    assert not thread.is_alive()
    assert len(caught) == 1
    server.press_stop()


@contextlib.contextmanager
def peer(answer: Callable[[int], bytes]) -> Iterator[int]:
    """A server that answers the n-th request, from 0, with these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                with near:
                    number = 0
                    while near.recv(1 << 16):
                        near.sendall(answer(number))
                        number += 1

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


FINE = protocol.encode_reply(protocol.Reply())


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack("<2i", 4, 0),
        struct.pack("<2i", -8, 0),
        struct.pack("<2i", 1 << 30, 0),
        struct.pack("<5i", 20, 0, 9, 0, 0),
        struct.pack("<6i", 24, 0, 5, 0, 1, 0),
        struct.pack("<2i", 8, 7),
        struct.pack("<6i", 24, 0, -1, -777, 1, 0),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=["short", "negative", "huge", "too many values", "values without room", "positive code", "odd error", "http"],
)
def test_bytes_that_are_no_answer_are_refused_and_the_connection_is_closed(bad: bytes) -> None:
    with peer(lambda number: FINE if number < len(SETUP) else bad) as port:
        client = SerialEMClient("127.0.0.1", port, limits_s={"quick": 1.0})
        with pytest.raises((BadReplyError, LinkLostError)):
            client.call("ReportTiltAngle")
        assert not client.in_control
        client.close()


def test_several_threads_take_turns(server: SerialEMServer, client: SerialEMClient) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(100):
                client.call("SetPersistentVar", f"v{number}", str(number))
                assert client.call("GetVariable", f"v{number}") in (number, str(number))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failed == []
    assert server.connections == 1


def test_every_command_has_a_time_limit_and_long_ones_have_more() -> None:
    assert limit_s("ReportStageXYZ") >= 15
    assert limit_s("Montage") > limit_s("LoadCartridge") > limit_s("AutoFocus") > limit_s("Record") > limit_s("Echo")
    assert limit_s("Record", {"camera": 7.0}) == 7.0
    named = [name for group in CLASSES.values() for name in group]
    assert len(named) == len(set(named))
    assert [name for name in named if codes.info_of(name).name != name] == []
