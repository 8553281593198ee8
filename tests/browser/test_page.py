"""An operator at the page: sees the grid fill, has the last word on targets, pauses, and is not alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.session import events as ev
from agent.settings import Settings
from tests.browser.conftest import Tab
from tests.end_to_end.live import daemon, events_of
from tests.end_to_end.scene import driver

Open = Callable[..., Tab]
pytestmark = pytest.mark.timeout(600)  # a slow machine may take its time
IDLE = "cryonaut.model.summary.phase === 'idle'"
BEST = "[...cryonaut.model.squares.values()].filter((s) => !s.edge).sort((a, b) => b.score - a.score)[0]"
AT_SQUARE = "view.toScreen(s.x, s.y)"


def accept_best_square(tab: Tab) -> str:
    """Click the best square on the atlas and accept it; returns its id once all it asks for is done."""
    best: str = tab.ask(f"{BEST}.id")
    tab.click_until_chosen("atlas", f"((s) => {AT_SQUARE})({BEST})", best)
    tab.page.get_by_role("button", name="Accept", exact=True).click()
    tab.until(f"cryonaut.model.squares.get(v.id)?.state === 'done' && {IDLE}", id=best)
    return best


def hole_in_view(tab: Tab, number: int) -> str:
    """Id of a hole of the shown square that lies well inside the view."""
    found: str = tab.ask(
        "(() => { const view = cryonaut.views.square; const holes = cryonaut.model.holesOf(cryonaut.look.square);"
        " const inside = holes.filter((h) => { const [x, y] = view.toScreen(...view.scene.at(h.x, h.y));"
        " return x > 60 && y > 60 && x < view.width - 60 && y < view.height - 60 && h.score > 0.3; });"
        f" return inside[{number}].id; }})()"
    )
    return found


def click_hole(tab: Tab, hole: str) -> None:
    place = f"((h) => view.toScreen(...view.scene.at(h.x, h.y)))(cryonaut.model.holes.get({hole!r}))"
    tab.click_until_chosen("square", place, hole)


def test_a_session_seen_and_steered_from_two_browsers(settings: Settings, tab: Open, tmp_path: Path) -> None:
    with daemon(settings) as running:
        anna = tab().open(settings.web.address)
        assert anna.ask("cryonaut.model.squares.size") == 0
        with driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite") as (scope, _):
            anna.until(f"cryonaut.model.squares.size > 3 && cryonaut.model.atlas && {IDLE}")
            anna.until("document.querySelector('#phase').innerText === 'Waiting for you'")
            anna.picture("page-atlas")

            square = accept_best_square(anna)
            anna.until("cryonaut.model.holesOf(v.id).length > 3", id=square)
            hole = hole_in_view(anna, 0)
            click_hole(anna, hole)
            anna.page.keyboard.press("x")
            anna.until("cryonaut.model.holes.get(v.id).state === 'rejected'", id=hole)
            assert not scope.ledger

            olaf = tab(1366, 768).open(settings.web.address)
            olaf.until("cryonaut.model.holes.get(v.id)?.state === 'rejected'", id=hole)
            anna.page.keyboard.press("a")  # a rejected hole comes back, and is exposed
            olaf.until("cryonaut.model.holes.get(v.id).frame", id=hole)
            olaf.until(f"cryonaut.model.holes.get(v.id).verdict && {IDLE}", id=hole)
            anna.until("cryonaut.look.hole === v.id && !document.getElementById('spectrum').hidden", id=hole)
            anna.until("document.getElementById('spectrum').naturalWidth > 50")
            anna.until("document.querySelectorAll('#story li').length > 3")
            assert len(scope.ledger) == 1
            anna.picture("page-micrograph")

            olaf.page.keyboard.press("p")
            for one in (anna, olaf):
                one.until("document.getElementById('phase').textContent === 'Paused'")
            assert "local" in anna.page.locator("#doing").inner_text()
            anna.page.get_by_role("button", name="Resume").click()
            for one in (anna, olaf):
                one.until(f"{IDLE} || cryonaut.model.summary.phase === 'collecting'")
            seen = "JSON.stringify([...cryonaut.model.holes.values()].sort((a, b) => (a.id < b.id ? -1 : 1)))"
            for one in (anna, olaf):
                one.until(IDLE)
            assert anna.ask(seen) == olaf.ask(seen)
        assert running.core.state.hole(hole).word == "accepted"  # type: ignore[union-attr]
    asked = [event for event in events_of(running.folder) if isinstance(event, ev.Requested)]
    verbs = [event.verb.__struct_config__.tag for event in asked]
    assert verbs == ["accept", "reject", "accept", "pause", "resume"]
    assert {event.by for event in asked} == {"local"}


def test_targets_are_added_moved_and_taken_back_by_mouse(settings: Settings, tab: Open, tmp_path: Path) -> None:
    with daemon(settings) as running, driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite"):
        page = tab().open(settings.web.address)
        page.until(f"cryonaut.model.squares.size > 3 && {IDLE}")
        square = accept_best_square(page)
        page.page.get_by_role("button", name="Pause now").click()
        page.until("cryonaut.model.summary.phase === 'paused'")

        hole = hole_in_view(page, 2)
        before = page.ask(f"(() => {{ const h = cryonaut.model.holes.get({hole!r}); return [h.x, h.y]; }})()")
        page.page.get_by_role("button", name="Move", exact=True).click()
        where = "((h, v) => v.toScreen(...v.scene.at(h.x, h.y)))"
        for _ in range(50):  # again where the picture moved meanwhile
            box = page.page.locator("#view-square .marks").bounding_box()
            x, y = page.ask(f"{where}(cryonaut.model.holes.get({hole!r}), cryonaut.views.square)")
            page.page.mouse.move(box["x"] + x, box["y"] + y)
            page.page.mouse.down()
            page.page.mouse.move(box["x"] + x + 15, box["y"] + y, steps=5)
            page.page.mouse.up()
            if page.ask("document.getElementById('ask').open"):
                break
            page.page.wait_for_timeout(100)
        page.page.locator("#ask-yes").click()
        page.until("cryonaut.model.holes.get(v.id).word === 'accepted'", id=hole)
        per_px = page.ask("cryonaut.views.square.scene.umPerUnit / cryonaut.views.square.view.scale")
        moved = running.core.state.hole(hole)
        assert moved is not None
        assert (
            abs(((moved.x_um - before[0]) ** 2 + (moved.y_um - before[1]) ** 2) ** 0.5 - 15 * per_px)
            < 0.2 * 15 * per_px
        )

        page.page.keyboard.press("u")
        page.until("cryonaut.model.holes.get(v.id).word !== 'accepted'", id=hole)
        count = page.ask(f"cryonaut.model.holesOf({square!r}).length")
        page.page.get_by_role("button", name="Add hole").click()
        page.page.locator("#view-square .marks").click(position={"x": x + 9, "y": y + 9})
        page.page.locator("#ask-yes").click()
        page.until("cryonaut.model.holesOf(v.id).length === v.count + 1", id=square, count=count)


def test_the_page_finds_the_same_state_after_the_daemons_restart(settings: Settings, tab: Open, tmp_path: Path) -> None:
    page = tab()
    seen = "JSON.stringify([[...cryonaut.model.squares.values()], [...cryonaut.model.holes.values()]])"
    with driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite"):
        with daemon(settings):
            page.open(settings.web.address)
            page.until(f"cryonaut.model.squares.size > 3 && {IDLE}")
            accept_best_square(page)
            page.page.keyboard.press("Shift+P")
            page.until("cryonaut.model.summary.phase === 'paused'")
            before = page.ask(seen)
        page.until("document.body.classList.contains('stale')")
        assert page.page.get_by_role("button", name="Resume").is_disabled()
        assert "no word for" in page.page.locator("#clock").inner_text()
        page.picture("page-stale")
        with daemon(settings):
            page.until("!document.body.classList.contains('stale') && cryonaut.model.summary.epoch === 2")
            page.until("cryonaut.model.summary.driver")
            assert page.ask(seen) == before
            page.page.get_by_role("button", name="Resume").click()  # with the CSRF token of the new process
            page.until("['idle', 'collecting'].includes(cryonaut.model.summary.phase)")


def test_a_threshold_is_previewed_before_it_is_applied(settings: Settings, tab: Open, tmp_path: Path) -> None:
    with daemon(settings) as running, driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite"):
        page = tab().open(settings.web.address)
        page.until(f"cryonaut.model.squares.size > 3 && {IDLE}")
        page.page.get_by_role("button", name="Pause now").click()
        page.until("cryonaut.model.summary.phase === 'paused'")
        page.page.locator("#autonomy").select_option("unattended")
        page.page.locator("#ask-yes").click()
        page.until("cryonaut.model.summary.autonomy === 'unattended'")
        page.page.get_by_role("button", name="Thresholds").click()
        page.page.get_by_label("Squares per grid, value").fill("3")
        page.until("cryonaut.look.preview?.more.length === 2")
        assert running.core.state.thresholds["squares_per_grid"] == 1
        page.picture("page-preview")
        last = "[...cryonaut.model.squares.values()].filter((s) => !s.edge).sort((a, b) => a.score - b.score)[0]"
        worst: str = page.ask(f"{last}.id")
        page.click_until_chosen("atlas", f"((s) => {AT_SQUARE})({last})", worst)
        page.page.get_by_role("button", name="Pin next").click()
        page.until("cryonaut.model.summary.queue[0]?.id === v.id", id=worst)
        page.picture("page-pinned")
        page.page.get_by_role("button", name="Ban", exact=True).click()
        page.page.locator("#ask-yes").click()
        page.until("cryonaut.model.squares.get(v.id).word === 'rejected'", id=worst)
        page.page.get_by_role("button", name="Apply Squares per grid").click()
        page.until("cryonaut.model.summary.thresholds.squares_per_grid === 3")
        assert page.ask("cryonaut.look.preview") is None
