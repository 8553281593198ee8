"""Who may, on what screen, with what words: tokens, phones, screen readers, hostile text."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent import control_messages as say
from agent.control import ControlClient
from agent.keys import make
from agent.settings import Settings
from agent.web.access import new_token
from tests.browser.conftest import Tab
from tests.end_to_end.live import daemon
from tests.end_to_end.scene import driver

Open = Callable[..., Tab]
pytestmark = pytest.mark.timeout(600)  # a slow machine may take its time
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'"&'


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name, role in (("anna", "operator"), ("olaf", "observer")):
        make(tmp_path / "keys", name, role)  # type: ignore[arg-type]
    return tmp_path / "keys"


def axe(tab: Tab) -> list[str]:
    """What axe-core finds wrong, as ``rule: element``."""
    core = pytest.importorskip("axe_playwright_python", reason="no axe-core here: `pip install -e '.[dev]'`")
    tab.page.evaluate((Path(core.__file__).parent / "axe.min.js").read_text(encoding="utf-8") + "; undefined")
    found = tab.page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found["violations"] for node in rule["nodes"]]


def test_a_wrong_token_is_refused_and_a_right_one_opens_what_its_role_allows(
    settings: Settings, keys: Path, tab: Open
) -> None:
    guarded = settings.model_copy(update={"keys": keys})
    with daemon(guarded) as running:
        page = tab()
        page.page.goto(f"http://{settings.web.address}/")
        assert "/signin" in page.page.url
        page.page.get_by_label("Token").fill("anna:not-hers")
        page.page.get_by_role("button", name="Sign in").click()
        page.page.get_by_role("alert").wait_for()
        page.picture("page-signin")
        assert axe(page) == []
        page.page.get_by_label("Token").fill(new_token(keys, "olaf"))
        page.page.get_by_role("button", name="Sign in").click()
        page.until("window.cryonaut?.model.summary && !cryonaut.link.stale")
        assert page.page.locator("#me").inner_text() == "olaf (observer)"
        assert page.page.get_by_role("button", name="Pause now").is_disabled()
        assert page.ask("cryonaut.link.control({verb: 'pause', now: true})")["ok"] is False
        assert running.core.state.phase == "collecting"

        other = tab()
        other.page.goto(f"http://{settings.web.address}/signin")
        other.page.get_by_label("Token").fill(new_token(keys, "anna"))
        other.page.get_by_role("button", name="Sign in").click()
        other.until("window.cryonaut?.model.summary && !cryonaut.link.stale")
        other.page.get_by_role("button", name="Pause now").click()
        page.until("document.getElementById('doing').textContent === 'paused by anna'")


def test_on_a_phone_everything_is_in_reach(settings: Settings, tab: Open, tmp_path: Path) -> None:
    with daemon(settings), driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite"):
        page = tab(390, 844, has_touch=True, is_mobile=True, device_scale_factor=2).open(settings.web.address)
        page.until("cryonaut.model.squares.size > 3 && cryonaut.model.summary.phase === 'idle'")
        for name in ("Now", "Atlas", "Square", "Shot", "Events"):
            page.page.locator(".tabs").get_by_role("button", name=name).click()
            assert page.ask("document.documentElement.scrollWidth") <= 390, name
            assert page.ask("document.querySelectorAll('main > .panel:not(.tuning)').length") > 4
            page.picture(f"phone-{name.lower()}")
            assert axe(page) == [], name
        page.page.locator(".tabs").get_by_role("button", name="Now").click()
        page.page.get_by_role("button", name="Pause now").tap()
        page.until("document.getElementById('phase').textContent === 'Paused'")


def test_a_whole_session_passes_the_accessibility_check(settings: Settings, tab: Open, tmp_path: Path) -> None:
    with daemon(settings) as running, driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite"):
        page = tab(1366, 768).open(settings.web.address)
        page.until("cryonaut.model.squares.size > 3 && cryonaut.model.summary.phase === 'idle'")
        page.page.get_by_role("button", name="Thresholds").click()
        assert axe(page) == []
        with ControlClient(running.endpoints["control"]) as client:
            client.ask(say.EmergencyStop(why="smoke"))
        page.page.locator("#banner").wait_for()
        page.page.keyboard.press("?")
        page.page.get_by_role("heading", name="Keys").wait_for()
        assert axe(page) == []
        page.picture("page-fault")
        page.page.goto(f"http://{settings.web.address}/overview")
        page.page.get_by_role("heading", name="short").wait_for()
        page.picture("overview")
        assert axe(page) == []


def test_hostile_words_are_shown_as_words(settings: Settings, tab: Open) -> None:
    with daemon(settings) as running:
        page = tab().open(settings.web.address)
        with ControlClient(running.endpoints["control"]) as client:
            client.ask(say.EmergencyStop(why=HOSTILE))
        page.until("document.getElementById('banner').textContent.includes(v.words)", words=HOSTILE)
        assert HOSTILE in page.page.locator("#log").inner_text()
        page.page.reload()
        page.until("window.cryonaut?.model.summary")
        assert page.ask("window.hacked === undefined")
        assert page.ask("document.querySelectorAll('main img[src=\"x\"], main script').length") == 0
