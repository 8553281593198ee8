"""A person at the microscope, a SerialEM that goes away, a microscope that refuses: nothing is exposed twice."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.control import ControlClient
from agent.control_messages import Accept, Clear, EmergencyStop, Pause, Resume
from agent.daemon import Daemon
from agent.session import events as ev
from agent.settings import Settings
from simulators.faults import Fault
from simulators.serialem.disturbances import Hold
from simulators.serialem.server import SerialEMServer
from tests.end_to_end.live import daemon, events_of, wait_for
from tests.end_to_end.scene import quick_settings
from tests.end_to_end.serialem_scene import Cable, Rig, driven, microscope
from tests.ports import free_endpoints

pytestmark = pytest.mark.timeout(90)


class Night:
    """A session under way, with everything that a test may want to disturb."""

    def __init__(
        self, folder: Path, settings: Settings, running: Daemon, rig: Rig, cable: Cable, held: Hold | None
    ) -> None:
        self.folder, self.settings, self.daemon, self.rig, self.cable = folder, settings, running, rig, cable
        self.server: SerialEMServer = rig.server
        self._held = held

    @property
    def held(self) -> Hold:
        """The command that this test holds in its middle."""
        assert self._held is not None
        return self._held

    @property
    def phase(self) -> str:
        return self.daemon.core.state.phase

    @property
    def held_by(self) -> set[str]:
        return set(self.daemon.core.state.suspensions)

    def told(self) -> str:
        return "\n".join(repr(event)[:300] for event in events_of(self.folder / "short")[-8:])

    def wait(self, what: Any, seconds: float = 40.0) -> None:
        wait_for(what, seconds, self.told)

    def ask(self, verb: Any) -> None:
        with ControlClient(self.settings.endpoints.control) as operator:
            operator.ask(verb)

    def finish(self) -> None:
        """Let it run to its end."""
        self.wait(lambda: self.phase in ("stopped", "fault"))
        assert self.phase == "stopped", self.told()
        assert self.rig.no_place_twice()

    def nothing_is_touched(self, seconds: float = 0.6) -> None:
        before = list(self.rig.log)
        time.sleep(seconds)
        assert self.rig.log == before, self.rig.log[len(before) :]
        assert not self.server.control.on


EXPOSURE = ("Record", "AutoFocus")  # at high magnification: those of the atlas come before any focus


@contextmanager
def night(
    tmp_path: Path, *, hold: tuple[str, str] | str = "", driver: dict[str, Any] | None = None, **changes: Any
) -> Iterator[Night]:
    """A session with everything around it; ``hold`` names a command to be held, and one that must have run before."""
    server = {name: changes.pop(name) for name in ("version", "faults") if name in changes}
    name, after = (hold, "") if isinstance(hold, str) else hold
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), **changes)
    with (
        microscope(**server) as serialem,
        daemon(settings) as running,
        closing(Cable(serialem.port)) as cable,
    ):
        held = serialem.hold(name, after=after) if name else None
        ledger = tmp_path / "ledger.sqlite"
        with driven(settings.endpoints.drivers, serialem, ledger, cable.port, **(driver or {})) as rig:
            try:
                yield Night(tmp_path, settings, running, rig, cable, held)
            finally:
                if held is not None:
                    held.go()


# -------------------------------------------------------------------------------------------------- a person


def test_stop_in_the_middle_of_an_exposure_lets_go_and_never_exposes_there_again(tmp_path: Path) -> None:
    with night(tmp_path, hold=EXPOSURE) as it:
        it.held.wait()
        it.server.press_stop()
        it.held.go()
        it.wait(lambda: it.phase == "paused" and not it.daemon.core.state.outstanding)
        it.nothing_is_touched()
        assert not it.rig.scope.beam_blanked, "the person's microscope was changed"
        notices = [e.text for e in events_of(tmp_path / "short") if isinstance(e, ev.Noticed)]
        assert any("taken over" in text and "STOP" in text for text in notices), notices
        it.ask(Resume())
        it.finish()
    assert len(it.rig.scope.ledger) == 2


@pytest.mark.parametrize("version", ["4.0", "4.2"])
def test_stop_between_two_commands_lets_go(tmp_path: Path, version: str) -> None:
    """From 4.1 the next request is told of it; 4.0 says nothing, and the session goes on."""
    with night(tmp_path, version=version, hold="Eucentricity") as it:
        it.held.wait()
        it.server.press_stop_between()
        it.held.go()
        if version == "4.2":
            it.wait(lambda: it.phase == "paused")
            it.nothing_is_touched()
            it.ask(Resume())
        it.finish()
    paused = [e for e in events_of(tmp_path / "short") if isinstance(e, ev.PhaseChanged) and e.phase == "paused"]
    assert len(paused) == (version == "4.2"), paused
    assert len(it.rig.scope.ledger) == 2


def test_a_busy_serialem_is_left_alone_until_told(tmp_path: Path) -> None:
    """The operator runs something in SerialEM while the driver has given control back."""
    with night(tmp_path, session__autonomy="approve") as it:
        it.wait(lambda: it.phase == "idle")
        it.wait(lambda: not it.server.control.on)
        it.server.set_busy(True)
        area = next(iter(it.daemon.core.state.grid.squares))  # type: ignore[union-attr]
        it.ask(Accept(area_ids=(area,)))
        it.wait(lambda: it.phase == "paused")
        it.nothing_is_touched()
        it.server.set_busy(False)
        it.nothing_is_touched()
        it.ask(Resume())
        it.wait(lambda: len(it.rig.scope.ledger) == 2)
    assert it.rig.no_place_twice()


def test_an_operators_pause_gives_control_back(tmp_path: Path) -> None:
    with night(tmp_path, hold="Eucentricity") as it:
        it.held.wait()
        it.ask(Pause(now=True))
        it.held.go()
        it.wait(lambda: not it.server.control.on and not it.daemon.core.state.outstanding)
        it.ask(Resume())
        it.finish()


def test_an_emergency_stop_makes_safe_and_clear_leads_on(tmp_path: Path) -> None:
    with night(tmp_path, hold=EXPOSURE) as it:
        it.held.wait()
        it.ask(EmergencyStop(why="smoke"))
        it.wait(lambda: it.phase == "fault")
        it.held.go()
        it.wait(lambda: it.rig.scope.beam_blanked and not it.rig.scope.valves_open)
        it.wait(lambda: not it.daemon.core.state.outstanding)
        it.ask(Clear())
        it.ask(Resume())
        it.finish()


# -------------------------------------------------------------------------------------------------- a silent daemon


def test_a_silent_daemon_leads_to_the_safe_state_and_a_new_one_goes_on(tmp_path: Path) -> None:
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), link__safe_after_s=0.5)
    with microscope() as serialem, ExitStack() as later:
        held = serialem.hold("AutoFocus")
        with daemon(settings):
            rig = later.enter_context(driven(settings.endpoints.drivers, serialem, tmp_path / "ledger.sqlite"))
            later.callback(held.go)
            held.wait()
        wait_for(lambda: rig.shell._silent, 20)
        held.go()
        wait_for(lambda: rig.scope.beam_blanked and not rig.scope.valves_open, 10)
        wait_for(lambda: not serialem.control.on, 10)
        assert not rig.scope.ledger
        with daemon(settings) as running:
            wait_for(lambda: running.core.state.phase in ("stopped", "fault"), 30)
            assert running.core.state.phase == "stopped"
            assert running.core.state.exposures == 2, "valves that the driver closed were not opened again"
    assert rig.no_place_twice()


def test_a_person_who_took_over_is_left_alone_by_a_silent_daemon_and_an_ending_driver(tmp_path: Path) -> None:
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), link__safe_after_s=0.5)
    with microscope() as serialem, ExitStack() as later:
        held = serialem.hold("AutoFocus")
        with daemon(settings) as running:
            rig = later.enter_context(driven(settings.endpoints.drivers, serialem, tmp_path / "ledger.sqlite"))
            later.callback(held.go)
            held.wait()
            serialem.press_stop()
            held.go()
            wait_for(lambda: running.core.state.phase == "paused" and not running.core.state.outstanding, 10)
            before = list(rig.log)
        wait_for(lambda: rig.shell._silent, 20)
    assert rig.log == before
    assert rig.scope.valves_open


# -------------------------------------------------------------------------------------------------- things


@pytest.mark.parametrize("when", ["Search", "Record", "AutoFocus"])
def test_serialem_goes_away_and_comes_back(tmp_path: Path, when: str) -> None:
    """The link breaks in the middle of a command; what may have been exposed is not exposed again."""
    with night(tmp_path, hold=EXPOSURE if when == "Record" else when) as it:
        it.held.wait()
        it.cable.pull()
        it.wait(lambda: not it.rig.hooks.client.in_control)
        assert it.phase == "collecting"
        it.held.go()
        it.cable.mend()
        it.finish()
    assert it.server.connections >= 2
    assert it.daemon.core.state.exposures + (when == "Record") == 2
    assert len(it.rig.scope.ledger) == 2


def test_valves_closed_from_outside_hold_the_session_until_they_are_open(tmp_path: Path) -> None:
    with night(tmp_path, hold="AutoFocus") as it:
        it.held.wait()
        it.rig.scope.valves_open = False
        it.held.go()
        it.wait(lambda: "valves" in it.held_by)
        exposed = len(it.rig.scope.ledger)
        time.sleep(0.8)
        assert len(it.rig.scope.ledger) == exposed == 0
        assert not it.server.count("SetColumnOrGunValve"), "somebody else's valves were touched"
        it.rig.scope.valves_open = True
        it.finish()
    assert len(it.rig.scope.ledger) == 2


def test_dewars_that_fill_hold_exposures(tmp_path: Path) -> None:
    rule = [{"reading": "dewars_filling", "above": 0.5, "settle_s": 0.1}]
    with night(tmp_path, hold="AutoFocus", suspend_when=rule) as it:
        it.held.wait()
        it.server.program.surroundings.dewars_filling = True
        it.held.go()
        it.wait(lambda: "reading:dewars_filling" in it.held_by)
        time.sleep(0.5)
        assert not it.rig.scope.ledger
        it.server.program.surroundings.dewars_filling = False
        it.finish()
    assert len(it.rig.scope.ledger) == 2


def test_a_stage_that_never_arrives_ends_in_a_fault_in_the_safe_state(tmp_path: Path) -> None:
    with night(tmp_path, faults=(Fault("stuck_stage", "move", 3, 0),)) as it:
        it.wait(lambda: it.phase == "fault")
        it.wait(lambda: it.rig.scope.beam_blanked and not it.rig.scope.valves_open)
        assert "stage stopped" in it.daemon.core.state.why
        assert not it.rig.scope.ledger


def test_a_stage_move_that_is_never_answered_is_given_up_and_done_again_later(tmp_path: Path) -> None:
    limits = {"move": 2.0, "quick": 2.0}
    with night(tmp_path, hold="Search", driver={"serialem__limits_s": limits, "safety__abandon_s": 0.2}) as it:
        it.held.wait()
        it.server.never_answer("MoveStageTo")
        it.held.go()
        it.wait(lambda: any(key.startswith("stage_timeout") for key in it.daemon.core.state.attempts))
        assert "link" not in it.held_by
        it.server.answer_again("MoveStageTo")
        it.server.press_stop()  # somebody frees SerialEM
        it.finish()
    assert len(it.rig.scope.ledger) == 2


@pytest.mark.parametrize("after", [False, True], ids=["instead", "after"])
@pytest.mark.parametrize(
    "name",
    ["Record", "MoveStageTo", "Search", "AutoFocus"],
)
def test_a_script_error_costs_at_most_a_hole(tmp_path: Path, name: str, after: bool) -> None:
    """Whichever command fails, the session ends by itself, and no place is exposed twice."""
    with night(tmp_path, hold="Search" if name == "Record" else "Eucentricity") as it:
        it.held.wait()
        it.server.fail_next(name, "something went wrong", after=after)
        it.held.go()
        it.finish()
    assert it.daemon.core.state.exposures == (1 if name == "Record" else 2)
    assert len(it.rig.scope.ledger) == (1 if (name, after) == ("Record", False) else 2)
