"""The control socket: an operator's requests come in with a name and a role, and are answered at once."""

import time
import uuid
from pathlib import Path
from typing import Any

import structlog
import zmq
import zmq.asyncio

from agent import control_messages as say
from agent import wire
from agent.desk import Desk
from agent.errors import BadMessageError, CryonautError, LinkError
from agent.keys import Keyring, arm_client

log = structlog.get_logger("control")


class ControlServer:
    """Takes requests from a socket of its own, so that a stop never waits behind a frame."""

    def __init__(self, socket: "zmq.asyncio.Socket", desk: Desk, keyring: Keyring) -> None:
        self.socket = socket
        self.desk = desk
        self.keyring = keyring

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            peer, *parts = await self.socket.recv_multipart(copy=False)
            reply = await self._answer(parts)
            try:
                await self.socket.send_multipart([peer.bytes, wire.encode(reply)])
            except zmq.ZMQError as error:  # whoever asked has gone; what was asked is done all the same
                log.info("peer.unreachable", error=str(error))

    async def _answer(self, parts: list[zmq.Frame]) -> say.Reply:
        request_id = ""
        try:
            if len(parts) != 1:
                raise BadMessageError(f"{len(parts)} parts: a control request has one")
            known = self.keyring.who(parts[0])
            control = wire.decode(wire.part_buffer(parts[0]), wire.CONTROL)
            request_id = control.request_id
            if known is None:
                raise BadMessageError("this key is not known (any more)")
            return await self.desk.answer(known, control)
        except CryonautError as error:
            return say.Reply(request_id=request_id, ok=False, text=str(error))


class ControlClient:
    """The other end: sends one request at a time and waits for its answer.

    Raises
    ------
    LinkError
        When no daemon answers in time.
    """

    def __init__(
        self, endpoint: str, *, key: Path | None = None, server_key: Path | None = None, timeout_s: float = 5.0
    ) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        try:
            arm_client(self._socket, key, server_key)
            self._socket.connect(endpoint)
        except BaseException:
            self.close()
            raise

    def ask(self, verb: say.AnyVerb, request_id: str | None = None) -> say.Reply:
        """The daemon's answer to ``verb``."""
        request = say.Control(request_id=request_id or uuid.uuid4().hex, verb=verb)
        self._socket.send(wire.encode(request))
        deadline = time.monotonic() + self.timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if self._socket.poll(int(left * 1000) + 1):
                reply: Any = wire.decode(self._socket.recv_multipart()[-1], wire.REPLY)
                if reply.request_id in (request.request_id, ""):
                    return reply  # type: ignore[no-any-return]
        raise LinkError(
            f"no daemon answers at {self.endpoint} within {self.timeout_s:g} s: is `cryonaut run` up, is the endpoint"
            " that of its config (endpoints.control), and does it know your key?"
        )

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)
        self._context.term()

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
