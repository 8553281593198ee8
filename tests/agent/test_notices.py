"""Each trouble is told once when it comes and once when it is over, through a real receiver; failures are said."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent import control_messages as say
from agent.daemon import Daemon
from agent.errors import ConfigError
from agent.notices import Condition, Notice, Told, conditions
from agent.notifier import addresses, send
from agent.session.state import State
from tests.helpers import RawDriver, ask, running, settings_in, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # apprise's own imports of old modules
HELD = {"link": Condition("held by link: waiting", "alarm", 60.0)}


def test_a_hold_is_told_once_after_it_has_lasted_and_once_when_it_is_over() -> None:
    told = Told("krios")
    assert told.follow(HELD, 0.0) == []
    assert told.follow(HELD, 59.0) == []
    (down,) = told.follow(HELD, 60.0)
    assert (down.mood, down.title) == ("alarm", "krios: held by link: waiting")
    assert told.follow(HELD, 1000.0) == []
    (up,) = told.follow({}, 1001.0)
    assert (up.mood, up.text) == ("info", "over: held by link: waiting")
    assert told.follow({}, 1002.0) == []


def test_a_hold_that_was_short_is_not_told_at_all() -> None:
    told = Told("krios")
    assert told.follow(HELD, 0.0) == told.follow({}, 30.0) == told.follow(HELD, 31.0) == told.follow(HELD, 90.0) == []


def test_what_was_told_before_a_restart_is_not_told_again_and_its_end_is() -> None:
    told = Told("krios", frozenset({"link"}))
    assert told.follow(HELD, 0.0) == told.follow(HELD, 500.0) == []
    assert [notice.text for notice in told.follow({}, 501.0)] == ["over: held by link: waiting"]


@given(st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.floats(0, 50)), max_size=30))
def test_ends_are_told_only_of_what_was_told_and_never_twice(steps: list[tuple[set[str], float]]) -> None:
    told = Told("krios")
    open_: set[str] = set()
    utc = 0.0
    for names, passed in steps:
        utc += passed
        for notice in told.follow({name: Condition(name, "alarm", 20.0) for name in names}, utc):
            name = notice.text.removeprefix("over: ")
            if notice.text == name:
                assert name not in open_
                open_.add(name)
            else:
                assert name in open_
                open_.remove(name)
    assert open_ == told.told


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"phase": "fault", "why": "stage stuck"}, "fault", "stopped by a fault: stage stuck"),
        ({"phase": "stopped", "why": "every grid is done", "exposures": 7}, "ended", "7 exposures, 0 good"),
        ({"phase": "idle", "why": "waiting for squares"}, "waiting", "waits for you"),
        ({"phase": "paused", "why": "taken over at the microscope: STOP"}, "taken", "STOP"),
        ({"suspensions": {"disk": "1.0 GB free"}}, "held by disk", "1.0 GB free"),
        ({"idle_told": True}, "idle", "nothing was finished"),
        ({"degraded": "net: no answer"}, "degraded", "net: no answer"),
    ],
)
def test_what_holds_is_read_off_the_state(changes: dict[str, Any], key: str, words: str) -> None:
    found = conditions(replace(State(), **({"phase": "collecting"} | changes)), after_s=60.0)
    assert list(found) == [key]
    assert words in found[key].text


def test_a_session_that_works_or_that_a_person_paused_is_no_news() -> None:
    assert conditions(replace(State(), phase="collecting"), after_s=60.0) == {}
    assert conditions(replace(State(), phase="paused", why="paused by anna"), after_s=60.0) == {}


class Receiver:
    """A web server that takes apprise's JSON; ``well`` says whether it accepts."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.well = True
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if receiver.well:
                    receiver.heard.append(json.loads(body))
                self.send_response(200 if receiver.well else 500)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://user:secret@127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    pytest.importorskip("apprise")
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


@pytest.fixture
def file(tmp_path: Path, receiver: Receiver) -> Path:
    made = tmp_path / "notices"
    made.write_text(f"# the night shift\n{receiver.address}\n")
    made.chmod(0o600)
    return made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.notifier.LOOK_S", 0.02)
    monkeypatch.setattr("agent.notifier.AGAIN_S", (0.05,))


@pytest.mark.usefixtures("quick")
async def test_a_fault_and_its_end_reach_the_receiver(tmp_path: Path, file: Path, receiver: Receiver) -> None:
    async with running(settings_in(tmp_path, notices__to=str(file), notices__after_s=0.0)) as daemon:
        await until(lambda: bool(receiver.heard), 60)
        assert "waiting for the driver" in receiver.heard[0]["message"]
        await ask(daemon, say.EmergencyStop(why="smoke"))
        await until(lambda: any("smoke" in note["message"] for note in receiver.heard), 60)
        await ask(daemon, say.Clear())
        await until(lambda: any("over: stopped by a fault" in note["message"] for note in receiver.heard), 60)
        # with the fault's end the hold behind it is told again; then everything is told
        await until(lambda: not daemon.notifier.waiting and daemon.notifier.lamp() == ("well", "to json"), 60)
        assert daemon.notifier.told == {"held by link"}
    count = len(receiver.heard)
    async with running(settings_in(tmp_path, notices__to=str(file), notices__after_s=0.0)) as again:
        await until(lambda: again.core.state.epoch == 2)
        again.notifier.look()
        assert not again.notifier.waiting
    assert len(receiver.heard) == count  # what was told is not told again


@pytest.mark.usefixtures("quick")
async def test_what_was_not_sent_before_the_daemons_end_is_sent_after_its_restart(
    tmp_path: Path, file: Path, receiver: Receiver
) -> None:
    receiver.well = False
    settings = settings_in(tmp_path, notices__to=str(file), notices__after_s=0.0)
    async with running(settings) as daemon:
        await until(lambda: bool(daemon.notifier.trouble), 60)
    assert "secret" not in daemon.notifier.file.read_text()
    receiver.well = True
    async with running(settings):
        await until(lambda: bool(receiver.heard), 60)
    assert receiver.heard[0]["message"].startswith("held by link")


@pytest.mark.usefixtures("quick")
async def test_what_cannot_be_sent_is_said_and_is_sent_when_it_can_be(
    tmp_path: Path, file: Path, receiver: Receiver
) -> None:
    receiver.well = False
    async with running(settings_in(tmp_path, notices__to=str(file), notices__after_s=0.0)) as daemon:
        await until(lambda: bool(daemon.notifier.trouble), 60)
        warning = daemon.warnings()["notices"]
        assert warning.startswith("cannot send: json: was not accepted")
        assert "secret" not in warning
        receiver.well = True
        await until(lambda: bool(receiver.heard), 60)
        await until(lambda: daemon.notifier.lamp()[0] == "well", 60)


async def test_without_addresses_this_is_said_and_nothing_waits(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    await ask(daemon, say.EmergencyStop(why="smoke"))
    daemon.notifier.look()
    assert not daemon.notifier.waiting
    assert daemon.warnings()["notices"].startswith("nobody is told")


def test_a_file_of_addresses_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notices"
    file.write_text("json://user:secret@host/\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        addresses(file)
    file.chmod(0o600)
    file.write_text("# nobody\n")
    with pytest.raises(ConfigError, match="holds no address"):
        addresses(file)
    with pytest.raises(ConfigError, match=r"notices\.to: .*nothing"):
        addresses(tmp_path / "nothing")


def test_an_address_that_is_none_is_said_without_its_secrets() -> None:
    pytest.importorskip("apprise")
    why = send("nonsense://user:secret@host", Notice(title="t", text="t", mood="info", utc=0.0))
    assert why.startswith("nonsense: is no address")
    assert "secret" not in why
