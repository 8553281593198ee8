"""SerialEM's files: real ones where they are at hand, written ones read back, damaged ones refused in one line."""

import struct
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


def test_our_reader_of_mdoc_files_and_mdocfile_agree(tmp_path: Path) -> None:
    """A second way to read the same lines; image series, which mdocfile leaves out, are read by ours."""
    mdocfile = pytest.importorskip("mdocfile")
    written = tmp_path / "a.mrc.mdoc"
    written.write_text(
        "ImageFile = a.mrc\nDataMode = 1\n\n[T = made for a test]\n\n[ZValue = 0]\n"
        "StagePosition = 1.5 -2\nStageZ = 3\nTiltAngle = 0.5\nPixelSpacing = 2.5\nTargetDefocus = -1\nNote = a = b\n\n"
        "[ZValue = 1]\nStagePosition = -7 8.25\nStageZ = 4\nTiltAngle = -3\nPixelSpacing = 5\nTargetDefocus = -2\n"
    )
    files = [written, *sorted(REAL.glob("*.mdoc"))]
    for path in files:
        ours, theirs = read_mdoc(path), mdocfile.read(path)
        entries = [entry for entry in ours.entries if entry.kind == "ZValue"]
        rows = theirs[theirs["ZValue"].notna()]
        assert [entry.section for entry in entries] == [int(z) for z in rows["ZValue"]]
        for entry, (_, row) in zip(entries, rows.iterrows(), strict=True):
            assert entry.stage is not None
            assert (entry.stage.x_um, entry.stage.y_um) == tuple(map(float, row["StagePosition"]))
            assert (entry.stage.z_um, entry.stage.tilt_deg) == (row["StageZ"], row["TiltAngle"])
            if path is not written:  # mdocfile puts the head's pixel size in place of each section's own
                assert entry.pixel_size_angstrom == row["PixelSpacing"]
            assert entry.underfocus_um == -row["TargetDefocus"]
    series = tmp_path / "series.mdoc"
    series.write_text("ImageSeries = 1\n\n[Image = one.tif]\nStagePosition = 1 2\n")
    assert [entry.name for entry in read_mdoc(series).entries] == ["one.tif"]


# -------------------------------------------------------------------------------------------------- electron events


def eer_frame(counts: np.ndarray) -> bytes:
    """One frame of the 7-bit kind: for each electron the pixels skipped before it, then its place in the pixel."""
    bits = ""
    skipped = 0
    for count in counts.ravel():
        assert count in (0, 1)
        if not count:
            skipped += 1
            continue
        while skipped >= 127:
            bits += format(127, "07b")[::-1]
            skipped -= 127
        bits += format(skipped, "07b")[::-1] + "0110"
        skipped = 0
    while skipped >= 127:
        bits += format(127, "07b")[::-1]
        skipped -= 127
    bits += format(skipped, "07b")[::-1] + "0000"
    bits += "0" * (-len(bits) % 64)  # whole words, as cameras write them
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


def write_eer(path: Path, frames: list[bytes], shape: tuple[int, int], integrated: bytes = b"") -> None:
    """A BigTIFF of electron-event frames, with an integrated image of 8 bits before them where one is given."""
    pages = ([(integrated, 1)] if integrated else []) + [(frame, 65001) for frame in frames]
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8
    for data, compression in pages:
        place = len(out)
        out += data + b"\0" * (-len(data) % 8)
        about = len(out)
        out += b"<metadata></metadata>\0\0\0"
        struct.pack_into("<Q", out, link, len(out))
        tags = [(256, 4, shape[1]), (257, 4, shape[0]), (258, 3, 8 if compression == 1 else 1), (259, 3, compression)]
        tags += [(262, 3, 1), (273, 16, place), (277, 3, 1), (278, 4, shape[0]), (279, 16, len(data))]
        out += struct.pack("<Q", len(tags) + 1)
        for tag, kind, value in tags:
            out += struct.pack("<HHQQ", tag, kind, 1, value)
        out += struct.pack("<HHQQ", 65001, 7, 21, about)
        link = len(out)
        out += struct.pack("<Q", 0)
    path.write_bytes(bytes(out))


@pytest.mark.parametrize("with_integrated", [False, True])
def test_an_eer_file_is_the_sum_of_its_frames(tmp_path: Path, with_integrated: bool) -> None:
    pytest.importorskip("imagecodecs")
    rng = np.random.default_rng(5)
    counts = (rng.random((7, 40, 56)) < 0.02).astype(np.uint8)
    integrated = bytes(range(200)) * 12 if with_integrated else b""
    write_eer(tmp_path / "a.eer", [eer_frame(frame) for frame in counts], (40, 56), integrated[: 40 * 56])
    total = read_section(tmp_path / "a.eer")
    assert total.dtype == np.uint16
    np.testing.assert_array_equal(total, counts.sum(axis=0))


def test_without_the_codec_one_line_says_what_to_install(tmp_path: Path) -> None:
    write_eer(tmp_path / "a.eer", [eer_frame(np.eye(16, dtype=np.uint8))], (16, 16))
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from pathlib import Path\n"
        "from agent.errors import BadFileError\n"
        "from drivers.serialem.files import read_section\n"
        "try: read_section(Path(sys.argv[1]))\n"
        "except BadFileError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.eer")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (line,) = done.stdout.strip().splitlines()
    assert "pip install 'cryonaut[eer]'" in line, done.stderr


def test_an_eer_file_without_frames_is_refused(tmp_path: Path) -> None:
    write_eer(tmp_path / "a.eer", [], (16, 16), bytes(256))
    with pytest.raises(BadFileError, match="holds no EER frame"):
        read_section(tmp_path / "a.eer")


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
