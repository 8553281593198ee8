"""Every page stands behind one guard: no name, no role, no token of this site – no answer."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from agent.keys import make, revoke
from agent.web.access import Access, new_token
from agent.web.app import OPEN_PATHS, create_app
from agent.web.guard import Gated, get, post
from agent.web.page import Page
from tests.web.talk import ask, serving

ROOT = Path(__file__).resolve().parents[2]


async def look(_: Request) -> Response:
    return PlainTextResponse("seen")


async def change(_: Request) -> Response:
    return PlainTextResponse("changed")


PAGE = Page("sample", routes=(get("/look", look), post("/change", change)), title="Sample", path="/look")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    make(folder, "anna", "operator")
    make(folder, "olaf", "observer")
    make(folder, "krios", "driver")
    return folder


@pytest.fixture
async def local() -> AsyncIterator[str]:
    async with serving(create_app([PAGE], Access(None))) as address:
        yield address


@pytest.fixture
async def guarded(keys: Path) -> AsyncIterator[str]:
    async with serving(create_app([PAGE], Access(keys), hosts=["scope.lab.example"])) as address:
        yield address


async def csrf_of(address: str, **headers: str) -> str:
    return str(json.loads((await ask(address, "/me", **headers)).text)["csrf"])


async def test_on_loopback_without_keys_everybody_is_the_local_operator(local: str) -> None:
    assert (await ask(local, "/look")).text == "seen"
    me = json.loads((await ask(local, "/me")).text)
    assert (me["name"], me["role"]) == ("local", "operator")
    assert (await ask(local, "/change", "POST", x_csrf_token=me["csrf"])).text == "changed"


async def test_every_route_without_a_token_is_refused_unless_it_is_on_the_open_list(guarded: str, keys: Path) -> None:
    app = create_app([PAGE], Access(keys))
    assert len(app.routes) >= 6
    for route in app.routes:
        assert isinstance(route, Gated)
        if route.path in OPEN_PATHS:
            continue
        for method in sorted(route.methods or ()):
            answer = await ask(guarded, route.path, method)
            assert answer.status == 401, f"{method} {route.path}"
            assert "seen" not in answer.text
            assert "changed" not in answer.text


def test_a_route_that_names_no_role_cannot_be_mounted() -> None:
    loose = Page("loose", routes=(Route("/loose", look),))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names the role"):
        create_app([loose], Access(None))
    with pytest.raises(ValueError, match="names the role"):
        create_app([Page("loose", routes=(get("/loose", look, need="open"),))], Access(None))


async def test_an_observer_looks_and_an_operator_changes(guarded: str, keys: Path) -> None:
    olaf, anna = (f"Bearer {new_token(keys, name)}" for name in ("olaf", "anna"))
    assert (await ask(guarded, "/look", authorization=olaf)).text == "seen"
    refused = await ask(guarded, "/change", "POST", authorization=olaf)
    assert (refused.status, "olaf is observer" in refused.text) == (403, True)
    assert (await ask(guarded, "/change", "POST", authorization=anna)).text == "changed"


async def test_a_driver_has_no_page(guarded: str, keys: Path) -> None:
    token = new_token(keys, "krios")
    assert (await ask(guarded, "/look", authorization=f"Bearer {token}")).status == 401


@pytest.mark.parametrize("token", ["", "anna", "anna:wrong", "../server:x", "anna:" + "ä" * 40, "nobody:x", "a\tb:c"])
async def test_a_wrong_token_is_refused(guarded: str, keys: Path, token: str) -> None:
    new_token(keys, "anna")
    answer = await ask(guarded, "/look", authorization="Bearer " + token.encode("utf-8").decode("latin-1"))
    assert answer.status == 401


async def test_signing_in_lasts_over_a_restart_and_ends_with_the_key(keys: Path) -> None:
    token = new_token(keys, "anna")
    async with serving(create_app([PAGE], Access(keys))) as address:
        body = f"token={token.replace(':', '%3A')}&next=%2Flook"
        kind = "application/x-www-form-urlencoded"
        answer = await ask(address, "/signin", "POST", body, content_type=kind)
        assert (answer.status, answer.headers["location"]) == (303, "/look")
        given = answer.headers["set-cookie"]
        assert "HttpOnly" in given
        assert "SameSite=strict" in given
        assert token not in given
        cookie = given.split(";")[0]
        elsewhere = await ask(address, "/signin", "POST", f"token={token}&next=//evil.example/", content_type=kind)
        assert elsewhere.headers["location"] == "/"
    async with serving(create_app([PAGE], Access(keys))) as address:
        assert (await ask(address, "/look", cookie=cookie)).text == "seen"
        assert (await ask(address, "/change", "POST", cookie=cookie)).status == 403  # no CSRF token
        csrf = await csrf_of(address, cookie=cookie)
        assert (await ask(address, "/change", "POST", cookie=cookie, x_csrf_token=csrf)).text == "changed"
        field = f"csrf={csrf}"
        assert (await ask(address, "/change", "POST", field, cookie=cookie, content_type=kind)).text == "changed"
        forged = cookie[:-4] + "0000"
        assert (await ask(address, "/look", cookie=forged)).status == 401
        revoke(keys, "anna")
        assert (await ask(address, "/look", cookie=cookie)).status == 401
        assert (await ask(address, "/look", authorization=f"Bearer {token}")).status == 401


async def test_a_new_token_makes_the_old_one_void(guarded: str, keys: Path) -> None:
    old = new_token(keys, "anna")
    new = new_token(keys, "anna")
    assert (await ask(guarded, "/look", authorization=f"Bearer {old}")).status == 401
    assert (await ask(guarded, "/look", authorization=f"Bearer {new}")).text == "seen"


async def test_no_log_line_holds_a_token_or_a_cookie(guarded: str, keys: Path) -> None:
    token = new_token(keys, "anna")
    kind = "application/x-www-form-urlencoded"
    with capture_logs() as lines:
        answer = await ask(guarded, "/signin", "POST", f"token={token}", content_type=kind)
        await ask(guarded, "/signin", "POST", f"token={token}x", content_type=kind)
        await ask(guarded, "/look", authorization=f"Bearer {token}", host="evil.example")
    assert [line["event"] for line in lines] == ["signin", "signin.refused", "request.refused"]
    cookie = answer.headers["set-cookie"].split("=", 1)[1].split(";")[0]
    assert token.partition(":")[2] not in str(lines)
    assert cookie not in str(lines)


def test_the_folder_keeps_no_token(keys: Path) -> None:
    secret = new_token(keys, "anna").partition(":")[2]
    for file in keys.rglob("*"):
        if file.is_file():
            assert secret not in file.read_text()
            assert file.stat().st_mode & 0o077 == 0 or file.suffix == ".key"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "localhost@evil"]
)
async def test_a_host_name_that_is_not_the_daemons_is_refused(local: str, host: str) -> None:
    answer = await ask(local, "/look", host=host)
    assert answer.status in (400, 403)
    assert "seen" not in answer.text


async def test_a_name_from_the_config_is_answered(guarded: str, keys: Path) -> None:
    token = f"Bearer {new_token(keys, 'anna')}"
    assert (await ask(guarded, "/look", host="scope.lab.example", authorization=token)).text == "seen"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
async def test_another_site_changes_nothing(local: str, origin: str) -> None:
    csrf = await csrf_of(local)
    assert (await ask(local, "/change", "POST", origin=origin, x_csrf_token=csrf)).status == 403
    assert (await ask(local, "/change", "POST", sec_fetch_site="cross-site", x_csrf_token=csrf)).status == 403
    assert (await ask(local, "/change", "POST", origin=f"http://{local}", x_csrf_token=csrf)).text == "changed"


async def test_nothing_changes_by_a_get_or_without_the_csrf_token(local: str) -> None:
    assert (await ask(local, "/change")).status == 405
    assert (await ask(local, "/change", "POST")).status == 403
    assert (await ask(local, "/change", "POST", x_csrf_token="0" * 64)).status == 403


async def test_every_answer_forbids_scripts_of_others_and_inline_ones(local: str) -> None:
    for path in ("/look", "/signin", "/static/base/base.css", "/nowhere"):
        headers = (await ask(local, path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


async def test_a_body_without_end_is_cut_off(local: str) -> None:
    csrf = await csrf_of(local)
    kind = "application/x-www-form-urlencoded"
    try:
        answer = await ask(local, "/change", "POST", "a=" + "x" * (2 << 20), content_type=kind, x_csrf_token="")
    except OSError:
        return  # the connection was closed on it
    assert answer.status != 200
    assert (await ask(local, "/change", "POST", x_csrf_token=csrf)).text == "changed"


async def test_static_files_are_asked_for_again_only_when_they_changed(local: str) -> None:
    first = await ask(local, "/static/base/base.css")
    assert first.headers["content-type"].startswith("text/css")
    assert (await ask(local, "/static/base/base.css", if_none_match=first.headers["etag"])).status == 304
    for path in ("/static/base/../app.py", "/static/../app.py", "/static/base/%2e%2e/app.py", "/static//etc/passwd"):
        assert (await ask(local, path)).status == 404


async def test_what_a_person_is_refused_is_a_page_and_what_a_script_is_refused_is_json(guarded: str) -> None:
    person = await ask(guarded, "/look", accept="text/html")
    assert (person.status, person.headers["location"]) == (303, "/signin?next=/look")
    assert "error" in json.loads((await ask(guarded, "/look")).text)
    wrong = await ask(guarded, "/<script>alert(1)</script>", accept="text/html")
    assert wrong.status == 404
    assert "<script>alert" not in wrong.text


def test_vendored_files_are_the_ones_whose_hashes_are_kept() -> None:
    """Each folder ``vendor`` below agent/web holds SHA256SUMS that names every file, and no other."""
    for folder in (ROOT / "agent" / "web").rglob("vendor"):
        kept = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines() if line)
        there = {
            file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.rglob("*")
            if file.is_file() and file.name != "SHA256SUMS"
        }
        assert kept == there


def test_no_page_holds_inline_scripts_or_styles() -> None:
    import re

    for file in (ROOT / "agent" / "web").rglob("*.jinja"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)", text), file
