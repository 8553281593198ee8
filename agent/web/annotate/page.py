"""The annotation page: slices along any axis, strokes, cuts, labels; one open project at a time by its name."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from agent.errors import CryonautError
from agent.web.annotate import tiles
from agent.web.annotate.board import Board, Choice, Stroke
from agent.web.annotate.ink import Plane, plane_of
from agent.web.annotate.project import FILE, AnnotationProjectError, read_facts
from agent.web.annotate.work import Work
from agent.web.app import render
from agent.web.guard import caller_of, get, post
from agent.web.page import Page

HERE = Path(__file__).parent
LAYERS: dict[str, Callable[[Plane, int, int, int], bytes | None]] = {
    "grey": tiles.grey_tile,
    "ink": tiles.ink_tile,
    "labels": tiles.label_tile,
}
Sent = TypeVar("Sent")


class Annotate:
    """The routes over the projects of a folder.

    Parameters
    ----------
    projects
        Folders of projects by the names under which they are shown, found anew at each call.
    """

    def __init__(self, projects: Callable[[], dict[str, Path]]) -> None:
        self.projects = projects
        self._boards: dict[str, tuple[Board, Work]] = {}
        self._opening = asyncio.Lock()
        self._drawing = asyncio.Semaphore(2)

    @classmethod
    def below(cls, folder: Path) -> "Annotate":
        """All projects that lie in a folder."""
        return cls(lambda: {file.parent.name: file.parent for file in sorted(folder.glob(f"*/{FILE}"))})

    def page(self) -> Page:
        """The page for `agent.web.app.create_app`."""
        name = "/annotate/{name}"
        routes = [
            get("/annotate", self.choose),
            get(name, self.show),
            get(f"{name}/state", self.state),
            get(
                f"{name}/tile/{{layer}}/{{axis:int}}/{{index:int}}/{{level:int}}/{{row:int}}/{{column:int}}", self.tile
            ),
            post(f"{name}/stroke", self.stroke),
            post(f"{name}/undo", self.undo),
            post(f"{name}/redo", self.redo),
            post(f"{name}/cut", self.cut),
            post(f"{name}/cancel", self.cancel),
            post(f"{name}/save", self.save),
        ]
        return Page("annotate", routes, title="Annotate", path="/annotate", folder=HERE)

    def close(self) -> None:
        """End all work."""
        for _, work in self._boards.values():
            work.close()

    async def choose(self, request: Request) -> Response:
        """The list of projects; where there is one only, that one."""
        found = await asyncio.to_thread(self.projects)
        if len(found) == 1:
            return RedirectResponse(f"/annotate/{quote(next(iter(found)))}", status_code=303)
        rows = []
        for name, folder in found.items():
            try:
                facts = await asyncio.to_thread(read_facts, folder)
                rows.append((name, Path(facts.volume).name, " x ".join(map(str, facts.shape)), facts.structure))
            except CryonautError as error:
                rows.append((name, str(error), "", ""))
        return render(request, "annotate/projects.html.jinja", rows=rows)

    async def show(self, request: Request) -> Response:
        """The page of one project."""
        try:
            board, work = await self._open(request)
        except CryonautError as error:
            return refused(error)
        if caller_of(request).may("operator") and not work.busy and not (board.folder / "regions.npz").exists():
            work.start("prepare")  # the first cut will not have to wait for it
        facts = board.facts
        return render(
            request,
            "annotate/annotate.html.jinja",
            name=request.path_params["name"],
            volume=Path(facts.volume).name,
            structures=sorted(facts.settings.structures),
            structure=facts.structure,
            keep=facts.keep,
            weight=facts.settings.cut.boundary_weight,
            many=len(await asyncio.to_thread(self.projects)) > 1,
        )

    async def state(self, request: Request) -> Response:
        """How things stand."""
        try:
            board, work = await self._open(request)
        except CryonautError as error:
            return refused(error)
        return JSONResponse(_state(board, work))

    async def tile(self, request: Request) -> Response:
        """A tile of one layer as PNG; its address in the page holds the revision, so that it can be kept."""
        places = request.path_params
        try:
            board, _ = await self._open(request)
        except CryonautError as error:
            return refused(error)
        draw, axis, index = LAYERS.get(places["layer"]), int(places["axis"]), int(places["index"])
        if draw is None or axis > 2 or index >= board.shape[axis]:
            return Response(status_code=404)
        volume = {"grey": board.grey, "ink": board.strokes, "labels": board.labels}[places["layer"]]
        at = (int(places["level"]), int(places["row"]), int(places["column"]))
        async with self._drawing:
            made = await asyncio.to_thread(lambda: draw(plane_of(volume, axis, index), *at))
        if made is None:
            return Response(status_code=404)
        return Response(made, media_type="image/png", headers={"cache-control": "private, max-age=3600"})

    async def stroke(self, request: Request) -> Response:
        """Paint."""
        return await self._change(request, Stroke, lambda board, _, stroke: board.paint(stroke))

    async def undo(self, request: Request) -> Response:
        """Take the last step back."""
        return await self._change(request, None, lambda board, *_: board.undo())

    async def redo(self, request: Request) -> Response:
        """Do again what was taken back last."""
        return await self._change(request, None, lambda board, *_: board.redo())

    async def cut(self, request: Request) -> Response:
        """Begin a cut with the strokes as they are now."""

        def begin(board: Board, work: Work, choice: Choice) -> None:
            if work.full:
                raise AnnotationProjectError("a cut or a save is under way: wait for it, or cancel it")
            for value, what in ((1, "the structure"), (2, "the background")):
                if not board.painted[value]:
                    raise AnnotationProjectError(f"no stroke on {what}: paint one on it and one on the other, then cut")
            board.choose(choice)
            work.start("cut", lambda: _taken(board))

        return await self._change(request, Choice, begin)

    async def cancel(self, request: Request) -> Response:
        """End the work that is under way."""
        return await self._change(request, None, lambda _, work, __: work.cancel())

    async def save(self, request: Request) -> Response:
        """Write the labels to their file."""

        def begin(board: Board, work: Work, _: None) -> None:
            if work.full:
                raise AnnotationProjectError("a cut or a save is under way: wait for it, or cancel it")
            work.start("save", lambda: _kept(board))

        return await self._change(request, None, begin)

    async def _change(
        self, request: Request, kind: type[Sent] | None, act: Callable[[Board, Work, Any], None]
    ) -> Response:
        try:
            board, work = await self._open(request)
            sent = msgspec.json.decode(await request.body(), type=kind) if kind is not None else None
            await asyncio.to_thread(act, board, work, sent)
        except msgspec.DecodeError as error:
            return JSONResponse({"error": f"no such request: {error}"}, status_code=400)
        except CryonautError as error:
            return refused(error)
        return JSONResponse(_state(board, work))

    async def _open(self, request: Request) -> tuple[Board, Work]:
        name = request.path_params["name"]
        async with self._opening:
            if name not in self._boards:
                folder = (await asyncio.to_thread(self.projects)).get(name)
                if folder is None:
                    raise AnnotationProjectError(f"there is no project {name!r} to annotate")
                self._boards[name] = (await asyncio.to_thread(Board, folder), Work(folder))
            return self._boards[name]


def _taken(board: Board) -> str:
    import numpy as np

    part = board.folder / "labels.part.npy"
    board.take(np.load(part, mmap_mode="r"))
    part.unlink()
    share = board.labelled / max(1, board.labels.size)
    return f"{board.labelled} voxels, {share:.1%} of the box"


def _kept(board: Board) -> str:
    board.saved()
    return f"saved to {board.facts.out}"


def _state(board: Board, work: Work) -> dict[str, Any]:
    undo, redo = board.undoable
    return {
        "shape": board.shape,
        "box": board.facts.box,
        "edges_nm": board.facts.edges_nm,
        "tile": tiles.SIDE,
        "key": board.key,
        "painted": {"structure": board.painted[1], "background": board.painted[2]},
        "labelled": board.labelled,
        "ink": board.ink_revision,
        "labels": board.label_revision,
        "undo": undo,
        "redo": redo,
        "unsaved": board.unsaved,
        "busy": work.busy,
        "job": None if work.job is None else msgspec.to_builtins(work.job),
    }


def refused(error: CryonautError) -> Response:
    """What cannot be done, and why."""
    return JSONResponse({"error": str(error)}, status_code=409)
