"""Whatever goes wrong, the session goes on, or holds and says why; no place is exposed twice."""

from pathlib import Path
from typing import Any

import pytest

from agent.control import ControlClient
from agent.control_messages import Resume
from agent.session import events as ev
from simulators.faults import Fault
from simulators.link import FaultyLink
from simulators.microscope import VirtualMicroscope
from tests.end_to_end.live import daemon, events_of, state_of, wait_for
from tests.end_to_end.scene import driver, quick_settings
from tests.ports import free_endpoints

pytestmark = pytest.mark.timeout(120)


def once_each(scope: VirtualMicroscope) -> bool:
    places = [(grid, round(x, 1), round(y, 1)) for grid, x, y, _ in scope.ledger]
    return len(set(places)) == len(places)


def play(tmp_path: Path, *faults: Fault, **changes: Any) -> tuple[Path, VirtualMicroscope]:
    """One short session with faults, until it stops, holds or faults."""
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), **changes)
    folder = tmp_path / "short"
    with (
        daemon(settings) as running,
        driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite", faults=faults) as (scope, _),
    ):

        def settled() -> bool:
            state = running.core.state
            held = set(state.suspensions) - {"link"}
            return state.phase in ("stopped", "fault") or (bool(held) and not state.outstanding)

        wait_for(settled, text=lambda: str(running.core.state.phase))
    assert once_each(scope)
    return folder, scope


SKIPS = [
    (Fault("dark_frame", "high", 1), "frame_dark"),
    (Fault("saturated_frame", "high", 2), "frame_saturated"),
    (Fault("autofocus_fails", "focus", 1, 2), "autofocus_failed"),
]
RETRIES = [
    (Fault("dark_frame", "medium", 1), "frame_dark"),
    (Fault("saturated_frame", "medium", 1), "frame_saturated"),
    (Fault("autofocus_fails", "focus", 1), "autofocus_failed"),
    (Fault("eucentric_fails", "eucentric", 1), "eucentric_failed"),
    (Fault("camera_error", "medium", 1), "camera"),
    (Fault("camera_error", "high", 1), "camera"),
    (Fault("stuck_stage", "move", 2), "stage_timeout"),
]


@pytest.mark.parametrize(("fault", "kind"), SKIPS, ids=lambda v: v if isinstance(v, str) else v.kind)
def test_a_failure_skips_one_item_and_the_session_ends_in_good_order(tmp_path: Path, fault: Fault, kind: str) -> None:
    folder, _ = play(tmp_path, fault)
    state, events = state_of(folder), events_of(folder)
    assert state.phase == "stopped"
    assert state.parked
    assert next(e.error for e in events if isinstance(e, ev.ErrorCounted)) == kind
    skipped = [e for e in events if isinstance(e, ev.AreaChanged) and e.state == "skipped"]
    assert skipped
    assert all(e.decision.why for e in skipped)


@pytest.mark.parametrize(
    ("fault", "kind"), RETRIES, ids=lambda v: v if isinstance(v, str) else f"{v.kind}-{v.occasion}"
)
def test_a_failure_that_passes_costs_a_retry_and_nothing_else(tmp_path: Path, fault: Fault, kind: str) -> None:
    folder, scope = play(tmp_path, fault)
    state, events = state_of(folder), events_of(folder)
    assert state.phase == "stopped"
    counted = [e for e in events if isinstance(e, ev.ErrorCounted)]
    assert [(e.error, e.will) for e in counted] == [(kind, "try again")]
    assert state.exposures == len(scope.ledger) == 2


def test_a_stage_that_never_arrives_ends_in_fault_and_the_safe_state(tmp_path: Path) -> None:
    folder, scope = play(tmp_path, Fault("stuck_stage", "move", 2, 0))
    assert state_of(folder).phase == "fault"
    assert any(isinstance(e, ev.SafeOrdered) for e in events_of(folder))
    assert scope.beam_blanked


def test_a_lost_beam_holds_the_session_and_an_operator_leads_on(tmp_path: Path) -> None:
    """The reading holds the session as long as it is low; what was dark meanwhile is not exposed again."""
    changes = {"holes__per_square": 6, "suspend_when": [{"reading": "beam_current", "below": 0.5, "settle_s": 0.2}]}
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), **changes)
    lost = Fault("beam_lost", "high", 2)
    with (
        daemon(settings) as running,
        driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite", faults=(lost,)) as (scope, _),
    ):
        wait_for(lambda: any(cause.startswith("reading") for cause in running.core.state.suspensions))
        issued = running.core.state.commands_issued
        wait_for(lambda: not running.core.state.outstanding)
        scope.beam_current = 1.0
        wait_for(lambda: not any(cause.startswith("reading") for cause in running.core.state.suspensions))
        with ControlClient(settings.endpoints.control) as operator:
            assert operator.ask(Resume()).ok  # dark frames in a row may have asked for a person, too
        wait_for(lambda: running.core.state.phase == "stopped", text=lambda: str(running.core.state.suspensions))
        assert running.core.state.commands_issued > issued
    assert once_each(scope)


def test_closed_valves_hold_the_session_until_they_are_open_again(tmp_path: Path) -> None:
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), holes__per_square=4)
    shut = Fault("valves_closed", "high", 2)
    with (
        daemon(settings) as running,
        driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite", faults=(shut,)) as (scope, _),
    ):
        wait_for(lambda: "valves" in running.core.state.suspensions)
        scope.valves_open = True
        wait_for(lambda: "valves" not in running.core.state.suspensions)
        with ControlClient(settings.endpoints.control) as operator:
            assert operator.ask(Resume()).ok
        wait_for(lambda: running.core.state.phase == "stopped", text=lambda: str(running.core.state.suspensions))
    assert once_each(scope)


def test_an_autoloader_that_fails_twice_costs_one_grid(tmp_path: Path) -> None:
    grids = [{"id": "G1"}, {"id": "G2", "slot": 2}, {"id": "G3", "slot": 3}]
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), session__grids=grids)
    from tests.end_to_end.scene import GRID

    faults = (Fault("load_fails", "load", 1, 2),)
    specimens = {"G1": GRID, "G2": GRID, "G3": GRID}
    with (
        daemon(settings) as running,
        driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite", faults=faults, grids=specimens),
    ):
        wait_for(lambda: running.core.state.phase == "stopped", text=lambda: str(running.core.state.suspensions))
        states = {grid.grid_id: grid.state for grid in running.core.state.grids.values()}
    assert states == {"G1": "done", "G2": "skipped", "G3": "done"}


@pytest.mark.parametrize("trouble", ["doubled", "late", "lost to the daemon", "lost from the daemon", "cut"])
def test_a_bad_link_changes_nothing_but_the_time(tmp_path: Path, trouble: str) -> None:
    changes = {"link__lost_after_s": 1.0, "link__safe_after_s": 1.0}
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), **changes)
    link = FaultyLink(settings.endpoints.drivers)
    try:
        with daemon(settings) as running, driver(link.endpoint, tmp_path / "ledger.sqlite") as (scope, shell):
            link.double_frames = trouble == "doubled"
            link.delay_frames_s = 0.3 if trouble == "late" else 0.0
            if trouble.startswith(("lost", "cut")):
                wait_for(lambda: running.core.state.frames >= 1)
                link.lose_to_daemon = trouble == "lost to the daemon"
                link.lose_from_daemon = trouble == "lost from the daemon"
                link.cut = trouble == "cut"
                # the side that hears nothing notices: the daemon holds the session, the driver makes itself safe
                if trouble != "lost to the daemon":
                    wait_for(lambda: shell.in_safe_state)
                if trouble != "lost from the daemon":
                    wait_for(lambda: "link" in running.core.state.suspensions)
                link.lose_to_daemon = link.lose_from_daemon = link.cut = False
            wait_for(lambda: running.core.state.phase == "stopped", text=lambda: str(running.core.state.suspensions))
            assert running.core.state.exposures == 2
    finally:
        link.close()
    assert once_each(scope)
    assert len(scope.ledger) == 2


def test_a_driver_that_dies_in_the_middle_of_an_exposure_never_repeats_it(tmp_path: Path) -> None:
    """The new driver finds the begun command in its ledger and says that nobody knows how it ended."""
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"))
    with daemon(settings) as running:
        with driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite", speed=6.0) as (first, _):
            wait_for(lambda: any(e.area_id.count("-H") for e in running.core.state.outstanding.values()))
            wait_for(lambda: first.times_s.get("high", 0) > 0)
        interrupted = [h for s in running.core.state.grids["G1"].squares.values() for h in s.holes.values()]
        wait_for(lambda: "link" in running.core.state.suspensions)
        with driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite") as (second, _):
            wait_for(lambda: running.core.state.phase == "stopped", text=lambda: str(running.core.state.suspensions))
        holes = [h for s in running.core.state.grids["G1"].squares.values() for h in s.holes.values()]
    assert len(holes) == len(interrupted)
    places = [(round(x, 1), round(y, 1)) for scope in (first, second) for _, x, y, _ in scope.ledger]
    assert len(set(places)) == len(places)
