"""The proofreading page: images in tiles, their marks, and where a person's changes go."""

import asyncio
import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from agent.errors import CryonautError
from agent.web.app import render
from agent.web.guard import get, post
from agent.web.page import Page
from agent.web.proofread.project import Change, ProjectError, Sheet, changed, sizes_of
from agent.web.proofread.pyramid import SIDE, Pyramid
from agent.web.proofread.sections import Sections
from agent.web.proofread.shelf import Shelf
from models.vesicles.network import BadVolumeError
from models.vesicles.snap import snap

HERE = Path(__file__).parent
MOST_OPEN = 3  # images whose pixels are held
MOST_SHEETS = 1_000
SNAPS = ("vesicles",)  # structures whose marks find their place by themselves


class Proofread:
    """The routes over one shelf.

    Parameters
    ----------
    shelf
        Where images and their marks come from, and corrected sheets go.
    sizes_nm
        Sizes that a person can place with one key; by default those among the marks of an image.
    """

    def __init__(self, shelf: Shelf, sizes_nm: tuple[float, ...] = ()) -> None:
        self.shelf = shelf
        self.sizes_nm = sizes_nm
        self._sheets: OrderedDict[str, Sheet] = OrderedDict()  # as saved last, or as first shown
        self._images: OrderedDict[str, Pyramid | Sections] = OrderedDict()
        self._writing = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._drawing = asyncio.Semaphore(2)

    def page(self) -> Page:
        """The page for `agent.web.app.create_app`."""
        routes = [
            get("/proofread", self.choose),
            get("/proofread/{name}", self.show),
            get("/proofread/{name}/marks", self.marks),
            get("/proofread/{name}/tile/{level:int}/{row:int}/{column:int}", self.tile),
            get("/proofread/{name}/section/{z:int}/{thick:int}/{level:int}/{row:int}/{column:int}", self.tile),
            get("/proofread/{name}/snap", self.snap),
            post("/proofread/{name}/save", self.save),
        ]
        return Page("proofread", routes, title="Proofread", path="/proofread", folder=HERE)

    async def choose(self, request: Request) -> Response:
        """The list of images; where there is one only, that one."""
        entries = await self.shelf.entries()
        if len(entries) == 1:
            return RedirectResponse(f"/proofread/{quote(entries[0].name)}", status_code=303)
        return render(request, "proofread/shelf.html.jinja", entries=entries, folder=self.shelf.project.folder)

    async def show(self, request: Request) -> Response:
        """The page of one image."""
        name = request.path_params["name"]
        if (entry := self.shelf.entry_of(name)) != name:
            return RedirectResponse(f"/proofread/{quote(entry)}", status_code=303)
        try:
            sheet = await self._sheet(name)
        except CryonautError as error:
            return refused(error)
        if sheet is None:
            return none_such(name)
        many = len(await self.shelf.entries()) > 1
        return render(
            request,
            "proofread/proofread.html.jinja",
            name=name,
            sizes=self._sizes(sheet),
            many=many,
            sections=sheet.sections,
            snaps=sheet.structure in SNAPS,
        )

    async def marks(self, request: Request) -> Response:
        """The marks of an image and how its tiles lie."""
        name = request.path_params["name"]
        try:
            sheet = await self._sheet(name, anew=True)  # detectors may have run meanwhile
            if sheet is None:
                return none_such(name)
            pyramid = await self._shown(name, sheet)
        except CryonautError as error:
            return refused(error)
        body = {
            "image": name,
            "rows": sheet.shape[-2],
            "columns": sheet.shape[-1],
            "pixel_nm": sheet.pixel_nm,
            "sections": sheet.sections,
            "thick": pyramid.thick if isinstance(pyramid, Sections) else 1,
            "snaps": sheet.structure in SNAPS,
            "levels": pyramid.levels,
            "tile": SIDE,
            "key": hashlib.sha256(f"{sheet.image} {pyramid.black} {pyramid.white}".encode()).hexdigest()[:12],
            "sizes_nm": self._sizes(sheet),
            "revision": sheet.revision,
            "checked": sheet.checked,
            "marks": [
                (m.id, round(m.x, 2), round(m.y, 2), round(m.diameter_nm, 2), m.score, round(m.z, 2))
                for m in sheet.marks
            ],
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

    async def tile(self, request: Request) -> Response:
        """A tile as PNG; its address in the page holds a key of the pixels, so that it can be kept."""
        places = request.path_params
        at = (int(places["level"]), int(places["row"]), int(places["column"]))
        try:
            sheet = await self._sheet(places["name"])
            if sheet is None:
                return none_such(places["name"])
            shown = await self._shown(places["name"], sheet)
        except CryonautError as error:
            return refused(error)

        def draw() -> bytes | None:
            if isinstance(shown, Pyramid):
                return shown.tile(*at) if "z" not in places else None
            return shown.section(int(places["z"]), int(places["thick"])).tile(*at) if "z" in places else None

        try:
            async with self._drawing:
                made = await asyncio.to_thread(draw)
        except IndexError:
            made = None
        if made is None:
            return Response(status_code=404)
        return Response(made, media_type="image/png", headers={"cache-control": "private, max-age=86400"})

    async def snap(self, request: Request) -> Response:
        """Centre and diameter of the vesicle at a click (``x``, ``y``, in a volume ``z``)."""
        name = request.path_params["name"]
        try:
            sheet = await self._sheet(name)
            if sheet is None or sheet.structure not in SNAPS:
                return none_such(name)
            shown = await self._shown(name, sheet)
            wanted = ("x", "y") if sheet.sections is None else ("x", "y", "z")
            click = tuple(float(request.query_params[axis]) for axis in wanted)
        except (KeyError, ValueError):
            return JSONResponse({"error": "a click is x, y and in a volume z"}, status_code=400)
        except CryonautError as error:
            return refused(error)
        pixels: Any = shown.volume if isinstance(shown, Sections) else shown.image
        try:
            async with self._drawing:
                found = await asyncio.to_thread(snap, pixels, click, sheet.pixel_nm, dark=not sheet.white)
        except BadVolumeError as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        body = {axis: round(value, 2) for axis, value in zip(wanted, found.centre, strict=True)}
        return JSONResponse(body | {"d": round(2 * found.radius * sheet.pixel_nm, 2)})

    async def save(self, request: Request) -> Response:
        """Keep what a person changed; refused where it was made to other marks than those kept."""
        name = request.path_params["name"]
        try:
            change = msgspec.json.decode(await request.body(), type=Change)
        except msgspec.DecodeError as error:
            return JSONResponse({"error": f"no change: {error}"}, status_code=400)
        async with self._writing:
            try:
                before = await self._sheet(name)
                if before is None:
                    return none_such(name)
                after = changed(before, change)
                file = await asyncio.to_thread(self.shelf.keep, name, after)
            except CryonautError as error:
                return refused(error)
            self._sheets[name] = after
        return JSONResponse({"revision": after.revision, "marks": len(after.marks), "file": str(file)})

    def _sizes(self, sheet: Sheet) -> tuple[float, ...]:
        return self.sizes_nm or sizes_of(sheet)

    async def _sheet(self, name: str, *, anew: bool = False) -> Sheet | None:
        known = self._sheets.get(name)
        if known is not None and not anew:
            self._sheets.move_to_end(name)
            return known
        sheet = await self.shelf.sheet(name)
        if known is not None and (sheet is None or sheet.revision <= known.revision):
            return known
        if sheet is not None:
            self._sheets[name] = sheet
            while len(self._sheets) > MOST_SHEETS:
                self._sheets.popitem(last=False)
        return sheet

    async def _shown(self, name: str, sheet: Sheet) -> Pyramid | Sections:
        async with self._opening:
            known = self._images.get(name)
            if known is None:
                pixels = await self.shelf.image(name)
                if sheet.sections is None:
                    known = await asyncio.to_thread(Pyramid, pixels)
                else:
                    known = await asyncio.to_thread(Sections, pixels, sheet.pixel_nm)
                self._images[name] = known
                while len(self._images) > MOST_OPEN:
                    self._images.popitem(last=False)
            self._images.move_to_end(name)
            return known


def none_such(name: str) -> Response:
    """There is no image of this name."""
    return JSONResponse({"error": f"there is no image {name!r} to proofread"}, status_code=404)


def refused(error: CryonautError) -> Response:
    """What cannot be done, and why: a conflict, or pixels that cannot be read."""
    return JSONResponse({"error": str(error)}, status_code=409 if isinstance(error, ProjectError) else 404)
