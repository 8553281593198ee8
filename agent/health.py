"""Health and metrics over HTTP.

``/health/live``: the loop turns; ``/health/ready``: a night could go on; ``/metrics``: Prometheus.
"""

import time
from collections.abc import Callable

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent.core import Core
from agent.metrics import METRICS
from agent.session.state import PHASE_MOVES
from agent.web.serve import Server

STUCK_AFTER_S = 30.0


def troubles(core: Core, free_disk_ok: Callable[[], str]) -> dict[str, str]:
    """What keeps the daemon from being ready, by name."""
    state = core.state
    found = dict(state.suspensions)
    if core.journal_trouble:
        found["journal"] = core.journal_trouble
    if state.phase in ("fault", "stopped"):
        found["phase"] = f"{state.phase}: {state.why}"
    if not state.driver:
        found.setdefault("driver", "no driver is connected")
    if text := free_disk_ok():
        found["disk"] = text
    return found


def refresh(core: Core) -> None:
    """Bring the gauges of the session up to date; those of disk, notices and pages are set by their owners."""
    state = core.state
    holes = (h for g in state.grids.values() for s in g.squares.values() for h in s.holes.values())
    METRICS.good.set(sum(hole.quality_label == "good" for hole in holes))
    METRICS.idle_seconds.set(max(0.0, core.clock() - state.progress_utc) if state.progress_utc else 0.0)
    METRICS.exposures.set(state.exposures)
    METRICS.suspended.set(bool(state.suspensions))
    METRICS.degraded.set(bool(state.degraded))
    METRICS.driver_up.set(bool(state.driver))
    METRICS.pending.set(len(state.pending))
    for phase in PHASE_MOVES:
        METRICS.phase.labels(phase=phase).set(phase == state.phase)


def application(
    core: Core, free_disk_ok: Callable[[], str], warnings: Callable[[], dict[str, str]] = dict
) -> Starlette:
    """The three routes; ``warnings`` are told by ``/health/ready`` and do not make it fail."""

    async def live(_: Request) -> Response:
        idle = time.monotonic() - core.last_step
        ok = idle < STUCK_AFTER_S
        body = {"live": ok, "seconds_since_last_step": round(idle, 3)}
        return JSONResponse(body, status_code=200 if ok else 503)

    async def ready(_: Request) -> Response:
        found = troubles(core, free_disk_ok)
        body = {"ready": not found, "phase": core.state.phase, "troubles": found, "degraded": core.state.degraded}
        body["warnings"] = warnings()
        return JSONResponse(body, status_code=503 if found else 200)

    async def metrics(_: Request) -> Response:
        refresh(core)
        warnings()  # sets the gauges of disk, notices and pages
        return Response(generate_latest(METRICS.registry), media_type=CONTENT_TYPE_LATEST)

    routes = [Route("/health/live", live), Route("/health/ready", ready), Route("/metrics", metrics)]
    return Starlette(routes=routes)


def server(
    address: str, core: Core, free_disk_ok: Callable[[], str], warnings: Callable[[], dict[str, str]] = dict
) -> uvicorn.Server:
    """A server for ``host:port``; run it with ``await server.serve()``."""
    host, _, port = address.rpartition(":")
    config = uvicorn.Config(
        application(core, free_disk_ok, warnings),
        host=host,
        port=int(port),
        log_config=None,
        access_log=False,
        lifespan="off",
    )
    return Server(config)
