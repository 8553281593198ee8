"""The operator's socket: roles, keys, requests that come twice, and a pause that waits for nothing."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from agent import control_messages as say
from agent import keys, wire
from agent.control import ControlClient
from agent.daemon import Daemon
from agent.errors import ConfigError, LinkError
from agent.messages import Accepted, Command, CommandResult, Refused
from tests.agent import samples
from tests.helpers import HOST, RawDriver, ask, image_of, running, settings_in, until


def kinds(daemon: Daemon) -> list[str]:
    return [row.kind for row in daemon.core.journal.replay()]


async def test_every_verb_is_answered_in_one_line(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    for verb in samples.VERBS:
        reply = await ask(daemon, verb)
        assert reply.text
        assert "\n" not in reply.text
        assert "internal error" not in reply.text


async def test_a_request_sent_twice_is_carried_out_once(daemon: Daemon) -> None:
    await ask(daemon, say.SetThreshold(name="hole_score", value=0.5), "same-id")
    again = await ask(daemon, say.SetThreshold(name="hole_score", value=0.9), "same-id")
    assert again.ok
    assert again.text == "done before"
    assert daemon.core.state.thresholds["hole_score"] == 0.5
    assert kinds(daemon).count("requested") == 1


async def test_a_request_is_done_once_even_across_a_restart(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    for expected in ("hole_score: 0.35 -> 0.5", "done before"):
        async with running(settings) as daemon:
            assert (await ask(daemon, say.SetThreshold(name="hole_score", value=0.5), "r-1")).text == expected


async def test_a_refused_request_may_be_sent_again_when_it_has_become_possible(daemon: Daemon) -> None:
    assert not (await ask(daemon, say.Clear(), "r-1")).ok
    await ask(daemon, say.EmergencyStop())
    assert (await ask(daemon, say.Clear(), "r-1")).ok


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        (say.Accept(area_ids=("G1-S777",)), "there is no area G1-S777; `cryonaut control areas` lists them"),
        (say.GetAreas(square_id="G1-S777"), "there is no square G1-S777"),
        (say.Skip(), "name the square or hole to skip"),
        (say.Undo(), "nothing to undo"),
        (say.AddTarget(x_um=3_000.0, y_um=0.0), "outside -1000…1000 µm"),
    ],
)
async def test_what_cannot_be_done_is_told_with_the_way_out(daemon: Daemon, verb: say.AnyVerb, says: str) -> None:
    reply = await ask(daemon, verb)
    assert not reply.ok
    assert says in reply.text


async def test_status_and_events_say_where_the_session_stands(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello("scope")
    await raw.expect(Command)
    status = (await ask(daemon, say.GetStatus())).status
    assert status is not None
    assert (status.phase, status.driver, status.driver_well, status.agent_well) == ("collecting", "scope", True, True)
    assert status.working_on == "acquire_atlas C000001"
    lines = (await ask(daemon, say.GetEvents(after=0, most=1000))).events
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    assert [line.name for line in lines] == kinds(daemon)[: len(lines)]
    last = (await ask(daemon, say.GetEvents(most=2))).events
    assert [line.seq for line in last] == [status.last_seq - 1, status.last_seq]


async def test_rubbish_on_the_control_socket_is_answered_and_the_next_request_served(daemon: Daemon) -> None:
    def blocking() -> list[say.Reply]:
        found = []
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(daemon.endpoints["control"])
            for parts in ([b"rubbish"], [b"a", b"b"], [b""], [wire.encode(samples.FROM_DRIVER[0])]):
                socket.send_multipart(parts)
                assert socket.poll(3_000)
                found.append(wire.decode(socket.recv_multipart()[-1], wire.REPLY))
        return found

    for reply in await asyncio.to_thread(blocking):
        assert not reply.ok
        assert reply.text
    assert (await ask(daemon, say.GetStatus())).ok


async def test_no_daemon_is_told_with_the_endpoint_and_what_to_look_at() -> None:
    with ControlClient("tcp://127.0.0.1:9", timeout_s=0.2) as client, pytest.raises(LinkError) as caught:
        await asyncio.to_thread(client.ask, say.GetStatus())
    assert "tcp://127.0.0.1:9" in str(caught.value)
    assert "cryonaut run" in str(caught.value)


@pytest.mark.parametrize("changes", [{"session__mode": "pilot"}])
async def test_a_pause_is_answered_while_a_large_frame_is_worked_on_and_nothing_leaves_after_it(
    daemon: Daemon, raw: RawDriver
) -> None:
    await raw.hello()
    command = await raw.expect(Command)
    image = image_of(shape=(2048, 2048))
    await raw.send_frame(image, command_id=command.command_id, frame_id="big")
    await raw.expect(Accepted)
    begun = time.monotonic()
    reply = await ask(daemon, say.Pause(now=True))
    elapsed = time.monotonic() - begun
    print(f"pause acknowledged after {1000 * elapsed:.0f} ms")
    assert reply.ok
    assert elapsed < 5.0, "far below what the frame takes on a busy machine; the figure is printed above"
    await raw.send(CommandResult(command_id=command.command_id, session_id=command.session_id, status="done"))
    await until(lambda: not daemon.core.state.pending and not daemon.core.state.outstanding, 90)
    await raw.nothing(Command)
    assert daemon.core.state.phase == "paused"


# ---------------------------------------------------------------------------------------------- keys


@pytest.fixture
def ring(tmp_path: Path) -> dict[str, Path]:
    """A key folder with one client of each role, and a stranger's key of the right form."""
    folder = tmp_path / "keys"
    found = {role: keys.make(folder, f"a-{role}", role) for role in keys.ROLES}
    other = tmp_path / "other"
    stranger = keys.make(other, "stranger", "operator")
    return found | {"stranger": stranger, "folder": folder}


def locked(tmp_path: Path, ring: dict[str, Path]) -> Any:
    return settings_in(tmp_path, keys=str(ring["folder"]))


async def test_an_observer_may_look_and_an_operator_may_act(tmp_path: Path, ring: dict[str, Path]) -> None:
    async with running(locked(tmp_path, ring)) as daemon:
        for verb in (say.GetStatus(), say.GetEvents(), say.GetAreas()):
            assert (await ask(daemon, verb, key=ring["observer"])).ok
        for verb in samples.VERBS:
            if not isinstance(verb, say.OBSERVER_VERBS):
                refused = await ask(daemon, verb, key=ring["observer"])
                assert not refused.ok
                assert "a-observer is observer" in refused.text
                assert "needs role operator" in refused.text
        assert daemon.core.state.phase == "collecting"
        assert (await ask(daemon, say.Pause(now=True), key=ring["operator"])).ok
        assert daemon.core.state.why == "paused by a-operator"


@pytest.mark.parametrize("who", ["stranger", "nobody"])
async def test_an_unknown_key_or_none_gets_no_answer_at_all(tmp_path: Path, ring: dict[str, Path], who: str) -> None:
    async with running(locked(tmp_path, ring)) as daemon:
        more: dict[str, Any] = {"timeout_s": 0.5}
        if who == "stranger":
            more |= {"key": ring["stranger"], "server_key": ring["folder"] / "server.key"}
        with pytest.raises(LinkError):
            await ask(daemon, say.Pause(now=True), **more)
        assert daemon.core.state.phase == "collecting"
        assert (await ask(daemon, say.GetStatus(), key=ring["operator"])).ok


async def test_only_a_drivers_key_may_drive(tmp_path: Path, ring: dict[str, Path]) -> None:
    async with running(locked(tmp_path, ring)) as daemon:
        intruder = RawDriver(
            daemon.endpoints["drivers"], arm=lambda socket: keys.arm_client(socket, ring["operator"], None)
        )
        await intruder.send(samples.FROM_DRIVER[0])
        assert "a key with role driver is needed" in (await intruder.expect(Refused)).reason
        intruder.close()
        driver = RawDriver(
            daemon.endpoints["drivers"], arm=lambda socket: keys.arm_client(socket, ring["driver"], None)
        )
        await driver.hello()
        await driver.expect(Command)
        driver.close()
        refused = await ask(daemon, say.Pause(), key=ring["driver"])
        assert "a-driver is driver" in refused.text


@pytest.mark.parametrize("name", ["drivers", "control", "events", "health"])
async def test_off_loopback_without_keys_the_daemon_does_not_start(tmp_path: Path, name: str) -> None:
    endpoint = "0.0.0.0:0" if name == "health" else "tcp://0.0.0.0:*"
    settings = settings_in(tmp_path, **{f"endpoints__{name}": endpoint})
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        await Daemon(settings).run()


async def test_an_endpoint_that_is_taken_is_told_by_its_key(tmp_path: Path, daemon: Daemon) -> None:
    settings = settings_in(tmp_path, session__name="other", endpoints__control=daemon.endpoints["control"])
    with pytest.raises(ConfigError, match=r"endpoints\.control: .*another daemon"):
        await Daemon(settings).run()


async def test_a_model_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, inference__holes="no-such-model")
    with pytest.raises(ConfigError, match=r"no-such-model.*there are .*holes-template"):
        await Daemon(settings).run()


@pytest.mark.parametrize("secret", ["server", "client"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_can_read_is_refused_with_the_command_that_mends_it(
    ring: dict[str, Path], secret: str, mode: int
) -> None:
    file = ring["folder"] / "server.key_secret" if secret == "server" else ring["operator"]
    file.chmod(mode)
    use = keys.Keyring if secret == "server" else lambda _: ControlClient(HOST.replace("*", "1"), key=file)
    with pytest.raises(ConfigError, match=f"mode {mode:04o} lets others read.*chmod 600"):
        use(ring["folder"])


def test_secrets_are_made_for_their_owner_alone(ring: dict[str, Path]) -> None:
    for file in (ring["folder"] / "server.key_secret", ring["operator"], ring["observer"]):
        assert file.stat().st_mode & 0o777 == 0o600
    assert ring["folder"].stat().st_mode & 0o777 == 0o700


def test_a_key_is_not_made_twice_and_a_role_must_exist(ring: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="exists; take another name"):
        keys.make(ring["folder"], "a-operator", "operator")
    public = ring["folder"] / "clients" / "a-observer.key"
    public.write_text(public.read_text().replace('"observer"', '"emperor"'))
    with pytest.raises(ConfigError, match="role 'emperor'; roles are observer, operator, driver"):
        keys.Keyring(ring["folder"])


def test_a_key_folder_without_a_servers_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cryonaut keys new"):
        keys.Keyring(tmp_path)


@pytest.mark.parametrize(
    ("endpoint", "inside"),
    [
        ("tcp://127.0.0.1:5", True),
        ("tcp://127.8.8.8:5", True),
        ("tcp://[::1]:5", True),
        ("tcp://localhost:5", True),
        ("ipc:///tmp/x", True),
        ("inproc://x", True),
        ("127.0.0.1:5", True),
        ("tcp://*:5", False),
        ("tcp://0.0.0.0:5", False),
        ("tcp://10.0.0.1:5", False),
        ("tcp://scope.example:5", False),
        ("tcp://eth0:5", False),
        ("0.0.0.0:5", False),
        (":5", False),
    ],
)
def test_loopback_is_known_from_what_others_can_reach(endpoint: str, inside: bool) -> None:
    assert keys.is_loopback(endpoint) is inside


async def test_watchers_hear_every_event_in_words(daemon: Daemon, raw: RawDriver) -> None:
    def listen() -> list[str]:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.subscribe(b"")
            socket.connect(daemon.endpoints["events"])
            heard = []
            while socket.poll(1_000):
                _, body = socket.recv_multipart()
                heard.append(wire.decode(body, wire.PUBLISHED))
            return [message.name for message in heard if hasattr(message, "name")]

    listener = asyncio.create_task(asyncio.to_thread(listen))
    await asyncio.sleep(0.3)
    await raw.hello("scope")
    await ask(daemon, say.Pause(now=True))
    assert {"driver_joined", "command_issued", "requested", "phase_changed"} <= set(await listener)
