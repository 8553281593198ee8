"""HTTP by hand against an app on a real port."""

import asyncio
import http.client
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from agent.web.serve import address_of, listen, serve


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    text: str
    headers: Mapping[str, str]


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """``host:port`` of the app while the block lasts."""
    made = listen("127.0.0.1:0")
    task = asyncio.create_task(serve(app, made))
    try:
        yield address_of(made)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ask(address: str, path: str, method: str = "GET", body: str | bytes | None = None, **headers: str) -> Answer:
    """The answer to one request; ``x_csrf_token="…"`` becomes the header ``x-csrf-token``."""

    def blocking() -> Answer:
        connection = http.client.HTTPConnection(address, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode("utf-8", "replace"), dict(answer.getheaders()))
        finally:
            connection.close()

    return await asyncio.to_thread(blocking)
