"""SerialEM's files: real ones where they are at hand, written ones read back, damaged ones refused in one line."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadFileError
from drivers.serialem.files import holes_to_nav, nav_beside, read_section, read_session
from drivers.serialem.mdoc import read_mdoc
from drivers.serialem.navfile import MAP, MapTransform, NavItem, read_nav, write_nav
from simulators.serialem.navigator import read as serialem_reads

REAL = Path(__file__).parents[3] / "shared" / "data" / "sessions" / "serialem"
MAP_VALUES = {
    "StageXYZ": "-495.956 436.348 44.77",
    "Type": "2",
    "MapFile": "X:\\data\\map.mrc",
    "MapSection": "0",
    "MapID": "77",
    "MapScaleMat": "0.638997 -26.616 -26.5862 -1.01529",
    "MapWidthHeight": "4096 4096",
}


@dataclass
class Hole:
    x: float
    y: float
    score: float
    label: str = "unknown"


def real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is not at hand")
    return path


# -------------------------------------------------------------------------------------------------- real files


def test_a_real_map_lies_where_its_own_corners_say() -> None:
    """SerialEM notes the corners of a map on the stage: its matrix must put them on the corners of the image."""
    (item,) = read_nav(real("data__nav.nav"))
    assert item.kind == MAP
    transform = MapTransform.of(item)
    rows, columns = transform.shape
    corners = [transform.to_pixel(*point) for point in item.outline_um]
    expected = [(-0.5, -0.5), (columns - 0.5, -0.5), (columns - 0.5, rows - 0.5), (-0.5, rows - 0.5), (-0.5, -0.5)]
    np.testing.assert_allclose(corners, expected, atol=0.05)


def test_a_real_navigator_file_with_points() -> None:
    items = read_nav(real("docs__examples__nav.nav"))
    assert len(items) == 50
    assert all(item.acquire for item in items)
    assert items[0].stage_um == pytest.approx((560.5888568750142, -293.75687212609733, -2.7133))


@pytest.mark.parametrize(
    ("name", "images", "pixel"),
    [("data__gm.mrc.mdoc", 25, 2312.0), ("tests__util__test.mdoc", 11, 1.94), ("tests__util__test_1.mdoc", 11, 1.94)],
)
def test_real_mdoc_files(name: str, images: int, pixel: float) -> None:
    mdoc = read_mdoc(real(name))
    entries = [entry for entry in mdoc.entries if entry.kind == "ZValue"]
    assert [entry.section for entry in entries] == list(range(images))
    assert all(entry.pixel_size_angstrom == pixel for entry in entries)
    stages = [entry.stage for entry in entries]
    assert all(stage is not None and abs(stage.x_um) < 1000 for stage in stages)
    assert mdoc.titles
    if images == 11:
        assert entries[0].frame_file == "chrom_07_ts_010_167_000_-0.0.mrc"
        assert entries[0].underfocus_um == 5.5


# -------------------------------------------------------------------------------------------------- written files


def test_points_that_we_write_are_what_serialem_reads(tmp_path: Path) -> None:
    points = [
        NavItem.point("G1-S001-H001", 12.5, -3.25, 44.0, note="Cryonaut 0.91: good", colour=1, acquire=True, group=9),
        NavItem.point("two\nlines]", 1.0, 2.0, note="a\r\nb"),
    ]
    path = tmp_path / "out.nav"
    write_nav(path, points)
    first, second = serialem_reads(path)
    assert (first.label, first.x_um, first.y_um, first.z_um) == ("G1-S001-H001", 12.5, -3.25, 44.0)
    assert (first.note, first.color, first.acquire, first.group) == ("Cryonaut 0.91: good", 1, True, 9)
    assert (second.label, second.note, second.acquire) == ("two lines)", "a b", False)
    assert [item.label for item in read_nav(path)] == ["G1-S001-H001", "two lines)"]


@given(st.floats(0, 4095), st.floats(0, 4095))
def test_pixels_to_the_stage_and_back(x: float, y: float) -> None:
    transform = MapTransform.of(NavItem("m", MAP_VALUES))
    assert transform.to_pixel(*transform.to_stage(x, y)) == pytest.approx((x, y), abs=1e-6)


def test_holes_of_a_map_become_points_to_merge(tmp_path: Path) -> None:
    nav = tmp_path / "session.nav"
    write_nav(nav, [NavItem("17", MAP_VALUES)])
    holes = [Hole(2047.5, 2047.5, 0.2), Hole(100.0, 200.0, 0.9, "good")]
    out = tmp_path / "holes.nav"
    assert holes_to_nav(holes, Path("map.mrc"), (4096, 4096), nav, out) == 2
    best, middle = read_nav(out)
    assert best.acquire
    assert not middle.acquire
    assert middle.stage_um == pytest.approx((-495.956, 436.348, 44.77), abs=1e-3)
    assert MapTransform.of(NavItem("m", MAP_VALUES)).to_pixel(*best.stage_um[:2]) == pytest.approx((100, 200), abs=0.01)
    assert nav_beside(tmp_path / "map.mrc") == nav
    with pytest.raises(BadFileError, match=r"there: holes\.nav, session\.nav"):
        nav_beside(tmp_path / "other.mrc")
    half = tmp_path / "half.nav"
    holes_to_nav([Hole(49.75, 99.75, 0.9)], Path("map.mrc"), (2048, 2048), nav, half)
    assert read_nav(half)[0].stage_um == pytest.approx(best.stage_um, abs=0.02), "a reduced image has the same places"
    with pytest.raises(BadFileError, match="may have open"):
        holes_to_nav(holes, Path("map.mrc"), (4096, 4096), nav, nav)
    with pytest.raises(BadFileError, match=r"its maps: map\.mrc"):
        holes_to_nav(holes, Path("other.mrc"), (4096, 4096), nav, out)


def test_find_holes_writes_the_points_of_a_map(tmp_path: Path) -> None:
    """`cryonaut find holes MAP.mrc --nav OUT`: drawn holes become Navigator points at their places on the stage."""
    import mrcfile

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:512, :512]
    image = rng.normal(100.0, 4.0, (512, 512))
    image[np.hypot((x - 40) % 90 - 45, (y - 40) % 90 - 45) < 18] += 80.0
    with mrcfile.new(tmp_path / "map.mrc") as file:
        file.set_data(image.astype(np.float32))
    write_nav(tmp_path / "session.nav", [NavItem("17", MAP_VALUES)])
    out = tmp_path / "holes.nav"
    command = [sys.executable, "-m", "agent.cli", "find", "holes", str(tmp_path / "map.mrc"), "--nav", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    points = read_nav(out)
    assert len(points) >= 25
    assert f"{len(points)} points" in done.stdout
    place = MapTransform.of(NavItem("m", MAP_VALUES))
    for point in points:
        px, py = (v / 8 for v in place.to_pixel(*point.stage_um[:2]))  # the map of MAP_VALUES has 4096 pixels a side
        assert np.hypot((px - 40) % 90 - 45, (py - 40) % 90 - 45) < 3.0


def test_a_session_folder_gives_its_images_top_row_first(tmp_path: Path) -> None:
    import mrcfile
    import tifffile

    stack = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(stack)
    (tmp_path / "a.mrc.mdoc").write_text(
        "PixelSpacing = 2.5\nImageFile = a.mrc\n\n[ZValue = 0]\nStagePosition = 1.5 -2\nStageZ = 3\nTiltAngle = 0.5\n"
        "ExposureDose = 0\n[ZValue = 1]\nPixelSpacing = 5\nExposureDose = 41\nTargetDefocus = -1.5\n"
    )
    first, second = read_session(tmp_path)
    np.testing.assert_array_equal(first.read(), stack[0][::-1])
    np.testing.assert_array_equal(second.read(), stack[1][::-1])
    assert first.entry.stage is not None
    assert (first.entry.stage.x_um, first.entry.stage.z_um, first.entry.stage.tilt_deg) == (1.5, 3.0, 0.5)
    assert first.entry.dose_e_per_a2 is None
    assert (second.entry.dose_e_per_a2, second.entry.underfocus_um, second.entry.stage) == (41.0, 1.5, None)
    tifffile.imwrite(tmp_path / "b.tif", stack[0])
    np.testing.assert_array_equal(read_section(tmp_path / "b.tif"), stack[0])


# -------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not a Navigator file"),
        (b"hello", "not a Navigator file"),
        (b'<?xml version="1.0"?>\n<navigator/>', "XML"),
        (b"AdocVersion = 2.00\n[Item = 1]\nwhat is this\n", "line 3"),
        (b"\0\1\2", "not a text file"),
    ],
)
def test_damaged_navigator_files_are_refused(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "bad.nav"
    path.write_bytes(text)
    with pytest.raises(BadFileError, match=words):
        read_nav(path)


@pytest.mark.parametrize("key", ["StageXYZ", "MapScaleMat", "MapWidthHeight"])
@pytest.mark.parametrize("value", ["", "1", "a b c d", "nan nan nan nan"])
def test_a_map_without_sense_is_refused(key: str, value: str) -> None:
    with pytest.raises(BadFileError):
        MapTransform.of(NavItem("m", MAP_VALUES | {key: value}))


@pytest.mark.parametrize("text", [b"", b"nonsense", b"A = 1\n", b"\0" * 100])
def test_damaged_mdoc_files_are_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bad.mdoc"
    path.write_bytes(text)
    with pytest.raises(BadFileError):
        read_mdoc(path)


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_readers(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.nav"
    path.write_bytes(b"AdocVersion = 2.00\n[Item = 1]\n" + raw)
    for reader in (read_nav, read_mdoc):
        try:
            for item in reader(path) if reader is read_nav else ():
                assert item.label is not None
        except BadFileError:
            pass


def test_missing_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.mrc").write_bytes(b"x" * 50)
    (tmp_path / "bad.tif").write_bytes(b"x" * 50)
    for name in ("none.mrc", "bad.mrc", "bad.tif", "none.tif"):
        with pytest.raises(BadFileError, match=name):
            read_section(tmp_path / name)
