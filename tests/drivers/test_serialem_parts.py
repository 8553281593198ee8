"""The driver's small parts: guards, the cassette's memory, what stands in the Navigator, pixel geometry."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.messages import ErrorKind, Target, Targets
from agent.settings import check
from drivers.base import WorkError
from drivers.serialem import geometry
from drivers.serialem.atlas import on_pc
from drivers.serialem.cassette import Cassette
from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import ScriptError
from drivers.serialem.instrument import Instrument
from drivers.serialem.navigator import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    Navigator,
    colour_of,
    group_key,
    is_wanted,
    label_of,
    note_of,
)
from drivers.serialem.settings import AdvisorSettings, SafetySettings, SerialEMSettings
from drivers.serialem.watch import STRIKES, BeamTrend, Watch
from simulators.serialem.server import SerialEMServer
from tests.end_to_end.scene import GRID
from tests.end_to_end.serialem_scene import microscope

GRIDS = {"G1": GRID, "G2": GRID, "G9": GRID}


@pytest.fixture
def server() -> Iterator[SerialEMServer]:
    with microscope(grids=GRIDS, slots={1: "G1", 2: "G2"}) as made:
        yield made


@pytest.fixture
def client(server: SerialEMServer) -> Iterator[SerialEMClient]:
    made = SerialEMClient("127.0.0.1", server.port)
    yield made
    made.close()


# -------------------------------------------------------------------------------------------------- guards


def test_the_beam_is_judged_by_several_micrographs() -> None:
    beam = BeamTrend(5)
    assert [beam.feed(100.0), beam.feed(100.0)] == [None, None]
    assert beam.feed(100.0) == 1.0
    assert beam.feed(2.0) == 1.0, "one dark micrograph, such as a grid bar, is no lost beam"
    for _ in range(5):
        now = beam.feed(10.0)
    assert now == pytest.approx(0.1)
    beam.forget()
    assert beam.feed(5.0) is None


def test_guards_are_read_and_what_a_microscope_lacks_is_left_out(
    server: SerialEMServer, client: SerialEMClient
) -> None:
    watch = Watch(SafetySettings(gauges={"IGPco": "column_vacuum_pa", "none": "nothing"}))
    around = server.program.surroundings
    for _ in range(STRIKES + 1):
        watch.read(client)
    assert watch.readings["column_vacuum_pa"] == pytest.approx(2e-6)
    assert "nothing" not in watch.readings
    assert watch.waiting_for == ""
    around.dewars_filling = True
    watch.read(client)
    assert "dewars" in watch.waiting_for
    around.dewars_filling, around.pvp_running = False, True
    watch.read(client)
    assert "pump" in watch.waiting_for
    server.scope.valves_open = False
    watch.read(client)
    assert "valves" in watch.waiting_for


def test_valves_that_cannot_be_read_any_more_stop_exposures(server: SerialEMServer, client: SerialEMClient) -> None:
    watch = Watch(SafetySettings())
    watch.read(client)
    server.fail_next("ReportColumnOrGunValve", "no answer", times=10)
    for _ in range(STRIKES + 1):
        with pytest.raises(ScriptError):
            watch.read(client)


def test_a_microscope_without_valves_works(server: SerialEMServer, client: SerialEMClient) -> None:
    watch = Watch(SafetySettings())
    server.fail_next("ReportColumnOrGunValve", "there is no such thing", times=10)
    for _ in range(STRIKES - 1):
        with pytest.raises(ScriptError):
            watch.read(client)
    watch.read(client)
    assert watch.valves_open


# -------------------------------------------------------------------------------------------------- cassette


def cassette(client: SerialEMClient, tmp_path: Path, **more: Any) -> Cassette:
    return Cassette(client, tmp_path / "cassette.json", 12, **more)


def test_the_grid_on_the_stage_is_remembered_over_a_restart(client: SerialEMClient, tmp_path: Path) -> None:
    first = cassette(client, tmp_path)
    assert first.may_load("s1", "G2", 2)
    client.call("LoadCartridge", 2)
    first.loaded("G2", 2)
    again = cassette(client, tmp_path)
    assert again.grid_id == "G2"
    assert not again.may_load("s1", "G2", 2), "it is on the stage already"
    assert again.may_load("s1", "G1", 1)


def test_a_changed_cassette_is_refused_until_a_new_session(
    server: SerialEMServer, client: SerialEMClient, tmp_path: Path
) -> None:
    watched = cassette(client, tmp_path)
    watched.check("s1")
    server.program.autoloader.change_cassette({2: "G9", 3: "G2"})
    for _ in range(2):
        with pytest.raises(WorkError, match=r"slot 2 was occupied .G2. and is occupied .G9.") as caught:
            watched.may_load("s1", "G2", 2)
        assert caught.value.kind is ErrorKind.LOAD_FAILED
    assert watched.may_load("s2", "G2", 3)


def test_an_empty_slot_is_refused_with_a_way_out(client: SerialEMClient, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="on_stage_slot: 1"):
        cassette(client, tmp_path).may_load("s1", "G1", 1)
    assert not cassette(client, tmp_path / "other", slot=1).may_load("s1", "G1", 1)


def test_a_damaged_memory_is_no_end(client: SerialEMClient, tmp_path: Path) -> None:
    (tmp_path / "cassette.json").write_text("{not json")
    assert cassette(client, tmp_path).may_load("s1", "G2", 2)


# -------------------------------------------------------------------------------------------------- navigator


@pytest.mark.parametrize(
    ("score", "state", "colour", "wanted"),
    [
        (0.9, "found", GREEN, True),
        (0.3, "found", YELLOW, False),
        (0.1, "found", RED, False),
        (0.9, "done", BLUE, False),
        (0.9, "rejected", RED, False),
    ],
)
def test_colour_and_acquire_say_what_is_wanted(score: float, state: str, colour: int, wanted: bool) -> None:
    target = Target(
        area_id="G1-S001-H002", x=1, y=2, x_um=3, y_um=4, score=score, state=state, label="thin", why="mean +1"
    )
    assert colour_of(target, 0.5) == colour
    assert is_wanted(target, 0.5) is wanted
    assert note_of(target).startswith(f"Cryonaut {score:.2f}: thin")
    assert note_of(target).endswith("mean +1")


def test_labels_keep_what_tells_areas_apart() -> None:
    long = Target(area_id="grid-of-a-long-name-S012-H034", x=0, y=0, x_um=0, y_um=0, score=1)
    assert label_of(long) == "g-name-S012-H034"
    assert len(label_of(long)) == 16


# -------------------------------------------------------------------------------------------------- geometry


def test_pixels_lie_where_serialem_says(server: SerialEMServer, client: SerialEMClient) -> None:
    client.call("MoveStageTo", 100, -50)
    client.call("SetLowDoseMode", 1)
    client.call("Search")
    transform = geometry.of_buffer(client, "A", (512, 512))
    assert transform.centre_um == pytest.approx((100, -50), abs=1e-6)
    for x, y in geometry.sample((512, 512), 3):
        own = client.numbers("BufImagePosToStagePos", "A", 0, x + 0.5, y + 0.5)
        assert transform.stage_um(x, y) == pytest.approx(own[:2], abs=1e-6)


def test_the_camera_calibration_of_serialem_4_0_gives_the_same() -> None:
    found = []
    for version in ("4.0", "4.2"):
        with microscope(version=version) as server:
            client = SerialEMClient("127.0.0.1", server.port)
            client.call("MoveStageTo", 100, -50)
            client.call("SetLowDoseMode", 1)
            client.call("Search")
            found.append(geometry.of_buffer(client, "A", (512, 512)))
            client.close()
    assert found[0].matrix == pytest.approx(found[1].matrix)
    assert found[0].centre_um == pytest.approx(found[1].centre_um)


def test_a_matrix_that_serialems_own_points_contradict_is_refused(
    server: SerialEMServer, client: SerialEMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.call("SetLowDoseMode", 1)
    client.call("Search")
    asked = client.report
    wrong: list[float] = []

    def turned(name: str, *arguments: Any, **more: Any) -> tuple[float, ...]:
        values = asked(name, *arguments, **more)
        return (*wrong, *values[4:]) if name == "BufImageToStageMatrix" else values

    monkeypatch.setattr(client, "report", turned)
    nan = float("nan")
    for matrix, words in (
        ([0.0, 0.2, 0.2, 0.0], "px apart"),
        ([0.2, 0.2, 0.2, 0.2], "of no use"),
        ([nan, nan, nan, nan], "of no use"),
    ):
        wrong[:] = matrix
        with pytest.raises(geometry.GeometryError, match=words):
            geometry.of_buffer(client, "A", (512, 512))


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("", "a.mrc"),
        ("D:\\data", "D:\\data\\a.mrc"),
        ("D:\\data\\", "D:\\data\\a.mrc"),
        ("/data/x", "/data/x/a.mrc"),
        ("D:/data", "D:/data/a.mrc"),
    ],
)
def test_paths_are_those_of_the_microscopes_pc(folder: str, path: str) -> None:
    assert on_pc(folder, "a.mrc") == path


def test_the_dialog_of_imaging_states_is_opened_where_it_is_needed(
    server: SerialEMServer, client: SerialEMClient
) -> None:
    settings = check(SerialEMSettings, {"presets": {"low": {"state": "Atlas"}, "high": {"state": "Nowhere"}}}, "test")
    instrument = Instrument(client, settings)
    server.program.state_dialog_open = False
    instrument.go_to("low")
    assert server.scope.level == "low"
    assert server.count("OpenImagingStateDialog") == 1
    with pytest.raises(WorkError, match=r"Nowhere of level high: no imaging state has that name"):
        instrument.go_to("high")


def test_points_of_a_square_belong_together_also_when_some_come_later(
    server: SerialEMServer, client: SerialEMClient
) -> None:
    """All holes of a square are one group, planned groups are their own, squares are none."""

    def target(area_id: str, x_um: float, group: int | None = None) -> Target:
        return Target(area_id=area_id, x=1.0, y=1.0, x_um=x_um, y_um=0.0, score=0.9, group=group)

    navigator = Navigator(client, AdvisorSettings())
    names = ["G1-S001", "G1-S001-H001", "G1-S001-H002", "G1-S002-H001"]
    first = [target(name, 10.0 * n) for n, name in enumerate(names)]
    navigator.put(Targets(frame_id="F1", level="medium", targets=tuple(first)), buffer="", z_um=0.0)
    later = [target("G1-S001-H003", 50.0), target("G1-S001-H004", 60.0, 1), target("G1-S002-H002", 70.0, 1)]
    navigator.put(Targets(frame_id="F2", level="medium", targets=tuple(later)), buffer="", z_um=0.0)
    keys = [group_key(each) for each in (*first, *later)]
    assert keys == ["", "G1-S001", "G1-S001", "G1-S002", "G1-S001", "G1-S001:1", "G1-S002:1"]
    ids = [item.group for item in server.program.navigator.items]
    assert ids[0] == 0
    assert [ids.index(number) for number in ids] == [0, 1, 1, 3, 1, 5, 6]


def test_the_sites_own_file_stays_open_and_current(server: SerialEMServer, client: SerialEMClient) -> None:
    instrument = Instrument(client, SerialEMSettings())
    client.call("OpenNewFile", "site.mrc")
    before = client.number("ReportFileNumber")
    with instrument.own_file():
        client.call("OpenNewFile", "ours.mrc")
        assert client.number("ReportFileNumber") != before
    assert client.number("ReportFileNumber") == before
    assert len(server.program.files) == 1
    with instrument.own_file():
        pass
    assert client.number("ReportFileNumber") == before
