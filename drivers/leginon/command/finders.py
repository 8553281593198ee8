"""Finders that stay warm: answer the clients of one user over a socket, one image after the other, until nobody asks.

``python -I finders.py STEM``; started by the client (`drivers.leginon.command.client`), or by hand to see what it says.
"""

import argparse
import contextlib
import fcntl
import json
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import zmq

from drivers.leginon.command.find import Finders, UnusableError

AT_IT_S = 2.0  # those that wait hear a word this often
LOCK_S = 10.0


class FinderService:
    """Serves ``STEM.sock`` while it holds ``STEM.alive``.

    Parameters
    ----------
    stem
        Where clients look (`drivers.leginon.command.client.meeting_place`).
    finders
        The models.
    idle_s
        Ends after so long without a request.
    """

    def __init__(self, stem: Path, finders: Finders, idle_s: float) -> None:
        self.stem = stem
        self.finders = finders
        self.idle_s = idle_s
        self._todo: queue.Queue[tuple[bytes, dict[str, Any]]] = queue.Queue()
        self._waiting: dict[bytes, int] = {}  # who waits
        self._wake = f"inproc://{id(self)}"

    def run(self) -> None:
        """Serve until nobody has asked for ``idle_s``."""
        with self.stem.with_suffix(".alive").open("a") as alive:
            self._hold(alive)
            context = zmq.Context()
            front, back = context.socket(zmq.ROUTER), context.socket(zmq.PULL)
            path = self.stem.with_suffix(".sock")
            try:
                front.linger = 1000
                path.unlink(missing_ok=True)  # of one that was killed
                front.bind(f"ipc://{path}")
                back.bind(self._wake)
                threading.Thread(target=self._work, args=(context,), daemon=True).start()
                self._serve(front, back)
            finally:
                path.unlink(missing_ok=True)
                front.close()
                back.close(0)

    def _hold(self, alive: Any) -> None:
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alive.truncate(0)
                alive.write(f"{os.getpid()}\n")
                alive.flush()
                return
            except BlockingIOError:  # a client looks at it for a moment, or others serve already
                if time.monotonic() > deadline:
                    raise SystemExit(f"finders serve {self.stem} already") from None
                time.sleep(0.01)

    def _serve(self, front: Any, back: Any) -> None:
        poller = zmq.Poller()
        poller.register(front, zmq.POLLIN)
        poller.register(back, zmq.POLLIN)
        asked = told = time.monotonic()
        while self._waiting or time.monotonic() - asked < self.idle_s:
            ready = dict(poller.poll(500))
            if front in ready:
                peer, *parts = front.recv_multipart()
                asked = time.monotonic()
                self._take(front, peer, parts[-1] if parts else b"")
            if back in ready:
                peer, answer = back.recv_multipart()
                self._waiting.pop(peer, None)
                _send(front, peer, answer)
            if time.monotonic() - told > AT_IT_S:
                told = time.monotonic()
                for peer in list(self._waiting):
                    _send(front, peer, b'{"waiting": true}')

    def _take(self, front: Any, peer: bytes, raw: bytes) -> None:
        try:
            request = json.loads(raw)
            if request["what"] not in self.finders.names or not isinstance(request["image"], str):
                raise ValueError(request)
        except (ValueError, KeyError, TypeError) as error:
            _send(front, peer, json.dumps({"error": f"no request: {error}"[:300]}).encode())
            return
        self._waiting[peer] = 1
        self._todo.put((peer, request))

    def _work(self, context: Any) -> None:
        out = context.socket(zmq.PUSH)
        out.connect(self._wake)
        with contextlib.suppress(UnusableError):  # said again, to whoever asks for that model
            self.finders.warm_up()
        while True:
            peer, request = self._todo.get()
            try:
                answer = {"text": self.finders.find(request)}
            except UnusableError as error:
                answer = {"error": str(error)}
            except Exception as error:  # a defect of ours in one image must not end the service
                traceback.print_exc()
                answer = {"error": f"{request['image']}: {type(error).__name__}: {error}"}
            out.send_multipart([peer, json.dumps(answer).encode()])


def _send(front: Any, peer: bytes, answer: bytes) -> None:
    with contextlib.suppress(zmq.ZMQError):  # it went away
        front.send_multipart([peer, answer])


def main(arguments: list[str] | None = None) -> None:
    """Be the finders."""
    parser = argparse.ArgumentParser(prog="finders.py", description=__doc__)
    parser.add_argument("stem", type=Path)
    parser.add_argument("--squares", default="squares-mixture")
    parser.add_argument("--holes", default="holes-template")
    parser.add_argument("--idle", type=float, default=1800.0)
    options = parser.parse_args(arguments)
    FinderService(options.stem, Finders(options.squares, options.holes), options.idle).run()


if __name__ == "__main__":
    main()
