"""The facility at one look: this daemon and the others, asked over their control sockets with an observer's key."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from agent import control_messages as say
from agent.control import ControlClient
from agent.desk import Desk
from agent.errors import CryonautError
from agent.settings import OtherDaemon
from agent.web.app import render
from agent.web.guard import get
from agent.web.page import Page

ANSWER_WITHIN_S = 3.0
HERE = Path(__file__).parent


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One daemon; ``trouble`` says why nothing is known of it."""

    name: str
    page: str = ""
    status: say.Status | None = None
    trouble: str = ""


def ask(other: OtherDaemon) -> Row:
    """What another daemon says of itself; blocks for at most `ANSWER_WITHIN_S`."""
    try:
        with ControlClient(other.control, key=other.key, timeout_s=ANSWER_WITHIN_S) as client:
            reply = client.ask(say.GetStatus())
    except CryonautError as error:
        return Row(name=other.name, page=other.page, trouble=str(error))
    return Row(name=other.name, page=other.page, status=reply.status, trouble="" if reply.ok else reply.text)


class Overview:
    """The page at ``/overview``; the others are asked when somebody looks, all at once."""

    def __init__(self, desk: Desk, others: Sequence[OtherDaemon], name: str) -> None:
        self.desk = desk
        self.others = others
        self.name = name
        self._threads = ThreadPoolExecutor(max(1, min(len(others), 16)), thread_name_prefix="overview")

    def page(self) -> Page:
        """The page for `agent.web.app.create_app`; in the menu only where there are others."""
        routes = (get("/overview", self.show), get("/api/overview", self.data))
        return Page("overview", routes, title="Overview" if self.others else "", path="/overview", folder=HERE)

    async def show(self, request: Request) -> Response:
        """The page; its rows come by ``/api/overview``."""
        return render(request, "overview/overview.html.jinja")

    async def data(self, _: Request) -> Response:
        """Every daemon's row."""
        loop = asyncio.get_running_loop()
        asked = (loop.run_in_executor(self._threads, partial(ask, other)) for other in self.others)
        rows: list[Any] = [Row(name=self.name, page="/", status=self.desk.status()), *await asyncio.gather(*asked)]
        return Response(msgspec.json.encode(rows), media_type="application/json")

    def close(self) -> None:
        """Give the threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)
