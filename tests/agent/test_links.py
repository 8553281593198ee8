"""The outbox: a command that is no longer wanted does not leave, whatever was put there before."""

import asyncio

import zmq
import zmq.asyncio

from agent import wire
from agent.links import Links
from agent.messages import Command, Goto, Heartbeat


async def test_a_command_that_waits_in_the_outbox_does_not_leave_after_a_pause() -> None:
    context = zmq.asyncio.Context()
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    try:
        port = server.bind_to_random_port("tcp://127.0.0.1")
        client.connect(f"tcp://127.0.0.1:{port}")
        await client.send(b"here")
        peer, _ = await server.recv_multipart()
        links = Links(server)
        paused = False
        links.may_leave = lambda command: not paused
        command = Command(command_id="C1", session_id="s", epoch=1, timeout_s=1.0, work=Goto(x_um=0.0, y_um=0.0))
        links.send(peer, command)
        links.send(peer, Heartbeat(progress=1))
        paused = True
        posting = asyncio.create_task(links.post())
        async with asyncio.timeout(5):
            first = wire.decode((await client.recv_multipart())[-1], wire.TO_DRIVER)
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        assert first == Heartbeat(progress=1)
    finally:
        server.close(0)
        client.close(0)
        context.term()
