"""Import and export: places survive the way out and back, what is odd is listed, hostile files cost one line each."""

import asyncio
import csv
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import mrcfile
import numpy as np
import pytest

from agent import geometry, recording
from agent.cli import app
from agent.errors import BadFileError, CryonautError
from agent.evaluation.sessions import Variant, judge
from agent.recording.record import Record
from agent.report import render
from agent.session.state import Square
from drivers.exchange import export as to
from drivers.exchange.epu import read_epu
from drivers.exchange.found import Found, write
from drivers.exchange.leginon import read_leginon
from drivers.exchange.serialem import read_serialem
from drivers.exchange.xmlfile import read_xml
from simulators.replay.run import replay
from tests import golden

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sessions"
NS = 'xmlns="urn:a" xmlns:z="urn:b" xmlns:i="urn:c"'


def recorded(name: str = "pilot") -> Record:
    return recording.read(golden.FOLDER / name)


def places(record: Record) -> dict[str, tuple[float, float]]:
    return {area.area_id: (area.x_um, area.y_um) for area in to.areas(record)}


def farthest(then: Record, now: Record) -> float:
    """Largest distance of an area from its nearest counterpart; both have as many."""
    a, b = (np.array(list(places(record).values())) for record in (then, now))
    assert len(a) == len(b)
    gaps = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    return float(gaps.min(axis=1).max())


READ: dict[str, tuple[Callable[[Record, Path], Path], Callable[[Path], Found], str]] = {
    "nav": (to.to_nav, read_serialem, "targets.nav"),
    "csv": (to.to_csv, read_leginon, "targets.csv"),
}


@pytest.mark.parametrize("form", READ)
@pytest.mark.parametrize("name", golden.NAMES)
def test_export_import_export_import_keeps_every_place(name: str, form: str, tmp_path: Path) -> None:
    export, read, file = READ[form]
    first = recorded(name)
    once = recording.read(write(read(export(first, tmp_path / file)), tmp_path / "once"))
    twice = recording.read(write(read(export(once, tmp_path / "again" / file)), tmp_path / "twice"))
    assert farthest(first, once) < 0.01
    assert farthest(once, twice) < 0.01
    squares = [[s for g in r.state.grids.values() for s in g.squares.values()] for r in (first, twice)]
    assert [len(s.holes) for s in squares[0]] == [len(s.holes) for s in squares[1]]
    for old, new in zip(*squares, strict=True):
        assert new.size_um == pytest.approx(old.size_um, rel=0.02)
        assert new.score == pytest.approx(old.score, abs=1e-3)
    assert recording.verify(twice).whole


def test_relion_coordinates_lie_on_the_holes_and_groups_follow_the_image_shift(tmp_path: Path) -> None:
    record = recorded()
    to.to_star(record, tmp_path / "micrographs.star")
    lines = (tmp_path / "micrographs.star").read_text().splitlines()
    micrographs = [line.split() for line in lines if line.startswith("frames/high/")]
    high = [shot.frame for shot in record.shots if shot.frame.level == "high"]
    assert len(micrographs) == len(high) == 4
    shifts = {tuple(round(v, 1) for v in frame.image_shift_um) for frame in high}
    assert len({row[1] for row in micrographs}) == len(shifts)
    mapped = [s for s in record.state.grids["G1"].squares.values() if s.map_frame_id]
    for square in mapped:
        rows = (tmp_path / f"{square.area_id}_holes.star").read_text().splitlines()
        table = [row.split() for row in rows if row.endswith(tuple(square.holes))]
        found = {row[3]: (float(row[0]), float(row[1])) for row in table}
        frame = record.frames[square.map_frame_id].frame
        for hole in square.holes.values():
            back = geometry.pixel_to_stage(frame, *found[hole.area_id])
            assert math.dist(back, (hole.x_um, hole.y_um)) < 0.01


def test_the_atlas_as_ome_zarr_has_the_squares_where_they_are(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    record = recorded()
    to.to_zarr(record, tmp_path / "atlas.zarr")
    root = zarr.open_group(str(tmp_path / "atlas.zarr"), mode="r")
    (scales,) = root.attrs["ome"]["multiscales"]
    steps = {t["type"]: t for t in scales["datasets"][0]["coordinateTransformations"]}
    image = np.asarray(root["0"][:])
    scale, (y_um, x_um) = steps["scale"]["scale"][0], steps["translation"]["translation"]
    assert [axis["unit"] for axis in scales["axes"]] == ["micrometer", "micrometer"]
    whole = [s for s in record.state.grids["G1"].squares.values() if not s.touches_edge]
    inside = [image[round((s.y_um - y_um) / scale), round((s.x_um - x_um) / scale)] for s in whole]
    bars = np.percentile(image[image > 0], 20)
    assert np.mean(np.array(inside) > bars) == 1.0  # gold foil: squares are bright, the bars between them dark
    with pytest.raises(CryonautError, match="exists already"):
        to.to_zarr(record, tmp_path / "atlas.zarr")


# ---------------------------------------------------------------------------------------------- EPU

MATRIX = np.array([[-0.04, 0.003], [0.0024, 0.0415]])  # µm per pixel


def epu_image(stage_um: tuple[float, float], pixel_m: float, columns: int = 400, rows: int = 300) -> str:
    x, y = (v * 1e-6 for v in stage_um)
    return (
        f"<MicroscopeImage {NS}><SpatialScale><pixelSize><x><numericValue>{pixel_m}</numericValue></x></pixelSize>"
        f"</SpatialScale><microscopeData><acquisition><acquisitionDateTime>2025-01-08T15:49:18.1158288+00:00"
        f"</acquisitionDateTime><camera><ExposureTime>0.89</ExposureTime><ReadoutArea><height>{rows}</height>"
        f"<width>{columns}</width></ReadoutArea></camera></acquisition><optics><Defocus>-1.2E-06</Defocus></optics>"
        f"<stage><Position><A>0.1</A><X>{x}</X><Y>{y}</Y><Z>1e-5</Z></Position></stage></microscopeData>"
        "</MicroscopeImage>"
    )


@pytest.fixture
def epu(tmp_path: Path) -> Path:
    """A small EPU session: one square, six holes, an image at half size, one exposure with and one without an image."""
    folder = tmp_path / "Supervisor_1"
    square = folder / "Images-Disc1" / "GridSquare_77"
    (square / "Data").mkdir(parents=True)
    (square / "FoilHoles").mkdir()
    (folder / "Metadata").mkdir()
    (folder / "EpuSession.dm").write_text(
        f"<EpuSessionXml {NS}><Name>night 7</Name><StartDateTime>2025-01-08T15:10:39Z</StartDateTime></EpuSessionXml>"
    )
    node = (
        "<KeyValuePairOfintNodeXml30oatNZW><key>{key}</key><value><Category>1</Category><PositionOnTheAtlas><Physical>"
        "<height>4.5E-05</height><width>5E-05</width></Physical><Quality>1.2</Quality></PositionOnTheAtlas>"
        "<StagePosition><X>{x}</X><Y>{y}</Y><Z>0</Z></StagePosition></value></KeyValuePairOfintNodeXml30oatNZW>"
    )
    nodes = "".join(node.format(key=key, x=x, y=0.0001) for key, x in ((77, 0.0001), (78, -0.0002)))
    (folder / "Atlas.dm").write_text(f"<AtlasSessionXml {NS}>{nodes}</AtlasSessionXml>")
    holes = ""
    for number, (x_px, y_px) in enumerate(((100, 80), (200, 80), (300, 80), (100, 200), (200, 200), (300, 200)), 1):
        at = np.array([100.0, 100.0]) + MATRIX @ (np.array([x_px, y_px]) - (200, 150))
        holes += (
            "<KeyValuePairOfintTargetLocationXmlBpEWF4JT>"
            f"<key>{number}</key><value><IsPositionCorrected>false</IsPositionCorrected>"
            f"<PixelCenter><x>{x_px}</x><y>{y_px}</y></PixelCenter><Quality>0.{number}</Quality><Selected>true</Selected>"
            f"<StagePosition><X>{at[0] * 1e-6}</X><Y>{at[1] * 1e-6}</Y><Z>0</Z></StagePosition></value>"
            "</KeyValuePairOfintTargetLocationXmlBpEWF4JT>"
        )
    (folder / "Metadata" / "GridSquare_77.dm").write_text(
        f"<GridSquareXml {NS}><Position><X>0.0001</X><Y>0.0001</Y><Z>0</Z></Position><Selected>true</Selected>"
        f"<TargetLocations>{holes}</TargetLocations></GridSquareXml>"
    )
    (square / "GridSquare_20250108_151151.xml").write_text(epu_image((100.0, 100.0), 4e-8))
    cv2.imwrite(str(square / "GridSquare_20250108_151151.jpg"), np.full((150, 200), 90, np.uint8))  # half size
    name = "FoilHole_3_Data_11_6_20250108_154915"
    (square / "Data" / f"{name}.xml").write_text(epu_image((100.0, 97.0), 1e-10))
    with mrcfile.new(square / "Data" / f"{name}.mrc") as file:
        file.set_data(np.arange(300 * 400, dtype=np.float32).reshape(300, 400))
    (square / "Data" / "FoilHole_4_Data_11_6_20250108_154920.xml").write_text(epu_image((100.0, 103.0), 1e-10))
    return folder


def test_an_epu_session_becomes_a_recording_with_holes_where_its_own_pixels_say(epu: Path, tmp_path: Path) -> None:
    found = read_epu(epu)
    record = recording.read(write(found, tmp_path / "out"))
    assert record.state.name == "night-7"
    squares = list(record.state.grids["G1"].squares.values())
    assert [(round(s.x_um, 3), round(s.y_um, 3)) for s in squares] == [(100.0, 100.0), (-200.0, 100.0)]
    assert len(squares[0].holes) == 6
    frame = next(shot.frame for shot in record.shots if shot.frame.level == "medium")
    assert frame.shape == (150, 200)
    assert frame.pixel_size_angstrom == pytest.approx(800.0)
    for hole in squares[0].holes.values():
        x, y = geometry.stage_to_pixel(frame, hole.x_um, hole.y_um)
        # EPU counts from the corner of the full image, we from the centre of the first pixel of the half-size one
        assert (2 * (x + 0.5), 2 * (y + 0.5)) == pytest.approx(
            (hole.features["epu_x_px"], hole.features["epu_y_px"]), abs=0.01
        )
    exposure = next(shot for shot in record.shots if shot.frame.level == "high")
    assert exposure.received.area_id == "G1-S001-H003"
    assert exposure.frame.defocus_um == pytest.approx(1.2)
    assert exposure.frame.taken_utc == pytest.approx(1736351358.116, abs=0.01)
    assert {h.area_id for h in squares[0].holes.values() if h.state == "exposed"} == {"G1-S001-H003", "G1-S001-H004"}
    assert any("FoilHole_4_Data" in text and "image is not there" in text for text in found.odd)
    assert recording.verify(record).whole


@pytest.mark.parametrize("turned", [False, True])
def test_the_rows_of_an_mrc_file_are_seen_from_its_holes(turned: bool, epu: Path, tmp_path: Path) -> None:
    picture = next(epu.rglob("GridSquare_*.jpg"))
    dm = epu / "Metadata" / "GridSquare_77.dm"
    dm.write_text(
        dm.read_text().replace("<Quality>", "<PixelWidthHeight><width>24</width></PixelWidthHeight><Quality>")
    )
    rows, columns = np.indices((150, 200))
    image = np.random.default_rng(0).normal(100, 3, (150, 200)).astype(np.float32)
    for x_px, y_px in ((100, 80), (200, 80), (300, 80), (100, 200), (200, 200), (300, 200)):
        image[np.hypot(columns + 0.5 - x_px / 2, rows + 0.5 - y_px / 2) < 6] += 60
    picture.unlink()
    with mrcfile.new(picture.with_suffix(".mrc")) as file:
        file.set_data(image[::-1].copy() if turned else image)
    found = read_epu(epu)
    record = recording.read(write(found, tmp_path / "out"))
    assert np.allclose(record.pixels("GridSquare_20250108_151151"), image)
    assert any("taken as they are stored" in text for text in found.odd)  # of the exposure, which shows no holes


def test_an_epu_import_goes_out_as_navigator_points_and_comes_back(epu: Path, tmp_path: Path) -> None:
    record = recording.read(write(read_epu(epu), tmp_path / "out"))
    back = recording.read(write(read_serialem(to.to_nav(record, tmp_path / "t.nav")), tmp_path / "back"))
    assert farthest(record, back) < 0.01


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><MicroscopeImage>&c;</MicroscopeImage>'
)
HOSTILE = {
    "truncated": b"<EpuSessionXml><Name>night",
    "an entity bomb": BOMB.encode(),
    "an entity bomb in UTF-16": BOMB.encode("utf-16"),
    "a file of the disk": b'<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]><l>&x;</l>',
    "binary": bytes(range(256)) * 8,
    "empty": b"",
    "deep": b"<a>" * 100_000,
    "an encoding that is none": b'<?xml version="1.0" encoding="tea"?><a/>',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_one_line_and_costs_one_file(name: str, epu: Path) -> None:
    bad = epu / "EpuSession.dm"
    bad.write_bytes(HOSTILE[name])
    with pytest.raises(BadFileError) as error:
        read_xml(bad)
    assert str(error.value).count("\n") == 0
    assert "root:" not in str(error.value)
    found = read_epu(epu)
    assert any("EpuSession.dm" in text for text in found.odd)
    assert len(found.squares["77"].holes) == 6


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_and_navigator_files_are_listed(name: str, tmp_path: Path) -> None:
    for file in ("bad.csv", "bad.nav", "bad.mrc.mdoc"):
        (tmp_path / file).write_bytes(HOSTILE[name])
    for read in (read_leginon, read_serialem):
        found = read(tmp_path)
        assert found.odd
        with pytest.raises(CryonautError, match="no square, hole or image"):
            write(found, tmp_path / "out")


def test_places_that_are_no_places_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x_um,y_um,score\n1,2,0.5\nnan,3,1\n1e9,0,1\ntea,1,1\n,,\n")
    found = read_leginon(tmp_path)
    assert sum(len(square.holes) for square in found.squares.values()) == 1
    assert sum("no usable place" in text for text in found.odd) == 3


def test_leginon_targets_in_pixels_of_an_mrc_lie_on_the_stage(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "26jun01b_00001gr_00002sq_00003hl.mrc") as file:
        file.set_data(np.zeros((100, 200), np.int16))
        file.voxel_size = 500.0
    with (tmp_path / "targets.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["image", "x", "y", "image_x_um", "image_y_um", "score", "radius_um"])
        writer.writerow(["26jun01b_00001gr_00002sq_00003hl.mrc", 99.5 + 20, 49.5 - 10, 300, -400, 0.9, 0.6])
        writer.writerow(["../../../etc/passwd", 1, 1, 0, 0, 0.5, 0.6])
    found = read_leginon(tmp_path)
    record = recording.read(write(found, tmp_path / "out"))
    (hole,) = [area for area in to.areas(record) if not isinstance(area, Square)]
    assert (hole.x_um, hole.y_um) == pytest.approx((301.0, -400.5))
    assert record.shots[0].frame.level == "medium"
    assert any("outside the folder" in text for text in found.odd)


def test_an_image_that_cannot_be_read_is_listed_and_the_rest_is_there(epu: Path, tmp_path: Path) -> None:
    picture = next(epu.rglob("*.jpg"))
    picture.write_bytes(picture.read_bytes()[:100])
    found = read_epu(epu)
    record = recording.read(write(found, tmp_path / "out"))
    assert len(record.shots) == 1
    assert any("was left out" in text for text in found.odd)
    assert record.manifest is not None
    assert set(record.manifest.odd) == set(found.odd)


def test_an_import_can_be_replayed_reported_and_judged(epu: Path, tmp_path: Path) -> None:
    """What would Cryonaut say to the frames of an EPU night? Its places are compared with those that EPU chose."""
    record = recording.read(write(read_epu(epu), tmp_path / "out"))
    outcome = asyncio.run(replay(record, tmp_path / "replay"))
    assert [shot.frame.digest for shot in outcome.now.shots] == [shot.frame.digest for shot in record.shots]
    assert not outcome.now.state.pending
    assert render(tmp_path / "out").stat().st_size > 10_000
    judged = judge(tmp_path / "out", Variant())
    assert judged.metrics["holes.recall"] == 1.0


def test_the_command_line_imports_and_exports(epu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["session", "import", "epu", str(epu), str(tmp_path / "s")], result_action="return_value")
    assert "2 squares, 6 holes, 2 images from EPU" in capsys.readouterr().out
    for name in ("t.csv", "t.nav", "t.star"):
        app(["session", "export", str(tmp_path / "s"), str(tmp_path / name)], result_action="return_value")
        assert (tmp_path / name).stat().st_size > 100
    with pytest.raises(CryonautError, match=r"name it \.csv"):
        app(["session", "export", str(tmp_path / "s"), str(tmp_path / "t.doc")], result_action="return_value")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real sessions beside the checkout are not here")
def test_real_epu_and_serialem_metadata_are_read(tmp_path: Path) -> None:
    """A real GridSquare of 570 holes: EPU's own table says where they are."""
    folder = tmp_path / "real" / "Metadata"
    folder.mkdir(parents=True)
    (folder / "GridSquare_4590776.dm").symlink_to(SHARED / "epu" / "epumocks_GridSquare_4590776.dm")
    (folder / "Atlas.dm").symlink_to(SHARED / "epu" / "epumocks_Sample4_Atlas.dm")
    found = read_epu(tmp_path / "real")
    with (SHARED / "epu_GridSquare_4590776_foilholes.csv").open() as file:
        rows = {f"FoilHole_{r['foilhole_id']}": r for r in csv.DictReader(file)}
    holes = {hole.key: hole for hole in found.squares["4590776"].holes}
    assert holes.keys() == rows.keys()
    gaps = [math.dist((h.x_um, h.y_um), (1e6 * float(rows[k]["stage_x_m"]), 1e6 * float(rows[k]["stage_y_m"])))
            for k, h in holes.items()]  # fmt: skip
    assert max(gaps) < 0.01
    assert {k for k, hole in holes.items() if hole.exposed} <= {k for k, r in rows.items() if r["selected"] == "true"}
    assert len(found.squares) == 222
    nav = read_serialem(SHARED / "serialem")
    assert sum(len(square.holes) for square in nav.squares.values()) == 50
