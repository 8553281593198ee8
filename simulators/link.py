"""A bad cable between a driver and the daemon: loses, delays and doubles messages when it is told to."""

import threading
import time

import msgspec
import zmq


class _Kind(msgspec.Struct):
    kind: str


class FaultyLink:
    """Forwards between a driver, which connects to ``endpoint``, and the daemon at ``daemon_endpoint``.

    Set ``cut`` to lose everything both ways; ``double_frames`` and ``delay_frames_s`` act on frames to the daemon,
    ``lose_from_daemon`` and ``lose_to_daemon`` cut one direction.
    """

    def __init__(self, daemon_endpoint: str) -> None:
        self.cut = False
        self.lose_to_daemon = False
        self.lose_from_daemon = False
        self.double_frames = False
        self.delay_frames_s = 0.0
        self.frames = 0
        self._context = zmq.Context()
        self._driver: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._driver.linger = 0
        port = self._driver.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self._daemon_endpoint = daemon_endpoint
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faulty-link", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        daemon: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        daemon.linger = 0
        daemon.reconnect_ivl = 50
        daemon.connect(self._daemon_endpoint)
        poller = zmq.Poller()
        poller.register(self._driver, zmq.POLLIN)
        poller.register(daemon, zmq.POLLIN)
        peer = b""
        while not self._stop.is_set():
            ready = dict(poller.poll(50))
            if self._driver in ready:
                peer, *parts = self._driver.recv_multipart()
                if not (self.cut or self.lose_to_daemon):
                    self._forward(daemon, parts)
            if daemon in ready:
                parts = daemon.recv_multipart()
                if not (self.cut or self.lose_from_daemon) and peer:
                    self._driver.send_multipart([peer, *parts])
        daemon.close(0)

    def _forward(self, daemon: "zmq.Socket[bytes]", parts: list[bytes]) -> None:
        is_frame = len(parts) == 2 and msgspec.msgpack.decode(parts[0], type=_Kind).kind == "frame"
        if is_frame:
            self.frames += 1
            if self.delay_frames_s:
                time.sleep(self.delay_frames_s)
        daemon.send_multipart(parts)
        if is_frame and self.double_frames:
            daemon.send_multipart(parts)

    def close(self) -> None:
        """End the forwarding."""
        self._stop.set()
        self._thread.join(5.0)
        self._driver.close(0)
        self._context.term()
