"""One page for a facility: every daemon's state, also of those that do not answer."""

import json
from pathlib import Path

from agent import control_messages as say
from agent.keys import make
from agent.web.access import new_token
from tests.helpers import ask as ask_socket
from tests.helpers import running, settings_in, until
from tests.ports import free_endpoints
from tests.web.talk import ask


async def test_the_others_are_asked_with_an_observers_key_and_silence_is_said(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    secret = make(keys, "overview", "observer")
    nobody = free_endpoints("control")["control"]
    async with running(settings_in(tmp_path / "b", keys=str(keys), session__name="glacios")) as other:
        others = [
            {
                "name": "glacios",
                "control": other.endpoints["control"],
                "key": str(secret),
                "page": "https://g.example/",
            },
            {"name": "arctica", "control": nobody},
        ]
        settings = settings_in(tmp_path / "a", web__address="127.0.0.1:0", web__others=others, session__name="krios")
        async with running(settings) as daemon:
            await until(lambda: "page" in daemon.endpoints, 60)
            await ask_socket(daemon, say.Pause(now=True))
            answer = await ask(daemon.endpoints["page"], "/api/overview")
            rows = {row["name"]: row for row in json.loads(answer.text)}
            assert list(rows) == ["krios", "glacios", "arctica"]
            assert rows["krios"]["status"]["phase"] == "paused"
            assert rows["glacios"]["status"]["phase"] == "suspended"
            assert rows["glacios"]["page"] == "https://g.example/"
            assert rows["arctica"]["status"] is None
            assert "no daemon answers" in rows["arctica"]["trouble"]
            assert "Overview" in (await ask(daemon.endpoints["page"], "/", accept="text/html")).text
    assert other.core.state.phase == "collecting"  # it was looked at, and nothing else


async def test_where_there_are_no_others_the_menu_has_no_overview(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    make(keys, "anna", "operator")
    async with running(settings_in(tmp_path, keys=str(keys), web__address="127.0.0.1:0")) as daemon:
        await until(lambda: "page" in daemon.endpoints, 60)
        headers = {"authorization": f"Bearer {new_token(keys, 'anna')}", "accept": "text/html"}
        assert "/overview" not in (await ask(daemon.endpoints["page"], "/", **headers)).text
        assert (await ask(daemon.endpoints["page"], "/overview", **headers)).status == 200
