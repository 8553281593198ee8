"""A whole pilot session through the SerialEM driver and SerialEM's simulator, over real sockets."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.control import ControlClient
from agent.control_messages import Pause, Resume
from agent.daemon import Daemon
from agent.session import events as ev
from agent.settings import Settings
from tests.end_to_end.live import daemon, events_of, wait_for
from tests.end_to_end.scene import GRID, quick_settings
from tests.end_to_end.serialem_scene import Rig, driven, microscope
from tests.ports import free_endpoints

pytestmark = pytest.mark.timeout(120)


def session(tmp_path: Path, **changes: Any) -> Settings:
    return quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), **changes)


def ended(running: Daemon) -> Callable[[], bool]:
    return lambda: running.core.state.phase in ("stopped", "fault")


def told(tmp_path: Path) -> str:
    return "\n".join(repr(event)[:300] for event in events_of(tmp_path / "short")[-8:])


def play(tmp_path: Path, *, server: dict[str, Any] | None = None, driver: dict[str, Any] | None = None) -> Rig:
    """One short session from the start to its end."""
    settings = session(tmp_path)
    with (
        microscope(**(server or {})) as serialem,
        daemon(settings) as running,
        driven(settings.endpoints.drivers, serialem, tmp_path / "ledger.sqlite", **(driver or {})) as rig,
    ):
        wait_for(ended(running), 100, lambda: told(tmp_path))
        assert running.core.state.phase == "stopped", told(tmp_path)
        assert running.core.state.exposures == 2
    assert len(rig.scope.ledger) == 2
    assert rig.no_place_twice()
    assert rig.scope.beam_blanked
    assert not rig.scope.valves_open
    assert rig.scope.tilt_deg == 0.0
    assert not serialem.control.on, "control was not given back"
    return rig


def far_from_holes(rig: Rig) -> list[float]:
    """How far each exposure was from the middle of a true hole, in micrometres."""
    found = []
    for _, x, y, _ in rig.scope.ledger:
        hole = rig.scope.specimen.hole_at(x, y)
        assert hole is not None, "an exposure beside every hole"
        found.append(math.hypot(hole.x_um - x, hole.y_um - y))
    return found


@pytest.mark.parametrize("version", ["4.0", "4.1", "4.2", "4.3"])
def test_a_session_runs_to_its_end_with_every_release(tmp_path: Path, version: str) -> None:
    rig = play(tmp_path, server={"version": version})
    assert max(far_from_holes(rig)) < 0.45
    assert rig.shell.microscope.software.startswith(f"SerialEM {version}")


def test_the_atlas_can_be_one_montage_of_serialem(tmp_path: Path) -> None:
    rig = play(tmp_path, driver={"atlas__method": "montage"})
    assert rig.log.count("Montage") == 1
    assert "CloseFile" in rig.log
    assert max(far_from_holes(rig)) < 0.45


def test_serialem_realigns_to_its_own_map_of_the_square(tmp_path: Path) -> None:
    rig = play(tmp_path, driver={"realign__steps": ["map"]})
    assert rig.log.count("NewMap") == rig.log.count("RealignToNavItem") == 1
    assert max(far_from_holes(rig)) < 0.45
    assert [item.kind for item in rig.server.program.navigator.items] == [2], "the point to realign to was not removed"


def test_the_result_names_the_file_with_the_frames(tmp_path: Path) -> None:
    settings = session(tmp_path)
    with microscope() as serialem, daemon(settings) as running:
        serialem.program.sets["R"].dose_frac = serialem.program.sets["R"].save_frames = True
        with driven(settings.endpoints.drivers, serialem, tmp_path / "ledger.sqlite"):
            wait_for(ended(running), 100, lambda: told(tmp_path))
    results = [e.result.message for e in events_of(tmp_path / "short") if isinstance(e, ev.CommandEnded)]
    assert len([text for text in results if "frames in" in text]) >= 2, results


def test_grids_come_through_the_autoloader(tmp_path: Path) -> None:
    grids = [{"id": "G1", "slot": 1}, {"id": "G2", "slot": 2}]
    settings = session(tmp_path, session__grids=grids, holes__per_square=1)
    with (
        microscope(grids={"G1": GRID, "G2": GRID}) as serialem,
        daemon(settings) as running,
        driven(settings.endpoints.drivers, serialem, tmp_path / "ledger.sqlite", grids__on_stage_slot=1) as rig,
    ):
        wait_for(ended(running), 100, lambda: told(tmp_path))
        assert running.core.state.phase == "stopped"
    assert rig.server.count("LoadCartridge") == 1, "the grid on the stage needs no loading"
    assert sorted(grid for grid, *_ in rig.scope.ledger) == ["G1", "G2"]
    opened_after = rig.log[rig.log.index("LoadCartridge") :]
    assert rig.log[rig.log.index("LoadCartridge") - 1] == "SetColumnOrGunValve", "valves close before the exchange"
    assert "SetColumnOrGunValve" in opened_after


def test_a_changed_cassette_is_noticed_and_no_wrong_grid_is_exposed(tmp_path: Path) -> None:
    """SmartScope #252: the cassette is exchanged while a grid stays on the stage."""
    grids = [{"id": "G1", "slot": 1}, {"id": "G2", "slot": 2}]
    settings = session(tmp_path, session__grids=grids, holes__per_square=1)
    three = {"G1": GRID, "G2": GRID, "G9": GRID}
    with (
        microscope(grids=three, slots={1: "G1", 2: "G2"}) as serialem,
        daemon(settings) as running,
        driven(settings.endpoints.drivers, serialem, tmp_path / "ledger.sqlite", grids__on_stage_slot=1) as rig,
    ):
        wait_for(lambda: "Search" in rig.log, 40, lambda: told(tmp_path))
        serialem.program.autoloader.change_cassette({2: "G9", 3: "G2"})
        wait_for(ended(running), 100, lambda: told(tmp_path))
        why = running.core.state.grids["G2"].why
    assert {grid for grid, *_ in rig.scope.ledger} == {"G1"}, "a grid was exposed under a wrong name"
    assert rig.server.count("LoadCartridge") == 0
    assert "cassette" in why


def test_a_long_command_freezes_neither_heartbeats_nor_pause(tmp_path: Path) -> None:
    """While a montage runs, however long, heartbeats go on, a pause is answered, and nothing new leaves."""
    settings = session(tmp_path)
    with microscope() as serialem, daemon(settings) as running:
        held = serialem.hold("Montage")
        with driven(settings.endpoints.drivers, serialem, tmp_path / "ledger.sqlite", atlas__method="montage") as rig:
            held.wait()
            beats = count_calls(rig.hooks, "state")
            wait_for(lambda: len(beats) >= 10, 30)
            with ControlClient(settings.endpoints.control) as operator:
                operator.ask(Pause(now=True))
                assert serialem.control.running == "Montage", "the answer to the pause waited for the montage"
                assert "link" not in running.core.state.suspensions, "the driver was silent during a long command"
                held.go()
                wait_for(lambda: not running.core.state.outstanding, 20)
                wait_for(lambda: not serialem.control.on, 20)
                assert running.core.state.phase == "paused"
                assert rig.server.count("Search") == 0
                operator.ask(Resume())
            wait_for(ended(running), 100, lambda: told(tmp_path))
            assert running.core.state.phase == "stopped"
    assert rig.no_place_twice()


def count_calls(hooks: Any, name: str) -> list[int]:
    """A list that grows by one with each call of a hook."""
    calls: list[int] = []
    hook = getattr(hooks, name)

    def counted() -> Any:
        calls.append(len(calls))
        return hook()

    setattr(hooks, name, counted)
    return calls


def test_the_driver_ends_safely_in_the_middle_of_a_session(tmp_path: Path) -> None:
    settings = session(tmp_path, holes__per_square=50)
    with microscope() as serialem, daemon(settings) as running:
        with driven(settings.endpoints.drivers, serialem, tmp_path / "ledger.sqlite") as rig:
            wait_for(lambda: len(rig.scope.ledger) >= 2, 40, lambda: told(tmp_path))
        assert rig.scope.beam_blanked
        assert not rig.scope.valves_open
        assert not serialem.control.on
        wait_for(lambda: "link" in running.core.state.suspensions)
    assert rig.no_place_twice()
