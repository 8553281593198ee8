"""The simulated SerialEM, as a client that was written apart from our codec finds it over a real socket."""

import contextlib
import math
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from drivers.serialem import codes
from simulators.clock import SimClock
from simulators.faults import FaultPlan, parse
from simulators.microscope import MicroscopeSettings, Preset, VirtualMicroscope
from simulators.serialem import SerialEMServer
from simulators.serialem.commands import REGISTRY
from simulators.serialem.server import GAP_S
from simulators.specimen import SpecimenSettings

DTYPES = {0: "u1", 1: "<i2", 2: "<f4", 6: "<u2"}
STOP, EXIT, EXIT_N = -234561, -123456, -654321


class ModuleError(Exception):
    """The module's own error: the exchange failed or was refused."""

    def __init__(self, message: str, code: int = -8) -> None:
        super().__init__(message)
        self.code = code


class ScriptError(Exception):
    """A command failed."""


class Exited(Exception):  # noqa: N818
    """The script ended."""


class RealModule:
    """A client with the habits of the real `serialem` modules, good and bad.

    One ``recv`` of up to 1024 bytes for each reply (the rest of a longer one after it), OKtoRun once before the first
    script command, a new connection after any refusal, and the same command again when the server hangs up without
    answering within 200 ms.
    """

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self.port, self.timeout_s = port, timeout_s
        self.socket: socket.socket | None = None
        self.asked = False
        self.resent = 0

    def connect(self) -> socket.socket:
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout_s)
        return self.socket

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def exchange(self, packet: bytes) -> bytes:
        for _ in range(2):
            link, start = self.connect(), time.monotonic()
            link.sendall(packet)
            try:
                got = link.recv(1024)
            except ConnectionResetError:
                got = b""
            if got:
                break
            self.close()
            if time.monotonic() - start > 0.2:
                raise ModuleError("socket closed")
            self.resent += 1
        else:
            raise ModuleError("socket closed")
        (total,) = struct.unpack_from("<i", got)
        while len(got) < total:
            got += link.recv(1024)
        (code,) = struct.unpack_from("<i", got, 4)
        if code < 0:
            self.close()
            raise ModuleError(f"refused with {code}", code)
        return got

    def ok_to_run(self) -> bool:
        return struct.unpack("<3i", self.exchange(struct.pack("<2i", 8, 3)))[2] != 0

    def raw(self, code: int, *arguments: float | str) -> tuple[int, list[float | str]]:
        """A command by its code; the error field and the values."""
        if arguments:
            count = len(arguments) + 1
            numbers = [0.0] + [a if isinstance(a, int | float) else _atof(a) for a in arguments]
            words = [""] + [a if isinstance(a, str) else _text(a) for a in arguments]
            array = bytes(4 * count) + struct.pack(f"<{count}d", *numbers)
            array += b"".join(word.encode() + b"\0" for word in words)
            size = (12 * count + sum(len(word.encode()) + 1 for word in words) + 5) // 4
            array = array.ljust(4 * size, b"\0")
        else:
            size, array = 1, b"\0\xaa\xbb\xcc"
        packet = struct.pack("<5i", 20 + len(array), 1, code, len(arguments), size) + array
        reply = self.exchange(packet)
        total, _, highest, error, size = struct.unpack_from("<5i", reply)
        assert total == len(reply) == 20 + 4 * size
        assert size >= 1
        assert highest <= 5
        count = highest + 1
        is_text = struct.unpack_from(f"<{count}i", reply, 20)
        numbers = list(struct.unpack_from(f"<{count}d", reply, 20 + 4 * count))
        texts = iter(reply[20 + 12 * count :].split(b"\0"))
        return error, [next(texts).decode() if t else n for t, n in zip(is_text, numbers, strict=True)]

    def __call__(self, name: str, *arguments: float | str) -> Any:
        """A command as the module's functions do it."""
        if not self.asked:
            if not self.ok_to_run():
                raise ModuleError("SerialEM is busy and not ready to run a script")
            self.asked = True
        error, values = self.raw(codes.code_of(name), *arguments)
        if error == 1:
            raise ScriptError(values[0])
        if error in (EXIT, STOP):
            raise Exited("Normal exit" if error == EXIT else "User STOP")
        return None if not values else values[0] if len(values) == 1 else tuple(values)

    def image(self, buffer: int, fft: int = 0, handshake: bytes = b"\x08\0\0\0\x02\0\0\0") -> Any:
        """An image as the modules read it; that of August 2023 would hang on pixels that come with the head.

        A gap keeps them apart, unless the machine is so busy that this client comes late; then they are kept here.
        """
        reply = self.exchange(struct.pack("<4i", 16, 4, buffer, fft))
        head, early = reply[:32], reply[32:]
        kind, row_bytes, columns, rows, size, parts = struct.unpack_from("<6i", head, 8)
        if size == 0:
            return None
        assert row_bytes == columns * np.dtype(DTYPES[kind]).itemsize
        pixels = bytearray(early)
        link = self.connect()
        part = math.ceil(size / parts)
        for number in range(parts):
            if number:
                link.sendall(handshake)
            wanted = min(part, size - number * part) - (0 if number else len(early))
            while wanted:
                got = link.recv(min(1 << 20, wanted))
                if not got:
                    raise ModuleError("closed within an image")
                pixels += got
                wanted -= len(got)
        return np.frombuffer(bytes(pixels), DTYPES[kind]).reshape(rows, columns)

    def put(self, image: Any, buffer: int, base: int | None = None, binning: int = 1) -> None:
        rows, columns = image.shape
        kind = next(kind for kind, dtype in DTYPES.items() if image.dtype == np.dtype(dtype))
        base = buffer if base is None else base
        self.exchange(struct.pack("<11i", 44, 5, kind, columns, rows, image.nbytes, buffer, base, binning, -1, 1))
        self.connect().sendall(image.tobytes())


def exactly(link: socket.socket, size: int) -> bytes:
    """So many bytes."""
    got = bytearray()
    while len(got) < size:
        more = link.recv(min(1 << 20, size - len(got)))
        assert more, "the server hung up"
        got += more
    return bytes(got)


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:f}".rstrip("0")


def _atof(text: str) -> float:
    found = re.match(r"\s*[+-]?\d+(\.\d*)?", text)
    return float(found[0]) if found else 0.0


# ---------------------------------------------------------------------------------------------- fixtures


def small_scope(speed: float = float("inf"), faults: tuple[str, ...] = ()) -> VirtualMicroscope:
    presets = {
        "low": Preset(6000.0, (96, 128), 1.5e-5, 1.0, rotation_deg=3.0),
        "medium": Preset(1000.0, (96, 128), 6e-4, 1.5, rotation_deg=1.0),
        "high": Preset(2.4, (96, 128), 40.0, 3.0),
    }
    grids = {name: SpecimenSettings(seed=n, grid_radius_um=150.0, foil="gold") for n, name in enumerate(("G1", "G2"))}
    plan = FaultPlan(tuple(parse(fault) for fault in faults))
    return VirtualMicroscope(grids, MicroscopeSettings(presets=presets), SimClock(speed), plan)


@pytest.fixture
def options() -> dict[str, Any]:
    """How the server is made: override with ``@pytest.mark.parametrize("options", [{...}])``."""
    return {}


@pytest.fixture
def server(options: dict[str, Any], tmp_path: Path) -> Iterator[SerialEMServer]:
    options = dict(options)
    scope = small_scope(options.pop("speed", float("inf")), options.pop("faults", ()))
    with SerialEMServer(scope, **{"folder": tmp_path, "busy_wait_s": 0.2} | options) as server:
        yield server


@pytest.fixture
def join(server: SerialEMServer) -> Iterator[Callable[[], RealModule]]:
    """Makes clients and closes them in the end."""
    made: list[RealModule] = []

    def new() -> RealModule:
        made.append(RealModule(server.port))
        return made[-1]

    yield new
    for client in made:
        client.close()


@pytest.fixture
def sem(join: Callable[[], RealModule]) -> RealModule:
    """A client that has done the usual set-up."""
    client = join()
    client("NoMessageBoxOnError", 1)
    return client


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextlib.contextmanager
def once(condition: Callable[[], object], action: Callable[[], object]) -> Iterator[None]:
    """Act from another thread as soon as something is so, while the block waits for an answer."""

    def watch() -> None:
        until(condition)
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()


# ---------------------------------------------------------------------------------------------- 1: one client, control


def test_control_starts_once_and_is_free_again_when_the_client_is_gone(
    server: SerialEMServer, join: Callable[[], RealModule]
) -> None:
    first = join()
    assert first.ok_to_run()
    assert not first.ok_to_run()
    assert server.control.on
    first.close()
    until(lambda: not server.control.on)
    assert join().ok_to_run()


def test_a_killed_client_frees_control(server: SerialEMServer, join: Callable[[], RealModule]) -> None:
    text = f"import socket,time; s=socket.create_connection(('127.0.0.1',{server.port}))\n"
    text += "s.sendall(bytes.fromhex('0800000003000000')); print(s.recv(99).hex(), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"0c0000000000000001000000"
        assert server.control.on
        process.kill()
    until(lambda: not server.control.on)
    assert join()("ReportStageXYZ") == (0.0, 0.0, 0.0)


def test_a_reset_connection_frees_control(server: SerialEMServer, sem: RealModule) -> None:
    link = sem.connect()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sem.close()
    until(lambda: not server.control.on)


def test_a_new_client_replaces_the_old_one_and_gets_control(sem: RealModule, join: Callable[[], RealModule]) -> None:
    new = join()
    assert new("ReportTiltAngle") == 0.0
    assert sem("ReportTiltAngle") == 0.0  # the module finds itself cut off, connects again and repeats the command
    assert sem.resent == 1
    assert new.connect().recv(10) == b""
    new = join()
    with pytest.raises(ScriptError, match=r"^$"):
        new("GetVariable", "nope")  # a script of its own: message boxes are on again


@pytest.mark.parametrize("options", [{"takeover_keeps_control": True}])
def test_control_may_stay_on_over_a_takeover(sem: RealModule, join: Callable[[], RealModule]) -> None:
    new = join()
    with pytest.raises(ModuleError, match="not ready to run a script"):
        new("ReportTiltAngle")
    assert new.raw(codes.code_of("ReportTiltAngle")) == (0, [0.0])
    assert sem.connect().recv(10) == b""


def test_an_image_read_first_starts_control_so_that_the_module_calls_it_busy(join: Callable[[], RealModule]) -> None:
    client = join()
    assert client.image(0) is not None
    with pytest.raises(ModuleError, match="not ready to run a script"):
        client("ReportStageXYZ")


def test_the_server_can_go_and_come_back_on_its_port(server: SerialEMServer, sem: RealModule) -> None:
    port = server.port
    server.close()
    assert sem.connect().recv(10) == b""
    sem.close()
    server.start()
    assert server.port == port
    sem.asked = False
    assert sem("ReportStageXYZ") == (0.0, 0.0, 0.0)


# ---------------------------------------------------------------------------------------------- 2: lengths and values


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        pytest.param("04000000", -4, id="too short for a packet"),
        pytest.param("08000000 63000000", -1, id="unknown function"),
        pytest.param("08000000 02000000", -1, id="handshake outside an image"),
        pytest.param("0c000000 04000000 00000000", -4, id="too short for its function"),
        pytest.param("14000000 04000000 00000000 00000000 00000000", -6, id="too long for its function"),
        pytest.param("18000000 01000000 25010000 00000000 02000000 00000000", -6, id="array and length disagree"),
        pytest.param("00000010 01000000", -5, id="too big"),
    ],
)
def test_a_wrong_length_is_refused_by_its_code(join: Callable[[], RealModule], packet: str, code: int) -> None:
    client = join()
    with pytest.raises(ModuleError) as caught:
        client.exchange(bytes.fromhex(packet))
    assert caught.value.code == code
    assert client("ReportStageXYZ") == (0.0, 0.0, 0.0)


def test_bytes_behind_a_request_are_thrown_away(sem: RealModule) -> None:
    request = bytes.fromhex("18000000 01000000 25010000 00000000 01000000 00000000")
    sem.connect().sendall(request + request)
    assert len(sem.connect().recv(1024)) == 60
    assert sem("ReportTiltAngle") == 0.0


def test_a_request_may_come_in_pieces(sem: RealModule) -> None:
    request = bytes.fromhex("18000000 01000000 25010000 00000000 01000000 00000000")
    for at in range(0, 24, 4):
        sem.connect().sendall(request[at : at + 4])
        time.sleep(0.005)
    assert sem.connect().recv(1024)[:8] == bytes.fromhex("3c000000 00000000")


def test_no_command_reports_more_than_six_values(sem: RealModule) -> None:
    assert len(sem("ImageProperties", "A")) == 6
    assert len(sem("BufImageToStageMatrix", "A", 0)) == 6


def test_long_texts_go_both_ways(sem: RealModule) -> None:
    text = "Gitter 7: größer als 30 µm; " * 700
    sem("SetVariable", "long", text)
    assert sem("GetVariable", "long") == text


def test_an_argument_left_out_in_the_middle_is_missing(server: SerialEMServer, sem: RealModule) -> None:
    sem("SetAxisPosition", "F", 5.0, 30.0)
    assert sem("ReportAxisPosition", "F")[:2] == (5.0, 30.0)
    sem("SetAxisPosition", "F", 7.0, "", 1)
    assert sem("ReportAxisPosition", "F")[:2] == (7.0, 30.0)
    assert server.log[-2] == ("SetAxisPosition", ("F", 7.0, "", 1.0))


# ---------------------------------------------------------------------------------------------- 3: script errors


def test_a_script_error_is_framed_and_leaves_the_connection(server: SerialEMServer, sem: RealModule) -> None:
    with pytest.raises(ScriptError) as caught:
        sem("GetVariable", "nope")
    assert str(caught.value).startswith(
        "\r\nSCRIPT ERROR WITH THIS MESSAGE:\r\nThe variable nope is not defined\r\n* * *"
    )
    assert sem("ReportStageXYZ") == (0.0, 0.0, 0.0)
    assert server.connections == 1


def test_with_message_boxes_on_the_text_of_an_error_is_lost(server: SerialEMServer, sem: RealModule) -> None:
    sem("NoMessageBoxOnError", 0)
    with pytest.raises(ScriptError, match=r"^$"):
        sem("GetVariable", "nope")
    sem("StartTry", 1)
    with pytest.raises(ScriptError, match="not defined"):
        sem("GetVariable", "nope")
    sem("EndTry")
    with pytest.raises(ScriptError, match=r"^$"):
        sem("GetVariable", "nope")
    assert "SCRIPT ERROR: The variable nope is not defined" in server.program.journal


@pytest.mark.parametrize("options", [{"message_box_s": None}])
def test_a_box_can_wait_until_somebody_presses_stop(server: SerialEMServer, join: Callable[[], RealModule]) -> None:
    client = join()
    boxed = lambda: server.control.running == "GetVariable"  # noqa: E731
    with once(boxed, server.press_stop), pytest.raises(Exited, match="STOP"):
        client("GetVariable", "nope")


def test_too_few_arguments_are_a_script_error(sem: RealModule) -> None:
    with pytest.raises(ScriptError, match="MoveStageTo needs 2 arguments and got 1"):
        sem("MoveStageTo", 1.0)


def test_a_crash_of_the_simulator_is_a_script_error(sem: RealModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setitem(REGISTRY, "Echo", crash)
    with pytest.raises(ScriptError, match="the simulator failed: RuntimeError: boom"):
        sem("Echo", "x")
    assert sem.resent == 0


# ---------------------------------------------------------------------------------------------- 4: images


def test_images_of_all_types_can_be_read_and_an_empty_buffer_has_none(sem: RealModule) -> None:
    assert sem.image(0).dtype == np.uint16
    assert [sem.image("ABCDEFGHIJKLMNOP".index(letter)).dtype for letter in "MNOP"] == ["u1", "<i2", "<f4", "<u2"]
    assert sem.image("ABCDEFGHIJKLMNOPQRS".index("S")) is None
    assert sem.image(99) is None


def test_the_top_row_comes_first(server: SerialEMServer, sem: RealModule) -> None:
    sem("SetLowDoseMode", 1)
    sem("View")
    kept = server.program.buffers.get("A").pixels
    assert np.array_equal(sem.image(0), kept)
    sem("OpenNewFile", "top.mrc")
    sem("Save", "A")
    sem("CloseFile")
    with mrcfile.open(server.program.path("top.mrc")) as file:
        assert np.array_equal(file.data[::-1], kept)


@pytest.mark.parametrize("options", [{"gap_s": 1.0}])
def test_a_gap_separates_the_head_from_the_pixels(sem: RealModule) -> None:
    """20 ms by default; here so long that a slow machine cannot hide it."""
    assert GAP_S == 0.02
    link = sem.connect()
    link.sendall(struct.pack("<4i", 16, 4, 12, 0))
    assert len(link.recv(100_000)) == 32
    start = time.monotonic()
    left = 64 * 96
    while left:
        got = len(link.recv(100_000))
        left -= got
        if left + got == 64 * 96:
            assert time.monotonic() - start > 0.3


def test_300_small_images_come_whole(sem: RealModule) -> None:
    image = np.arange(300, dtype=np.int16).reshape(15, 20)
    sem.put(image, 16)
    for _ in range(300):
        assert np.array_equal(sem.image(16), image)


@pytest.mark.parametrize("options", [{"gap_s": 0.0}])
def test_an_image_of_more_than_33_62_mb_comes_in_parts(sem: RealModule) -> None:
    image = np.random.default_rng(1).integers(0, 60000, (4150, 4100), dtype=np.uint16)
    sem.put(image, 16)
    link = sem.connect()
    link.sendall(struct.pack("<4i", 16, 4, 16, 0))
    head = exactly(link, 32)
    assert struct.unpack("<8i", head) == (32, 0, 6, 8200, 4100, 4150, 34_030_000, 2)
    first = exactly(link, 17_015_000)
    assert not select.select([link], [], [], 0.1)[0], "the second part waits for its handshake"
    link.sendall(bytes.fromhex("08000000 02000000"))
    assert first + exactly(link, 17_015_000) == image.tobytes()
    assert sem("ReportTiltAngle") == 0.0


@pytest.mark.parametrize("options", [{"handshake_s": 0.2, "gap_s": 0.0}])
@pytest.mark.parametrize("handshake", [b"", b"\x08\0\0\0\x03\0\0\0"], ids=["none", "another function"])
def test_a_handshake_that_does_not_come_closes(server: SerialEMServer, sem: RealModule, handshake: bytes) -> None:
    sem.put(np.zeros((5800, 5800), np.uint8), 16)
    link = sem.connect()
    link.sendall(struct.pack("<4i", 16, 4, 16, 0))
    parts = struct.unpack("<8i", exactly(link, 32))[7]
    assert parts == 2
    exactly(link, 16_820_000)
    if handshake:
        link.sendall(handshake)
    with contextlib.suppress(ConnectionResetError):
        assert link.recv(10) == b""
    until(lambda: not server.control.on)


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<f4", "<u2"])
def test_an_image_can_be_put_and_read_back(sem: RealModule, dtype: str) -> None:
    image = np.arange(600).reshape(20, 30).astype(dtype)
    sem.put(image, 16)
    assert np.array_equal(sem.image(16), image)
    assert sem("ImageProperties", "Q")[:2] == (30.0, 20.0)


def test_a_colour_image_can_be_put_and_read_back(sem: RealModule) -> None:
    image = np.arange(60, dtype=np.uint8)
    sem.exchange(struct.pack("<11i", 44, 5, 16, 5, 4, 60, 16, 16, 1, -1, 1))
    sem.connect().sendall(image.tobytes())
    sem.connect().sendall(struct.pack("<4i", 16, 4, 16, 0))
    assert exactly(sem.connect(), 32) == struct.pack("<8i", 32, 0, 16, 15, 5, 4, 60, 1)
    assert exactly(sem.connect(), 60) == image.tobytes()


def test_an_image_put_takes_over_what_its_base_knows_and_rolls_into_a(sem: RealModule) -> None:
    before = sem.image(0)
    _, _, binning, _, pixel_nm, _ = sem("ImageProperties", "A")
    sem.put(np.zeros((48, 64), np.uint16), 0, 0, binning=2)
    assert sem("ImageProperties", "A") == (64.0, 48.0, 2 * binning, 1.0, 2 * pixel_nm, -1.0)
    assert sem("BufImagePosToStagePos", "A", 0, 32.0, 24.0)[:2] == pytest.approx((0.0, 0.0), abs=1e-9)
    assert np.array_equal(sem.image(1), before)


def test_an_image_whose_sizes_disagree_is_refused(sem: RealModule) -> None:
    with pytest.raises(ModuleError, match="-6"):
        sem.exchange(struct.pack("<11i", 44, 5, 6, 10, 10, 10, 16, 16, 1, -1, 1))


def test_buffers_roll_and_can_be_copied(sem: RealModule) -> None:
    first = sem.image(0)
    sem("SetLowDoseMode", 1)
    sem("View")
    view = sem.image(0)
    assert np.array_equal(sem.image(1), first)
    sem("Copy", "A", "Q")
    sem("Preview")
    assert np.array_equal(sem.image(16), view)
    assert np.array_equal(sem.image(2), first)
    with pytest.raises(ScriptError, match="no image in buffer S"):
        sem("Copy", "S", "A")


def test_a_spectrum_is_in_an_fft_buffer(sem: RealModule) -> None:
    sem("FFT", "A", 2)
    assert sem.image(0, fft=1).shape == (48, 48)


# ---------------------------------------------------------------------------------------------- 5: exit, busy, STOP


@pytest.mark.parametrize(("arguments", "error"), [((), EXIT), ((0,), EXIT), ((1,), EXIT_N), ((-1, "bye"), EXIT_N)])
def test_exit_ends_the_script_with_its_code(
    server: SerialEMServer, sem: RealModule, arguments: tuple[float, ...], error: int
) -> None:
    assert sem.raw(codes.code_of("Exit"), *arguments) == (error, [])
    assert not server.control.on
    assert sem.raw(codes.code_of("ReportTiltAngle")) == (0, [0.0])
    assert server.control.on
    assert server.connections == 1


def test_what_belongs_to_a_script_ends_with_it(server: SerialEMServer, sem: RealModule) -> None:
    sem("SetVariable", "mine", "1")
    sem("SetPersistentVar", "ours", "2.5")
    sem("SetExposure", "R", 2.0)
    sem("SetBinning", "V", 2)
    sem("KeepCameraSetChanges", "V")
    sem("SetUserSetting", "DriftProtection", 3.0)
    sem("AllowFileOverwrite", 1)
    sem("SetDirectory", "C:\\data")
    assert sem("ReportExposure", "R") == (2.0, 0.0)
    assert sem("IsVariableDefined", "mine") == 1.0
    sem("Exit", 1)
    with pytest.raises(ScriptError, match=r"^$"):
        sem("GetVariable", "mine")
    assert sem("GetVariable", "ours") == 2.5
    assert sem("ReportExposure", "R") == (1.0, 0.0)
    assert sem("ReportBinning", "V") == 2.0
    assert sem("ReportUserSetting", "DriftProtection") == 0.0
    assert not server.program.script.allow_overwrite
    assert sem("ReportDirectory") == "C:\\data"


def test_a_busy_serialem_refuses_after_a_while(server: SerialEMServer, join: Callable[[], RealModule]) -> None:
    server.set_busy(True)
    client = join()
    start = time.monotonic()
    with pytest.raises(ModuleError) as caught:
        client.raw(codes.code_of("ReportStageXYZ"))
    assert caught.value.code == -9
    assert time.monotonic() - start > 0.2
    assert not client.ok_to_run()
    assert not server.log
    server.set_busy(False)
    assert client.ok_to_run()


@pytest.mark.parametrize("options", [{"busy_wait_s": 5.0}])
def test_a_serialem_that_gets_free_in_time_serves(server: SerialEMServer, join: Callable[[], RealModule]) -> None:
    server.set_busy(True)
    with once(lambda: server.connections, lambda: server.set_busy(False)):
        assert join()("ReportTiltAngle") == 0.0


@pytest.mark.parametrize("options", [{"version": version} for version in ("4.1", "4.2", "4.3")])
def test_stop_while_idle_is_told_once(server: SerialEMServer, sem: RealModule) -> None:
    server.press_stop()
    assert not server.control.on
    link = sem.connect()
    for expected in ("08000000 f6ffffff", "3c000000 00000000"):
        link.sendall(bytes.fromhex("18000000 01000000 25010000 00000000 01000000 00000000"))
        assert link.recv(1024)[:8] == bytes.fromhex(expected)
    assert server.control.on


@pytest.mark.parametrize("options", [{"version": "4.0"}])
def test_before_4_1_stop_while_idle_is_not_told(server: SerialEMServer, sem: RealModule) -> None:
    server.press_stop()
    assert not server.control.on
    assert sem("ReportTiltAngle") == 0.0


def test_a_stop_that_waits_is_forgotten_with_its_client(server: SerialEMServer, sem: RealModule) -> None:
    server.press_stop()
    sem.close()
    until(lambda: not server.control.stop_pending)
    assert sem("ReportTiltAngle") == 0.0


def test_ok_to_run_starts_control_in_spite_of_a_stop(server: SerialEMServer, sem: RealModule) -> None:
    server.press_stop()
    assert sem.ok_to_run()
    assert sem("ReportTiltAngle") == 0.0


def test_stop_without_external_control_does_nothing(server: SerialEMServer, join: Callable[[], RealModule]) -> None:
    server.press_stop()
    assert join()("ReportTiltAngle") == 0.0


@pytest.mark.parametrize("options", [{"version": version, "speed": 1.0} for version in ("4.0", "4.2")])
def test_stop_during_a_command_ends_it_and_its_script(server: SerialEMServer, sem: RealModule) -> None:
    delaying = lambda: server.control.running == "Delay"  # noqa: E731
    with once(delaying, server.press_stop), pytest.raises(Exited, match="User STOP"):
        sem("Delay", 60, "s")
    assert server.scope.clock.elapsed_s < 50, "it was waited for to its end"
    assert not server.control.on
    assert sem("ReportTiltAngle") == 0.0


def test_a_stop_just_before_a_command_lets_nothing_run(
    server: SerialEMServer, sem: RealModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = server.control.begin_command

    def stop_first(name: str) -> bool:
        server.press_stop()
        return begin(name)

    monkeypatch.setattr(server.control, "begin_command", stop_first)
    with pytest.raises(ModuleError, match="-10"):
        sem("Record")
    assert server.count("Record") == 0


def test_stop_during_an_exposure_costs_the_dose_and_gives_no_image(server: SerialEMServer, sem: RealModule) -> None:
    sem("SetLowDoseMode", 1)
    before = sem.image(0)
    held = server.hold("Record")

    def stop() -> None:
        server.press_stop()
        held.go()

    with once(lambda: held.reached, stop), pytest.raises(Exited, match="User STOP"):
        sem("Record")
    assert len(server.scope.ledger) == 1
    assert np.array_equal(sem.image(0), before)


# ---------------------------------------------------------------------------------------------- 6: unknown commands


def test_a_code_beyond_the_list_leaves_it_stuck_until_stop(server: SerialEMServer, sem: RealModule) -> None:
    error, values = sem.raw(790)
    assert error == 1
    assert "790 is out of range" in str(values[0])
    with once(lambda: server.control.running == "(stuck)", server.press_stop):
        assert sem.raw(codes.code_of("ReportStageXYZ")) == (STOP, [])
    assert sem("ReportStageXYZ") == (0.0, 0.0, 0.0)


def test_a_command_that_is_not_played_says_so(sem: RealModule) -> None:
    with pytest.raises(ScriptError, match="AutoContourGridSquares is not in this simulator"):
        sem("AutoContourGridSquares", "A", 1.0, 1.0)


@pytest.mark.parametrize(
    ("options", "entries", "answers"),
    [
        ({"version": "4.0"}, None, (0, 0, 0)),
        ({"version": "4.1"}, 721.0, (1, 0, 0)),
        ({"version": "4.2"}, 790.0, (1, 1, 0)),
        ({"version": "4.3"}, 841.0, (1, 1, 1)),
    ],
)
def test_each_release_has_its_own_commands(
    server: SerialEMServer, sem: RealModule, entries: float | None, answers: tuple[int, ...]
) -> None:
    assert tuple(sem("IsVersionAtLeast", v) for v in ("40100", "40200", "40300")) == answers
    assert sem("IsVersionAtLeast", "40000", "20200101") == 1
    assert sem("IsVersionAtLeast", "40000", "20990101") == 0
    if entries is not None:
        assert sem("ReportNumExeFuncs") == entries
    sem("SetLowDoseMode", 1)
    sem("SetDoseFracParams", "R", 1, 1)
    sem("Record")
    said = sem("ReportLastFrameFile")
    assert isinstance(said, str) is (entries is None)
    assert server.program.path(said if isinstance(said, str) else said[0]).exists()


@pytest.mark.parametrize("options", [{"version": "4.0"}])
def test_a_reply_of_4_0_has_at_most_1024_bytes(sem: RealModule) -> None:
    sem("SetVariable", "long", "x" * 2000)
    with pytest.raises(ModuleError, match="-3"):
        sem("GetVariable", "long")


def test_every_command_played_is_one_that_python_may_call() -> None:
    assert [name for name in REGISTRY if not codes.info_of(name).external] == []


# ---------------------------------------------------------------------------------------------- 7: long actions


def test_a_long_action_answers_when_it_is_finished_and_lets_nobody_in_before(
    server: SerialEMServer, sem: RealModule, join: Callable[[], RealModule]
) -> None:
    held = server.hold("View")
    sem.connect().sendall(bytes.fromhex("18000000 01000000 45000000 00000000 01000000 00000000"))  # View
    held.wait()
    new, answers = join(), []
    waiting = threading.Thread(target=lambda: answers.append(new("ReportTiltAngle")))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive(), "somebody was let in while View ran"
    held.go()
    waiting.join(30.0)
    assert answers == [0.0]
    assert sem.connect().recv(1024)[:8] == bytes.fromhex("18000000 00000000")
    assert [name for name, _ in server.log] == ["NoMessageBoxOnError", "View", "ReportTiltAngle"]


def test_a_command_may_never_answer(server: SerialEMServer, sem: RealModule) -> None:
    server.never_answer("Echo")
    hanging = lambda: server.control.running == "Echo"  # noqa: E731
    with once(hanging, server.press_stop), pytest.raises(Exited, match="STOP"):
        sem("Echo", "hello?")
    server.answer_again("Echo")
    sem("Echo", "hello")
    assert server.count("Echo") == 2


def test_a_command_can_be_made_to_fail_before_or_after_its_work(server: SerialEMServer, sem: RealModule) -> None:
    sem("SetLowDoseMode", 1)
    server.fail_next("Record", "camera in trouble")
    server.fail_next("Record", "image lost", after=True)
    with pytest.raises(ScriptError, match="camera in trouble"):
        sem("Record")
    assert server.scope.ledger == []
    with pytest.raises(ScriptError, match="image lost"):
        sem("Record")
    assert len(server.scope.ledger) == 1
    sem("Record")
    server.fail_at(len(server.log) + 2, "the second from here")
    sem("Echo")
    with pytest.raises(ScriptError, match="the second from here"):
        sem("ReportStageXYZ")


def test_the_log_holds_what_was_executed(server: SerialEMServer, sem: RealModule) -> None:
    sem("MoveStageTo", 10, -20.5)
    sem("Echo", "3 squares left")
    assert server.log[-2:] == [("MoveStageTo", (10.0, -20.5)), ("Echo", ("3 squares left",))]


# ---------------------------------------------------------------------------------------------- the microscope behind


def test_the_stage_goes_where_it_is_sent_and_stays_within_its_limits(sem: RealModule) -> None:
    sem("MoveStageTo", 100.0, -50.0, 12.5)
    sem("MoveStage", 1.0, 2.0)
    sem("TiltTo", 30.0)
    sem("TiltBy", -10.0)
    assert sem("ReportStageXYZ") == (101.0, -48.0, 12.5)
    assert sem("ReportTiltAngle") == 20.0
    assert sem("ReportStageBusy") == 0.0
    for name, arguments in (("MoveStageTo", (1500.0, 0.0)), ("MoveStageTo", (0.0, 0.0, 900.0)), ("TiltTo", (85.0,))):
        with pytest.raises(ScriptError, match="limit"):
            sem(name, *arguments)
    assert sem("ReportStageXYZ") == (101.0, -48.0, 12.5)


@pytest.mark.parametrize("options", [{"faults": ("stuck_stage:move:2",)}])
def test_a_stage_that_never_arrives_is_a_script_error(sem: RealModule) -> None:
    sem("MoveStageTo", 10.0, 10.0)
    with pytest.raises(ScriptError, match="stage stopped"):
        sem("MoveStageTo", 20.0, 20.0)
    assert sem("ReportStageXYZ") == (10.0, 10.0, 0.0)


def test_image_shift_in_any_axes_moves_the_same_way(server: SerialEMServer, sem: RealModule) -> None:
    assert sem("ImageShiftByMicrons", 3.0, -4.0) == 0.0
    assert sem("ReportSpecimenShift") == pytest.approx((3.0, -4.0))
    units_x, units_y, px_x, px_y, dx, dy = sem("ReportImageShift")
    assert (dx, dy) == pytest.approx((3.0, -4.0))
    sem("SetImageShift", 0.0, 0.0)
    assert sem("SetImageShift", units_x, units_y) == 0.0
    assert server.scope.image_shift_um == pytest.approx((3.0, -4.0), abs=1e-5)
    sem("SetImageShift", 0.0, 0.0)
    sem("ImageShiftByPixels", px_x, px_y)
    assert server.scope.image_shift_um == pytest.approx((3.0, -4.0), abs=1e-5)
    sem("ImageShiftByStageDiff", -3.0, 4.0)
    assert server.scope.image_shift_um == pytest.approx((0.0, 0.0), abs=1e-5)
    a, b, c, d = sem("ISToSpecimenMatrix", 0)
    assert (a * units_x + b * units_y, c * units_x + d * units_y) == pytest.approx((3.0, -4.0))


def test_image_shift_beyond_its_limit_is_answered_1_and_not_done(server: SerialEMServer, sem: RealModule) -> None:
    assert sem("ReportMaxImageShift", 0)[0] == 20.0
    assert sem("ImageShiftByMicrons", 15.0, 15.0) == 1.0
    assert server.scope.image_shift_um == (0.0, 0.0)


def test_resetting_image_shift_keeps_the_place_in_view(server: SerialEMServer, sem: RealModule) -> None:
    sem("ImageShiftByStageDiff", 2.0, -1.0)
    sem("ResetImageShift")
    assert sem("ReportStageXYZ") == pytest.approx((2.0, -1.0, 0.0))
    assert server.scope.image_shift_um == (0.0, 0.0)


@pytest.mark.parametrize("command", ["View", "Record"])
def test_a_pixel_is_where_the_specimen_says(server: SerialEMServer, sem: RealModule, command: str) -> None:
    sem("MoveStageTo", 40.0, 30.0)
    sem("ImageShiftByStageDiff", 2.0, 1.0)
    sem("SetLowDoseMode", 1)
    sem(command)
    scope = server.scope
    preset = scope.settings.presets[scope.level]
    c, s = math.cos(math.radians(preset.rotation_deg)), math.sin(math.radians(preset.rotation_deg))
    px = preset.pixel_size_angstrom / 1e4
    x, y = 20.0, 70.0  # SerialEM counts from the corner: the middle of this image is (64, 48)
    expected = (42 + c * px * (x - 64) - s * px * (y - 48), 31 + s * px * (x - 64) + c * px * (y - 48))
    assert sem("BufImagePosToStagePos", "A", 0, x, y) == pytest.approx((*expected, -1.0, 0.0, 0.0), abs=1e-6)
    m11, m12, m21, m22, dx, dy = sem("BufImageToStageMatrix", "A", 0)
    assert (m11 * x + m12 * y + dx, m21 * x + m22 * y + dy) == pytest.approx(expected, abs=1e-6)
    assert sem("StagePosToBufImagePos", "A", 0, *expected) == pytest.approx((x, y), abs=1e-3)
    assert sem("BufImagePosToStagePos", "A", 1, x, y)[:2] == pytest.approx((expected[0] - 2, expected[1] - 1), abs=1e-6)
    index = sem("AddImagePosAsNavPoint", "A", x, y)
    assert sem("ReportOtherItem", index)[1:3] == pytest.approx(expected, abs=1e-6)
    view = scope.look(scope.level).believed
    assert scope.specimen.pixel_to_stage(view, x - 0.5, y - 0.5) == pytest.approx(expected, abs=1e-6)
    assert scope.specimen.image_to_stage(view) == pytest.approx((m11, m12, m21, m22))


def test_the_matrix_of_present_conditions_has_serialems_slip(sem: RealModule) -> None:
    sem("ImageShiftByStageDiff", 2.0, 1.0)
    plain, slipped = sem("BufImageToStageMatrix", "A", 0), sem("BufImageToStageMatrix", "A", 1)
    assert (plain[4] - slipped[4], plain[5] - slipped[5]) == pytest.approx((2.0, 2.0))


def test_low_dose_areas_set_the_magnification(sem: RealModule) -> None:
    with pytest.raises(ScriptError, match="Low Dose mode is off"):
        sem("GoToLowDoseArea", "V")
    assert sem("SetLowDoseMode", 1) == 0.0
    sem("GoToLowDoseArea", "View")
    assert (sem("ReportLowDose"), sem("ReportMag")[0]) == ((1.0, 0.0), 2250.0)
    sem("GoToLowDoseArea", "R")
    assert (sem("ReportLowDose"), sem("ReportMag")[0]) == ((1.0, 3.0), 53000.0)
    sem("ScreenDown")
    sem("GoToLowDoseArea", "S")
    assert sem("ReportLowDose") == (1.0, 3.0)
    assert sem("ReportCurrentPixelSize", "V") == pytest.approx(100.0)
    assert sem("SetLowDoseMode", 0) == 1.0
    assert sem("ReportLowDose") == (0.0, -1.0)


def test_imaging_states_answer_without_exceptions(sem: RealModule) -> None:
    assert sem("GoToImagingState", "Atlas") == 0.0
    assert sem("ReportMag")[:2] == (82.0, 1.0)
    assert sem("GoToImagingState", "rec") == 0.0
    assert sem("ReportLowDose") == (1.0, 3.0)
    assert [sem("GoToImagingState", name) for name in ("Nowhere", "9", "1")] == [1.0, 3.0, 0.0]
    assert sem("ImagingStateProperties", "View") == (0.0, 3.0, 0.0, 1.0, 17.0, "View")


def test_binning_and_exposure_show_in_the_image(sem: RealModule) -> None:
    sem("SetLowDoseMode", 1)
    sem("SetBinning", "V", 2)
    sem("SetExposure", "V", 3.0)
    sem("View")
    assert sem("ImageProperties", "A") == (64.0, 48.0, 2.0, 3.0, pytest.approx(200.0), 0.0)
    assert sem("ImageConditions", "A") == pytest.approx((1.2e-3, 2250.0))
    assert sem("BufImagePosToStagePos", "A", 0, 32.0, 24.0)[:2] == pytest.approx((0.0, 0.0), abs=1e-9)


def test_counts_of_an_image_are_reported(sem: RealModule) -> None:
    image = np.arange(12, dtype=np.uint16).reshape(3, 4)
    sem.put(image, 16)
    assert sem("ReportMeanCounts", "Q") == 5.5
    assert sem("ReportMeanCounts", "Q", 2) == pytest.approx((5.5, image.std(), 0.0, 11.0))
    with pytest.raises(ScriptError, match="exposure time"):
        sem("ReportMeanCounts", "Q", 1)
    sem("Copy", "Q", "A")
    assert sem("SubareaMean", 0, 1, 1, 2) == image[1:3, 0:2].mean()


def test_closed_valves_give_a_dark_image_and_no_error(server: SerialEMServer, sem: RealModule) -> None:
    sem("SetLowDoseMode", 1)
    sem("View")
    assert sem("ReportMeanCounts", "A") > 1
    server.scope.valves_open = False
    assert sem("ReportColumnOrGunValve") == 0.0
    sem("Record")
    assert sem("ReportMeanCounts", "A") < 0.1
    assert server.scope.ledger == []
    sem("AutoFocus")
    assert sem("ReportAutoFocus")[1] != 0.0
    with pytest.raises(ScriptError, match="dark"):
        sem("Eucentricity", 3)
    sem("SetColumnOrGunValve", 1)
    assert sem("ReportColumnOrGunValve") == 1.0
    sem("SetBeamBlank", 1)
    assert server.scope.beam_blanked


def test_dewars_pumps_and_gauges_are_what_was_set_from_outside(server: SerialEMServer, sem: RealModule) -> None:
    assert (sem("AreDewarsFilling"), sem("DewarsRemainingTime"), sem("IsPVPRunning")) == (0.0, -1.0, 0.0)
    server.program.surroundings.dewars_filling = server.program.surroundings.pvp_running = True
    assert (sem("AreDewarsFilling"), sem("IsPVPRunning")) == (1.0, 1.0)
    sem("ManageDewarsAndPumps", 1)
    assert (sem("AreDewarsFilling"), sem("IsPVPRunning")) == (0.0, 0.0)
    assert sem("ReportVacuumGauge", "IGPco")[0] == 4.0
    with pytest.raises(ScriptError, match="no gauge"):
        sem("ReportVacuumGauge", "nothing")


def test_defocus_follows_autofocus(sem: RealModule) -> None:
    sem("SetTargetDefocus", -1.8)
    sem("AutoFocus")
    assert sem("ReportDefocus") == -1.8
    assert sem("ReportAutoFocus")[1] == 0.0
    sem("ChangeFocus", -0.2)
    assert sem("ReportDefocus") == pytest.approx(-2.0)
    sem("Eucentricity", 3)
    assert sem("ReportStageXYZ")[2] == pytest.approx(12.0, abs=3)


@pytest.mark.parametrize("options", [{"faults": ("autofocus_fails:focus", "eucentric_fails:eucentric")}])
def test_a_failed_autofocus_is_only_told_when_asked(sem: RealModule) -> None:
    sem("AutoFocus")
    assert sem("ReportAutoFocus")[1] != 0.0
    with pytest.raises(ScriptError, match="eucentric height"):
        sem("Eucentricity", 3)


def test_early_return_with_no_frames_leaves_a_alone(server: SerialEMServer, sem: RealModule) -> None:
    sem("SetLowDoseMode", 1)
    sem("SetDoseFracParams", "R", 1, 1)
    sem("SetFolderForFrames", "X:\\frames")
    sem("SetFrameBaseName", 1, 0, 0, "hole")
    before = sem.image(0)
    sem("EarlyReturnNextShot", 0)
    sem("Record")
    assert np.array_equal(sem.image(0), before)
    assert sem("ReportLastFrameFile") == ("X:\\frames\\hole_0001.tif", "X:\\frames\\", "hole_0001.tif")
    assert (server.program.folder / "frames" / "hole_0001.tif").exists()


# ---------------------------------------------------------------------------------------------- montages, Navigator


def test_a_full_montage_becomes_a_map_whose_pixels_are_on_the_stage(server: SerialEMServer, sem: RealModule) -> None:
    with pytest.raises(ScriptError, match="no open montage"):
        sem("Montage")
    sem("SetMag", 82)
    sem("SetupFullMontage", 0.1, "C:\\data\\atlas.mrc")
    pieces = sem("ReportNumMontagePieces")
    sem("Montage")
    assert server.count("View") == 0
    columns, rows = sem("ImageProperties", "B")[:2]
    assert sem("BufImagePosToStagePos", "B", 0, columns / 2, rows / 2)[:2] == pytest.approx((0.0, 0.0), abs=1e-6)
    plain = sem("BufImageToStageMatrix", "B", 0)
    x, y, piece, x_in, y_in = sem("BufImagePosToStagePos", "B", 0, 30.0, 50.0)
    assert (plain[0] * 30 + plain[1] * 50 + plain[4], plain[2] * 30 + plain[3] * 50 + plain[5]) == pytest.approx((x, y))
    assert 0 <= piece < pieces
    assert (x_in, y_in) == (30.0, 50.0)
    index = sem("NewMap", 0, "atlas of G1")
    assert sem("ReportOtherItem", index) == (index, 0.0, 0.0, 0.0, 2.0)
    assert sem("ReportFileZsize") == pieces
    sem("CloseFile")
    sem("LoadOtherMap", index, "Q")
    assert sem("ImageProperties", "Q")[:2] == (columns, rows)
    path = server.program.folder / "data" / "atlas.mrc"
    with mrcfile.open(path) as file:
        assert file.data.shape == (pieces, 96, 128)
        assert float(file.voxel_size.x) == pytest.approx(6000.0)
    assert path.with_name("atlas.mrc.mdoc").read_text().count("PieceCoordinates") == pieces


def test_stop_in_a_montage_ends_it_between_two_pieces(
    server: SerialEMServer, sem: RealModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    expose, exposed = server.scope.acquire, []

    def third_is_stopped(level: str, **more: Any) -> Any:
        exposed.append(level)
        if len(exposed) == 3:
            server.press_stop()
        return expose(level, **more)

    monkeypatch.setattr(server.scope, "acquire", third_is_stopped)
    sem("OpenNewMontage", 4, 4, "long.mrc")
    with pytest.raises(Exited, match="STOP"):
        sem("Montage")
    assert sem("ReportFileZsize") == 2
    assert len(exposed) == 3


def test_a_polygon_sets_up_a_montage_over_itself(sem: RealModule) -> None:
    sem("SetVariable", "xs", "10\n110\n60")
    sem("SetVariable", "ys", "10\n10\n80")
    index = sem("AddImagePointsAsPolygon", "A", "xs", "ys")
    assert sem("ReportOtherItem", index)[4] == 1.0
    sem("SetLowDoseMode", 1)
    sem("ParamSetToUseForMontage", 2)
    pieces, columns, rows = sem("SetupPolygonMontage", index, 0.1, "square.mrc")
    assert 1 < pieces <= columns * rows


def test_items_keep_what_is_written_to_them_and_go_through_a_file(server: SerialEMServer, sem: RealModule) -> None:
    group = sem("GetUniqueNavID")
    for number in range(3):
        assert sem("AddStagePosAsNavPoint", 10.0 * number, -5.0, 1.5, group, 1) == number + 1
    sem("ChangeItemLabel", 2, "S12-H7")
    sem("ChangeItemNote", 2, "0.91: thin, even ice")
    sem("ChangeItemColor", 2, 3)
    sem("SetItemAcquire", 2, 1)
    assert sem("ReportOtherItem", 2) == (2.0, 10.0, -5.0, 1.5, 0.0)
    assert (sem("GetVariable", "navLabel"), sem("GetVariable", "navNote")) == ("S12-H7", "0.91: thin, even ice")
    assert sem("ReportOtherItem", -1)[0] == 3.0
    assert sem("ReportItemAcquire", 2) == 1.0
    assert sem("ReportNumNavAcquire") == (1.0, 0.0)
    assert sem("NavIndexWithLabel", "S12-H7") == 2.0
    sem("SaveNavigator", "C:\\data\\grid.nav")
    assert sem("ReportIfNavOpen") == 2.0
    assert sem("ReportNavFile", 1) == ("C:\\data\\grid", ".nav", "C:\\data\\", "grid.nav")
    text = (server.program.folder / "data" / "grid.nav").read_text()
    assert "[Item = S12-H7]" in text
    assert "Note = 0.91: thin, even ice" in text
    sem("DeleteNavigatorItem", 1)
    assert sem("ReportNumTableItems") == 2.0
    sem("CloseNavigator")
    with pytest.raises(ScriptError, match="Navigator must be open"):
        sem("ReportNumTableItems")
    sem("OpenNavigator", "C:\\data\\grid.nav")
    sem("MergeNavFile", "C:\\data\\grid.nav")
    assert sem("ReportNumTableItems") == 6.0
    sem("ReportOtherItem", 5)
    assert (sem("GetVariable", "navNote"), sem("GetVariable", "navColor")) == ("0.91: thin, even ice", 3.0)
    sem("MoveToNavItem", 5)
    assert sem("ReportStageXYZ") == (10.0, -5.0, 1.5)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("ReportOtherItem", (7,), "out of range"),
        ("ChangeItemLabel", (1, "x" * 17), "too long"),
        ("ChangeItemColor", (1, 9), "out of range"),
        ("ReadNavFile", ("nothing.nav",), "Error opening"),
        ("LoadOtherMap", (1,), "not a map"),
        ("SetMag", (1000,), "not near"),
        ("ReportProperty", ("NoSuchThing",), "not a recognized property"),
        ("OpenOldFile", ("nothing.mrc",), "Error opening"),
        ("ReportLastFrameFile", (), "No frame file"),
        ("LoadCartridge", (9,), "Slot 9 is empty"),
        ("Save", (), "no open image file"),
        ("ImageProperties", ("S",), "no image in buffer S"),
        ("ImageProperties", ("Z",), "A to T"),
    ],
)
def test_what_cannot_be_done_says_why(
    sem: RealModule, name: str, arguments: tuple[float | str, ...], says: str
) -> None:
    sem("AddStagePosAsNavPoint", 0.0, 0.0, 0.0)
    with pytest.raises(ScriptError, match=says):
        sem(name, *arguments)


def test_a_file_is_not_overwritten_unless_allowed(sem: RealModule) -> None:
    sem("OpenNewFile", "C:\\a.mrc")
    sem("Save", "A")
    sem("AddToAutodoc", "Square", "12")
    sem("WriteAutodoc")
    sem("CloseFile")
    with pytest.raises(ScriptError, match="already exists"):
        sem("OpenNewFile", "C:\\a.mrc")
    sem("ReadOtherFile", 0, "R", "C:\\a.mrc")
    assert np.array_equal(sem.image(17), sem.image(0))
    sem("AllowFileOverwrite", 1)
    sem("OpenNewFile", "C:\\a.mrc")
    assert sem("ReportFileZsize") == 0.0
    assert sem("ReportCurrentFilename") == "C:\\a.mrc"


def test_properties_are_numbers(sem: RealModule) -> None:
    assert sem("ReportProperty", "enableexternalpython") == 1.0
    sem("SetProperty", "NoScope", 1)
    assert sem("ReportProperty", "NoScope") == 1.0


def test_a_loaded_grids_home_slot_reads_empty_and_a_changed_cassette_can_deceive(
    server: SerialEMServer, sem: RealModule
) -> None:
    assert sem("ReportSlotStatus", 1) == 0.0
    assert sem("ReportSlotStatus", 2) == (1.0, "G2")
    sem("LoadCartridge", 2)
    assert (server.scope.grid_id, sem("ReportSlotStatus", 1)) == ("G2", (1.0, "G1"))
    sem("UnloadCartridge")
    assert sem("ReportSlotStatus", 2) == (1.0, "G2")
    server.program.autoloader.change_cassette({1: "G2", 2: "G1"})
    sem("LoadCartridge", 1)
    assert server.scope.grid_id == "G2"


def test_alignment_moves_the_image_back_by_image_shift(server: SerialEMServer, sem: RealModule) -> None:
    sem("SetLowDoseMode", 1)
    sem("MoveStageTo", 30.0, 30.0)
    sem("View")
    sem("Copy", "A", "Q")
    sem("ImageShiftByStageDiff", 1.0, 0.5)
    sem("View")
    sem("AlignTo", "Q")
    assert server.scope.image_shift_um == pytest.approx((0.0, 0.0), abs=0.15)
    assert np.hypot(*sem("ReportAlignShift")[2:4]) == pytest.approx(1118, abs=150)


def test_acquire_at_items_starts_when_the_script_ends_and_keeps_others_out(
    server: SerialEMServer, sem: RealModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, may_move = server.scope.move, threading.Event()

    def held(*place: Any, **more: Any) -> None:
        may_move.wait(30.0)
        move(*place, **more)

    monkeypatch.setattr(server.scope, "move", held)
    sem("SetLowDoseMode", 1)
    with pytest.raises(ScriptError, match="no Navigator items marked"):
        sem("StartNavAcquireAtEnd")
    for number in range(3):
        sem("SetItemAcquire", sem("AddStagePosAsNavPoint", 10.0 * number, 5.0, 0.0), 1)
    sem("StartNavAcquireAtEnd")
    assert server.scope.ledger == []
    sem("Exit", 1)
    with pytest.raises(ModuleError, match="-9"):
        sem("ReportNumNavAcquire")
    may_move.set()
    until(lambda: not server.control.busy)
    assert sem("ReportNumNavAcquire") == (0.0, 0.0)
    assert len(server.scope.ledger) == 3


@pytest.mark.parametrize("options", [{"speed": 30.0}])
def test_stop_ends_acquire_at_items(server: SerialEMServer, sem: RealModule) -> None:
    sem("SetLowDoseMode", 1)
    for number in range(20):
        sem("SetItemAcquire", sem("AddStagePosAsNavPoint", 5.0 * number, 5.0, 0.0), 1)
    sem("StartNavAcquireAtEnd")
    sem("Exit", 1)
    server.press_stop()
    until(lambda: not server.control.busy)
    assert sem("ReportNumNavAcquire")[0] >= 19.0


def test_a_fit_of_the_rings_finds_the_true_defocus(sem: RealModule) -> None:
    sem("SetLowDoseMode", 1)
    sem("Eucentricity", 3)
    sem("SetTargetDefocus", -1.8)
    sem("AutoFocus")
    sem("Record")
    assert sem("CtfFind", "A", -0.3, -4.0)[0] == pytest.approx(-1.8, abs=0.3)
    with pytest.raises(ScriptError, match="no power spectrum"):
        sem("CtfFind", "B", -0.3, -4.0)


# ---------------------------------------------------------------------------------------------- speed, and by itself


def test_the_command_line_starts_it_and_lines_and_signals_play_its_operator() -> None:
    words = ["-m", "agent.cli", "simulate", "serialem", "--port", "0", "--radius-um", "150", "--version", "4.1"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            found = re.fullmatch(
                r"SerialEM 4\.1 \(simulated\) listens at 127\.0\.0\.1:(\d+)\n", process.stdout.readline()
            )
            assert found is not None
            client = RealModule(int(found[1]))
            assert client("ReportNumExeFuncs") == 721.0

            def say(line: str) -> None:
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
                assert process.stdout.readline() == f"{line}: done\n"

            say("stop")
            with pytest.raises(ModuleError, match="-10"):
                client("ReportStageXYZ")
            assert client("ReportStageXYZ") == (0.0, 0.0, 0.0)
            process.send_signal(signal.SIGUSR1)
            with pytest.raises(ModuleError, match="-10"):  # the signal comes when it comes: until then it is served
                until(lambda: client("ReportStageXYZ") is None)
            say("valves closed")
            assert client("ReportColumnOrGunValve") == 0.0
            say("fail Echo paper jam")
            client("NoMessageBoxOnError", 1)
            with pytest.raises(ScriptError, match="paper jam"):
                client("Echo", "x")
            client.close()
        finally:
            process.terminate()
        assert process.wait(10) == 0
