"""The HTTP side: every call that Leginon makes, and those that Ptolemy's own client offers beside them.

Bodies are JSON whatever their Content-Type says (Leginon sends none). Tables go out as one JSON string of CSV text. A
failure has a status of 400 or more and says why in ``{"error": ...}``, which makes Leginon's client log and go on.
"""

import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent import __version__
from agent.errors import BadFileError, BadMessageError, CryonautError
from drivers.leginon import body
from drivers.leginon.history import History
from drivers.leginon.service import NotNowError, Service
from drivers.leginon.settings import HttpSettings
from drivers.leginon.stateless import Stateless

log = structlog.get_logger("leginon")
Call = Callable[[bytes], Awaitable[Any]]
LOOPBACK = ("127.0.0.0/8", "::1/128", "::ffff:127.0.0.0/104")


class _Server(uvicorn.Server):
    """Uvicorn inside the driver's own loop: signals stay the driver's."""

    @contextmanager
    def capture_signals(self) -> Any:
        yield


def server(application: Starlette, settings: HttpSettings) -> uvicorn.Server:
    """A server for `application`; run it with ``await server.serve([socket])``."""
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
    )
    return _Server(config)


def application(service: Service, history: History, stateless: Stateless, settings: HttpSettings) -> Starlette:
    """All routes."""
    calls = _Calls(service, history, stateless)
    routes: list[tuple[str, str, Call]] = [
        ("GET", "/", calls.hello),
        ("POST", "/initialize_new_session", calls.initialize_new_session),
        ("GET", "/initialize_new_session", calls.initialize_new_session),
        ("POST", "/push_lm", service.push_tile),
        ("GET", "/current_lm_state", calls.current_lm_state),
        ("POST", "/select_next_square", calls.select_next_square),
        ("POST", "/set_noice_hole_intensity", calls.set_noice_hole_intensity),
        ("POST", "/push_and_evaluate_mm", service.push_hole_image),
        ("POST", "/push_mm", calls.push_mm),
        ("POST", "/visit_holes", calls.visit_holes),
        ("POST", "/visit_square", calls.visit_square),
        ("GET", "/current_mm_state", calls.current_mm_state),
        ("GET", "/rerun_mm_on_active_holes", calls.rerun_mm_on_active_holes),
        ("POST", "/rerun_mm_on_arbitrary_holes", calls.rerun_mm_on_arbitrary_holes),
        ("GET", "/current_lm_features", calls.current_lm_features),
        ("GET", "/current_mm_features", calls.current_mm_features),
        ("POST", "/process_stateless_lm", stateless.squares),
        ("POST", "/process_stateless_mm", stateless.holes),
        ("POST", "/process_stateless_mm_with_crops", stateless.holes_with_crops),
        ("POST", "/set_config", calls.set_config),
        ("POST", "/save_state", calls.save_state),
        ("POST", "/load_historical_state", calls.load_historical_state),
        ("POST", "/append_multi_historical_states", calls.append_multi_historical_states),
        ("POST", "/overwrite_current_state", calls.overwrite_current_state),
        ("POST", "/append_current_state", calls.append_current_state),
        ("GET", "/clear_current_state", calls.clear_current_state),
        ("GET", "/clear_historical_state", calls.clear_historical_state),
    ]
    networks = [ipaddress.ip_network(text) for text in (*LOOPBACK, *settings.allow)]
    most = settings.body_mb << 20
    return Starlette(
        routes=[Route(path, _guarded(call, networks, most), methods=[verb]) for verb, path, call in routes],
        exception_handlers={HTTPException: _no_such_call},
    )


def _guarded(call: Call, networks: list[Any], most: int) -> Callable[[Request], Awaitable[Response]]:
    """The call behind a route: who may ask, how much, and how a failure is told."""

    async def answer(request: Request) -> Response:
        path = request.url.path
        try:
            who = ipaddress.ip_address(request.client.host) if request.client else None
            if who is None or not any(who in network for network in networks):
                return _failure(403, path, f"{who} may not ask here (http.allow of the driver's config)")
            raw = await _whole_body(request, most)
            return JSONResponse(await call(raw))
        except NotNowError as error:
            return _failure(503, path, str(error))
        except _TooLargeError as error:
            return _failure(413, path, str(error))
        except (BadMessageError, BadFileError) as error:
            return _failure(400, path, str(error))
        except ClientDisconnect:
            return _failure(400, path, "the client went away before its request was whole")
        except CryonautError as error:
            return _failure(503, path, str(error))
        except Exception as error:  # a defect of ours in one call must not end the night
            log.exception("call.defect", call=path)
            return _failure(500, path, f"internal error: {type(error).__name__}: {error}")

    return answer


class _TooLargeError(CryonautError):
    pass


async def _whole_body(request: Request, most: int) -> bytes:
    size = 0
    parts: list[bytes] = []
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _TooLargeError(f"a request of more than {most >> 20} MB (http.body_mb of the driver's config)")
        parts.append(part)
    return b"".join(parts)


def _failure(status: int, path: str, why: str) -> Response:
    log.warning("call.failed", call=path, status=status, why=why)
    return JSONResponse({"error": why}, status_code=status)


async def _no_such_call(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _failure(status, request.url.path, f"there is no {request.method} {request.url.path}")


class _Calls:
    """The small calls: a body to arguments, a result to plain data."""

    def __init__(self, service: Service, history: History, stateless: Stateless) -> None:
        self.service = service
        self.history = history
        self.stateless = stateless

    async def hello(self, _: bytes) -> dict[str, Any]:
        """Who answers, and whether its daemon is there."""
        register = self.service.register
        connected = await self.service.courier.bind()
        return {"cryonaut": __version__, "daemon": connected, "run": register.run}

    async def initialize_new_session(self, raw: bytes) -> dict[str, Any]:
        values = body.fields(raw)
        if path := values.get("save_state_path"):
            await self.history.save(str(path))
        run = await self.service.new_session()
        paths = values.get("historical_state_paths") or []
        seeded = await self.history.learn_from(paths) if paths else []
        if path := values.get("new_state_path"):
            await self.history.make_current(str(path), alone=False)
        return {"run": run, "learned_from": seeded}

    async def current_lm_state(self, _: bytes) -> str:
        return await self.service.squares()

    async def select_next_square(self, raw: bytes) -> str:
        return await self.service.next_squares(body.whole(body.fields(raw).get("value", -1), "value"))

    async def set_noice_hole_intensity(self, raw: bytes) -> dict[str, Any]:
        value = body.fields(raw).get("value")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise BadMessageError(f"value: {value!r}; the mean counts of an empty hole are expected"[:200])
        self.service.register.remember("noice_hole_intensity", value)
        return {"value": value}

    async def push_mm(self, raw: bytes) -> dict[str, Any]:
        await self.service.push_hole_image(raw)
        return {"stored": True}

    async def visit_holes(self, raw: bytes) -> dict[str, Any]:
        unknown = await self.service.visit_holes(body.fields(raw))
        return {"stored": True, "unknown_hole_ids": unknown}

    async def visit_square(self, raw: bytes) -> dict[str, Any]:
        square_id = body.whole(body.fields(raw).get("square_id"), "square_id")
        return {"stored": await self.service.visit_square(square_id)}

    async def current_mm_state(self, _: bytes) -> str:
        return await self.service.holes()

    async def rerun_mm_on_active_holes(self, _: bytes) -> str:
        return await self.service.holes(open_only=True)

    async def rerun_mm_on_arbitrary_holes(self, raw: bytes) -> str:
        ids = body.fields(raw).get("ints") or []
        if not isinstance(ids, list):
            raise BadMessageError("ints: a list of hole ids is expected")
        return await self.service.holes([body.whole(hole_id, "ints") for hole_id in ids])

    async def current_lm_features(self, _: bytes) -> dict[str, Any]:
        return {"features": await self.service.square_features()}

    async def current_mm_features(self, _: bytes) -> dict[str, Any]:
        return {"features": await self.service.hole_features()}

    async def set_config(self, raw: bytes) -> dict[str, Any]:
        self.service.answers = self.history.answers_of(_path(raw))
        return {"answers": self.service.answers.model_dump()}

    async def save_state(self, raw: bytes) -> dict[str, Any]:
        return {"saved": await self.history.save(_path(raw))}

    async def load_historical_state(self, raw: bytes) -> dict[str, Any]:
        return {"learned_from": await self.history.learn_from([_path(raw)])}

    async def append_multi_historical_states(self, raw: bytes) -> dict[str, Any]:
        paths = body.fields(raw).get("paths") or []
        if not isinstance(paths, list):
            raise BadMessageError("paths: a list of files is expected")
        return {"learned_from": await self.history.learn_from(paths, add=True)}

    async def overwrite_current_state(self, raw: bytes) -> dict[str, Any]:
        return {"current_runs": await self.history.make_current(_path(raw), alone=True)}

    async def append_current_state(self, raw: bytes) -> dict[str, Any]:
        return {"current_runs": await self.history.make_current(_path(raw), alone=False)}

    async def clear_current_state(self, _: bytes) -> dict[str, Any]:
        return {"run": await self.service.new_session()}

    async def clear_historical_state(self, _: bytes) -> dict[str, Any]:
        self.service.register.set_historical([])
        return {"learned_from": []}


def _path(raw: bytes) -> str:
    path = body.fields(raw).get("path")
    if not isinstance(path, str) or not path:
        raise BadMessageError(f"path: {path!r}; a file name is expected"[:200])
    return path
