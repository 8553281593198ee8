"""SerialEM's hole finder, combiner and multiple Records in the simulator, against the specimen's own truth."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import ScriptError
from simulators.clock import SimClock
from simulators.microscope import MicroscopeSettings, Preset, VirtualMicroscope
from simulators.serialem import SerialEMServer
from simulators.serialem.combiner import combine, offsets
from simulators.specimen import SpecimenSettings

FINE = MicroscopeSettings(
    presets={
        "low": Preset(12000.0, (256, 256), 6e-6, 1.0),
        "medium": Preset(2000.0, (384, 384), 2e-4, 1.5, rotation_deg=4.0),
        "high": Preset(4.0, (64, 64), 40.0, 3.0),
    },
    stage_error_um=0.0,
)


@pytest.fixture(scope="module")
def scope() -> VirtualMicroscope:
    grid = SpecimenSettings(seed=3, grid_radius_um=150.0, foil="gold", ice="good")
    return VirtualMicroscope({"G1": grid}, FINE, SimClock(float("inf")))


@pytest.fixture
def sem(scope: VirtualMicroscope) -> Iterator[SerialEMClient]:
    """A client with a medium-mag image of the fullest square in A."""
    scope.ledger.clear()
    scope.image_shift_um = (0.0, 0.0)
    with SerialEMServer(scope, gap_s=0.0) as server:
        client = SerialEMClient("127.0.0.1", server.port)
        truth = scope.specimen
        square = max(truth.squares, key=lambda s: len(truth.holes(s.index)))
        client.call("SetLowDoseMode", 1)
        client.call("MoveStageTo", square.x_um, square.y_um)
        client.call("Search")
        yield client
        client.close()


def true_holes(scope: VirtualMicroscope) -> np.ndarray:
    truth = scope.specimen
    return np.array([(h.x_um, h.y_um) for s in truth.squares for h in truth.holes(s.index)])


def points(sem: SerialEMClient) -> list[tuple[float, float]]:
    count = int(sem.number("ReportNumTableItems"))
    return [sem.numbers("ReportOtherItem", n, least=3)[1:3] for n in range(1, count + 1)]  # type: ignore[misc]


def off(scope: VirtualMicroscope, places: list[tuple[float, float]], part: float = 1.0) -> float:
    """Within which distance from the nearest true hole this part of the places lies."""
    holes = true_holes(scope)
    return float(np.quantile([np.hypot(*(holes - place).T).min() for place in places], part))


def test_holes_found_become_points_where_the_holes_are(scope: VirtualMicroscope, sem: SerialEMClient) -> None:
    sem.call("SetHoleFinderParams", 2.0, 4.0, 0)
    sem.call("FindHoles", "A")
    sem.call("MakeNavPointsAtHoles")
    made = points(sem)
    assert len(made) > 50
    assert off(scope, made, 0.95) < 0.4, "all but a few, which lie under a bar where the lattice goes on"
    assert sem.numbers("ReportNumNavAcquire", least=2) == (len(made), 0)
    a = np.array(sem.numbers("ReportLastHoleVectors", 0, least=4)).reshape(2, 2)
    assert np.hypot(*a.T) == pytest.approx((4.0, 4.0), abs=0.1)


def test_positions_can_be_read_before_they_become_points_from_4_3(scope: VirtualMicroscope) -> None:
    truth = scope.specimen
    square = max(truth.squares, key=lambda s: len(truth.holes(s.index)))
    with SerialEMServer(scope, version="4.3", gap_s=0.0) as server:
        client = SerialEMClient("127.0.0.1", server.port)
        client.call("SetLowDoseMode", 1)
        client.call("MoveStageTo", square.x_um, square.y_um)
        client.call("Search")
        client.call("FindHoles", "A")
        count = int(client.number("GetFoundHolePositions", "xs", "ys"))
        xs, ys = (str(client.call("GetVariable", name)).split() for name in ("xs", "ys"))
        client.close()
    assert len(xs) == len(ys) == count > 50
    assert off(scope, [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)], 0.95) < 0.4


def test_an_image_without_holes_is_a_script_error(sem: SerialEMClient) -> None:
    sem.call("Record")
    with pytest.raises(ScriptError, match="Hole finder"):
        sem.call("FindHoles", "A")
    with pytest.raises(ScriptError, match="use FindHoles first"):
        sem.call("MakeNavPointsAtHoles")


def test_the_hole_nearest_to_the_middle_is_found_and_centred(scope: VirtualMicroscope, sem: SerialEMClient) -> None:
    hole = min(true_holes(scope), key=lambda h: math.dist(h, (scope.x_um, scope.y_um)))
    sem.call("MoveStageTo", hole[0] + 0.8, hole[1] - 0.5)
    sem.call("Search")
    x, y, error = sem.numbers("FindAndCenterOneHole", "A", 2.0, least=3)
    assert error == 0
    assert sem.numbers("BufImagePosToStagePos", "A", 0, x, y)[:2] == pytest.approx(tuple(hole), abs=0.15)
    assert scope.image_shift_um == (0.0, 0.0), "without a limit nothing is shifted"
    assert sem.numbers("FindAndCenterOneHole", "A", 2.0, 0, 0.1, least=3)[2] == -1, "farther than a tenth of it"
    assert scope.image_shift_um == (0.0, 0.0)
    assert sem.numbers("FindAndCenterOneHole", "A", 2.0, 0, 0.9, least=3)[2] == 0
    looked_at = (scope.x_um + scope.image_shift_um[0], scope.y_um + scope.image_shift_um[1])
    assert looked_at == pytest.approx(tuple(hole), abs=0.15)


def test_multiple_records_go_to_every_custom_place_and_back(scope: VirtualMicroscope, sem: SerialEMClient) -> None:
    """The way of a driver that knows its holes: image shifts in SerialEM's own units, from the stage's axes."""
    begin = (scope.x_um, scope.y_um)
    wanted = [(0.0, 0.0), (2.5, 0.5), (-1.0, 3.0)]
    a, b, c, d = sem.numbers("ISToStageMatrix", 0, least=4)
    det = a * d - b * c
    units = [((d * x - b * y) / det, (a * y - c * x) / det) for x, y in wanted]
    sem.call("SetVariable", "xs", "\n".join(f"{x:.6f}" for x, _ in units))
    sem.call("SetVariable", "ys", "\n".join(f"{y:.6f}" for _, y in units))
    sem.call("SetCustomHoleShifts", "xs", "ys", 31)
    assert sem.number("MultipleRecords", *[-9] * 8, 2 | 32) == 3
    placed = [(x - begin[0], y - begin[1]) for _, x, y, _ in scope.ledger]
    assert placed == [pytest.approx(place, abs=1e-3) for place in wanted]
    assert scope.image_shift_um == (0.0, 0.0)
    assert (scope.x_um, scope.y_um) == begin


def test_several_shots_in_a_hole_go_around_its_middle(scope: VirtualMicroscope, sem: SerialEMClient) -> None:
    assert sem.number("MultipleRecords", 6, 1, 0.5, -9, 0, -9, -9, -9, 1) == 7
    away = [math.hypot(x - scope.x_um, y - scope.y_um) for _, x, y, _ in scope.ledger]
    assert away == [pytest.approx(0.5, abs=1e-3)] * 6 + [pytest.approx(0.0, abs=1e-6)]


def test_nothing_is_exposed_when_one_place_is_out_of_reach(scope: VirtualMicroscope, sem: SerialEMClient) -> None:
    sem.call("SetRegularHoleVectors", 12.0, 0.0, 0.0, 12.0, 31)
    sem.call("SetMultishotParams", *[-9] * 12, 5, 5)
    with pytest.raises(ScriptError, match="beyond the limit"):
        sem.call("MultipleRecords", *[-9] * 8, 2)
    assert scope.ledger == []


def test_points_of_a_group_are_combined_and_recorded_together(scope: VirtualMicroscope, sem: SerialEMClient) -> None:
    """The whole way of an operator: find, switch bad ones off, combine, Acquire at Items with multiple Records."""
    sem.call("FindHoles", "A")
    sem.call("MakeNavPointsAtHoles")
    sem.call("UseHoleVectorsForMulti", 0)
    sem.call("SetMultishotParams", *[-9] * 12, 3, 2)
    made = points(sem)
    good = {place for place in made if math.dist(place, (scope.x_um, scope.y_um)) < 12.0}
    for number, place in enumerate(made, start=1):
        sem.call("SetItemAcquire", number, int(place in good))
    sem.call("SetSelectedNavItem", 1)
    sem.call("CombineHolesToMulti", 2)
    holes, items, records = sem.numbers("ReportNumHoleAcquire", least=3)
    assert holes == records == len(good)
    assert items < len(good) / 2
    sem.call("UndoHoleCombining")
    assert sorted(points(sem)) == sorted(made)
    sem.call("SetSelectedNavItem", 1)
    sem.call("CombineHolesToMulti", 2)
    sem.call("NavAcqAtEndUseParams", "F")
    sem.call("SetNavAcqAtEndParams", "prim", 4)
    sem.call("StartNavAcquireAtEnd")
    sem.exit_control()
    _until_free(sem)
    exposed = [(x, y) for _, x, y, _ in scope.ledger]
    assert len(exposed) == len(good)
    assert off(scope, exposed) < 0.5
    assert sem.numbers("ReportNumNavAcquire", least=2) == (0, 0)


def _until_free(sem: SerialEMClient) -> None:
    from drivers.serialem.errors import BusyError

    for _ in range(100):
        try:
            sem.call("Echo", "free?")
        except BusyError:
            continue
        return
    raise AssertionError("SerialEM stayed busy")


def test_a_combined_item_goes_through_a_navigator_file(sem: SerialEMClient) -> None:
    sem.call("FindHoles", "A")
    sem.call("MakeNavPointsAtHoles")
    sem.call("UseHoleVectorsForMulti", 0)
    sem.call("SetMultishotParams", *[-9] * 12, 3, 3)
    sem.call("CombineHolesToMulti", 0)
    before = sem.numbers("ReportNumHoleAcquire", least=3)
    sem.call("SaveNavigator", "C:\\combined.nav")
    sem.call("CloseNavigator")
    sem.call("OpenNavigator", "C:\\combined.nav")
    assert sem.numbers("ReportNumHoleAcquire", least=3) == before


def test_patterns_hold_every_point_once_and_skip_what_is_missing() -> None:
    first, second = (2.0, 0.3), (-0.3, 2.0)
    lattice = [(i * first[0] + j * second[0], i * first[1] + j * second[1]) for j in range(4) for i in range(5)]
    chosen = [place for n, place in enumerate(lattice) if n not in (3, 11)] + [(30.7, 1.1)]
    patterns = combine(chosen, first, second, 3, 3)
    members = sorted(number for pattern in patterns for number in pattern.members)
    assert members == list(range(len(chosen)))
    for pattern in patterns:
        shots = {
            (pattern.centre_um[0] + dx, pattern.centre_um[1] + dy)
            for place, (dx, dy) in offsets(first, second, 3, 3).items()
            if place not in pattern.skipped
        }
        assert len(shots) == len(pattern.members)
        for number in pattern.members:
            assert min(math.dist(chosen[number], shot) for shot in shots) < 1e-6
