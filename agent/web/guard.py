"""What stands before every page: Host and Origin are checked, each route names the role it needs, headers are strict.

A route that is not `Gated` cannot be mounted, so that none is open by accident.
"""

import hmac
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.web.access import Access, Caller, Need

log = structlog.get_logger("web")
Endpoint = Callable[[Request], Awaitable[Response]]
Turn = Callable[[], Awaitable[None]]
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
CSRF_HEADER = "x-csrf-token"
MOST_BODY_BYTES = 1 << 20
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
    " font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Gated(Route):
    """A route with the role it needs; ``open`` is for the sign-in and its style sheet only."""

    def __init__(self, path: str, endpoint: Endpoint, *, need: Need, methods: Iterable[str] = ("GET",)) -> None:
        self.need = need
        self.changes = bool(CHANGING & set(methods))
        super().__init__(path, self._guarded(endpoint), methods=list(methods), name=getattr(endpoint, "__name__", path))

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def gated(request: Request) -> Response:
            access: Access = request.app.state.access
            caller = access.who(request.headers.get("authorization", ""), request.cookies.get(access.cookie_name, ""))
            if self.need != "open":
                if caller is None:
                    return _who_are_you(request)
                if not caller.may(self.need):
                    return refusal(request, 403, f"{caller.peer.name} is {caller.peer.role}: this needs {self.need}")
            if self.changes and self.need != "open" and caller is not None and caller.way != "bearer":
                given = request.headers.get(CSRF_HEADER) or await _csrf_field(request)
                if not hmac.compare_digest(given.encode(), access.csrf(caller).encode()):
                    return refusal(request, 403, "this page is from before the daemon's restart: load it again")
            request.state.caller = caller
            return await endpoint(request)

        return gated


def get(path: str, endpoint: Endpoint, *, need: Need = "observer") -> Gated:
    """A page or answer that changes nothing."""
    return Gated(path, endpoint, need=need, methods=("GET",))


def post(path: str, endpoint: Endpoint, *, need: Need = "operator") -> Gated:
    """A request that changes something: POST only, with a CSRF token (header ``X-CSRF-Token`` or field ``csrf``)."""
    return Gated(path, endpoint, need=need, methods=("POST",))


async def no_wait() -> None:
    """Every request at once."""


class Guard:
    """Middleware: refuses strange hosts, foreign origins and large bodies, and puts the strict headers on.

    Requests that only look wait for their turn first, and once more before they are answered: `agent.web.precedence`.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str] = (), turn: Turn = no_wait) -> None:
        self.app = app
        self.turn = turn
        self.hosts = LOOPBACK_NAMES | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        if why := self.objection(scope["method"], headers):
            log.warning("request.refused", why=why, path=scope["path"])
            response: ASGIApp = PlainTextResponse(f"cryonaut: {why}\n", status_code=403, headers=HEADERS)
            await response(scope, receive, send)
            return
        turn = no_wait if scope["method"] in CHANGING else self.turn
        await turn()
        try:
            await self.app(scope, _bounded(receive), _strict(send, turn))
        except ClientDisconnect:
            log.info("request.cut_short", path=scope["path"])

    def objection(self, method: str, headers: Headers) -> str:
        """Why a request is refused before it is looked at, or an empty text."""
        host = headers.get("host", "")
        if _name(host) not in self.hosts:
            return f"host {host!r} is none of this daemon's names; web.hosts in its config lists them"
        if method not in CHANGING:
            return ""
        origin = headers.get("origin")
        if origin is None:
            came_from = headers.get("sec-fetch-site", "same-origin")
            return "" if came_from in ("same-origin", "none") else f"the request came from another site ({came_from})"
        return "" if urlsplit(origin).netloc.lower() == host.lower() else f"origin {origin!r} is another site"


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _bounded(receive: Receive) -> Receive:
    # a body beyond the limit reads as a connection that broke off
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > MOST_BODY_BYTES:
                return {"type": "http.disconnect"}
        return message

    return bounded


def _strict(send: Send, turn: Turn) -> Send:
    async def strict(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
            await turn()
        await send(message)

    return strict


async def _csrf_field(request: Request) -> str:
    fields = await form(request)
    return fields.get("csrf", "")


async def form(request: Request) -> dict[str, str]:
    """The fields of a form that was sent, or nothing."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    text = (await request.body()).decode("utf-8", "replace")
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True, max_num_fields=1000).items()}


def wants_page(request: Request) -> bool:
    """Whether a person's browser asks, and not a script."""
    return "text/html" in request.headers.get("accept", "")


def caller_of(request: Request) -> Caller:
    """Who is asking, inside a route that needs a role."""
    caller: Caller | None = request.state.caller
    assert caller is not None  # the gate let nobody else in  # noqa: S101
    return caller


def _who_are_you(request: Request) -> Response:
    if wants_page(request):
        return RedirectResponse(f"/signin?next={quote(request.url.path)}", status_code=303)
    return refusal(request, 401, "this needs a token: sign in, or send Authorization: Bearer NAME:SECRET")


def refusal(request: Request, status: int, text: str) -> Response:
    """A refusal in one line, as a page where a person asks."""
    if wants_page(request):
        render: Any = request.app.state.render
        page: Response = render(request, "refused.html.jinja", status_code=status, status=status, text=text)
        return page
    return JSONResponse({"error": text}, status_code=status)
