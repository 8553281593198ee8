"""The drivers' door over real sockets: what is refused, what is journalled once, what gets which answer."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from agent import control_messages as say
from agent import wire
from agent.core import _must_be_readable
from agent.daemon import Daemon
from agent.errors import CryonautError
from agent.frames import FrameStore
from agent.journal import Draft, Journal
from agent.messages import (
    PROTOCOL,
    Accepted,
    AcquireAtlas,
    Cancel,
    Command,
    CommandResult,
    Goodbye,
    Heartbeat,
    Hello,
    Refused,
    Release,
    Safe,
    ScopeState,
    Taken,
    Targets,
)
from agent.session import events as ev
from tests.agent import samples
from tests.helpers import RawDriver, ask, frame_of, image_of, running, settings_in, until

IMAGE = image_of()
ADVISOR = {"session__mode": "advisor"}
advised = pytest.mark.parametrize("changes", [ADVISOR])


def kinds(daemon: Daemon) -> list[str]:
    return [row.kind for row in daemon.core.journal.replay()]


# ---------------------------------------------------------------------------------------------- frames


@advised
async def test_a_frame_sent_twice_is_journalled_once_and_gets_the_same_answers(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    answers = []
    for _ in range(2):
        await raw.send_frame(IMAGE, frame_id="a")
        accepted = await raw.expect(Accepted)
        answers.append((accepted, await raw.expect(Targets)))
    assert answers[0] == answers[1]
    assert answers[0][0].about == "a"
    assert kinds(daemon).count("frame_received") == 1
    assert kinds(daemon).count("squares_found") == 1


@advised
async def test_copies_that_come_before_the_first_is_on_disk_are_journalled_once(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    for _ in range(4):
        await raw.send_frame(IMAGE, frame_id="a")
    seqs = {(await raw.expect(Accepted)).seq for _ in range(4)}
    assert len(seqs) == 1
    assert kinds(daemon).count("frame_received") == 1


@advised
async def test_an_accepted_frame_is_on_disk_pixel_for_pixel(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    frame = await raw.send_frame(IMAGE, frame_id="x:1")
    seq = (await raw.expect(Accepted)).seq
    other = Journal(daemon.folder, write=False)
    (row,) = [row for row in other.replay() if row.seq == seq]
    other.close()
    event = ev.decode_event(row.body)
    assert isinstance(event, ev.FrameReceived)
    assert event.frame == frame
    assert np.array_equal(FrameStore(daemon.folder).load(event.file, frame.digest), IMAGE)


@advised
@pytest.mark.parametrize("dtype", ["|u1", "|i1", "<u2", "<i2", "<f4"])
@pytest.mark.parametrize("level", ["low", "medium", "high"])
async def test_every_pixel_type_is_taken_at_every_level(raw: RawDriver, dtype: str, level: Any) -> None:
    await raw.hello()
    await raw.send_frame(image_of(dtype), level=level)
    await raw.expect(Accepted)
    assert (await raw.expect(Targets)).level == level


@advised
async def test_two_ids_that_differ_only_in_a_colon_are_two_files(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    images = {"a:1": image_of(seed=1), "a_1": image_of(seed=2), "a.1": image_of(seed=3)}
    for frame_id, image in images.items():
        await raw.send_frame(image, frame_id=frame_id)
        await raw.expect(Accepted)
    files = {event.frame.frame_id: event.file for event in frame_events(daemon)}
    store = FrameStore(daemon.folder)
    for frame_id, image in images.items():
        assert np.array_equal(store.load(files[frame_id]), image)


def frame_events(daemon: Daemon) -> list[ev.FrameReceived]:
    events = (ev.decode_event(row.body) for row in daemon.core.journal.replay())
    return [event for event in events if isinstance(event, ev.FrameReceived)]


@advised
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3)])
async def test_a_frame_too_small_for_any_model_is_taken_and_set_aside(
    daemon: Daemon, raw: RawDriver, shape: tuple[int, int]
) -> None:
    await raw.hello()
    await raw.send_frame(image_of(shape=shape))
    await raw.expect(Accepted)
    await raw.expect(Targets)
    assert "frame_set_aside" in kinds(daemon)
    assert not daemon.core.state.pending


def bad_frames() -> list[Any]:
    good = frame_of(IMAGE, frame_id="bad")
    pixels = IMAGE.tobytes()
    plain = msgspec.to_builtins(good)
    encode = msgspec.msgpack.encode
    return [
        pytest.param([wire.encode(good), pixels[:-1]], "bytes of pixels, but", "bad", id="truncated pixels"),
        pytest.param([wire.encode(good), b""], "0 bytes of pixels", "bad", id="no bytes of pixels"),
        pytest.param([wire.encode(good), pixels + b"x"], "bytes of pixels, but", "bad", id="too many pixels"),
        pytest.param([wire.encode(good), pixels[::-1]], "digest", "bad", id="wrong digest"),
        pytest.param([wire.encode(good)], "1 parts", "bad", id="no pixel part"),
        pytest.param([wire.encode(good), pixels, b""], "3 parts", "bad", id="three parts"),
        pytest.param([b""], "Input data was truncated", "", id="nothing"),
        pytest.param([b"\x00" * 10], "Expected", "", id="zeros"),
        pytest.param([encode({"kind": "sing"})], "unknown kind", "", id="unknown kind"),
        pytest.param([encode(plain | {"pixel_size_angstrom": float("nan")}), pixels], "pixel_size", "", id="nan"),
        pytest.param([encode(plain | {"stage": {"x_um": 1e9}}), pixels], "x_um", "", id="off the stage"),
        pytest.param([bytes(wire.MAX_HEADER_BYTES + 1)], "at most", "", id="oversized header"),
        pytest.param(
            [wire.encode(msgspec.structs.replace(good, image_to_stage=(0.0, 0.0, 0.0, 0.0))), pixels],
            "its pixels are 0 µm",
            "bad",
            id="matrix without inverse",
        ),
        pytest.param(
            [wire.encode(msgspec.structs.replace(good, pixel_size_angstrom=1e-300)), pixels],
            "its pixels are 0 µm",
            "bad",
            id="pixels of nothing",
        ),
        pytest.param(
            [wire.encode(msgspec.structs.replace(good, session_id="another")), pixels],
            "of session another",
            "bad",
            id="another session",
        ),
        pytest.param(
            [wire.encode(msgspec.structs.replace(good, shape=(40_000, 40_000))), pixels],
            "limits.frame_mb allows",
            "bad",
            id="larger than the limit",
        ),
    ]


@advised
@pytest.mark.parametrize(("parts", "says", "about"), bad_frames())
async def test_a_bad_message_is_refused_by_name_and_the_next_good_one_is_served(
    daemon: Daemon, raw: RawDriver, parts: list[bytes], says: str, about: str
) -> None:
    welcome = await raw.hello()
    try:
        header = msgspec.msgpack.decode(parts[0])
    except msgspec.DecodeError:
        header = None
    if isinstance(header, dict) and header.get("session_id") == "session-1":
        parts = [msgspec.msgpack.encode(header | {"session_id": welcome.session_id}), *parts[1:]]
    await raw.send_raw(*parts)
    refused = await raw.expect(Refused)
    assert says in refused.reason
    assert (refused.about, refused.retry) == (about, False)
    await raw.send_frame(IMAGE, frame_id="good")
    assert (await raw.expect(Accepted)).about == "good"
    assert (await raw.expect(Targets)).frame_id == "good"


@advised
async def test_a_frame_refused_for_its_digest_is_taken_when_it_comes_whole(raw: RawDriver) -> None:
    await raw.hello()
    await raw.send_frame(IMAGE, frame_id="a", digest="0" * 32)
    assert "digest" in (await raw.expect(Refused)).reason
    await raw.send_frame(IMAGE, frame_id="a")
    assert (await raw.expect(Accepted)).about == "a"


@advised
@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.zeros((64, 64), "<u2"), "every pixel is 0"),
        (np.full((64, 64), 65_535, "<u2"), "every pixel is 65535"),
        (np.full((64, 64), np.nan, "<f4"), "no finite pixel"),
        (np.full((64, 64), np.inf, "<f4"), "no finite pixel"),
    ],
    ids=["dark", "saturated", "nan", "inf"],
)
async def test_a_frame_that_shows_nothing_is_set_aside_and_its_sender_is_told(
    daemon: Daemon, raw: RawDriver, image: Any, why: str
) -> None:
    await raw.hello()
    await raw.send_frame(image)
    await raw.expect(Accepted)
    targets = await raw.expect(Targets)
    assert targets.targets == ()
    assert why in targets.note
    assert "frame_set_aside" in kinds(daemon)


@advised
async def test_three_bad_messages_in_a_row_hold_the_session_and_a_good_frame_between_does_not(
    daemon: Daemon, raw: RawDriver
) -> None:
    await raw.hello()
    for message in (b"x", b"x", None, b"x", b"x"):
        if message is None:
            await raw.send_frame(IMAGE)
            await raw.expect(Accepted)
        else:
            await raw.send_raw(message)
            await raw.expect(Refused)
    assert "errors" not in daemon.core.state.suspensions
    await raw.send_raw(b"x")
    await raw.expect(Refused)
    await until(lambda: "errors" in daemon.core.state.suspensions)
    assert "3 bad messages in a row from raw" in daemon.core.state.suspensions["errors"]


@pytest.mark.parametrize("changes", [ADVISOR | {"limits__frames_waiting": 1}])
async def test_a_full_queue_asks_to_send_again_and_nothing_is_lost(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    images = {f"f{n}": image_of(shape=(512, 512), seed=n) for n in range(12)}
    for frame_id, image in images.items():
        await raw.send_frame(image, frame_id=frame_id)
    refusals, taken = 0, set()
    while len(taken) < len(images):
        answer = await raw.expect(Accepted, Refused)
        if isinstance(answer, Refused):
            assert answer.retry
            assert "limits.frames_waiting" in answer.reason
            refusals += 1
            await asyncio.sleep(0.01)
            await raw.send_frame(images[answer.about], frame_id=answer.about)
        else:
            taken.add(answer.about)
    assert refusals
    assert kinds(daemon).count("frame_received") == 12


@pytest.mark.parametrize("changes", [ADVISOR | {"limits__free_disk_gb": 1e6}])
async def test_a_full_disk_asks_to_send_again_and_holds_the_session(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    await raw.send_frame(IMAGE)
    refused = await raw.expect(Refused)
    assert refused.retry
    assert "limits.free_disk_gb" in refused.reason
    await until(lambda: "disk" in daemon.core.state.suspensions)


@advised
async def test_a_live_door_survives_rubbish(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    valid = [wire.encode(one) for one in samples.FROM_DRIVER if not isinstance(one, Goodbye)]

    @bounded(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        header=st.one_of(
            st.binary(max_size=40),
            st.builds(
                lambda one, at, value: one[: at % len(one)] + bytes([value]) + one[at % len(one) + 1 :],
                st.sampled_from(valid),
                st.integers(0, 500),
                st.integers(0, 255),
            ),
        ),
        more=st.lists(st.binary(max_size=20), max_size=2),
    )
    def rubbish(header: bytes, more: list[bytes]) -> None:
        queue.append([header, *more])

    queue: list[list[bytes]] = []
    rubbish()
    for parts in queue:
        await raw.send_raw(*parts)
    await raw.hello("raw")
    await raw.send_frame(IMAGE, frame_id="after")
    while (await raw.expect(Accepted)).about != "after":
        pass


# ---------------------------------------------------------------------------------------------- hello and links


async def test_a_driver_that_does_not_say_hello_is_asked_to(raw: RawDriver) -> None:
    await raw.send(Heartbeat(progress=0))
    refused = await raw.expect(Refused)
    assert (refused.about, refused.retry) == ("hello", True)


@pytest.mark.parametrize("protocol", [0, PROTOCOL + 1])
async def test_another_protocol_is_refused_with_both_numbers(raw: RawDriver, protocol: int) -> None:
    await raw.send(Hello(protocol=protocol, driver="old"))
    refused = await raw.expect(Refused)
    assert refused.about == "protocol"
    assert f"speaks protocol {protocol}" in refused.reason
    assert f"1 to {PROTOCOL}" in refused.reason


async def test_a_second_pilot_is_refused_and_the_first_goes_on(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello("first")
    second = RawDriver(daemon.endpoints["drivers"])
    await second.send(Hello(protocol=PROTOCOL, driver="second", can_pilot=True))
    refused = await second.expect(Refused)
    assert (refused.about, refused.retry) == ("pilot", True)
    assert "first pilots this microscope already" in refused.reason
    second.close()
    assert isinstance((await raw.expect(Command)).work, AcquireAtlas)
    assert daemon.core.state.driver == "first"


async def test_an_adviser_may_join_the_pilot_and_leave_again(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello("pilot")
    command = await raw.expect(Command)
    watcher = RawDriver(daemon.endpoints["drivers"])
    await watcher.hello("watcher", can_pilot=False)
    await watcher.send(Goodbye())
    await asyncio.sleep(0.1)
    watcher.close()
    assert (daemon.core.state.driver, daemon.core.state.suspensions) == ("pilot", {})
    await raw.nothing(Command, Cancel)
    await raw.send(result_of(command, "failed"))
    await raw.expect(Accepted)


async def test_the_same_driver_connected_again_takes_its_place_and_gets_its_command_again(daemon: Daemon) -> None:
    first, second = (RawDriver(daemon.endpoints["drivers"]) for _ in range(2))
    await first.hello("scope")
    one = await first.expect(Command)
    await second.hello("scope")
    assert await second.expect(Command) == one
    await first.nothing(Command)
    for driver in (first, second):
        driver.close()


async def test_a_command_under_way_is_not_asked_for_again_at_hello(raw: RawDriver) -> None:
    await raw.hello()
    command = await raw.expect(Command)
    await raw.hello(running=command.command_id)
    await raw.nothing(Command)


def result_of(command: Command, status: Any = "done", **fields: Any) -> CommandResult:
    return CommandResult(command_id=command.command_id, session_id=command.session_id, status=status, **fields)


async def test_a_result_is_acknowledged_each_time_and_journalled_once(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    command = await raw.expect(Command)
    for _ in range(3):
        await raw.send(result_of(command))
        assert (await raw.expect(Accepted)).about == command.command_id
    assert kinds(daemon).count("command_ended") == 1


async def test_a_command_that_the_link_lost_is_asked_for_again(raw: RawDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.door.ASK_AGAIN_S", 0.2)
    await raw.hello()
    command = await raw.expect(Command)
    await raw.send(Heartbeat(progress=0, working_on=command.command_id))
    await raw.nothing(Command, seconds=0.3)
    await raw.send(Heartbeat(progress=0))
    assert await raw.expect(Command) == command


@pytest.mark.parametrize("changes", [{"link__lost_after_s": 0.4}])
async def test_a_silent_driver_holds_the_session_and_its_hello_leads_on(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    await until(lambda: "link" in daemon.core.state.suspensions)
    assert "silent" in daemon.core.state.suspensions["link"]
    await raw.send(Heartbeat(progress=1))
    while (await raw.expect(Refused)).about != "hello":
        pass
    await raw.hello()
    assert not daemon.core.state.suspensions


@pytest.mark.parametrize("changes", [{"timeouts_s__acquire_atlas": 0.1}])
async def test_an_overdue_command_is_cancelled_at_the_driver(
    daemon: Daemon, raw: RawDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.door.GRACE_S", 0.1)
    await raw.hello()
    command = await raw.expect(Command)
    cancel = await raw.expect(Cancel)
    assert cancel.command_id == command.command_id
    assert "no result within" in cancel.why


async def test_heartbeats_come_from_a_core_that_works_and_say_how_much_it_did(raw: RawDriver) -> None:
    await raw.hello()
    first = await raw.expect(Heartbeat)
    second = await raw.expect(Heartbeat)
    assert second.progress > first.progress


async def test_a_person_at_the_console_pauses_the_session_and_the_command_is_cancelled(
    daemon: Daemon, raw: RawDriver
) -> None:
    await raw.hello()
    command = await raw.expect(Command)
    await raw.send(Taken(why="STOP pressed"))
    assert (await raw.expect(Cancel)).command_id == command.command_id
    assert daemon.core.state.phase == "paused"
    await raw.send(result_of(command, "cancelled", dose_e_per_a2=0.0))
    await raw.nothing(Command)
    await ask(daemon, say.Resume())
    assert isinstance((await raw.expect(Command)).work, AcquireAtlas)


@pytest.mark.parametrize("why", ["smoke", "x" * 2000])
async def test_an_emergency_stop_reaches_the_driver_and_again_at_its_next_hello(
    daemon: Daemon, raw: RawDriver, why: str
) -> None:
    await raw.hello()
    command = await raw.expect(Command)
    await ask(daemon, say.EmergencyStop(why=why))
    heard = [await raw.expect(Safe, Cancel) for _ in range(2)]
    assert {type(message) for message in heard} == {Safe, Cancel}
    await raw.hello()
    assert "emergency stop by local" in (await raw.expect(Safe)).why
    await raw.send(result_of(command, "cancelled", dose_e_per_a2=0.0))
    await ask(daemon, say.Clear())
    await raw.expect(Release)
    await raw.nothing(Command)


WATCHED = {"suspend_when": [{"reading": "beam_current", "below": 0.5, "settle_s": 0.3}]}


@pytest.mark.parametrize("changes", [WATCHED])
async def test_a_reading_out_of_bounds_at_hello_holds_the_session_before_anything_is_sent(
    daemon: Daemon, raw: RawDriver
) -> None:
    await raw.hello(state=ScopeState(grid_id="G1", readings={"beam_current": 0.1}))
    await raw.nothing(Command)
    assert "beam_current 0.1 is below 0.5" in daemon.core.state.suspensions["reading:beam_current"]
    await raw.send(Heartbeat(progress=1, state=ScopeState(readings={"beam_current": 0.9})))
    await raw.expect(Command)


async def test_a_hold_by_a_reading_outlives_a_restart_and_ends_when_the_reading_is_good(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, **WATCHED)
    async with running(settings) as daemon:
        raw = RawDriver(daemon.endpoints["drivers"])
        await raw.hello(state=ScopeState(readings={"beam_current": 0.1}))
        await until(lambda: "reading:beam_current" in daemon.core.state.suspensions)
        raw.close()
    async with running(settings) as daemon:
        raw = RawDriver(daemon.endpoints["drivers"])
        await raw.hello(state=ScopeState(readings={"beam_current": 0.9}))
        await raw.expect(Command)
        assert not daemon.core.state.suspensions
        raw.close()


# ---------------------------------------------------------------------------------------------- restarts


async def test_a_restarted_daemon_answers_for_frames_that_it_took_before(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, **ADVISOR)
    async with running(settings) as daemon:
        raw = RawDriver(daemon.endpoints["drivers"])
        welcome = await raw.hello()
        await raw.send_frame(IMAGE, frame_id="a")
        first = await raw.expect(Accepted)
        raw.close()
    async with running(settings) as daemon:
        raw = RawDriver(daemon.endpoints["drivers"])
        again = await raw.hello(epoch=welcome.epoch, session_id=welcome.session_id)
        assert (again.session_id, again.epoch) == (welcome.session_id, welcome.epoch + 1)
        await raw.send_frame(IMAGE, frame_id="a")
        assert await raw.expect(Accepted) == first
        assert (await raw.expect(Targets)).frame_id == "a"
        assert kinds(daemon).count("frame_received") == 1
        raw.close()


async def test_targets_of_a_frame_reach_its_driver_after_it_has_connected_again(daemon: Daemon) -> None:
    await ask(daemon, say.SetMode(mode="advisor"))
    first = RawDriver(daemon.endpoints["drivers"])
    await first.hello("camera", can_pilot=False)
    await first.send_frame(IMAGE, frame_id="a")
    await first.expect(Accepted)
    await first.send(Goodbye())
    await until(lambda: not daemon.door.links.by_peer and not daemon.core.state.pending)
    first.close()
    second = RawDriver(daemon.endpoints["drivers"])
    await second.hello("camera", can_pilot=False)
    targets = [m for m in (*second.heard, *first.heard) if isinstance(m, Targets)]
    if not targets:
        targets = [await second.expect(Targets)]
    assert targets[0].frame_id == "a"
    second.close()


async def test_a_frame_whose_analysis_was_due_at_the_restart_is_analysed_and_answered(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, **ADVISOR)

    class NeverAnalyst:
        """Stands for a model that is still at work when the daemon ends."""

        def describe(self) -> dict[str, str]:
            return {}

        async def analyse(self, *_: Any) -> Any:
            await asyncio.Event().wait()

        def close(self) -> None:
            pass

    async with running(settings, analyst=NeverAnalyst()) as daemon:
        raw = RawDriver(daemon.endpoints["drivers"])
        await raw.hello()
        await raw.send_frame(IMAGE, frame_id="a")
        await raw.expect(Accepted)
        raw.close()
    async with running(settings) as daemon:
        raw = RawDriver(daemon.endpoints["drivers"])
        await raw.hello()
        assert (await raw.expect(Targets)).frame_id == "a"
        assert not daemon.core.state.pending
        raw.close()


def test_an_event_that_no_restart_could_read_is_not_journalled() -> None:
    broken = ev.HolesFound(square_id="s", frame_id="f", model="m", fingerprint="f", holes=(), elapsed_s=float("nan"))
    with pytest.raises(CryonautError, match="holes_found cannot be journalled"):
        _must_be_readable(Draft(ev.kind_of(broken), ev.encode_event(broken)))
