"""The simulated Leginon plays whole sessions against driver and daemon, by both of its routes."""

import asyncio
import math
from pathlib import Path
from typing import Any

from agent.session.state import Hole, State, grid_of
from drivers.leginon.command.install import install
from simulators.leginon import LeginonProgram
from simulators.leginon.program import Pace, Record
from tests.drivers.leginon_scene import OPTICS, scene, scope
from tests.drivers.test_leginon_command import meet  # noqa: F401 - a fixture

MESH_PITCH_UM, HOLE_PITCH_UM = 127.0, 4.0


def square_recall(program: LeginonProgram) -> tuple[float, int]:
    """Share of the squares wholly on a tile that a target lies in, within a tenth of the pitch; and their number."""
    truth = program.scope.specimen
    tiles = list(program._tiles.values())
    targets = [(t.x_um, t.y_um) for t in program.record.squares.values()]
    shown = [s for s in truth.squares if any(is_whole(tile, truth, s.vertices_um) for tile in tiles)]
    hit = [any(math.dist((s.x_um, s.y_um), place) < 0.1 * MESH_PITCH_UM for place in targets) for s in shown]
    return sum(hit) / len(hit), len(shown)


def is_whole(tile: Any, truth: Any, vertices: Any) -> bool:
    rows, columns = tile.image.shape
    points = [truth.stage_to_pixel(tile.believed, x, y) for x, y in vertices]
    return all(8 < x < columns - 8 and 8 < y < rows - 8 for x, y in points)


def hole_recall(program: LeginonProgram, record: Record) -> tuple[float, int]:
    """Share of the whole holes on the hole images that were found, to a tenth of the pitch and the stage's error."""
    truth = program.scope.specimen
    preset = OPTICS.presets["medium"]
    half = preset.shape[0] * preset.pixel_size_angstrom * 1e-4 / 2 - 2.5
    hits: list[bool] = []
    for target in (record.squares[square_id] for square_id in record.visited):
        square = truth.square_at(target.x_um, target.y_um)
        assert square is not None
        for hole in truth.holes(square.index):
            away = (abs(hole.x_um - target.x_um), abs(hole.y_um - target.y_um))
            if hole.state != "broken" and max(away) < half:
                place = (hole.x_um, hole.y_um)
                hits.append(any(math.dist(place, p) < 0.1 * HOLE_PITCH_UM + 0.3 for p in record.holes.values()))
    return sum(hits) / len(hits), len(hits)


def measured_holes(state: State) -> dict[str, Hole]:
    squares = [square for grid in state.grids.values() for square in grid.squares.values()]
    return {hole.area_id: hole for square in squares for hole in square.holes.values() if hole.measurements}


async def test_a_session_over_http_ends_without_a_warning_finds_what_is_there_and_learns(tmp_path: Path) -> None:
    async with scene(tmp_path) as stage:
        program = LeginonProgram(scope(), stage.calls, pace=Pace(radius_um=560.0, squares=2, exposures=3))
        record = await asyncio.to_thread(program.run)
        state = stage.daemon.core.state
    assert program.warnings == []
    recall, shown = square_recall(program)
    assert shown >= 20
    assert recall >= 0.95
    found, holes = hole_recall(program, record)
    assert holes > 60
    assert found >= 0.95
    assert len(record.orders) == len(record.visited) == 2
    assert not set(record.orders[-1]) & set(record.visited)
    measured = measured_holes(state)
    assert len(measured) == len(record.exposed) == 6
    told = sorted(round(ice, 1) for ice, _ in record.exposed.values())
    assert sorted(round(h.features["ice_thickness_nm"], 1) for h in measured.values()) == told  # nm, as they were meant
    assert {grid_of(area_id) for area_id in measured} == {f"G{program.grid_id}"}


def test_a_session_by_the_command_route_ends_without_a_warning(tmp_path: Path, meet: Path) -> None:  # noqa: F811
    install(tmp_path / "bin", squares="squares-mixture", holes="holes-template", meet=meet)
    pace = Pace(radius_um=10.0, squares=1, exposures=2)
    program = LeginonProgram(scope(), scripts=tmp_path / "bin", images=tmp_path, pace=pace)
    record = program.run()
    assert program.warnings == []
    assert len(record.exposed) == 2
    recall, shown = square_recall(program)
    assert shown >= 10
    assert recall >= 0.95
    assert hole_recall(program, record)[0] >= 0.95
