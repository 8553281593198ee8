"""The simulator by itself: it serves until told to end, and lines and signals play its operator."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

from simulators.serialem.server import SerialEMServer

HELP = (
    "stop | busy | free | valves closed | valves open | dewars filling | dewars full | fail COMMAND TEXT | log | quit"
)


def obey(server: SerialEMServer, line: str) -> str:
    """Do what a line says and return what to print; empty for nothing."""
    words = line.split()
    scope, around = server.scope, server.program.surroundings
    match words:
        case []:
            return ""
        case ["stop"]:
            server.press_stop()
        case ["busy"] | ["free"]:
            server.set_busy(words == ["busy"])
        case ["valves", "closed" | "open" as state]:
            scope.valves_open = state == "open"
        case ["dewars", "filling" | "full" as state]:
            around.dewars_filling = state == "filling"
        case ["fail", name, *text]:
            server.fail_next(name, " ".join(text) or "failed on demand")
        case ["log"]:
            return "\n".join(f"{name} {' '.join(map(str, values))}".rstrip() for name, values in server.log)
        case _:
            return f"{line.strip()}: write {HELP}"
    return f"{' '.join(words)}: done"


@contextlib.contextmanager
def _signals(server: SerialEMServer, ended: threading.Event) -> Iterator[None]:
    """SIGUSR1 presses STOP, SIGTERM and Ctrl-C end the server."""

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    def stop(number: int, frame: FrameType | None) -> None:
        server.press_stop()

    wanted = {signal.SIGINT: end, signal.SIGTERM: end}
    if hasattr(signal, "SIGUSR1"):
        wanted[signal.SIGUSR1] = stop
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(server: SerialEMServer, lines: TextIO, say: Callable[[str], None]) -> None:
    """Serve until ``quit``, SIGTERM or Ctrl-C; the end of ``lines`` ends nothing.

    Parameters
    ----------
    server
        Not yet started.
    lines
        Where the operator's lines come from, such as standard input.
    say
        Gets one line when the server listens, and the answers to the operator's lines.
    """
    ended = threading.Event()

    def listen() -> None:
        for line in lines:
            if line.strip() == "quit":
                ended.set()
                return
            try:
                answer = obey(server, line)
            except Exception as error:  # whatever is wrong with a line, the server goes on
                answer = f"{line.strip()}: {error}"
            if answer:
                say(answer)

    with _signals(server, ended), server:
        say(f"SerialEM {server.program.version} (simulated) listens at {server.host}:{server.port}")
        threading.Thread(target=listen, name="operator's lines", daemon=True).start()
        while not ended.wait(0.2):
            pass
