"""The TCP connection under the client: sends whole requests, reads exactly as many bytes as are due, in time."""

import contextlib
import select
import socket
import time

from drivers.serialem.errors import LinkLostError, NoAnswerError

KEEP_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))  # seconds, seconds, tries


class Line:
    """One connection; raises `LinkLostError` wherever it breaks, and is not to be used after that.

    Parameters
    ----------
    host, port
        Where SerialEM listens.
    connect_s
        How long connecting may take.
    """

    def __init__(self, host: str, port: int, connect_s: float) -> None:
        try:
            self._socket = socket.create_connection((host, port), connect_s)
        except OSError as error:
            raise LinkLostError(
                f"no SerialEM at {host}:{port} ({error.strerror or error}); is it running with property"
                " EnableExternalPython 1, and does the firewall let this machine through?"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE:
            if hasattr(socket, option):  # not on every system
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def in_step(self) -> bool:
        """Whether the connection stands and no bytes wait that nobody asked for."""
        try:
            readable, _, _ = select.select([self._socket], [], [], 0)
        except (OSError, ValueError):
            return False
        return not readable

    def send(self, request: bytes, what: str, deadline: float) -> None:
        """Send a whole request; ``deadline`` is a time of `time.monotonic`."""
        try:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            self._socket.sendall(request)
        except OSError as error:
            text = f"the connection to SerialEM broke at {what} ({error.strerror or error})"
            raise LinkLostError(text, may_have_run=True) from error

    def receive(self, into: memoryview, what: str, deadline: float) -> None:
        """Fill ``into`` with the next bytes and take no byte more, as an image may follow at once."""
        at = 0
        while at < len(into):
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
                count = self._socket.recv_into(into[at:])
            except TimeoutError as error:
                raise NoAnswerError(f"SerialEM did not answer {what} in time", may_have_run=True) from error
            except OSError as error:
                text = f"the connection to SerialEM broke during {what} ({error.strerror or error})"
                raise LinkLostError(text, may_have_run=True) from error
            if count == 0:
                raise LinkLostError(f"SerialEM closed the connection during {what}", may_have_run=True)
            at += count

    def hang_up(self) -> None:
        """End the connection from another thread; whoever waits for bytes gets a `LinkLostError`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self._socket.close()
