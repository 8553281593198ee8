"""The app: pages behind one guard, with one layout, one sign-in and one way to render."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import structlog
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from agent.web.access import COOKIE_DAYS, Access, Caller
from agent.web.guard import Gated, Guard, Turn, caller_of, form, get, no_wait, post, refusal
from agent.web.page import Page, static_files, static_route

log = structlog.get_logger("web")
HERE = Path(__file__).parent
BASE = Page("base", folder=HERE)
OPEN_PATHS = frozenset({"/signin", "/static/{path:path}"})  # everything else needs a role


def create_app(
    pages: Sequence[Page],
    access: Access,
    *,
    hosts: Iterable[str] = (),
    title: str = "Cryonaut",
    turn: Turn = no_wait,
) -> Starlette:
    """One guarded app of ``pages``; the first with a menu entry is shown at ``/``.

    Parameters
    ----------
    pages
        What is served, in the order of the menu.
    access
        Who may.
    hosts
        Names under which the app is reached, beside those of loopback.
    title
        Shown in the browser's tab.
    turn
        Waited for before a request that only looks is served.

    Raises
    ------
    ValueError
        If a route is not `Gated`, or open without standing in `OPEN_PATHS`.
    """
    files = {name: file for page in (BASE, *pages) for name, file in static_files(page).items()}
    routes = [*_own_routes(pages), static_route(files), *(route for page in pages for route in page.routes)]
    for route in routes:
        if not isinstance(route, Gated) or (route.need == "open" and route.path not in OPEN_PATHS):
            raise ValueError(f"{route}: a route names the role it needs (agent.web.guard.get, post)")
    app = Starlette(
        routes=routes, middleware=[Middleware(Guard, hosts=hosts, turn=turn)], exception_handlers={404: _nothing}
    )
    environment = _environment(pages)
    menu = [page for page in pages if page.title]

    def render(request: Request, template: str, *, status_code: int = 200, **context: Any) -> Response:
        """The filled template; it knows ``caller``, ``csrf``, ``menu`` and ``title``."""
        caller = getattr(request.state, "caller", None)
        text = environment.get_template(template).render(
            caller=caller.peer if caller else None,
            signed_in=bool(caller and caller.way == "cookie"),
            csrf=access.csrf(caller) if caller else "",
            menu=menu,
            here=request.url.path,
            title=title,
            **context,
        )
        return HTMLResponse(text, status_code=status_code)

    app.state.access = access
    app.state.render = render
    return app


def render(request: Request, template: str, **context: Any) -> Response:
    """The filled template ``page/file.html.jinja`` as an answer."""
    page: Response = request.app.state.render(request, template, **context)
    return page


def _environment(pages: Sequence[Page]) -> Environment:
    own = {page.name: FileSystemLoader(page.templates) for page in pages if page.templates is not None}
    return Environment(
        loader=ChoiceLoader([FileSystemLoader(HERE / "templates"), PrefixLoader(own)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _own_routes(pages: Sequence[Page]) -> list[Gated]:
    home = next((page.path for page in pages if page.title), "/me")

    async def signin(request: Request) -> Response:
        access: Access = request.app.state.access
        if access.links and (token := request.query_params.get("token", "")):  # a link with a secret of its own
            caller = access.by_token(token)
            if caller is not None:
                return _signed_in(request, caller, "/")
        return render(request, "signin.html.jinja", next=_inside(request.query_params.get("next", "/")), wrong=False)

    async def sign_in(request: Request) -> Response:
        fields = await form(request)
        access: Access = request.app.state.access
        target = _inside(fields.get("next", "/"))
        caller = access.by_token(fields.get("token", "").strip())
        if caller is None:
            log.warning("signin.refused", client=request.client.host if request.client else "")
            return render(request, "signin.html.jinja", status_code=403, next=target, wrong=True)
        log.info("signin", name=caller.peer.name, role=caller.peer.role)
        return _signed_in(request, caller, target)

    async def sign_out(request: Request) -> Response:
        answer = RedirectResponse("/signin", status_code=303)
        answer.delete_cookie(request.app.state.access.cookie_name, httponly=True, samesite="strict")
        return answer

    async def me(request: Request) -> Response:
        caller = caller_of(request)
        access: Access = request.app.state.access
        return JSONResponse({"name": caller.peer.name, "role": caller.peer.role, "csrf": access.csrf(caller)})

    async def root(_: Request) -> Response:
        return RedirectResponse(home, status_code=303)

    routes = [
        get("/signin", signin, need="open"),
        Gated("/signin", sign_in, need="open", methods=("POST",)),
        post("/signout", sign_out, need="observer"),
        get("/me", me),
    ]
    return routes if home == "/" else [*routes, get("/", root)]


def _signed_in(request: Request, caller: Caller, target: str) -> Response:
    access: Access = request.app.state.access
    answer = RedirectResponse(target, status_code=303)
    answer.set_cookie(
        access.cookie_name,
        access.cookie_for(caller),
        max_age=COOKIE_DAYS * 86_400,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


def _inside(target: str) -> str:
    """``target`` where it is a path of this site, else the first page."""
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/"


async def _nothing(request: Request, _: Exception) -> Response:
    request.state.caller = None
    return refusal(request, 404, "there is no such page")
