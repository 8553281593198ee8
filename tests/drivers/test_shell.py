"""The shell round every adapter: done once, refused outside, safe in silence, nothing lost on a bad link."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import control_messages as say
from agent import wire
from agent.messages import (
    Accepted,
    AnyWork,
    Cancel,
    Command,
    CommandResult,
    ErrorKind,
    Expose,
    Frame,
    Goodbye,
    Goto,
    Heartbeat,
    Hello,
    Park,
    Refused,
    Release,
    Safe,
    ScopeState,
    Stage,
    Taken,
    Targets,
)
from agent.session import events as ev
from agent.settings import EnvelopeSettings
from drivers.base import CancelledWork, Desk, Shot, WorkError
from drivers.ledger import Ledger
from drivers.shell import Shell
from simulators.link import FaultyLink
from tests.helpers import RawDaemon, ask, image_of, running, settings_in, until

IMAGE = image_of()
SHOT = Expose(area_id="G1-S001-H001", x_um=1.0, y_um=2.0, dose_e_per_a2=40.0)


def image(**fields: Any) -> Shot:
    values: dict[str, Any] = {"level": "high", "pixel_size_angstrom": 2.0, "stage": Stage()}
    return Shot(IMAGE, **(values | fields))


class Bench:
    """Hooks that note what they are asked to do; a test may put its own ``act`` in."""

    name, software, can_pilot = "bench", "a test bench", True

    def __init__(self) -> None:
        self.done: list[AnyWork] = []
        self.safe: list[str] = []
        self.answers: list[Targets] = []
        self.act: Callable[[AnyWork, Desk], float | None] = lambda work, desk: None
        self.stage = Stage()
        self.safe_fails = 0

    def state(self) -> ScopeState:
        return ScopeState(stage=self.stage, grid_id="G1")

    def carry_out(self, work: AnyWork, desk: Desk) -> float | None:
        self.done.append(work)
        return self.act(work, desk)

    def make_safe(self, why: str) -> None:
        if self.safe_fails:
            self.safe_fails -= 1
            raise OSError("the microscope does not answer")
        self.safe.append(why)

    def answered(self, targets: Targets) -> None:
        self.answers.append(targets)
        raise RuntimeError("a hook with a defect")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.shell.RESEND_AFTER_S", 0.2)
    monkeypatch.setattr("drivers.deliveries.RESEND_AFTER_S", 0.2)
    monkeypatch.setattr("drivers.shell.RESEND_S", 0.1)
    monkeypatch.setattr("drivers.shell.HELLO_EVERY_S", 0.1)


@asynccontextmanager
async def at(
    endpoint: str, folder: Path, bench: Bench | None = None, envelope: EnvelopeSettings | None = None
) -> AsyncIterator[tuple[Shell, Bench]]:
    """A running shell round a bench."""
    bench = bench or Bench()
    shell = Shell(bench, endpoint, ledger=folder / "ledger.sqlite", envelope=envelope or EnvelopeSettings())
    task = asyncio.create_task(shell.run())
    await asyncio.sleep(0)
    try:
        yield shell, bench
    finally:
        shell.stop()
        await asyncio.wait_for(task, 10)


@pytest.fixture
async def daemon() -> AsyncIterator[RawDaemon]:
    daemon = RawDaemon()
    yield daemon
    daemon.close()


def order(work: AnyWork, number: int = 1, **fields: Any) -> Command:
    values = {"command_id": f"C{number:06d}", "session_id": "night", "epoch": 1, "timeout_s": 5.0}
    return Command(work=work, **(values | fields))


# ---------------------------------------------------------------------------------------------- commands


async def test_a_command_asked_for_twice_is_done_once_and_answered_twice(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        await daemon.welcome()
        for _ in range(2):
            await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
            assert (await daemon.expect(CommandResult)).status == "done"
            await daemon.send(Accepted(about="C000001", seq=1))
        assert len(bench.done) == 1


async def test_a_command_asked_for_again_while_it_runs_is_done_once_and_never_told_unknown(
    daemon: RawDaemon, tmp_path: Path
) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = lambda work, desk: desk.wait(0.3)
        await daemon.welcome()
        for _ in range(30):
            await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
            await asyncio.sleep(0.02)
        assert (await daemon.expect(CommandResult)).status == "done"
        await daemon.send(Accepted(about="C000001", seq=1))
        told = {one.status for one in daemon.heard if isinstance(one, CommandResult)}
        assert told == {"done"}
        assert len(bench.done) == 1


async def test_a_command_that_comes_twice_at_once_is_done_once_and_never_told_unknown(
    daemon: RawDaemon, tmp_path: Path
) -> None:
    async with at(daemon.endpoint, tmp_path) as (shell, bench):
        ask = shell.ledger.result

        def slow(command: Command) -> CommandResult | None:
            found = ask(command)
            time.sleep(0.2)  # meanwhile the first one begins
            return found

        shell.ledger.result = slow  # type: ignore[method-assign]
        await daemon.welcome()
        for _ in range(2):
            await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
        for _ in range(5):  # told again, as nobody accepts it
            assert (await daemon.expect(CommandResult)).status == "done"
        assert len(bench.done) == 1


async def test_a_command_of_an_old_epoch_or_another_session_is_ignored(daemon: RawDaemon, tmp_path: Path) -> None:
    daemon.epoch = 3
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        await daemon.welcome()
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0), epoch=2))
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0), epoch=3, session_id="another"))
        await daemon.nothing(CommandResult)
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0), epoch=3))
        assert (await daemon.expect(CommandResult)).status == "done"
        assert len(bench.done) == 1


def welcomed(shell: Shell) -> tuple[str, int] | None:
    return None if shell.welcome is None else (shell.welcome.session_id, shell.welcome.epoch)


async def test_a_new_session_may_begin_with_a_lower_epoch_and_an_old_welcome_is_ignored(
    daemon: RawDaemon, tmp_path: Path
) -> None:
    daemon.epoch = 5
    async with at(daemon.endpoint, tmp_path) as (shell, _):
        await daemon.welcome()
        await until(lambda: shell.welcome is not None)
        for session, epoch, known in (("night", 4, ("night", 5)), ("morning", 1, ("morning", 1))):
            daemon.session_id, daemon.epoch = session, epoch
            await daemon.send(Refused(reason="say hello first", retry=True, about="hello"))
            await daemon.welcome()
            await until(lambda known=known: welcomed(shell) == known)
            await asyncio.sleep(0.1)  # what is to be ignored may still be on its way
            assert welcomed(shell) == known


async def test_the_drivers_own_envelope_refuses_whatever_the_daemon_allows(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path, envelope=EnvelopeSettings(stage_x_um=(-10.0, 10.0))) as (_, bench):
        await daemon.welcome()
        await daemon.send(order(Goto(x_um=11.0, y_um=2.0)))
        refused = await daemon.expect(CommandResult)
        assert (refused.status, refused.error, refused.dose_e_per_a2) == ("refused", ErrorKind.OUTSIDE_ENVELOPE, 0.0)
        assert "driver's own limits: C000001: stage x 11 µm is outside -10…10 µm" in refused.message
        assert bench.done == []


async def test_the_ledgers_dose_counts_at_the_drivers_own_interlock(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = lambda work, desk: 40.0
        await daemon.welcome()
        for number, status in ((1, "done"), (2, "done"), (3, "refused")):
            await daemon.send(order(SHOT, number))
            while (told := await daemon.expect(CommandResult)).command_id != f"C{number:06d}":
                pass
            await daemon.send(Accepted(about=told.command_id, seq=number))
            assert told.status == status
        assert len(bench.done) == 2


@pytest.mark.parametrize(
    ("problem", "status", "error", "says"),
    [
        (WorkError(ErrorKind.DRIFT, "12 nm/s", 0.0), "failed", ErrorKind.DRIFT, "12 nm/s"),
        (RuntimeError("oops"), "failed", ErrorKind.SCRIPT, "RuntimeError: oops"),
        (CancelledWork(), "cancelled", None, "cancelled while under way"),
    ],
)
async def test_a_hook_that_fails_is_told_with_its_kind_and_the_next_command_is_done(
    daemon: RawDaemon, tmp_path: Path, problem: Exception, status: str, error: ErrorKind | None, says: str
) -> None:
    def act(work: AnyWork, desk: Desk) -> None:
        raise problem

    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = act
        await daemon.welcome()
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
        told = await daemon.expect(CommandResult)
        assert (told.status, told.error) == (status, error)
        assert says in told.message
        await daemon.send(Accepted(about="C000001", seq=1))
        bench.act = lambda work, desk: None
        await daemon.send(order(Park(), 2))
        assert (await daemon.expect(CommandResult)).status == "done"


@pytest.mark.parametrize(("work", "status"), [(SHOT, "unknown"), (Goto(x_um=0.0, y_um=0.0), "failed")])
async def test_work_that_takes_too_long_is_told_and_cancelled(
    daemon: RawDaemon, tmp_path: Path, work: AnyWork, status: str
) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = lambda work, desk: desk.wait(20)
        await daemon.welcome()
        await daemon.send(order(work, timeout_s=0.2))
        told = await daemon.expect(CommandResult)
        assert (told.status, told.error) == (status, ErrorKind.COMMAND_TIMEOUT)


async def test_a_cancel_ends_what_runs_and_what_never_came_and_what_waits(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = lambda work, desk: desk.wait(20)
        await daemon.welcome()
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0), 1))
        await until(lambda: bench.done)
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0), 2))
        for number in (2, 3, 1):
            await daemon.send(Cancel(command_id=f"C{number:06d}", epoch=1))
        told: dict[str, str] = {}
        while len(told) < 3:
            one = await daemon.expect(CommandResult)
            told[one.command_id] = one.status
            await daemon.send(Accepted(about=one.command_id, seq=1))
        assert set(told.values()) == {"cancelled"}
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0), 3))
        assert (await daemon.expect(CommandResult)).status == "cancelled"
        assert len(bench.done) == 1, "what was cancelled never begins"


async def test_a_cancel_after_the_image_tells_the_dose(daemon: RawDaemon, tmp_path: Path) -> None:
    def act(work: AnyWork, desk: Desk) -> None:
        desk.hand_in(image())
        desk.wait(20)

    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = act
        await daemon.welcome()
        await daemon.send(order(SHOT))
        frame = await daemon.expect(Frame)
        await daemon.send(Accepted(about=frame.frame_id, seq=1))
        await daemon.send(Cancel(command_id="C000001", epoch=1))
        told = await daemon.expect(CommandResult)
        assert (told.status, told.dose_e_per_a2) == ("cancelled", 40.0)


async def test_a_driver_that_stops_in_good_order_tells_how_its_work_ended(
    daemon: RawDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.shell.GOODBYE_S", 60.0)  # however busy the machine
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = lambda work, desk: desk.wait(20)
        await daemon.welcome()
        await daemon.send(order(SHOT))
        await until(lambda: bench.done)
    async with at(daemon.endpoint, tmp_path):
        while not (hello := await daemon.welcome()).results:
            pass
        assert [(one.status, one.dose_e_per_a2) for one in hello.results] == [("cancelled", 0.0)]


async def test_after_the_drivers_death_its_work_is_told_unknown_and_not_done_again(
    daemon: RawDaemon, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.begin(order(SHOT))
    ledger.close()
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        hello = await daemon.welcome()
        assert [(one.command_id, one.status) for one in hello.results] == [("C000001", "unknown")]
        await daemon.send(order(SHOT))
        assert (await daemon.expect(CommandResult)).status == "unknown"
        assert bench.done == []


# ---------------------------------------------------------------------------------------------- safe state


async def test_silence_leads_to_the_safe_state_and_only_a_new_welcome_leads_on(tmp_path: Path) -> None:
    daemon = RawDaemon(safe_after_s=0.3)
    async with at(daemon.endpoint, tmp_path) as (shell, bench):
        bench.act = lambda work, desk: desk.wait(20)
        await daemon.welcome()
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
        await until(lambda: bench.safe)
        assert "the daemon was silent" in bench.safe[0]
        assert (await daemon.expect(CommandResult)).status == "cancelled"
        bench.act = lambda work, desk: None
        # the daemon is heard again, and never noticed that it was not
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0), 2))
        while (told := await daemon.expect(CommandResult)).command_id != "C000002":
            pass
        assert (told.status, told.message) == ("cancelled", "the driver is in its safe state")
        await daemon.welcome()
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0), 3))
        while (told := await daemon.expect(CommandResult)).command_id != "C000003":
            pass
        assert told.status == "done"
        assert not shell.in_safe_state
    daemon.close()


async def test_an_ordered_safe_state_ends_with_a_release(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        await daemon.welcome()
        await daemon.send(Safe(why="fault", epoch=1))
        await until(lambda: bench.safe == ["fault"])
        beats = [await daemon.expect(Heartbeat) for _ in range(3)]
        assert beats[-1].state is not None
        assert beats[-1].state.in_safe_state
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
        assert (await daemon.expect(CommandResult)).status == "cancelled"
        await daemon.send(Accepted(about="C000001", seq=1))
        await daemon.send(Release(epoch=1))
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0), 2))
        assert (await daemon.expect(CommandResult)).status == "done"


async def test_a_safe_state_that_cannot_be_reached_is_tried_again(daemon: RawDaemon, tmp_path: Path) -> None:
    bench = Bench()
    bench.safe_fails = 3
    async with at(daemon.endpoint, tmp_path, bench) as (shell, _):
        await daemon.welcome()
        await daemon.send(Safe(why="fault", epoch=1))
        await until(lambda: bench.safe)
        await until(lambda: shell.in_safe_state)


async def test_a_driver_that_ends_says_goodbye_and_leaves_the_microscope_safe(
    daemon: RawDaemon, tmp_path: Path
) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        await daemon.welcome()
    await daemon.expect(Goodbye)
    assert bench.safe == ["the driver ends"]


@pytest.mark.parametrize("how", ["order", "silence", "end"])
async def test_a_hook_that_opens_the_beam_after_it_was_made_safe_does_not_leave_it_open(
    tmp_path: Path, how: str
) -> None:
    blanked: list[bool] = []
    bench = Bench()

    def act(work: AnyWork, desk: Desk) -> None:
        while not bench.safe:  # a step that cannot be cut short
            time.sleep(0.01)
        blanked.append(False)

    def make_safe(why: str) -> None:
        bench.safe.append(why)
        blanked.append(True)

    bench.act, bench.make_safe = act, make_safe  # type: ignore[method-assign]
    daemon = RawDaemon(safe_after_s=0.3 if how == "silence" else 30.0)
    async with at(daemon.endpoint, tmp_path, bench):
        await daemon.welcome()
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
        await until(lambda: bench.done)
        if how == "order":
            await daemon.send(Safe(why="fault", epoch=1))
        if how != "end":
            await daemon.expect(CommandResult)
            assert blanked[0]  # while it was at work; perhaps twice
            assert blanked[blanked.index(False) :] == [False, True]
    assert blanked[-1]
    daemon.close()


async def test_a_driver_ends_in_good_order_where_no_daemon_ever_was(tmp_path: Path) -> None:
    async with at("tcp://127.0.0.1:9", tmp_path) as (_, bench):
        await asyncio.sleep(0.3)
    assert bench.safe == ["the driver ends"]


async def test_a_person_at_the_console_ends_what_runs_and_the_daemon_is_told(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path) as (shell, bench):
        bench.act = lambda work, desk: desk.wait(20)
        await daemon.welcome()
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
        await until(lambda: bench.done)
        shell.taken_over("STOP pressed")
        heard = [await daemon.expect(Taken, CommandResult) for _ in range(2)]
        assert {type(one) for one in heard} == {Taken, CommandResult}


# ---------------------------------------------------------------------------------------------- frames


async def advise(shell: Shell, **fields: Any) -> Frame:
    return await asyncio.to_thread(shell.advise, image(**fields))


async def test_a_frame_is_sent_again_until_it_is_on_disk(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path) as (shell, _):
        await daemon.welcome()
        await until(lambda: shell.welcome)
        handed = asyncio.create_task(advise(shell))
        frames = [await daemon.expect(Frame) for _ in range(3)]
        assert len({frame.frame_id for frame in frames}) == 1
        await daemon.send(Refused(reason="queue is full", retry=True, about=frames[0].frame_id))
        await daemon.expect(Frame)
        assert not handed.done()
        await daemon.send(Accepted(about=frames[0].frame_id, seq=1))
        assert await handed == frames[0]
        assert np.array_equal(wire.view_pixels(frames[0], daemon.pixels[frames[0].frame_id]), IMAGE)


async def test_a_frame_refused_for_good_is_the_works_error(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = lambda work, desk: desk.hand_in(image()) and None
        await daemon.welcome()
        await daemon.send(order(SHOT))
        frame = await daemon.expect(Frame)
        assert (frame.frame_id, frame.command_id, frame.area_id) == ("C000001-F001", "C000001", SHOT.area_id)
        await daemon.send(Refused(reason="its pixels are 0 µm", about=frame.frame_id))
        told = await daemon.expect(CommandResult)
        assert (told.status, told.error) == ("failed", ErrorKind.FRAME_WRONG)
        assert "its pixels are 0 µm" in told.message


@pytest.mark.parametrize("bad", [{"pixel_size_angstrom": float("nan")}, {"stage": Stage(x_um=1e9)}])
async def test_an_image_with_impossible_numbers_is_the_works_error_and_nothing_is_sent(
    daemon: RawDaemon, tmp_path: Path, bad: dict[str, Any]
) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = lambda work, desk: desk.hand_in(image(**bad)) and None
        await daemon.welcome()
        await daemon.send(order(SHOT))
        told = await daemon.expect(CommandResult)
        assert told.error == ErrorKind.FRAME_WRONG
        assert "cannot be sent" in told.message
        assert not daemon.pixels


async def test_a_driver_with_a_frame_that_nobody_takes_can_be_stopped(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        bench.act = lambda work, desk: desk.hand_in(image()) and None
        await daemon.welcome()
        await daemon.send(order(SHOT))
        await daemon.expect(Frame)
    assert bench.safe[0] == "the driver ends"


async def test_a_hook_for_answers_that_fails_ends_nothing(daemon: RawDaemon, tmp_path: Path) -> None:
    async with at(daemon.endpoint, tmp_path) as (_, bench):
        await daemon.welcome()
        await daemon.send(Targets(frame_id="f", level="low", targets=()))
        await until(lambda: bench.answers)
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
        assert (await daemon.expect(CommandResult)).status == "done"


async def test_a_result_is_told_again_until_it_is_on_disk_and_at_the_next_hello(
    daemon: RawDaemon, tmp_path: Path
) -> None:
    async with at(daemon.endpoint, tmp_path) as (shell, bench):
        await daemon.welcome()
        await daemon.send(order(Goto(x_um=1.0, y_um=2.0)))
        told = {await daemon.expect(CommandResult) for _ in range(3)}
        assert len(told) == 1
        await daemon.send(Refused(reason="say hello first", retry=True, about="hello"))
        hello = await daemon.expect(Hello)
        assert [one.command_id for one in hello.results] == ["C000001"]
        await daemon.send(Accepted(about="C000001", seq=1))
        await until(lambda: not shell._untaken)
        for _ in range(10):  # what had left before comes before new heartbeats
            await daemon.expect(Heartbeat)
        await daemon.nothing(CommandResult, seconds=0.5)
        assert len(bench.done) == 1


# ---------------------------------------------------------------------------------------------- a bad link


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[tuple[Any, FaultyLink, Shell, Bench]]:
    """A real daemon, a bad link, and a shell round a bench; paused, so that only an operator's moves are asked for."""
    settings = settings_in(tmp_path, link__lost_after_s=1.0, link__safe_after_s=0.6, session__autonomy="suggest")
    async with running(settings) as daemon:
        link = FaultyLink(daemon.endpoints["drivers"])
        async with at(link.endpoint, tmp_path) as (shell, bench):
            await until(lambda: shell.welcome)
            await ask(daemon, say.Pause(now=True))
            yield daemon, link, shell, bench
        await asyncio.to_thread(link.close)


def ended(daemon: Any) -> list[str]:
    events = (ev.decode_event(row.body) for row in daemon.core.journal.replay())
    return [event.result.status for event in events if isinstance(event, ev.CommandEnded)]


async def test_a_cut_makes_the_microscope_safe_holds_the_session_and_both_go_on_after_it(world: Any) -> None:
    daemon, link, shell, bench = world
    link.cut = True
    await until(lambda: bench.safe)
    await until(lambda: "link" in daemon.core.state.suspensions)
    link.cut = False
    await until(lambda: "link" not in daemon.core.state.suspensions)
    await until(lambda: not shell.in_safe_state)
    await ask(daemon, say.GoTo(x_um=5.0, y_um=6.0))
    await until(lambda: ended(daemon) == ["done"])
    assert bench.done == [Goto(x_um=5.0, y_um=6.0)]


async def test_a_cut_of_which_only_the_driver_knows_is_over_when_it_is_over(world: Any) -> None:
    daemon, link, shell, _ = world
    link.lose_from_daemon = True
    await until(lambda: shell.in_safe_state)
    assert "link" not in daemon.core.state.suspensions
    link.lose_from_daemon = False
    await until(lambda: not shell.in_safe_state)
    await ask(daemon, say.GoTo(x_um=5.0, y_um=6.0))
    await until(lambda: ended(daemon) == ["done"])


@pytest.mark.parametrize("direction", ["lose_from_daemon", "lose_to_daemon"])
async def test_a_command_or_result_that_the_link_loses_is_told_again_and_done_once(
    world: Any, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.door.ASK_AGAIN_S", 0.2)
    daemon, link, _, bench = world
    setattr(link, direction, True)
    await ask(daemon, say.GoTo(x_um=5.0, y_um=6.0))
    await asyncio.sleep(0.3)
    setattr(link, direction, False)
    await until(lambda: ended(daemon) == ["done"])
    assert bench.done == [Goto(x_um=5.0, y_um=6.0)]


async def test_a_frame_that_the_link_loses_doubles_and_delays_is_journalled_once(world: Any) -> None:
    daemon, link, shell, _ = world
    link.double_frames, link.delay_frames_s, link.lose_from_daemon = True, 0.05, True
    handed = asyncio.create_task(advise(shell, level="low", pixel_size_angstrom=6000.0))
    await asyncio.sleep(0.4)
    link.lose_from_daemon = False
    frame = await handed
    kinds = [row.kind for row in daemon.core.journal.replay()]
    assert kinds.count("frame_received") == 1
    assert await daemon.core.find(f"frame:{frame.frame_id}")


async def test_a_result_is_told_to_the_daemon_that_has_started_again(tmp_path: Path) -> None:
    with_ports = settings_in(tmp_path, session__autonomy="suggest")
    release = threading.Event()
    async with running(with_ports) as daemon:
        endpoint = daemon.endpoints["drivers"]
        shell_at = at(endpoint, tmp_path)
        shell, bench = await shell_at.__aenter__()
        bench.act = lambda work, desk: release.wait(10) and None
        await until(lambda: shell.welcome)
        await ask(daemon, say.Pause(now=True))
        await ask(daemon, say.GoTo(x_um=5.0, y_um=6.0))
        await until(lambda: bench.done)
    release.set()
    async with running(settings_in(tmp_path, session__autonomy="suggest", endpoints__drivers=endpoint)) as daemon:
        assert daemon.core.state.epoch == 2
        await until(lambda: ended(daemon) == ["done"])
        assert len(bench.done) == 1
        await shell_at.__aexit__(None, None, None)
