"""Many open pages without their browsers: one process that keeps the streams, and asks for what a page asks for.

Each client does what the page does for somebody who follows the session: it reads the stream, and when a micrograph
was judged, at most every 1.5 s, it asks for the place, the picture and the power spectrum. It draws nothing, so that
many fit beside the daemon on two cores.
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

FOLLOW_S = 1.5  # as FOLLOW_MS of the page
OPEN_S = 60.0


class Seen(NamedTuple):
    """What the clients of one turn had: news, answers, delays of news in ms, and the CPU share of their process."""

    news: int
    answers: int
    delays_ms: list[float]
    cpu_share: float


class Client:
    """One page."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.news = 0
        self.answers = 0
        self.delays_ms: list[float] = []
        self.opened = asyncio.Event()
        self._wanted = asyncio.Event()
        self._place = ""

    async def read(self) -> None:
        """Read the stream until cancelled."""
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
        writer.write(f"GET /stream HTTP/1.1\r\nHost: {self.address}\r\n\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b'data: {"seq"') and b'"summary"' in line:
                self.news += 1
                self.opened.set()
                body = json.loads(line[6:])
                self.delays_ms.append((time.time() - body["summary"]["utc"]) * 1e3)
                if body["points"]:
                    self._place = body["points"][-1]["id"]
                    self._wanted.set()

    async def follow(self) -> None:
        """Ask for the micrograph that came last, until cancelled."""
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)

        async def get(path: str) -> bytes:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.address}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            sizes = [part[15:] for part in head.lower().split(b"\r\n") if part.startswith(b"content-length:")]
            self.answers += 1
            return await reader.readexactly(int(sizes[0]))

        while True:
            await self._wanted.wait()
            self._wanted.clear()
            frame = json.loads(await get(f"/api/area/{self._place}")).get("frame")
            if frame:
                await get(f"/picture/{frame['id']}/{frame['key']}/1024.jpg")
                await get(f"/picture/{frame['id']}/{frame['key']}/spectrum.jpg?judged=true")
            await asyncio.sleep(FOLLOW_S)


async def keep(address: str, count: int, pipe: Connection) -> None:
    """Keep ``count`` pages open until the pipe is closed; each message on it is answered with a `Seen`."""
    clients = [Client(address) for _ in range(count)]
    tasks = [asyncio.create_task(job()) for client in clients for job in (client.read, client.follow)]
    over = asyncio.Event()
    begun = [time.monotonic(), time.process_time()]

    def asked() -> None:
        try:
            pipe.recv()
        except EOFError:
            over.set()
            return
        wall, used = time.monotonic() - begun[0], time.process_time() - begun[1]
        pipe.send(
            Seen(
                news=sum(client.news for client in clients),
                answers=sum(client.answers for client in clients),
                delays_ms=[delay for client in clients for delay in client.delays_ms],
                cpu_share=used / wall,
            )
        )
        for client in clients:
            client.news, client.answers, client.delays_ms = 0, 0, []
        begun[:] = [time.monotonic(), time.process_time()]

    try:
        async with asyncio.timeout(OPEN_S):
            for client in clients:
                await client.opened.wait()
        pipe.send(True)
    except TimeoutError:
        pipe.send(False)
    asyncio.get_running_loop().add_reader(pipe.fileno(), asked)
    await over.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _main(address: str, count: int, pipe: Connection) -> None:
    asyncio.run(keep(address, count, pipe))


class Pages:
    """Pages that are open."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def seen(self) -> Seen:
        """What they had since this was asked last."""
        self.pipe.send("seen")
        found: Any = self.pipe.recv()
        return Seen(*found)


@contextmanager
def pages(address: str, count: int) -> Iterator[Pages]:
    """``count`` open pages; each has had its first news."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_main, args=(address, count, there), daemon=True)
    process.start()
    there.close()
    try:
        if not here.recv():
            raise SystemExit(f"{count} pages had no news within {OPEN_S:g} s")
        yield Pages(here)
    finally:
        here.close()
        process.join(20)
