"""The TCP server: one client, its packets, the parts of images, and the rules of external control.

One thread does everything, as SerialEM's does: while a command runs nothing is read and nobody is let in; a new
connection waits and then replaces the old one.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np

from drivers.serialem import codes, protocol
from drivers.serialem.protocol import (
    Command,
    GetImage,
    ImageHeader,
    MalformedError,
    OkToRun,
    PutImage,
    Refusal,
    Reply,
    Value,
)
from simulators.microscope import VirtualMicroscope
from simulators.serialem import groups
from simulators.serialem.commands import Call, ScriptError, ScriptExit, UserStop, run
from simulators.serialem.disturbances import Disturbances
from simulators.serialem.groups.acquiring import acquire
from simulators.serialem.program import Calibration, SerialEM

RECEIVE_BYTES = 65536
REST_OF_PACKET_S = 10.0
PIXELS_S = 60.0
GAP_S = 0.02
REPLY_LIMIT_4_0 = 1024

groups.load()


class SerialEMServer(Disturbances):
    """SerialEM's side of the socket in front of a virtual microscope.

    Parameters
    ----------
    scope
        The microscope.
    port
        TCP port; 0 is any free one, see `port` after `start`.
    version
        Release to play: ``"4.0"`` to ``"4.3"``.
    host
        Address to listen at; SerialEM itself listens at all.
    folder, slots, calibration
        See `SerialEM`.
    message_box_s
        How long an error waits on SerialEM's own screen while boxes are on, in real seconds; None waits for STOP.
    busy_wait_s
        How long a request waits for a busy SerialEM before it is refused with -9, in real seconds.
    gap_s
        Pause between the head of an image and its bytes: the `serialem` modules lose bytes without one.
    handshake_s
        How long a part of an image waits for its handshake; None is SerialEM's own, a fifth of a µs per byte.
    takeover_keeps_control
        Whether control stays on when a new client replaces one that was in control, as happens in SerialEM 4.2 when
        it has not noticed that the old one left.
    """

    def __init__(
        self,
        scope: VirtualMicroscope,
        port: int = 0,
        version: str = "4.2",
        *,
        host: str = "127.0.0.1",
        folder: Path | None = None,
        slots: dict[int, str] | None = None,
        calibration: Calibration | None = None,
        message_box_s: float | None = 0.0,
        busy_wait_s: float = 5.0,
        gap_s: float = GAP_S,
        handshake_s: float | None = None,
        takeover_keeps_control: bool = False,
    ) -> None:
        super().__init__()
        self.program = SerialEM(
            scope, version, folder=folder, slots=slots, calibration=calibration, busy_wait_s=busy_wait_s
        )
        self.control = self.program.control
        self.scope = scope
        self.host = host
        self.connections = 0
        self._wanted_port = port
        self._message_box_s = message_box_s
        self._gap_s = gap_s
        self._handshake_s = handshake_s
        self._takeover_keeps_control = takeover_keeps_control
        self._stop_between = threading.Event()
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._run_of_items: threading.Thread | None = None

    # ---------------------------------------------------------------------------------------------- life

    @property
    def port(self) -> int:
        """The port that the server listens at."""
        if self._listener is None:
            return self._wanted_port
        return int(self._listener.getsockname()[1])

    def start(self) -> SerialEMServer:
        """Listen and serve in a thread; returns itself."""
        self.control.closing.clear()
        groups.start(self.program)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self._wanted_port))
            listener.listen(2)
        except (OSError, OverflowError):
            listener.close()
            raise
        self._listener = listener
        self.program.properties["SocketServerPort"] = float(self.port)
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="serialem simulator", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving and close every socket and file; `start` begins again, as SerialEM does after a restart."""
        self.control.closing.set()
        if self._thread is not None:
            self._thread.join(30.0)
            self._thread = None
        if self._run_of_items is not None:
            self._run_of_items.join(30.0)
            self._run_of_items = None
        self._lose()
        if self._listener is not None:
            self._wanted_port = self.port
            self._listener.close()
            self._listener = None
        self.program.close()

    def __enter__(self) -> SerialEMServer:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------- from outside

    def press_stop(self) -> None:
        """Press SerialEM's STOP button; works at any moment, from any thread."""
        self.control.press_stop()

    def press_stop_between(self) -> None:
        """Press STOP once, when a command has ended, control is still on, and the next one has not come."""
        self._stop_between.set()

    def set_busy(self, busy: bool) -> None:
        """Let SerialEM be in other hands, so that no external control can start, or free it again."""
        self.control.busy = busy

    # ---------------------------------------------------------------------------------------------- the thread

    def _serve(self, listener: socket.socket) -> None:
        while not self.control.closing.is_set():
            sockets = [listener, *([self._client] if self._client else [])]
            ready, _, _ = select.select(sockets, [], [], 0.05)
            if self._client in ready:
                try:
                    self._hear(self._client)
                except OSError:
                    self._lose()
                except Exception as error:  # a fault of the simulator ends this client only
                    self.program.say(f"the simulator failed: {type(error).__name__}: {error}")
                    self._lose()
            if listener in ready:
                self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._client is not None:
            if self._takeover_keeps_control:
                self._drop()
            else:
                self._lose()
        self._client = client
        self.connections += 1

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _lose(self) -> None:
        """The client is gone: end its script."""
        self._drop()
        self.control.client_gone()

    def _hear(self, client: socket.socket) -> None:
        packet = self._packet(client)
        if packet is None:
            self._lose()
            return
        try:
            request = protocol.decode_request(packet)
            reply = self._answer(client, request)
        except MalformedError as error:
            reply = protocol.encode_refusal(error.code)
        if reply:
            client.settimeout(PIXELS_S)
            client.sendall(reply)

    def _packet(self, client: socket.socket) -> bytes | None:
        """One whole request; whatever came behind it is thrown away. None when the client is gone."""
        client.settimeout(REST_OF_PACKET_S)
        data = client.recv(RECEIVE_BYTES)
        while 0 < len(data) < 4:
            more = client.recv(RECEIVE_BYTES)
            if not more:
                return None
            data += more
        if not data:
            return None
        (size,) = struct.unpack_from("<i", data)
        if size < 8:
            return data[:4].ljust(4, b"\0")
        if size > protocol.MOST_PACKET_BYTES:
            client.sendall(protocol.encode_refusal(Refusal.REQUEST_TOO_BIG))
            return None
        parts, have = [data], len(data)
        while have < size:
            more = client.recv(min(RECEIVE_BYTES, size - have))
            if not more:
                return None
            parts.append(more)
            have += len(more)
        return b"".join(parts)[:size]

    # ---------------------------------------------------------------------------------------------- requests

    def _answer(self, client: socket.socket, request: protocol.Request) -> bytes:
        """The reply to a request, or nothing where it was sent already."""
        control = self.control
        if isinstance(request, OkToRun):
            return protocol.encode_ok_to_run(not control.on and control.start())
        if isinstance(request, protocol.Handshake):
            return protocol.encode_refusal(Refusal.UNKNOWN_FUNCTION)
        if not control.on:
            if control.stop_pending:
                control.stop_pending = False
                return protocol.encode_refusal(Refusal.STOPPED)
            if not control.start():
                return protocol.encode_refusal(Refusal.BUSY)
        match request:
            case Command() as command:
                return self._run(command)
            case GetImage(buffer, fft):
                self._send_image(client, buffer, fft)
            case PutImage() as put:
                self._take_image(client, put)
        return b""

    def _run(self, command: Command) -> bytes:
        control = self.control
        if control.stuck:
            control.begin_command("(stuck)")
            control.wait_for_stop()
            control.finish_command()
            control.end()
            return protocol.encode_reply(Reply((), protocol.USER_STOP))
        info = codes.command_at(command.code)
        if info is None or command.code >= self.program.entries:
            control.stuck = True
            self.program.say(f"Command code {command.code} is out of range; this needs STOP")
            message = f"Command code {command.code} is out of range: this SerialEM has {self.program.entries} commands"
            text = protocol.framed(message) if self.program.script.quiet else ""
            return protocol.encode_reply(Reply((text,), protocol.SCRIPT_ERROR))
        call = Call(info, command.arguments)
        if not control.begin_command(info.name):
            control.stop_pending = False
            return protocol.encode_refusal(Refusal.STOPPED)
        self.log.append((info.name, call.values))
        try:
            self.stay_where_held(info.name, self.control.closing)
            reply = self._outcome(call)
        finally:
            pressed = control.finish_command()
        if pressed and reply.error in (protocol.FINE, protocol.SCRIPT_ERROR):
            reply = Reply((), protocol.USER_STOP)
        if reply.error not in (protocol.FINE, protocol.SCRIPT_ERROR):
            control.end()
            self._after_script(stopped=reply.error == protocol.USER_STOP)
        if control.on and self._stop_between.is_set():
            self._stop_between.clear()
            control.press_stop()
        packed = protocol.encode_reply(reply)
        if not self.program.at_least(4, 1) and len(packed) > REPLY_LIMIT_4_0:
            return protocol.encode_refusal(Refusal.REPLY_TOO_BIG)
        return packed

    def _after_script(self, *, stopped: bool) -> None:
        """Start what a script asked for at its end; SerialEM is busy until that is done."""
        wanted, self.program.navigator.acquire_at_end = self.program.navigator.acquire_at_end, False
        if wanted and not stopped:
            self.control.busy = True
            self.control.begin_command("(Acquire at Items)")
            self._run_of_items = threading.Thread(target=self._acquire_at_items, name="acquire at items", daemon=True)
            self._run_of_items.start()

    def _acquire_at_items(self) -> None:
        try:
            acquire(self.program)
        finally:
            self.control.finish_command()
            self.control.busy = False

    def _outcome(self, call: Call) -> Reply:
        name = call.info.name
        try:
            if self.is_silent(name):
                self.control.wait_for_stop()
                raise UserStop
            trouble = self.trouble_of(name)
            if trouble is not None and not trouble.after:
                raise ScriptError(trouble.message)
            values = run(self.program, call)
            if trouble is not None:
                raise ScriptError(trouble.message)
            self._report(values)
            return Reply(values)
        except ScriptExit as leaving:
            return Reply((), protocol.EXIT_WITH_CODE if leaving.with_code else protocol.NORMAL_EXIT)
        except UserStop:
            return Reply((), protocol.USER_STOP)
        except ScriptError as error:
            return self._script_error(str(error))
        except Exception as error:  # a fault of the simulator must not end the connection
            return self._script_error(f"{name}: the simulator failed: {type(error).__name__}: {error}")

    def _report(self, values: tuple[Value, ...]) -> None:
        """SerialEM keeps reported values in variables, too."""
        for number, value in enumerate(values, start=1):
            self.program.script.variables[f"REPORTEDVALUE{number}"] = value
            self.program.script.variables[f"REPVAL{number}"] = value

    def _script_error(self, message: str) -> Reply:
        """The reply to a failed command; the text is lost in a box unless boxes are off."""
        self.program.say(f"SCRIPT ERROR: {message}")
        if self.program.script.quiet:
            return Reply((protocol.framed(message),), protocol.SCRIPT_ERROR)
        if self._message_box_s is None:
            self.control.wait_for_stop()
        else:
            deadline = time.monotonic() + self._message_box_s
            while time.monotonic() < deadline and not self.control.stopped:
                self.control.closing.wait(0.02)
        return Reply(("",), protocol.SCRIPT_ERROR)

    # ---------------------------------------------------------------------------------------------- images

    def _send_image(self, client: socket.socket, buffer: int, fft: bool) -> None:
        images = self.program.buffers.ffts if fft else self.program.buffers.images
        found = images.get(buffer)
        client.settimeout(PIXELS_S)
        if found is None:
            client.sendall(protocol.encode_image_header(protocol.NO_IMAGE))
            return
        pixels = np.ascontiguousarray(found.pixels)
        header = ImageHeader.of(pixels)
        client.sendall(protocol.encode_image_header(header))
        time.sleep(self._gap_s)
        left = pixels.data.cast("B")
        for number, size in enumerate(header.part_sizes):
            if number and not self._handshake(client, size):
                self._lose()
                return
            client.sendall(left[:size])
            left = left[size:]

    def _handshake(self, client: socket.socket, part_bytes: int) -> bool:
        """Whether the client asks for the next part in time."""
        client.settimeout(part_bytes / 5e6 if self._handshake_s is None else self._handshake_s)
        try:
            asked = client.recv(RECEIVE_BYTES)
        except TimeoutError:
            return False
        with contextlib.suppress(MalformedError):
            return isinstance(protocol.decode_request(asked), protocol.Handshake)
        return False

    def _take_image(self, client: socket.socket, put: PutImage) -> None:
        sizes = {kind: np.dtype(dtype).itemsize for kind, dtype in protocol.DTYPES.items()} | {protocol.RGB: 3}
        bytes_due = put.rows * put.columns * sizes.get(put.kind, 0)
        if min(put.rows, put.columns) < 1 or put.byte_count != bytes_due or not bytes_due:
            raise MalformedError(f"{put}: the sizes do not agree")
        client.settimeout(PIXELS_S)
        client.sendall(protocol.encode_done())
        pixels = bytearray(put.byte_count)
        view, have = memoryview(pixels), 0
        while have < put.byte_count:
            got = client.recv_into(view[have:])
            if not got:
                self._lose()
                return
            have += got
        if put.to_buffer in range(len(protocol.BUFFERS)):
            self.program.buffers.put_array(
                put.array(pixels), put.to_buffer, put.base_buffer, put.more_binning, put.capture_flag
            )
