"""Strokes, cuts and labels of the annotation page, and its routes, without a browser."""

import asyncio
import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.keys import make
from agent.web.access import Access, new_token
from agent.web.annotate import Annotate, Facts, write_facts
from agent.web.annotate.board import Board, Choice, Stroke
from agent.web.annotate.ink import covered, plane_of
from agent.web.annotate.project import AnnotationProjectError
from agent.web.annotate.tiles import SIDE, grey_tile, ink_tile, label_tile, levels
from agent.web.app import create_app
from models.organelles.annotation import read_settings
from tests.web.talk import ask, serving

SHAPE = (7, 9, 11)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "mito"
    made.mkdir()
    np.save(made / "grey.npy", np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE))
    box = tuple((0, n) for n in SHAPE)
    out = str(tmp_path / "labels.zarr")
    facts = Facts(volume="/data/<b>cell.mrc", box=box, edges_nm=(5.0,) * 3, out=out, settings=read_settings())
    write_facts(made, facts)
    return made


def stroke(kind="structure", axis=0, index=3, radius=1.0, points=((2.0, 2.0), (8.0, 6.0))):
    return Stroke(axis=axis, index=index, kind=kind, radius=radius, points=points)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    points=st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=1, max_size=5),
    radius=st.floats(0, 6),
)
def test_a_brush_covers_what_lies_within_its_radius_of_the_line(points, radius):
    shape = (18, 23)
    rows, columns, mask = covered(np.array(points), radius, shape)
    made = np.zeros(shape, bool)
    made[rows, columns] = mask
    y, x = np.mgrid[: shape[0], : shape[1]]
    along = np.linspace(0, 1, 200)[:, None]
    ends = list(pairwise(points)) or [(points[0], points[0])]
    line = np.concatenate([np.array(a) + along * (np.array(b) - np.array(a)) for a, b in ends])
    far = np.sqrt(((np.stack([x, y], -1)[:, :, None] - line) ** 2).sum(-1)).min(-1)
    limit = max(radius, 0.71)
    assert made[far <= limit - 1e-6].all()
    assert not made[far > limit + 0.05].any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_stroke_lies_on_its_plane_and_everything_can_be_undone_and_done_again(folder, axis):
    board = Board(folder)
    board.paint(stroke(axis=axis, index=5, points=((3.0, 2.0),), radius=0.0))
    assert np.flatnonzero(plane_of(board.strokes, axis, 5)).size == board.painted[1] == 1
    assert plane_of(board.strokes, axis, 5)[2, 3] == 1
    board.paint(stroke("background", axis=axis, index=5))
    both = board.strokes.copy()
    assert board.painted == {1: int((both == 1).sum()), 2: int((both == 2).sum())}
    board.paint(stroke("erase", axis=axis, index=5))
    assert board.painted[2] == 0
    labels = np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8)
    board.take(labels)
    assert (board.labelled, board.unsaved) == (int(labels.sum()), True)
    for _ in range(2):
        board.undo()
    assert np.array_equal(board.strokes, both)
    assert not board.labels.any()
    board.redo()
    board.redo()
    assert np.array_equal(board.labels, labels)
    for _ in range(9):
        board.undo()
    assert not board.strokes.any()
    assert board.undoable == (0, 4)
    board.paint(stroke())
    assert board.undoable == (1, 0)


def test_a_project_is_found_again_as_it_was_left(folder):
    board = Board(folder)
    board.paint(stroke())
    board.choose(Choice(structure="er", keep="dark", boundary_weight=3.0))
    again = Board(folder)
    assert np.array_equal(again.strokes, board.strokes)
    assert (again.painted, again.facts.structure, again.facts.keep) == (board.painted, "er", "dark")
    assert again.facts.settings.cut.boundary_weight == 3.0


@pytest.mark.parametrize(
    "wrong", [stroke(index=7), stroke(axis=3), stroke("paint"), stroke(radius=-1.0), stroke(points=())]
)
def test_a_stroke_that_lies_nowhere_is_refused(folder, wrong):
    board = Board(folder)
    with pytest.raises(AnnotationProjectError):
        board.paint(wrong)
    assert board.undoable == (0, 0)


def test_damaged_projects_are_refused_by_name(folder):
    with pytest.raises(AnnotationProjectError, match=r"annotation\.json: No such file"):
        Board(folder.parent / "nothing")
    np.save(folder / "strokes.npy", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(AnnotationProjectError, match=r"strokes\.npy: uint8 of \(2, 2, 2\)"):
        Board(folder)
    (folder / "annotation.json").write_text("{}")
    with pytest.raises(AnnotationProjectError, match="no annotation project"):
        Board(folder)


def decoded(code):
    return cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_UNCHANGED)


def test_tiles_show_greys_strokes_and_labels_at_every_scale():
    grey = np.random.default_rng(0).integers(0, 256, (700, 1300)).astype(np.uint8)
    assert levels(700, 1300) == 3
    assert np.array_equal(decoded(grey_tile(grey, 0, 1, 2)), grey[512:, 1024:])
    coarse = decoded(grey_tile(grey, 1, 0, 1))
    assert coarse.shape == (350, (1300 - 1024) // 2)
    assert np.allclose(coarse, grey[:, 1024:].reshape(350, 2, -1, 2).mean(axis=(1, 3)), atol=1)
    assert grey_tile(grey, 0, 2, 0) is None
    assert grey_tile(grey, 3, 0, 0) is None
    ink = np.zeros_like(grey)
    ink[600, 1111], ink[10, 10] = 1, 2
    fine, small = decoded(ink_tile(ink, 0, 1, 2)), decoded(ink_tile(ink, 2, 0, 0))
    assert np.argwhere(fine[..., 3] > 0).tolist() == [[600 - SIDE, 1111 - 2 * SIDE]]
    assert np.argwhere(small[..., 3] > 0).tolist() == [[2, 2], [150, 277]]  # one voxel is seen at any scale
    assert (small[2, 2] != small[150, 277]).any()
    labels = np.zeros_like(grey)
    labels[500:600, 1000:1200] = 1
    outline = decoded(label_tile(labels, 0, 1, 2))[..., 3]
    assert outline[0, 50] < 128  # the border of a tile is no outline
    assert outline[600 - SIDE - 1, 50] == 255
    assert outline[600 - SIDE, 50] == 0


async def test_routes_ask_for_a_role_and_say_what_is_wrong(folder, tmp_path):
    for name, role in (("anna", "operator"), ("olaf", "observer")):
        make(tmp_path / "keys", name, role)
    annotate = Annotate.below(tmp_path)
    app = create_app([annotate.page()], Access(tmp_path / "keys"))
    anna = {"authorization": f"Bearer {new_token(tmp_path / 'keys', 'anna')}"}
    olaf = {"authorization": f"Bearer {new_token(tmp_path / 'keys', 'olaf')}"}
    body = json.dumps({"axis": 0, "index": 2, "kind": "structure", "radius": 1, "points": [[3, 3]]})
    async with serving(app) as address:
        assert (await ask(address, "/annotate/mito/state")).status == 401
        state = json.loads((await ask(address, "/annotate/mito/state", **olaf)).text)
        assert (state["shape"], state["painted"]["structure"]) == (list(SHAPE), 0)
        assert (await ask(address, "/annotate/mito/stroke", "POST", body, **olaf)).status == 403
        painted = json.loads((await ask(address, "/annotate/mito/stroke", "POST", body, **anna)).text)
        assert (painted["painted"]["structure"], painted["ink"], painted["undo"]) == (5, 1, 1)
        tile = await ask(address, "/annotate/mito/tile/ink/0/2/0/0/0", **olaf)
        assert (tile.status, tile.headers["content-type"]) == (200, "image/png")
        for path, status in (("tile/ink/0/9/0/0/0", 404), ("tile/ink/4/0/0/0/0", 404), ("tile/ink/0/2/9/0/0", 404)):
            assert (await ask(address, f"/annotate/mito/{path}", **olaf)).status == status
        cut = await ask(address, "/annotate/mito/cut", "POST", '{"boundary_weight": 2}', **anna)
        assert (cut.status, json.loads(cut.text)["error"]) == (
            409,
            "no stroke on the background: paint one on it and one on the other, then cut",
        )
        assert (await ask(address, "/annotate/mito/cut", "POST", "{}", **anna)).status == 400
        assert (await ask(address, "/annotate/none/state", **anna)).status == 409
        undone = json.loads((await ask(address, "/annotate/mito/undo", "POST", "{}", **anna)).text)
        assert (undone["painted"]["structure"], undone["redo"]) == (0, 1)
        await asyncio.to_thread((folder / "regions.npz").touch)  # the page begins no work here
        page = await ask(address, "/annotate/mito", **anna)
        assert "&lt;b&gt;cell.mrc" in page.text
        assert "<b>cell" not in page.text
    annotate.close()
