"""An app on a port, inside a running loop: signals stay the program's own, and open streams do not hold its end up."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from agent.errors import ConfigError


class Server(uvicorn.Server):
    """Uvicorn without its own signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def split(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``, where the host may be ``[::1]``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def listen(address: str) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises
    ------
    OSError
        If the port is taken or the address is not this machine's.
    """
    host, port = split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(256)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def address_of(made: socket.socket) -> str:
    """``host:port`` on which a socket listens."""
    host, port = made.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(app: ASGIApp, made: socket.socket, *, certificate: Path | None = None, key: Path | None = None) -> None:
    """Serve ``app`` on a listening socket until cancelled; the socket is closed at the end.

    Raises
    ------
    ConfigError
        If the certificate or its key cannot be used.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=str(certificate) if certificate else None,
        ssl_keyfile=str(key) if key else None,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        made.close()
        raise ConfigError(f"web.certificate: {certificate}: {error}") from error
    server = Server(config)
    try:
        await server.serve(sockets=[made])
    finally:
        if server.started:  # cut short by a cancel: uvicorn itself would leave its connections open
            server.force_exit = True
            await server.shutdown(sockets=[made])
        made.close()
