"""Bad stages: exposures land in the holes because SerialEM realigns, and the error policy decides where it cannot."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.session import events as ev
from simulators.serialem.buffers import ImageBuffer
from simulators.serialem.server import SerialEMServer
from simulators.specimen import View
from tests.end_to_end.live import daemon, events_of, wait_for
from tests.end_to_end.scene import QUICK, quick_settings
from tests.end_to_end.serialem_scene import Rig, driven, microscope
from tests.ports import free_endpoints

pytestmark = pytest.mark.timeout(180)
POOR_STAGE = replace(QUICK, stage_error_um=0.7)


def play(tmp_path: Path, driver: dict[str, Any], prepare: Any = None, *, held: bool = False, **changes: Any) -> Rig:
    """One short session on a poor stage, to its end or until errors hold it."""
    ports = free_endpoints("drivers", "control", "events")
    settings = quick_settings(tmp_path, ports, **{"holes__per_square": 4} | changes)
    with microscope(settings=POOR_STAGE) as serialem, daemon(settings) as running:
        if prepare is not None:
            prepare(serialem)
        with driven(settings.endpoints.drivers, serialem, tmp_path / "ledger.sqlite", **driver) as rig:
            told = partial(last_words, tmp_path)
            if held:
                wait_for(lambda: "errors" in running.core.state.suspensions, 120, told)
            else:
                wait_for(lambda: running.core.state.phase in ("stopped", "fault"), 120, told)
                assert running.core.state.phase == "stopped", running.core.state.why
    assert rig.no_place_twice()
    return rig


def last_words(tmp_path: Path) -> str:
    return "\n".join(repr(event)[:300] for event in events_of(tmp_path / "short")[-8:])


def away_from_holes(rig: Rig) -> list[float]:
    """Distance of each exposure's true place from the middle of the nearest true hole, µm."""
    truth = rig.scope.specimen
    holes = np.array([(h.x_um, h.y_um) for square in truth.squares for h in truth.holes(square.index)])
    return [float(np.hypot(*(holes - (x, y)).T).min()) for _, x, y, _ in rig.scope.ledger]


def errors(tmp_path: Path) -> list[tuple[str, str]]:
    return [(str(e.error), e.will) for e in events_of(tmp_path / "short") if isinstance(e, ev.ErrorCounted)]


def put_template(serialem: SerialEMServer) -> None:
    """What a site does once: an image of a hole, in the middle, in buffer P."""
    scope = serialem.scope
    square = max(scope.specimen.squares, key=lambda square: len(scope.specimen.holes(square.index)))
    near = scope.specimen.holes(square.index)
    hole = min(near, key=lambda h: float(np.hypot(h.x_um - square.x_um, h.y_um - square.y_um)))
    view = View(hole.x_um, hole.y_um, 2000.0, (24, 24), dose_e_per_a2=2e-4)
    serialem.program.buffers.put("P", ImageBuffer(scope.specimen.render(view)))


def test_without_realignment_this_stage_misses_holes(tmp_path: Path) -> None:
    """What the other tests of this file are worth."""
    rig = play(tmp_path, {})
    assert max(away_from_holes(rig)) > 0.45


@pytest.mark.parametrize("steps", [["map"], ["hole"], ["template"], ["map", "hole"]], ids="+".join)
def test_realignment_brings_every_exposure_into_its_hole(tmp_path: Path, steps: list[str]) -> None:
    prepare = put_template if "template" in steps else None
    rig = play(tmp_path, {"realign__steps": steps, "realign__hole_diameter_um": 2.0}, prepare)
    assert len(rig.scope.ledger) == 4
    assert max(away_from_holes(rig)) < 0.3, away_from_holes(rig)
    assert errors(tmp_path) == []


def test_a_failed_realignment_is_tried_again_before_a_hole_is_given_up(tmp_path: Path) -> None:
    def fail(serialem: SerialEMServer) -> None:
        serialem.fail_next("RealignToNavItem", "no peak")

    rig = play(tmp_path, {"realign__steps": ["map"]}, fail)
    assert errors(tmp_path) == [("realign_failed", "try again")]
    assert len(rig.scope.ledger) == 4
    assert max(away_from_holes(rig)) < 0.3


def test_holes_that_cannot_be_realigned_to_are_skipped_as_the_policy_says_and_never_exposed(tmp_path: Path) -> None:
    policy = {"realign_failed": {"retries": 0, "then": "skip", "suspend_after": 3}}

    def fail(serialem: SerialEMServer) -> None:
        serialem.fail_next("AlignTo", "no peak", times=100)

    rig = play(tmp_path, {"realign__steps": ["template"]}, fail, held=True, on_error=policy)
    assert rig.scope.ledger == []
    assert errors(tmp_path) == [("realign_failed", "skip")] * 3


def test_where_it_is_not_required_the_night_goes_on_with_the_stages_own_accuracy(tmp_path: Path) -> None:
    def fail(serialem: SerialEMServer) -> None:
        serialem.fail_next("RealignToNavItem", "no peak", times=100)

    rig = play(tmp_path, {"realign__steps": ["map"], "realign__required": False}, fail)
    assert len(rig.scope.ledger) == 4
    assert errors(tmp_path) == []


def test_a_realignment_that_shifts_too_far_has_failed(tmp_path: Path) -> None:
    policy = {"realign_failed": {"retries": 0, "then": "skip", "suspend_after": 3}}
    rig = play(tmp_path, {"realign__steps": ["map"], "realign__max_shift_um": 0.01}, held=True, on_error=policy)
    assert rig.scope.ledger == []
    assert errors(tmp_path) == [("realign_failed", "skip")] * 3


# ---------------------------------------------------------------------------------------------- drift


def test_exposures_wait_for_the_stage_to_settle_once_for_each_group(tmp_path: Path) -> None:
    drifts: list[float] = []

    def listen(serialem: SerialEMServer) -> None:
        first = serialem.scope.acquire

        def acquire(level: str, **more: Any) -> Any:
            if level == "high":
                drifts.append(10.0 * serialem.program.drift_nm_per_s)
            return first(level, **more)

        serialem.scope.acquire = acquire  # type: ignore[method-assign]

    rig = play(tmp_path, {}, listen)
    exposing = [(name, values) for name, values in rig.server.log if name in ("DriftWaitTask", "Record")]
    assert rig.server.count("DriftWaitTask") >= 1
    assert exposing[-1][0] == "Record"
    assert len(drifts) == 4
    assert max(drifts) <= 2.0, "an exposure began at more than 2 Å/s, the default"


def test_a_specimen_that_never_settles_is_the_error_policys_business(tmp_path: Path) -> None:
    policy = {"drift": {"retries": 0, "then": "skip", "suspend_after": 3}}

    def drift_on(serialem: SerialEMServer) -> None:
        serialem.program.drift_floor_nm_per_s = 1.0

    rig = play(tmp_path, {}, drift_on, held=True, on_error=policy)
    assert rig.scope.ledger == []
    assert errors(tmp_path) == [("drift", "skip")] * 3


def test_a_serialem_that_cannot_wait_for_drift_is_asked_three_times_and_the_night_goes_on(tmp_path: Path) -> None:
    def refuse(serialem: SerialEMServer) -> None:
        serialem.fail_next("DriftWaitTask", "there is no calibration for this", times=100)

    rig = play(tmp_path, {}, refuse, holes__max_image_shift_um=0.0)  # every hole is a group of its own
    assert rig.server.count("DriftWaitTask") == 3
    assert len(rig.scope.ledger) == 4
    assert errors(tmp_path) == []
