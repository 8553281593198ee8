"""A script error at each command of a session in turn, before it ran and after: nothing is exposed twice."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.messages import AcquireAtlas, AnyWork, ErrorKind, Expose, Focus, Goto, LoadGrid, MapSquare, Park, Stage
from drivers.base import CancelledWork, Desk, Shot, WorkError
from drivers.serialem.pilot import SerialEMPilot
from simulators.microscope import MicroscopeSettings, Preset
from tests.end_to_end.scene import GRID
from tests.end_to_end.serialem_scene import driver_settings, microscope

pytestmark = pytest.mark.timeout(60)
TRIES = 4
TINY = MicroscopeSettings(
    presets={
        "low": Preset(12000.0, (48, 48), 6e-6, 1.0),
        "medium": Preset(2000.0, (48, 48), 2e-4, 1.5),
        "high": Preset(4.0, (48, 48), 40.0, 3.0),
    }
)
HOLES = ((0.0, 0.0), (3.0, 0.0), (0.0, 3.0))
WORKS: tuple[AnyWork, ...] = (
    AcquireAtlas(grid_id="G1", positions_um=((0.0, 0.0),)),
    MapSquare(area_id="G1-S001", x_um=50.0, y_um=40.0),
    Focus(area_id="G1-S001", x_um=52.0, y_um=42.0, defocus_um=1.0),
    *(
        Expose(area_id=f"G1-S001-H{n:03d}", x_um=50.0, y_um=40.0, image_shift_x_um=x, image_shift_y_um=y, defocus_um=d)
        for n, ((x, y), d) in enumerate(zip(HOLES, (1.0, 1.4, 1.8), strict=True))
    ),
    LoadGrid(grid_id="G2", slot=2),
    Goto(x_um=10.0, y_um=10.0, tilt_deg=5.0),
    Park(why="the test is over"),
)


class Bench:
    """The pilot's hooks before the simulator, without a daemon: a desk that keeps what is handed in."""

    def __init__(self, tmp_path: Path, server: Any, **changes: Any) -> None:
        self.server = server
        self.shots: list[Shot] = []
        self.cancelled = threading.Event()
        self.desk = Desk(lambda shot, area_id: self.shots.append(shot), self.cancelled)  # type: ignore[arg-type,return-value,func-returns-value]
        settings = driver_settings("tcp://127.0.0.1:1", server.port, tmp_path / "l.sqlite", **changes)
        self.pilot = SerialEMPilot(settings, tmp_path / "cassette.json")
        self.errors: list[str] = []

    def do(self, work: AnyWork) -> bool:
        """Do it as a session would: again after an error, unless an exposure may have given its dose."""
        for _ in range(TRIES):
            try:
                self.pilot.carry_out(work, self.desk)
                return True
            except WorkError as error:
                self.errors.append(str(error))
                if isinstance(work, Expose) and error.dose_e_per_a2 != 0.0:
                    return False
            except CancelledWork:
                pass
        return False


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with microscope(grids={"G1": GRID, "G2": GRID}) as server:
        made = Bench(tmp_path, server, grids__on_stage="G1", grids__on_stage_slot=1, safety__release_s=60.0)
        yield made
        made.pilot.close()


def places(bench: Bench) -> list[tuple[str, float, float]]:
    return [(grid, round(x, 1), round(y, 1)) for grid, x, y, _ in bench.server.scope.ledger]


def run(bench: Bench) -> list[bool]:
    done = [bench.do(work) for work in WORKS]
    assert len(set(places(bench))) == len(places(bench)), "a place was exposed twice"
    scope = bench.server.scope
    assert scope.beam_blanked
    assert not scope.valves_open
    assert scope.tilt_deg == 0.0
    assert not bench.server.control.on
    return done


def test_undisturbed_everything_is_done_once(bench: Bench) -> None:
    assert all(run(bench))
    assert bench.errors == []
    assert len(places(bench)) == len(HOLES)
    assert [shot.level for shot in bench.shots] == ["low", "medium", "high", "high", "high"]
    assert bench.shots[-1].defocus_um == pytest.approx(1.8)
    x, y = bench.shots[-1].image_shift_um
    assert (x, y) == pytest.approx(HOLES[-1], abs=1e-3)
    state = bench.pilot.state()
    assert state.grid_id == "G2"
    assert state.readings["dewars_filling"] == 0.0
    assert bench.server.count("Record") == 1 + len(HOLES)


@pytest.mark.parametrize("after", [False, True], ids=["instead", "after"])
def test_an_error_at_any_command_ends_nothing_and_exposes_nothing_twice(tmp_path: Path, after: bool) -> None:
    grids = {"G1": GRID, "G2": GRID}
    with microscope(grids=grids, settings=TINY) as server:
        whole = Bench(tmp_path / "whole", server, grids__on_stage="G1", grids__on_stage_slot=1, safety__release_s=60.0)
        run(whole)
        whole.pilot.close()
        names = [name for name, _ in server.log]
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 2 or name == "Exit":
            continue  # the same again
        with microscope(grids=grids, settings=TINY) as server:
            folder = tmp_path / str(number)
            bench = Bench(folder, server, grids__on_stage="G1", grids__on_stage_slot=1, safety__release_s=60.0)
            server.fail_at(number, "planted", after=after)
            done = run(bench)
            bench.pilot.close()
            lost = done.count(False)
            assert lost <= 1, f"{name} ({number}): {lost} works were lost: {bench.errors}"
            if lost:  # a hole that may have its dose, or a grid of which nobody knows whether it is on the stage
                kind = LoadGrid if (name, after) == ("LoadCartridge", True) else Expose
                assert isinstance(WORKS[done.index(False)], kind), f"{name} ({number}): {bench.errors}"


# -------------------------------------------------------------------------------------------------- own limits


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (Goto(x_um=990.0, y_um=0.0), "stage_x_um"),
        (Goto(x_um=0.0, y_um=0.0, tilt_deg=80.0), "tilt_deg"),
        (Goto(x_um=0.0, y_um=0.0, z_um=400.0), "stage_z_um"),
        (Expose(area_id="A", x_um=0.0, y_um=0.0, image_shift_x_um=14.0), "image_shift_um"),
        (MapSquare(area_id="A", x_um=0.0, y_um=-990.0), "stage_y_um"),
    ],
)
def test_nothing_leaves_outside_the_drivers_own_limits(tmp_path: Path, work: AnyWork, words: str) -> None:
    limits = {"stage_x_um": [-950, 950], "stage_y_um": [-950, 950], "image_shift_um": 12.0}
    with microscope() as server:
        bench = Bench(tmp_path, server, interlocks=limits)
        with pytest.raises(WorkError, match=words) as caught:
            bench.pilot.carry_out(work, bench.desk)
        assert caught.value.kind is ErrorKind.OUTSIDE_ENVELOPE
        assert caught.value.dose_e_per_a2 == 0.0
        moved = [name for name, values in server.log if name in ("TiltTo", "ImageShiftByStageDiff", "Record")]
        assert moved == []
        assert server.scope.x_um != 990.0
        bench.pilot.close()


def test_a_record_preset_with_too_much_dose_is_refused_before_it_exposes(tmp_path: Path) -> None:
    with microscope() as server:
        bench = Bench(tmp_path, server, exposure__record_dose_e_per_a2=250.0)
        with pytest.raises(WorkError, match="dose_per_area_e_per_a2"):
            bench.pilot.carry_out(WORKS[3], bench.desk)
        assert server.scope.ledger == []
        bench.pilot.close()


def test_several_shots_in_a_hole_are_one_command_with_the_middle_in_the_last(tmp_path: Path) -> None:
    with microscope() as server:
        changes = {"exposure__shots_in_hole": 5, "exposure__shot_radius_um": 0.4}
        bench = Bench(tmp_path, server, grids__on_stage="G1", **changes)
        assert bench.do(Expose(area_id="G1-S001-H001", x_um=50.0, y_um=40.0, image_shift_x_um=3.0))
        bench.pilot.close()
        assert server.count("MultipleRecords") == 1
        assert server.count("Record") == 0
        (shot,) = bench.shots
        around = [(x, y) for _, x, y, _ in server.scope.ledger]
        error = server.scope.misplaced_um
        middle = (53.0 + error[0], 40.0 + error[1])
        assert around[-1] == pytest.approx(middle, abs=1e-3)
        assert [math.dist(place, middle) for place in around[:-1]] == [pytest.approx(0.4, abs=1e-3)] * 4
        assert (shot.stage.x_um + shot.image_shift_um[0], shot.stage.y_um) == pytest.approx((53.0, 40.0), abs=1e-3)


def test_shots_around_a_hole_count_towards_the_limit_of_the_image_shift(tmp_path: Path) -> None:
    with microscope() as server:
        changes = {"exposure__shots_in_hole": 5, "exposure__shot_radius_um": 2.0, "interlocks__image_shift_um": 4.0}
        bench = Bench(tmp_path, server, grids__on_stage="G1", **changes)
        with pytest.raises(WorkError, match=r"image shift 5\.00 µm is above 4"):
            bench.pilot.carry_out(Expose(area_id="H", x_um=50.0, y_um=40.0, image_shift_x_um=3.0), bench.desk)
        bench.pilot.close()
        assert server.scope.ledger == []


def test_a_safe_state_says_what_it_could_not_reach_and_does_the_rest(tmp_path: Path) -> None:
    with microscope() as server:
        bench = Bench(tmp_path, server)
        server.scope.tilt_deg = 20.0
        server.fail_next("SetBeamBlank", "no answer from the column", times=10)
        with pytest.raises(WorkError, match="blank the beam"):
            bench.pilot.carry_out(Park(why="test"), bench.desk)
        assert server.scope.tilt_deg == 0.0
        assert not server.scope.valves_open
        bench.pilot.close()


def test_the_stage_position_is_that_of_the_microscope(tmp_path: Path) -> None:
    with microscope() as server:
        bench = Bench(tmp_path, server)
        bench.pilot.carry_out(Goto(x_um=12.0, y_um=-8.0, z_um=3.0, tilt_deg=2.0), bench.desk)
        assert bench.pilot.state().stage == Stage(x_um=12.0, y_um=-8.0, z_um=3.0, tilt_deg=2.0)
        bench.pilot.close()
