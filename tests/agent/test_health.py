"""Health and metrics over real HTTP: live is not ready, and ready says why not."""

import asyncio
import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from agent import control_messages as say
from agent.daemon import Daemon
from agent.errors import ConfigError
from tests.helpers import RawDriver, ask, image_of, running, settings_in, until


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"endpoints__health": free_address(), "session__mode": "advisor"}


async def get(daemon: Daemon, path: str, method: str = "GET") -> tuple[int, str]:
    def blocking() -> tuple[int, str]:
        connection = http.client.HTTPConnection(daemon.endpoints["health"], timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    for _ in range(50):
        try:
            return await asyncio.to_thread(blocking)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
    raise AssertionError("nobody listens")


async def test_a_daemon_without_driver_is_live_and_says_why_it_is_not_ready(daemon: Daemon) -> None:
    assert (await get(daemon, "/health/live"))[0] == 200
    status, text = await get(daemon, "/health/ready")
    assert status == 503
    body = json.loads(text)
    assert (body["ready"], body["phase"]) == (False, "collecting")
    assert body["troubles"] == {"link": "waiting for the driver", "driver": "no driver is connected"}


async def test_a_daemon_with_its_driver_is_ready_until_something_holds_it(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    assert (await get(daemon, "/health/ready"))[0] == 200
    await ask(daemon, say.EmergencyStop(why="smoke"))
    status, text = await get(daemon, "/health/ready")
    assert status == 503
    assert "fault: emergency stop by local: smoke" in json.loads(text)["troubles"]["phase"]
    assert (await get(daemon, "/health/live"))[0] == 200


async def test_a_loop_that_no_longer_steps_is_not_live(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.health.STUCK_AFTER_S", 0.0)
    status, text = await get(daemon, "/health/live")
    assert status == 503
    assert json.loads(text)["live"] is False


async def test_a_journal_that_fails_is_told_by_ready_and_over_when_it_works_again(
    daemon: Daemon, raw: RawDriver
) -> None:
    await raw.hello()
    daemon.core.journal_trouble = "journal.sqlite: commit failed: disk is full"
    status, text = await get(daemon, "/health/ready")
    assert status == 503
    assert "disk is full" in json.loads(text)["troubles"]["journal"]
    await ask(daemon, say.Pause(now=True))
    assert (await get(daemon, "/health/ready"))[0] == 200


async def test_metrics_carry_units_and_count_what_happened(daemon: Daemon, raw: RawDriver) -> None:
    def value(text: str, name: str) -> float:
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    await raw.hello()
    before = (await get(daemon, "/metrics"))[1]
    await raw.send_frame(image_of(), level="low")
    await until(lambda: daemon.core.state.frames == 1 and not daemon.core.state.pending)
    after = (await get(daemon, "/metrics"))[1]
    name = 'cryonaut_frames_total{level="low"}'
    assert value(after, name) == value(before, name) + 1
    assert 'cryonaut_phase{phase="collecting"} 1.0' in after
    assert 'cryonaut_phase{phase="fault"} 0.0' in after
    assert "cryonaut_ingest_seconds_bucket" in after
    assert "cryonaut_driver_up 1.0" in after


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/health/ready", "POST", 405)])
async def test_there_is_nothing_else_to_reach(daemon: Daemon, path: str, method: str, status: int) -> None:
    assert (await get(daemon, path, method))[0] == status


async def test_a_port_that_is_taken_is_told_by_its_key(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"endpoints\.health: {address} cannot be listened on"):
            await Daemon(settings_in(tmp_path, endpoints__health=address)).run()


async def test_a_daemon_that_stopped_has_given_its_port_back(tmp_path: Path) -> None:
    address = free_address()
    for _ in range(2):
        async with running(settings_in(tmp_path, endpoints__health=address)) as daemon:
            assert (await get(daemon, "/health/live"))[0] == 200
