"""The operator's page over real HTTP: the same words, the same desk, the same journal as the control socket."""

import asyncio
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from agent import control_messages as say
from agent.daemon import Daemon
from agent.errors import ConfigError
from agent.keys import make, revoke
from agent.policy.outlook import outlook
from agent.session import events as ev
from agent.web.access import new_token
from agent.web.app import OPEN_PATHS
from agent.web.live import pictures
from tests.helpers import RawDriver, image_of, running, settings_in, until
from tests.helpers import ask as ask_socket
from tests.web.talk import Answer, ask

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"web__address": "127.0.0.1:0", "session__mode": "advisor"}


async def page_of(daemon: Daemon) -> str:
    await until(lambda: "page" in daemon.endpoints, 60)
    return daemon.endpoints["page"]


async def read(daemon: Daemon, path: str, **headers: str) -> Any:
    answer = await ask(await page_of(daemon), path, **headers)
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


async def say_it(daemon: Daemon, verb: dict[str, Any], request_id: str = "r1", **headers: str) -> Answer:
    csrf = (await read(daemon, "/me", **headers))["csrf"]
    body = json.dumps({"kind": "control", "request_id": request_id, "verb": verb})
    address = await page_of(daemon)
    return await ask(address, "/control", "POST", body, x_csrf_token=csrf, origin=f"http://{address}", **headers)


@asynccontextmanager
async def stream(address: str, **headers: str) -> AsyncIterator["asyncio.Queue[tuple[str, Any]]"]:
    """What the stream says, as (kind, data)."""
    heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    named = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection = socket.create_connection((host, int(port)), timeout=60)

    def blocking() -> None:
        try:
            connection.sendall(f"GET /stream HTTP/1.0\r\nHost: {address}\r\n{named}\r\n".encode())
            kind = ""
            with connection.makefile("rb") as lines:
                for raw in lines:
                    line = raw.decode().rstrip()
                    if line.startswith("event: "):
                        kind = line[7:]
                    elif line.startswith("data: "):
                        loop.call_soon_threadsafe(heard.put_nowait, (kind, json.loads(line[6:])))
        except OSError:
            pass  # closed on purpose
        finally:
            loop.call_soon_threadsafe(heard.put_nowait, ("end", None))

    reading = asyncio.create_task(asyncio.to_thread(blocking))
    try:
        yield heard
    finally:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        await reading
        connection.close()


async def hear(heard: "asyncio.Queue[tuple[str, Any]]", kind: str, what: Any = lambda body: True) -> Any:
    async with asyncio.timeout(60):
        while True:
            got, body = await heard.get()
            assert got != "end" or kind == "end", "the stream ended"
            if got == kind and (kind == "end" or what(body)):
                return body


async def test_what_the_page_says_is_journalled_with_the_name_and_answered_like_on_the_socket(daemon: Daemon) -> None:
    answer = await say_it(daemon, {"verb": "pause", "now": True})
    assert json.loads(answer.text)["text"] == "paused; nothing new leaves"
    again = await say_it(daemon, {"verb": "pause", "now": True})
    assert json.loads(again.text)["text"] == "done before"
    rows = await daemon.core.rows(0)
    asked = [event for row in rows if isinstance(event := ev.decode_event(row.body), ev.Requested)]
    assert [(event.by, event.verb) for event in asked] == [("local", say.Pause(now=True))]
    told = (await ask_socket(daemon, say.GetStatus())).status
    assert told is not None
    assert (await read(daemon, "/api/session"))["summary"]["phase"] == told.phase == "paused"


@pytest.mark.parametrize(
    ("body", "status"),
    [("", 400), ("{}", 400), ('{"kind": "control", "request_id": "", "verb": {"verb": "pause"}}', 400),
     ('{"kind": "control", "request_id": "a", "verb": {"verb": "explode"}}', 400), ("[" * 100_000, 400),
     ('{"kind": "control", "request_id": "a", "verb": {"verb": "clear"}}', 409),
     ('{"kind": "control", "request_id": "a", "verb": {"verb": "add", "x_um": 1e99, "y_um": 0}}', 400)],
)  # fmt: skip
async def test_what_is_no_request_or_cannot_be_done_is_refused_in_words(daemon: Daemon, body: str, status: int) -> None:
    csrf = (await read(daemon, "/me"))["csrf"]
    answer = await ask(await page_of(daemon), "/control", "POST", body, x_csrf_token=csrf)
    assert answer.status == status
    assert json.loads(answer.text)["text"]
    assert (await read(daemon, "/me"))["csrf"] == csrf


async def test_a_page_hears_of_every_change_and_of_silence(daemon: Daemon, raw: RawDriver) -> None:
    address = await page_of(daemon)
    async with stream(address) as one, stream(address) as two:
        for heard in (one, two):
            assert (await hear(heard, "hello"))["epoch"] == 1
        await raw.hello()
        await raw.send_frame(image_of(shape=(256, 256)), frame_id="low-1", level="low")
        for heard in (one, two):
            frame = await hear(heard, "news", lambda body: body["frames"])
            assert frame["frames"][0]["id"] == "low-1"
        await ask_socket(daemon, say.AddTarget(x_um=12.0, y_um=-8.0))
        for heard in (one, two):
            body = await hear(heard, "news", lambda body: body["squares"])
            assert (body["squares"][-1]["x"], body["squares"][-1]["by"]) == (12.0, "local")
            assert body["summary"]["pages"] == ["local", "local"]
            assert any("added by local" in line["text"] for line in body["lines"])
        await hear(one, "beat")


async def test_a_snapshot_and_the_news_after_it_give_what_a_later_snapshot_gives(
    daemon: Daemon, raw: RawDriver
) -> None:
    await raw.hello()
    await raw.send_frame(image_of(shape=(256, 256)), frame_id="low-1", level="low")
    await until(lambda: daemon.core.state.frames == 1 and not daemon.core.state.pending, 60)
    async with stream(await page_of(daemon)) as heard:
        await hear(heard, "hello")
        before = await read(daemon, "/api/grid/G1")
        known = {area["id"]: area for area in before["squares"] + before["holes"]}
        added = await ask_socket(daemon, say.AddTarget(x_um=12.0, y_um=-8.0))
        square = added.text.split()[0]
        for x in (10.0, 12.0, 14.0):
            await ask_socket(daemon, say.AddTarget(x_um=x, y_um=-8.0, square_id=square))
        await ask_socket(daemon, say.Reject(area_ids=(f"{square}-H002",)))
        await ask_socket(daemon, say.Undo())
        await ask_socket(daemon, say.Reject(area_ids=(f"{square}-H003",)))
        after = await read(daemon, "/api/grid/G1")
        seq = before["seq"]
        while seq < after["seq"]:
            news = await hear(heard, "news")
            seq = news["seq"]
            known |= {area["id"]: area for area in news["squares"] + news["holes"]}
            for gone in news["gone"]:
                known.pop(gone)
        assert known == {area["id"]: area for area in after["squares"] + after["holes"]}
        assert known[f"{square}-H003"]["state"] == "rejected"


async def test_pictures_show_the_frames_pixels_and_their_addresses_are_for_ever(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    image = image_of(shape=(700, 1100))
    image[100:300, 800:1000] = 250
    frame = await raw.send_frame(image, frame_id="low-1", level="low")
    await until(lambda: daemon.core.state.frames == 1 and not daemon.core.state.pending, 60)
    base = f"/picture/low-1/{frame.digest[:16]}"
    address = await page_of(daemon)

    async def picture(path: str) -> Any:
        def blocking() -> tuple[int, bytes, str]:
            with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read(), answer.getheader("cache-control", "")

        status, body, cache = await asyncio.to_thread(blocking)
        assert (status, cache) == (200, "private, max-age=31536000, immutable")
        return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_GRAYSCALE)

    small = await picture(f"{base}/320.jpg")
    assert small.shape == (204, 320)
    bright = cv2.resize(small, (1100, 700))
    assert bright[150:250, 850:950].mean() > bright[500:600, 100:200].mean() + 60
    tile = await picture(f"{base}/tile-0-1-0.jpg")
    assert tile.shape == (512, 512)  # columns 512 to 1023, rows 0 to 511
    assert tile[150:250, 338:438].mean() > tile[400:500, 10:100].mean() + 60
    assert (await picture(f"{base}/tile-1-1-0.jpg")).shape == (350, 38)  # the last column of the frame at half size
    assert (await picture(f"{base}/spectrum.jpg")).shape[0] > 100
    for wrong in (f"/picture/low-1/{'0' * 16}/320.jpg", f"{base}/321.jpg", f"{base}/tile-0-9-9.jpg",
                  f"{base}/tile-99-0-0.jpg", "/picture/nothing/x/320.jpg"):  # fmt: skip
        assert (await ask(address, wrong)).status == 404


async def test_a_picture_that_many_ask_for_is_made_once(
    daemon: Daemon, raw: RawDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await raw.hello()
    frame = await raw.send_frame(image_of(shape=(700, 1100)), frame_id="low-1", level="low")
    await until(lambda: daemon.core.state.frames == 1 and not daemon.core.state.pending, 60)
    loads = []
    load = pictures.load
    monkeypatch.setattr(pictures, "load", lambda *which: loads.append(1) or load(*which))
    address = await page_of(daemon)
    path = f"/picture/low-1/{frame.digest[:16]}/320.jpg"
    answers = await asyncio.gather(*(ask(address, path) for _ in range(10)))
    assert {answer.status for answer in answers} == {200}
    assert len(loads) == 1


async def test_the_atlas_is_one_picture_where_its_frames_lie(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    for number, x_um in enumerate((-70.0, 70.0)):
        await raw.send_frame(image_of(shape=(256, 256), seed=number), frame_id=f"low-{number}", level="low",
                             stage={"x_um": x_um})  # fmt: skip
    await until(lambda: daemon.core.state.frames == 2 and not daemon.core.state.pending, 60)
    atlas = (await read(daemon, "/api/grid/G1"))["atlas"]
    half = 128 * 0.6  # µm
    assert (atlas["x"], atlas["y"]) == (-70 - half, -half)
    assert atlas["w"] * atlas["um_per_px"] == pytest.approx(2 * (70 + half), abs=1)
    assert (await ask(await page_of(daemon), atlas["url"])).status == 200


async def test_why_a_place_was_chosen_is_told_in_its_story(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    added = await ask_socket(daemon, say.AddTarget(x_um=12.0, y_um=-8.0), "a1")
    if "no grid" in added.text:
        await raw.send_frame(image_of(shape=(256, 256)), frame_id="low-1", level="low")
        await until(lambda: daemon.core.state.frames == 1, 60)
        added = await ask_socket(daemon, say.AddTarget(x_um=12.0, y_um=-8.0), "a2")
    square = added.text.split()[0]
    await ask_socket(daemon, say.Reject(area_ids=(square,)))
    found = await read(daemon, f"/api/area/{square}")
    assert [line["by"] for line in found["story"]] == ["local", "local"]
    assert found["decisions"][-1]["why"] == "rejected by local"
    assert (await ask(await page_of(daemon), "/api/area/G9-S001")).status == 404


async def test_what_the_policy_expects_is_told_for_every_hole(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    await raw.send_frame(image_of(shape=(256, 256)), frame_id="low-1", level="low")
    await until(lambda: daemon.core.state.frames == 1 and not daemon.core.state.pending, 60)
    square = (await ask_socket(daemon, say.AddTarget(x_um=12.0, y_um=-8.0))).text.split()[0]
    await ask_socket(daemon, say.AddTarget(x_um=12.0, y_um=-8.0, square_id=square))
    told = await read(daemon, "/api/outlook/G1")
    known = outlook(daemon.core.state, daemon.settings)
    assert told[f"{square}-H001"] == known.holes[f"{square}-H001"].p_good
    assert set(told) == known.holes.keys() | known.squares.keys()
    one = await read(daemon, f"/api/area/{square}-H001")
    assert one["expects"]["reasons"] == list(known.holes[f"{square}-H001"].reasons)


async def test_a_threshold_shows_what_it_would_change_and_changes_nothing(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello()
    await raw.send_frame(image_of(shape=(256, 256)), frame_id="low-1", level="low")
    await until(lambda: daemon.core.state.frames == 1 and not daemon.core.state.pending, 60)
    for x in (10.0, 20.0, 30.0):
        await ask_socket(daemon, say.AddTarget(x_um=x, y_um=0.0))
    before = daemon.core.state
    found = await read(daemon, "/api/preview?name=squares_per_grid&value=0")
    assert found["more"] == []
    assert daemon.core.state is before
    for query in ("name=nothing&value=1", "name=hole_score&value=x", ""):
        assert (await ask(await page_of(daemon), f"/api/preview?{query}")).status == 400


async def test_hostile_words_stay_words(daemon: Daemon, raw: RawDriver) -> None:
    await raw.hello(software=HOSTILE)
    await ask_socket(daemon, say.EmergencyStop(why=HOSTILE))
    answer = await ask(await page_of(daemon), "/api/session")
    assert answer.headers["content-type"] == "application/json"
    assert HOSTILE in json.loads(answer.text)["summary"]["why"]
    page = await ask(await page_of(daemon), "/", accept="text/html")
    assert "<script>alert" not in page.text
    assert "<img src=x" not in page.text


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name, role in (("anna", "operator"), ("olaf", "observer")):
        make(tmp_path / "keys", name, role)  # type: ignore[arg-type]
    return tmp_path / "keys"


async def test_with_keys_every_route_asks_who_you_are(tmp_path: Path, keys: Path) -> None:
    async with running(settings_in(tmp_path, keys=str(keys), web__address="127.0.0.1:0")) as daemon:
        address = await page_of(daemon)
        routes = [route for route in daemon.web.app.routes if route.path not in OPEN_PATHS]  # type: ignore[attr-defined]
        assert len(routes) > 10
        assert {"/proofread/{name}/save", "/annotate/{name}/stroke", "/control"} <= {route.path for route in routes}  # type: ignore[attr-defined]
        for route in routes:
            for method in route.methods - {"HEAD"}:  # type: ignore[attr-defined]
                path = re.sub(r"\{\w+:int\}", "0", route.path)  # type: ignore[attr-defined]
                path = re.sub(r"[{}]", "", path)
                assert (await ask(address, path, method)).status == 401, f"{method} {path}"


async def test_who_only_looks_hears_everything_and_changes_nothing(tmp_path: Path, keys: Path) -> None:
    olaf, anna = ({"authorization": f"Bearer {new_token(keys, name)}"} for name in ("olaf", "anna"))
    async with running(settings_in(tmp_path, keys=str(keys), web__address="127.0.0.1:0")) as daemon:
        refused = await say_it(daemon, {"verb": "pause", "now": True}, **olaf)
        assert (refused.status, "olaf is observer" in refused.text) == (403, True)
        assert daemon.core.state.phase == "collecting"
        async with stream(await page_of(daemon), **olaf) as heard:
            await hear(heard, "hello")
            assert (await say_it(daemon, {"verb": "pause", "now": True}, **anna)).status == 200
            body = await hear(heard, "news", lambda body: body["summary"]["phase"] == "paused")
            assert any(line["by"] == "anna" for line in body["lines"])
            revoke(keys, "olaf")
            await hear(heard, "end")  # a revoked key sees no more of it


async def test_without_keys_nobody_from_outside_is_let_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"web\.address: 0\.0\.0\.0:0 can be reached from other machines"):
        await Daemon(settings_in(tmp_path, web__address="0.0.0.0:0")).run()
    with pytest.raises(ConfigError, match=r"web\.hosts"):
        await Daemon(settings_in(tmp_path, web__address="127.0.0.1:0", web__hosts=["scope.example"])).run()
    with pytest.raises(ConfigError, match="write host:port"):
        await Daemon(settings_in(tmp_path, web__address="somewhere")).run()


async def test_a_certificate_makes_it_https_and_a_wrong_one_is_told_before_the_start(tmp_path: Path) -> None:
    if not (openssl := shutil.which("openssl")):
        pytest.skip("no openssl here to make a certificate")
    pair = {"web__certificate": str(tmp_path / "cert.pem"), "web__private_key": str(tmp_path / "key.pem")}
    with pytest.raises(ConfigError, match=r"web\.certificate: .*cert\.pem"):
        await Daemon(settings_in(tmp_path, web__address="127.0.0.1:0", **pair)).run()
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    made = [*words.split(), "-keyout", pair["web__private_key"], "-out", pair["web__certificate"]]
    await asyncio.to_thread(subprocess.run, [openssl, *made], check=True, capture_output=True, timeout=60)

    def read_it(address: str) -> dict[str, str]:
        trust = ssl.create_default_context(cafile=pair["web__certificate"])
        port = int(address.rpartition(":")[2])
        with closing(http.client.HTTPSConnection("localhost", port, timeout=60, context=trust)) as connection:
            connection.request("GET", "/me")
            found: dict[str, str] = json.loads(connection.getresponse().read())
            return found

    async with running(settings_in(tmp_path, web__address="127.0.0.1:0", **pair)) as daemon:
        assert (await asyncio.to_thread(read_it, await page_of(daemon)))["name"] == "local"


async def test_a_port_that_is_taken_costs_the_page_and_not_the_night(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path / "a", web__address="127.0.0.1:0")) as first:
        address = await page_of(first)
        async with running(settings_in(tmp_path / "b", web__address=address)) as second:
            await until(lambda: bool(second.web.trouble), 60)
            assert address in second.web.trouble
            assert (await ask_socket(second, say.Pause(now=True))).ok


async def test_open_pages_do_not_hold_the_daemons_end_up(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path, web__address="127.0.0.1:0")) as daemon:
        address = await page_of(daemon)
        async with stream(address) as heard:
            await hear(heard, "hello")
            daemon.stop()
            await hear(heard, "end")


async def test_no_frame_stays_in_hand_whatever_became_of_it(daemon: Daemon, raw: RawDriver) -> None:
    """Pages wait while one is: taken, refused for good, refused for now and sent again all come to an end."""
    await raw.hello()
    image = image_of(shape=(256, 256))
    await raw.send_frame(image, frame_id="low-1", level="low")
    await raw.send_frame(image, frame_id="low-1", level="low")
    await raw.send_frame(image, frame_id="low-2", level="low", digest="0" * 32)
    await raw.send_frame(image, frame_id="low-3", level="low")
    await until(lambda: daemon.core.state.frames == 2, 60)
    await until(lambda: not daemon.intake.busy, 60)
