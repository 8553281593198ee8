"""A client of SerialEM's external-Python socket in pure Python: one request, one answer, nothing sent twice.

What can go wrong is drawn in `drivers.serialem.errors`. Other threads of the process run on while a command waits.

Everything that SerialEM keeps for the length of a script (message boxes off, the low-dose area it restores ...) is gone
whenever control ends: by `exit_control`, STOP, a busy answer or a new connection. The set-up commands are then sent
again by themselves, and ``generation`` counts up, so that callers know that what they had set is gone, too.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from drivers.serialem import codes, protocol
from drivers.serialem.errors import (
    BadReplyError,
    BusyError,
    LinkLostError,
    MissingCommandError,
    ScriptError,
    StoppedError,
)
from drivers.serialem.limits import limit_s
from drivers.serialem.line import Line

log = structlog.get_logger("serialem")
Value = float | str
Values = tuple[Value, ...]

SETUP: tuple[tuple[str, int], ...] = (("NoMessageBoxOnError", 1), ("ErrorsToLog", 1), ("SuppressReports", 1))
VERSIONS = (("40300", "4.3"), ("40200", "4.2"), ("40100", "4.1"))
OLDEST = "4.0.0"


class SerialEMClient:
    """Talks to one SerialEM; callable from several threads, which take turns.

    Parameters
    ----------
    host, port
        Where SerialEM listens (`EnableExternalPython`).
    limits_s
        Time limits in seconds by class of command, see `drivers.serialem.limits`; the others are the defaults.
    connect_s
        How long connecting may take.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = protocol.PORT,
        *,
        limits_s: Mapping[str, float] | None = None,
        connect_s: float = 5.0,
    ) -> None:
        self.host, self.port = host, port
        self.entries = 0  # commands that the running SerialEM has; 0: not known yet
        self.version = ""
        self.generation = 0
        self.in_control = False
        self._limits_s = dict(limits_s or {})
        self._connect_s = connect_s
        self._line: Line | None = None
        self._prepared = False
        self._lock = threading.RLock()

    # ------------------------------------------------------------------------------------------ commands

    def call(self, name: str, *arguments: "float | str | None", limit: float | None = None) -> Any:
        """Run a command and give what it reports: None, one value, or a tuple of values.

        Parameters
        ----------
        name
            Such as ``"ReportStageXYZ"``.
        arguments
            Numbers and texts; None leaves one out.
        limit
            Seconds to wait for the answer; None takes the limit of its class.
        """
        values = self._call(name, arguments, limit)
        return None if not values else values[0] if len(values) == 1 else values

    def numbers(self, name: str, *arguments: "float | str | None", least: int = 1) -> tuple[float, ...]:
        """What a command reports, as numbers.

        Raises
        ------
        BadReplyError
            If it reports fewer than ``least`` values, or texts among them.
        """
        values = self._call(name, arguments, None)
        found = tuple(value for value in values if isinstance(value, int | float))
        if len(found) < least:
            raise BadReplyError(f"{name}: SerialEM reported {values}; {least} numbers were expected")
        return found

    def number(self, name: str, *arguments: "float | str | None") -> float:
        """The first number that a command reports."""
        return self.numbers(name, *arguments)[0]

    def report(self, name: str, *arguments: "float | str | None", least: int = 1) -> tuple[float, ...]:
        """Numbers from a command that only reports; asked once more after an error, as that changes nothing."""
        try:
            return self.numbers(name, *arguments, least=least)
        except (ScriptError, BadReplyError) as error:
            log.warning("report.again", error=str(error))
            return self.numbers(name, *arguments, least=least)

    def has(self, name: str) -> bool:
        """Whether the running SerialEM has this command."""
        return codes.exists(name, self.entries)

    def exit_control(self) -> None:
        """Give control back, so that the operator can work; nothing happens where we have none."""
        with self._lock:
            if self._line is None or not self.in_control:
                return
            try:
                self._run("Exit", (1,), None)
            except (LinkLostError, BusyError, StoppedError, ScriptError, BadReplyError) as error:
                log.info("control.ended_already", why=str(error))
            finally:
                self._control_ended()

    def _call(self, name: str, arguments: "tuple[float | str | None, ...]", limit: float | None) -> Values:
        with self._lock:
            self.ready()
            return self._run(name, arguments, limit)

    def _run(self, name: str, arguments: "tuple[float | str | None, ...]", limit: float | None) -> Values:
        try:
            code = codes.code_of(name, self.entries or codes.ENTRIES[OLDEST])
        except codes.UnknownCommandError as error:
            raise MissingCommandError(str(error)) from error
        deadline = time.monotonic() + (limit_s(name, self._limits_s) if limit is None else limit)
        packet = self._exchange(protocol.encode_request(protocol.command(code, *arguments)), name, deadline)
        try:
            reply = protocol.decode_reply(packet)
        except protocol.RefusedError as error:
            raise self._refused(error) from error
        except protocol.MalformedError as error:
            self.close()
            raise BadReplyError(f"{name}: {error}") from error
        self.in_control = True
        match reply.error:
            case protocol.FINE:
                return reply.values
            case protocol.SCRIPT_ERROR:
                raise ScriptError(name, reply.message)
            case protocol.USER_STOP:
                self._control_ended()
                raise StoppedError(f"STOP was pressed in SerialEM during {name}", during=name)
            case protocol.NORMAL_EXIT | protocol.EXIT_WITH_CODE:
                self._control_ended()
                return ()
        self.close()
        raise BadReplyError(f"{name}: SerialEM answered with error {reply.error}, which nobody knows")

    # ------------------------------------------------------------------------------------------ images

    def buffer_image(self, buffer: str = "A") -> NDArray[Any] | None:
        """The image in a buffer, shape (rows, columns), top row first; None where there is none.

        Parameters
        ----------
        buffer
            ``"A"`` to ``"T"``; ``"AF"`` to ``"HF"`` are the FFTs.
        """
        index, fft = protocol.buffer_index(buffer)
        with self._lock:
            self.ready()
            deadline = time.monotonic() + limit_s("View", self._limits_s)
            what = f"the image in {buffer}"
            packet = self._exchange(protocol.encode_request(protocol.GetImage(index, fft)), what, deadline)
            try:
                header = protocol.decode_image_header(packet)
                return None if header is None else self._pixels(header, what, deadline)
            except protocol.RefusedError as error:
                raise self._refused(error) from error
            except protocol.MalformedError as error:
                self.close()
                raise BadReplyError(f"{what}: {error}") from error
            except LinkLostError:
                self.close()
                raise

    def _pixels(self, header: protocol.ImageHeader, what: str, deadline: float) -> NDArray[Any]:
        """The bytes after an image header; each part but the first is asked for."""
        if self._line is None:
            raise LinkLostError(f"there is no connection to SerialEM for {what}")
        pixels = np.empty(header.byte_count, np.uint8).data  # not set to 0 first, as a bytearray is
        at = 0
        for number, size in enumerate(header.part_sizes):
            if number:
                self._line.send(protocol.encode_request(protocol.Handshake()), what, deadline)
            self._line.receive(pixels[at : at + size], what, deadline)
            at += size
        return header.array(pixels)

    # ------------------------------------------------------------------------------------------ connection

    def ready(self) -> None:
        """Connect where that is needed, take control, send the set-up, find out what this SerialEM has.

        Raises
        ------
        LinkLostError
            If nobody answers there.
        TakenOverError
            If SerialEM gives no control.
        """
        with self._lock:
            if self._line is None or not self._line.in_step():
                self.close()
                self._line = Line(self.host, self.port, self._connect_s)
            if not self._prepared:
                for name, value in SETUP:
                    self._run(name, (value,), None)
                if not self.entries:
                    self._discover()
                self._prepared = True

    def close(self) -> None:
        """Close the connection: SerialEM ends external control by itself, after the command that is running."""
        with self._lock:
            if self._line is not None:
                self._line.close()
            self._line = None
            self.entries = 0
            self._control_ended()

    def abandon(self, wait_s: float) -> None:
        """Make sure that no other thread waits for an answer for longer than ``wait_s``: break the connection then."""
        if self._lock.acquire(timeout=wait_s):
            self._lock.release()
            return
        waiting = self._line
        if waiting is not None:
            waiting.hang_up()  # the waiting thread gets a LinkLostError

    def _discover(self) -> None:
        """How many commands this SerialEM has: a code beyond that would leave it stuck until STOP."""
        version = OLDEST
        for number, name in VERSIONS:
            if self._run("IsVersionAtLeast", (number,), None) == (1.0,):
                version = name
                break
        entries = codes.entries(version)
        if version != OLDEST:
            self.entries = entries
            (exact,) = self._run("ReportNumExeFuncs", (), None) or (entries,)
            if isinstance(exact, int | float) and exact > 0:
                entries = min(int(exact), codes.entries(VERSIONS[0][1]))
        self.entries = entries
        self.version = "4.0" if version == OLDEST else version
        log.info("serialem.found", version=self.version, commands=entries)

    def _control_ended(self) -> None:
        self.in_control = False
        self._prepared = False
        self.generation += 1

    def _refused(self, error: protocol.RefusedError) -> Exception:
        self._control_ended()
        if error.busy:
            return BusyError("SerialEM is busy and gives no control (-9): its operator is using it, or a task runs")
        if error.stopped:
            return StoppedError("STOP was pressed in SerialEM")
        self.close()
        return BadReplyError(str(error))

    def _exchange(self, request: bytes, what: str, deadline: float) -> bytes:
        if self._line is None:
            raise LinkLostError(f"there is no connection to SerialEM for {what}")
        try:
            self._line.send(request, what, deadline)
            head = bytearray(protocol.HEADER_BYTES)
            self._line.receive(memoryview(head), what, deadline)
            packet = bytearray(protocol.packet_size(bytes(head)))
            packet[: len(head)] = head
            self._line.receive(memoryview(packet)[len(head) :], what, deadline)
        except protocol.MalformedError as error:
            self.close()
            raise BadReplyError(f"{what}: {error}") from error
        except LinkLostError:
            self.close()
            raise
        return bytes(packet)
