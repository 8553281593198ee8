"""The driver's ledger: what was begun is never done again, also after the driver died."""

import threading
from pathlib import Path

import pytest

from agent.messages import Command, CommandResult, ErrorKind, Expose, Focus
from drivers.ledger import Ledger

SHOT = Command(
    command_id="C000001",
    session_id="night",
    epoch=1,
    timeout_s=10.0,
    work=Expose(area_id="G1-S001-H001", x_um=0.0, y_um=0.0, dose_e_per_a2=40.0),
)
FOCUS = Command(
    command_id="C000002",
    session_id="night",
    epoch=1,
    timeout_s=10.0,
    work=Focus(area_id="G1-S001", x_um=0.0, y_um=0.0, defocus_um=1.0),
)


def result(command: Command, **fields: object) -> CommandResult:
    values = {"command_id": command.command_id, "session_id": command.session_id, "status": "done"}
    return CommandResult(**(values | fields))  # type: ignore[arg-type]


def again(ledger: Ledger, path: Path) -> Ledger:
    """The ledger after the driver has died and begun again."""
    ledger.close()
    return Ledger(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ledger.sqlite"


def test_a_command_is_known_from_its_begin_and_its_result_from_its_end(path: Path) -> None:
    ledger = Ledger(path)
    assert not ledger.known(SHOT)
    ledger.begin(SHOT)
    assert ledger.known(SHOT)
    assert ledger.result(SHOT) is None
    ended = result(SHOT, error=ErrorKind.DRIFT, message="12 nm/s", dose_e_per_a2=38.5, elapsed_s=2.0)
    ledger.end(ended)
    assert ledger.result(SHOT) == ended
    assert not ledger.known(FOCUS)
    ledger.close()


def test_begun_without_an_end_counts_as_unknown_after_a_restart(path: Path) -> None:
    ledger = Ledger(path)
    ledger.begin(SHOT)
    ledger = again(ledger, path)
    assert ledger.known(SHOT)
    (told,) = ledger.untaken("night")
    assert (told.command_id, told.status) == ("C000001", "unknown")
    assert "driver ended while this was under way" in told.message
    ledger.close()


def test_results_are_told_until_they_are_taken_and_survive_a_restart(path: Path) -> None:
    ledger = Ledger(path)
    for command in (SHOT, FOCUS):
        ledger.begin(command)
        ledger.end(result(command))
    ledger.take("night", "C000001")
    ledger = again(ledger, path)
    assert [told.command_id for told in ledger.untaken("night")] == ["C000002"]
    assert ledger.untaken("another night") == []
    assert len(ledger.untaken()) == 1
    assert ledger.result(SHOT) == result(SHOT)
    ledger.close()


def test_the_dose_of_an_area_counts_from_the_begin_and_is_put_right_at_the_end(path: Path) -> None:
    ledger = Ledger(path)
    area = SHOT.work.area_id  # type: ignore[union-attr]
    assert ledger.dose("night", area) == 0.0
    ledger.begin(SHOT)
    ledger.begin(SHOT)
    assert ledger.dose("night", area) == 40.0
    ledger = again(ledger, path)
    assert ledger.dose("night", area) == 40.0, "nobody knows, so it counts"
    ledger.end(result(SHOT, dose_e_per_a2=12.5))
    assert ledger.dose("night", area) == 12.5
    assert ledger.dose("another night", area) == 0.0
    ledger.close()


def test_the_same_number_in_another_session_is_another_command(path: Path) -> None:
    ledger = Ledger(path)
    ledger.begin(SHOT)
    other = Command(command_id="C000001", session_id="next", epoch=1, timeout_s=1.0, work=SHOT.work)
    assert not ledger.known(other)
    ledger.close()


def test_a_dropped_command_never_begins_and_what_was_begun_keeps_its_end(path: Path) -> None:
    ledger = Ledger(path)
    never = ledger.drop("night", "C000009")
    assert (never.status, never.dose_e_per_a2) == ("cancelled", 0.0)
    assert ledger.known(Command(command_id="C000009", session_id="night", epoch=1, timeout_s=1.0, work=FOCUS.work))
    ledger.begin(SHOT)
    ledger.end(result(SHOT))
    assert ledger.drop("night", "C000001") == result(SHOT)
    ledger.begin(FOCUS)
    assert ledger.drop("night", "C000002").status == "unknown"
    ledger.close()


def test_two_threads_may_write_at_once(path: Path) -> None:
    ledger = Ledger(path)
    problems: list[Exception] = []

    def work(thread: int) -> None:
        try:
            for n in range(20):
                command = Command(
                    command_id=f"T{thread}-{n}", session_id="night", epoch=1, timeout_s=1.0, work=SHOT.work
                )
                ledger.begin(command)
                ledger.end(result(command))
                ledger.take("night", command.command_id)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert ledger.untaken() == []
    ledger.close()
