"""A real browser, where there is one: Debian's chromium through playwright; elsewhere these tests are skipped."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.settings import Settings
from tests.browser.browse import CHROMIUM
from tests.end_to_end.scene import quick_settings
from tests.ports import free_endpoints

ARTEFACTS = Path(__file__).resolve().parents[2] / "artefacts"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 75_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A running browser with a fresh profile."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: `pip install -e '.[dev]'`")
    if CHROMIUM is None:
        pytest.skip("no chromium here: `apt-get install chromium`, or set CRYONAUT_CHROMIUM to its path")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


class Tab:
    """One open page, with everything that went wrong in it."""

    def __init__(self, browser: Any, width: int, height: int, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"a dialog of a script: {dialog.message}"))
        self.page.on("console", lambda said: self.wrong.append(said.text) if "Content Security" in said.text else None)

    def open(self, address: str) -> "Tab":
        """Load the page and wait until it knows the session."""
        self.page.goto(f"http://{address}/")
        self.until("window.cryonaut?.model.summary")
        return self

    def until(self, condition: str, **values: Any) -> None:
        """Wait until a condition in the page holds."""
        self.page.wait_for_function(f"(v) => Boolean({condition})", arg=values, timeout=PATIENCE_MS)

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.page.evaluate(expression)

    def click_until_chosen(self, view: str, place: str, area: str) -> None:
        """Click on a picture where an expression in the page says, again where the picture moved meanwhile."""
        for _ in range(50):
            x, y = self.ask(f"(() => {{ const view = cryonaut.views.{view}; return {place}; }})()")
            self.page.locator(f"#view-{view} .marks").click(position={"x": x, "y": y})
            if self.ask(f"cryonaut.look.chosen.has({area!r})"):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{area} could not be clicked")

    def picture(self, name: str) -> None:
        """Keep what it looks like, to be looked at."""
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=str(ARTEFACTS / f"{name}.png"))


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Opens pages; at the end none of them may have had an error in a script."""
    made: list[Tab] = []

    def opened(width: int = 1440, height: int = 900, **options: Any) -> Tab:
        made.append(Tab(browser, width, height, **options))
        return made[-1]

    with ExitStack() as stack:
        yield opened
        for one in made:
            stack.callback(one.context.close)
        assert [wrong for one in made for wrong in one.wrong] == []


@pytest.fixture
def changes() -> dict[str, Any]:
    """Settings that a test changes."""
    return {}


@pytest.fixture
def settings(tmp_path: Path, changes: dict[str, Any]) -> Settings:
    """A short session that waits for an operator to accept squares, with its page on a free port."""
    ports = free_endpoints("drivers", "control", "events", "page")
    address = ports.pop("page").removeprefix("tcp://")
    values: dict[str, Any] = {"session__autonomy": "approve", "holes__per_square": 0, "web__address": address}
    return quick_settings(tmp_path, ports, **(values | changes))
