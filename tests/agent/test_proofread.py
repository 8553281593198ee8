"""Sheets, tiles and changes of the proofreading page, without a browser."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.proofread_files import open_any, read_table
from agent.errors import ConfigError
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
from agent.web.proofread.sections import Sections
from drivers.volumes import new_mrc


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


def test_sections_are_those_of_the_volume_and_thick_ones_their_mean():
    volume = np.random.default_rng(0).normal(100, 20, (30, 40, 600)).astype(np.float32)
    sections = Sections(volume, 2.0)
    assert (sections.count, sections.thick, sections.levels) == (30, 5, 2)
    black, white = sections.black, sections.white
    shown = decoded(sections.section(7, 1).tile(0, 0, 1))
    assert np.allclose(shown, np.clip((volume[7, :, 512:] - black) * 255 / (white - black), 0, 255), atol=1)
    thick = sections.section(0, 5)
    assert np.allclose(thick.image, volume[:3].mean(axis=0), atol=1e-3)
    assert thick.white - thick.black < white - black  # less noise
    for z, n in ((30, 1), (-1, 1), (3, 6), (3, 0)):
        with pytest.raises(IndexError):
            sections.section(z, n)


def test_tables_say_what_their_marks_are(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("number,x,y,z,radius_nm,score,outlier\n1,3,4,5.5,20,0.9,\n2,6,7,8,25,0.8,radius large\n")
    found = read_table(table)
    assert (found.structure, found.volume) == ("vesicles", True)
    assert [(m.x, m.y, m.z, m.diameter_nm, m.score) for m in found.marks] == [(3, 4, 5.5, 40, 0.9), (6, 7, 8, 50, 0.5)]
    table.write_text("x_px,y_px,diameter_nm,gap_nm,group,score\n3,4,38,2.5,30-40 nm,0.7\n")
    found = read_table(table)
    assert (found.structure, found.volume, found.marks[0].diameter_nm) == ("vesicles", False, 38)
    table.write_text("x_px,y_px,diameter_nm,group,score\n3,4,12,12 nm,0.7\n")
    assert read_table(table).structure == "gold"
    for text, says in (
        ("x,y,z,radius_nm\n1,2,3,4\n1,2,b,4\n", "line 3"),
        ("a,b\n1,2\n", "no column"),
    ):
        table.write_text(text)
        with pytest.raises(ConfigError, match=says):
            read_table(table)


def test_what_holds_several_sections_is_opened_as_a_volume(tmp_path):
    for name, shape in (("volume.mrc", (4, 8, 9)), ("image.mrc", (1, 8, 9))):
        with new_mrc(tmp_path / name, shape, 2.0, np.float32) as file:
            file.data[...] = 1
    assert open_any(tmp_path / "volume.mrc", volume=None).pixels.shape == (4, 8, 9)
    assert open_any(tmp_path / "image.mrc", volume=None).pixels.shape == (8, 9)
    assert open_any(tmp_path / "volume.mrc", volume=True).pixel_nm == pytest.approx(2.0)
