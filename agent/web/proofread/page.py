"""The proofreading page: the image in tiles, its marks, and where a person's changes go."""

import asyncio
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.web.app import render
from agent.web.guard import get, post
from agent.web.page import Page
from agent.web.proofread.project import Change, Project, ProjectError, Sheet, changed
from agent.web.proofread.pyramid import SIDE, Pyramid
from models.gold.sampling import Pixels

HERE = Path(__file__).parent


def proofread_page(image: Pixels, sheet: Sheet, project: Project, sizes_nm: tuple[float, ...]) -> Page:
    """The page of one image.

    Parameters
    ----------
    image
        Pixels of shape (rows, columns).
    sheet
        Its marks so far.
    project
        Where corrected sheets are kept.
    sizes_nm
        Sizes that a person can place with one key.
    """
    pyramid = Pyramid(image)
    now = [sheet]
    writing = asyncio.Lock()

    async def page(request: Request) -> Response:
        return render(request, "proofread/proofread.html.jinja", name=Path(now[0].image).name, sizes=sizes_nm)

    async def marks(_: Request) -> Response:
        shown = now[0]
        body = {
            "image": Path(shown.image).name,
            "rows": shown.shape[0],
            "columns": shown.shape[1],
            "pixel_nm": shown.pixel_nm,
            "levels": pyramid.levels,
            "tile": SIDE,
            "sizes_nm": sizes_nm,
            "revision": shown.revision,
            "checked": shown.checked,
            "marks": [(m.id, round(m.x, 2), round(m.y, 2), round(m.diameter_nm, 2), m.score) for m in shown.marks],
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

    async def tile(request: Request) -> Response:
        place = tuple(int(request.path_params[name]) for name in ("level", "row", "column"))
        made = await asyncio.to_thread(pyramid.tile, *place)
        if made is None:
            return Response(status_code=404)
        return Response(made, media_type="image/png", headers={"cache-control": "private, max-age=86400"})

    async def save(request: Request) -> Response:
        try:
            change = msgspec.json.decode(await request.body(), type=Change)
        except msgspec.DecodeError as error:
            return JSONResponse({"error": f"no change: {error}"}, status_code=400)
        async with writing:
            try:
                after = changed(now[0], change)
                file = await asyncio.to_thread(project.write, after)
            except ProjectError as error:
                return JSONResponse({"error": str(error)}, status_code=409)
            now[0] = after
        return JSONResponse({"revision": after.revision, "marks": len(after.marks), "file": str(file)})

    routes = [
        get("/proofread", page),
        get("/proofread/marks", marks),
        get("/proofread/tile/{level:int}/{row:int}/{column:int}", tile),
        post("/proofread/save", save),
    ]
    return Page("proofread", routes, title="Proofread", path="/proofread", folder=HERE)
