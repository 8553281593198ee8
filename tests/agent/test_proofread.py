"""Sheets, tiles and changes of the proofreading page, without a browser."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.web.proofread.project import (
    Change,
    Mark,
    Placed,
    Project,
    ProjectError,
    Sheet,
    changed,
    numbered,
    read_project,
)
from agent.web.proofread.pyramid import SIDE, Pyramid


def sheet(**changes):
    values = {"image": "/data/a.png", "shape": (700, 900), "pixel_nm": 1.0}
    return Sheet(**(values | {"marks": numbered([(10, 20, 6, "6 nm", 0.5), (30, 40, 12, "12 nm", 0.9)])} | changes))


def test_a_sheet_comes_back_as_it_was_written(tmp_path):
    project = Project(tmp_path / "p")
    project.write(sheet())
    assert read_project(tmp_path / "p") == [sheet()]
    assert not list((tmp_path / "p").glob("*.part"))


def test_a_change_removes_places_and_remembers_what_was_wrong():
    after = changed(sheet(), Change(revision=0, removed=(1,), placed=(Placed(2, 31, 41, 11), Placed(3, 50, 60, 6))))
    assert [(m.id, m.x, m.by) for m in after.marks] == [(2, 31, "person"), (3, 50, "person")]
    assert [m.id for m in after.removed] == [1]
    assert after.revision == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (Change(revision=7), "another window"),
        (Change(revision=0, placed=(Placed(9, 5000, 1, 6),)), "outside the image"),
        (Change(revision=0, placed=(Placed(9, 5, 1, 0.01),)), "no size of gold"),
        (Change(revision=0, checked=((5, 5, 5, 9),)), "is empty"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_and_nothing_is_lost(change, says):
    before = sheet()
    with pytest.raises(ProjectError, match=says):
        changed(before, change)
    assert before == sheet()


def test_a_folder_that_is_no_project_is_refused(tmp_path):
    with pytest.raises(ProjectError, match="holds no proofreading sheet"):
        read_project(tmp_path)
    (tmp_path / "a.json").write_text('{"image": 3}')
    with pytest.raises(ProjectError, match=r"a\.json: is no proofreading sheet"):
        read_project(tmp_path)


def decoded(code):
    return cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_GRAYSCALE)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(rows=st.integers(1, 1500), columns=st.integers(1, 1500), level=st.integers(0, 3))
def test_tiles_of_a_level_cover_the_image_once(rows, columns, level):
    image = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    pyramid = Pyramid(image)
    if level >= pyramid.levels:
        assert pyramid.tile(level, 0, 0) is None
        return
    step = 1 << level
    wide, high, column, row = 0, 0, 0, 0
    while (code := pyramid.tile(level, 0, column)) is not None:
        wide += decoded(code).shape[1]
        column += 1
    while (code := pyramid.tile(level, row, 0)) is not None:
        high += decoded(code).shape[0]
        row += 1
    assert (wide, high) == (-(-columns // step), -(-rows // step))
    assert column == -(-columns // (SIDE * step))


def test_a_tile_shows_what_the_image_holds():
    image = np.full((1200, 1300), 100, np.uint16)
    image[600:700, 700:800] = 300
    image[:4] = 50
    pyramid = Pyramid(image)
    tile = decoded(pyramid.tile(0, 1, 1))
    assert tile.shape == (512, 512)
    bright = np.argwhere(tile > 200)
    assert bright.min(axis=0).tolist() == [600 - 512, 700 - 512]
    assert bright.max(axis=0).tolist() == [699 - 512, 799 - 512]
    small = decoded(pyramid.tile(1, 0, 0))
    assert np.argwhere(small > 200).mean(axis=0) == pytest.approx((324.5, 374.5))
    assert pyramid.tile(0, 5, 0) is None
    assert pyramid.tile(9, 0, 0) is None
    assert pyramid.tile(0, -1, 0) is None


def test_marks_that_only_a_person_made_are_not_kept_as_wrong_finds():
    one = changed(sheet(), Change(revision=0, placed=(Placed(3, 5, 5, 6),)))
    two = changed(one, Change(revision=1, removed=(3,)))
    assert two.removed == ()
    assert isinstance(two.marks[0], Mark)


def test_marks_of_a_volume_have_a_section_and_gold_sheets_stay_as_they_were(tmp_path):
    volume = sheet(image="/data/synapse.mrc", shape=(90, 700, 900), structure="vesicles")
    box = (10, 10, 200, 200, 5, 40)
    after = changed(volume, Change(revision=0, placed=(Placed(7, 50, 60, 41, 33.5),), checked=(box,)))
    assert [(m.id, m.z) for m in after.marks if m.by == "person"] == [(7, 33.5)]
    assert after.sections == 90
    project = Project(tmp_path / "p")
    assert read_project(project.write(after).parent) == [after]
    for wrong, says in (
        (Change(revision=0, placed=(Placed(9, 5, 5, 40, 200),)), "no size of vesicles"),
        (Change(revision=0, checked=(box[:4],)), "is empty"),
        (Change(revision=0, checked=((*box[:4], 9, 8),)), "is empty"),
    ):
        with pytest.raises(ProjectError, match=says):
            changed(volume, wrong)
    gold = Project(tmp_path / "gold").write(sheet()).read_text()
    assert not any(word in gold for word in ("structure", '"z"'))
