"""An advisor beside an operator: images taken in SerialEM become points in its Navigator."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.daemon import Daemon
from drivers.serialem.client import SerialEMClient
from simulators.serialem.groups.camera import take
from simulators.serialem.navigator import NavItem
from simulators.serialem.server import SerialEMServer
from tests.end_to_end.live import daemon, wait_for
from tests.end_to_end.scene import quick_settings
from tests.end_to_end.serialem_scene import Rig, driven, microscope
from tests.ports import free_endpoints

pytestmark = pytest.mark.timeout(60)


@contextmanager
def advised(tmp_path: Path, **changes: Any) -> Iterator[tuple[Rig, Daemon]]:
    settings = quick_settings(
        tmp_path,
        free_endpoints("drivers", "control", "events"),
        session__mode="advisor",
        session__autonomy="suggest",
    )
    with (
        microscope(version=changes.pop("version", "4.2")) as server,
        daemon(settings) as running,
        driven(settings.endpoints.drivers, server, tmp_path / "ledger.sqlite", mode="advisor", **changes) as rig,
    ):
        yield rig, running


def operator_takes(server: SerialEMServer, letter: str, level: str, x_um: float = 0.0, y_um: float = 0.0) -> None:
    """What an operator does in SerialEM's own windows: move, choose the magnification, take an image."""
    program = server.program
    wait_for(lambda: not program.control.on, 10)
    server.scope.move(x_um, y_um)
    program.low_dose, program.level = False, level
    program.buffers.put("A", take(program, letter))


def settled(rig: Rig) -> bool:
    """Whether no answer waits, and none is being put into the Navigator: control is on all that while."""
    return not rig.server.program.control.on and rig.hooks._answers.qsize() == 0 and len(points(rig.server)) > 5


def points(server: SerialEMServer) -> list[NavItem]:
    return [item for item in server.program.navigator.items if item.note.startswith("Cryonaut")]


def test_squares_and_holes_of_the_operators_images_come_into_the_navigator(tmp_path: Path) -> None:
    with advised(tmp_path) as (rig, running):
        server = rig.server
        operator_takes(server, "R", "low")
        wait_for(lambda: len(points(server)) > 5, 20)
        wait_for(lambda: not server.program.control.on, 5)
        squares = points(server)
        truth = server.scope.specimen.squares
        for item in squares:
            nearest = min(math.hypot(s.x_um - item.x_um, s.y_um - item.y_um) for s in truth)
            assert nearest < 15, f"{item.label} at ({item.x_um:.0f}, {item.y_um:.0f}) is on no square"
            assert item.label.startswith("G1-S")
            assert item.acquire == (item.color == 1)
        assert any(item.acquire for item in squares)
        assert "0." in squares[0].note or "1.0" in squares[0].note

        best = max(squares, key=lambda item: item.note[9:13])
        operator_takes(server, "S", "medium", best.x_um, best.y_um)
        wait_for(lambda: any("-H" in item.label for item in points(server)), 20)
        wait_for(lambda: not server.program.control.on, 5)
        holes = [item for item in points(server) if "-H" in item.label]
        on = sum(server.scope.specimen.hole_at(item.x_um, item.y_um) is not None for item in holes)
        assert on > 0.9 * len(holes), f"{on} of {len(holes)} points are on true holes"
        assert len({item.label for item in points(server)}) == len(points(server)), "a place came twice"
        assert running.core.state.exposures == 0
        assert not server.count("MoveStageTo"), "an advisor does not drive"
        assert not server.scope.beam_blanked


def test_the_same_image_is_sent_once_and_the_same_place_is_one_point(tmp_path: Path) -> None:
    with advised(tmp_path) as (rig, running):
        operator_takes(rig.server, "R", "low")
        wait_for(lambda: len(points(rig.server)) > 5, 20)
        wait_for(lambda: settled(rig), 20)
        first, frames = len(points(rig.server)), running.core.state.frames
        rig.scope.clock.spend(10.0)
        operator_takes(rig.server, "R", "low")
        wait_for(lambda: running.core.state.frames == frames + 1, 20)
        dressed = rig.server.count("ChangeItemNote")
        wait_for(lambda: rig.server.count("ChangeItemNote") > dressed and settled(rig), 20)
        assert len(points(rig.server)) < 1.5 * first


def test_holes_of_a_square_are_one_group_that_serialem_combines_and_records(tmp_path: Path) -> None:
    """The operator's way on: hole vectors, combiner on the group, Acquire at Items with multiple Records."""
    with advised(tmp_path) as (rig, _):
        server = rig.server
        square = max(server.scope.specimen.squares, key=lambda s: len(server.scope.specimen.holes(s.index)))
        operator_takes(server, "S", "medium", square.x_um, square.y_um)
        wait_for(lambda: any("-H" in item.label for item in points(server)) and settled(rig), 20)
        rig.hooks.close()  # the operator has SerialEM alone from here
        for item in points(server):  # and switches off what is not wanted
            near = math.dist((item.x_um, item.y_um), (square.x_um, square.y_um)) < 15.0
            item.acquire = item.acquire and "-H" in item.label and near
        wanted = [item for item in points(server) if item.acquire]
        assert len({item.group for item in wanted}) == 1
        assert all(item.group == 0 for item in points(server) if "-H" not in item.label)
        assert wanted[0].group > 0
        operator = SerialEMClient("127.0.0.1", server.port)
        operator.call("FindHoles", "A")
        operator.call("UseHoleVectorsForMulti", 0)
        operator.call("SetMultishotParams", *[-9] * 12, 3, 3)
        operator.call("SetSelectedNavItem", server.program.navigator.items.index(wanted[0]) + 1)
        operator.call("CombineHolesToMulti", 2)
        holes, items, _ = operator.numbers("ReportNumHoleAcquire", least=3)
        assert holes == len(wanted)
        assert items < 0.5 * holes
        operator.call("SetNavAcqAtEndParams", "prim", 4)
        operator.call("SetLowDoseMode", 1)
        operator.call("StartNavAcquireAtEnd")
        operator.exit_control()
        wait_for(lambda: not server.control.busy and not any(i.acquire for i in server.program.navigator.items), 20)
        operator.close()
        assert len(rig.scope.ledger) == len(wanted)
        truth = [(h.x_um, h.y_um) for s in rig.scope.specimen.squares for h in rig.scope.specimen.holes(s.index)]
        away = [min(math.dist((x, y), hole) for hole in truth) for _, x, y, _ in rig.scope.ledger]
        assert sum(distance < 1.0 for distance in away) > 0.9 * len(away), "holes of 2 µm"


def test_an_advisor_lets_a_busy_operator_work_and_comes_back(tmp_path: Path) -> None:
    with advised(tmp_path) as (rig, running):
        rig.server.set_busy(True)
        operator_takes(rig.server, "R", "low")
        time.sleep(0.6)
        assert not points(rig.server)
        assert running.core.state.phase == "collecting", "a busy SerialEM is no takeover for an advisor"
        rig.server.set_busy(False)
        wait_for(lambda: bool(points(rig.server)), 20)


def test_an_advisor_can_wait_until_a_script_asks(tmp_path: Path) -> None:
    with advised(tmp_path, advisor__when="asked") as (rig, running):
        operator_takes(rig.server, "R", "low")
        time.sleep(0.6)
        assert running.core.state.frames == 0
        rig.server.program.persistent["CRYONAUT_ASK"] = "1"
        wait_for(lambda: bool(points(rig.server)), 20)
        assert running.core.state.frames == 1


def test_serialem_4_0_gets_its_points_as_a_file(tmp_path: Path) -> None:
    with advised(tmp_path, version="4.0", advisor__nav_folder=str(tmp_path)) as (rig, _):
        operator_takes(rig.server, "R", "low")
        wait_for(lambda: len(points(rig.server)) > 5, 20)
        assert any(item.acquire for item in points(rig.server))
        truth = rig.scope.specimen.squares
        for item in points(rig.server):
            assert min(math.hypot(s.x_um - item.x_um, s.y_um - item.y_um) for s in truth) < 15


def test_control_is_free_between_two_looks(tmp_path: Path) -> None:
    with advised(tmp_path, advisor__poll_s=0.3) as (rig, _):
        wait_for(lambda: rig.log.count("Exit") >= 3, 20)
        log = rig.log
        taken = [n for n, name in enumerate(log) if name == "NoMessageBoxOnError"]
        given = [n for n, name in enumerate(log) if name == "Exit"]
        assert taken[1:3] == [n + 1 for n in given[:2]], "control was taken again right after it had been given back"
        wait_for(lambda: not rig.server.program.control.on, 5)
