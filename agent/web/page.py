"""What a page brings along: its routes, its place in the menu, its templates and its static files."""

import hashlib
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from agent.web.guard import Gated, get

mimetypes.add_type("text/javascript", ".js")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the app.

    Parameters
    ----------
    name
        Short name: prefix of its templates (``name/file.html.jinja``) and static files (``/static/name/…``).
    routes
        Its routes, made with `agent.web.guard.get` and `agent.web.guard.post`.
    title, path
        Its entry in the menu; without a title it has none.
    folder
        Holds ``templates/`` and ``static/``, where it has any.
    """

    name: str
    routes: Sequence[Gated] = ()
    title: str = ""
    path: str = ""
    folder: Path | None = None

    @property
    def templates(self) -> Path | None:
        """Folder of the templates."""
        return self.folder / "templates" if self.folder is not None else None


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that is served as it is."""

    body: bytes
    media_type: str
    etag: str


def static_files(page: Page) -> dict[str, StaticFile]:
    """The static files of a page by the path below ``/static/``; read once, at the start."""
    root = page.folder / "static" if page.folder is not None else None
    if root is None or not root.is_dir():
        return {}
    found = {}
    for file in sorted(root.rglob("*")):
        if file.is_file() and file.name != "SHA256SUMS":
            body = file.read_bytes()
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            found[f"{page.name}/{file.relative_to(root).as_posix()}"] = StaticFile(body, kind, etag)
    return found


def static_route(files: dict[str, StaticFile]) -> Gated:
    """``/static/…``: style sheets and scripts, which hold nothing secret; asked for again after an update only."""

    async def static(request: Request) -> Response:
        file = files.get(request.path_params["path"])
        if file is None:
            return Response(status_code=404)
        headers = {"etag": file.etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.media_type, headers=headers)

    return get("/static/{path:path}", static, need="open")
