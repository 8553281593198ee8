"""Two grids through SerialEM with real pixels: a look at each, then on, and back to one that lies otherwise by now."""

import math
from pathlib import Path

import pytest

from agent import recording
from agent.session import events as ev
from agent.session.state import grid_of
from simulators.specimen import Specimen, SpecimenSettings
from tests.end_to_end.live import daemon, events_of, wait_for
from tests.end_to_end.scene import quick_settings
from tests.end_to_end.serialem_scene import driven, microscope
from tests.ports import free_endpoints

pytestmark = pytest.mark.timeout(600)
GRIDS = {
    f"G{n}": SpecimenSettings(seed=seed, grid_radius_um=330.0, foil="gold", ice="good") for n, seed in ((1, 3), (2, 12))
}


def test_a_grid_that_came_back_is_exposed_in_its_holes_and_nowhere_twice(tmp_path: Path) -> None:
    made = quick_settings(
        tmp_path,
        free_endpoints("drivers", "control", "events"),
        session__grids=[{"id": "G1", "slot": 1}, {"id": "G2", "slot": 2}],
        policy__name="learning",
        policy__screening={"squares_per_grid": 1, "holes_per_square": 1},
        holes__per_square=4,
        inference__squares="squares-mixture",
        inference__holes="holes-template",
        inference__quality="quality-simple",
        inference__timeout_s=500,
    )
    with (
        microscope(grids=GRIDS) as serialem,
        daemon(made) as running,
        driven(made.endpoints.drivers, serialem, tmp_path / "ledger.sqlite", grids__on_stage_slot=1) as rig,
    ):
        wait_for(lambda: running.core.state.phase == "stopped", 500)
        state = running.core.state
    assert state.why == "every grid is done", state.why
    events = events_of(running.folder)
    shots = [e.area_id for e in events if isinstance(e, ev.MicrographJudged)]
    assert [grid_of(a) for a in shots] == ["G1"] + ["G2"] * 4 + ["G1"] * 3
    sighted = next(e for e in events if isinstance(e, ev.GridSighted))
    assert sighted.grid_id == "G1"
    assert sighted.placement is not None
    assert rig.scope.loads == {"G1": 2, "G2": 1}

    places = [(x, y) for grid, x, y, _ in rig.scope.ledger if grid == "G1"]  # on the grid, as they really were
    assert len(places) == 4
    assert min(math.dist(a, b) for i, a in enumerate(places) for b in places[:i]) > 2.0, "no hole twice"
    truth = Specimen(GRIDS["G1"])
    holes = [(h.x_um, h.y_um) for square in truth.squares for h in truth.holes(square.index)]
    off_um = [min(math.dist(place, hole) for hole in holes) for place in places]
    assert max(off_um) < 0.7, off_um

    record = recording.read(running.folder)
    back = [r for r in record.frames.values() if r.as_taken is not None]
    assert {r.grid_id for r in back} == {"G1"}
    assert len(back) == 4  # the new map and three micrographs
