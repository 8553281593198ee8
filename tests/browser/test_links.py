"""From the live page to proofreading and annotation during a session, and back: one app, one session, one sign-in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.settings import Settings
from agent.web.annotate import Facts, write_facts
from agent.web.proofread.project import read_project
from models.organelles.annotation import read_settings
from tests.browser.conftest import Tab
from tests.browser.test_page import IDLE, accept_best_square
from tests.end_to_end.live import daemon
from tests.end_to_end.scene import driver

pytestmark = pytest.mark.timeout(600)  # a slow machine may take its time
SHAPE = (7, 9, 11)
SHOT = "cryonaut.model.points.length && !document.getElementById('proofread').hidden"


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"holes__per_square": 1}


def annotation(folder: Path) -> None:
    """An annotation project of a small volume."""
    folder.mkdir(parents=True)
    np.save(folder / "grey.npy", np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE))
    box = tuple((0, n) for n in SHAPE)
    out = str(folder / "labels.zarr")
    write_facts(folder, Facts(volume="cell.mrc", box=box, edges_nm=(5.0,) * 3, out=out, settings=read_settings()))


def view(tab: Tab) -> list[float]:
    """Corner and scale of the part of the micrograph that is shown."""
    tab.until("document.getElementById('view').dataset.view")
    found: list[float] = json.loads(tab.ask("document.getElementById('view').dataset.view"))
    return found


def test_a_micrograph_is_proofread_from_the_live_page_and_the_session_goes_on(
    settings: Settings, tab: Callable[..., Tab], tmp_path: Path
) -> None:
    with daemon(settings) as running, driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite"):
        annotation(running.folder / "annotate" / "mito")
        page = tab().open(settings.web.address)
        page.until(f"cryonaut.model.squares.size > 3 && {IDLE}")
        accept_best_square(page)
        page.page.keyboard.press("f")  # follow: a click on a square ended it
        page.until(f"{SHOT} && cryonaut.look.hole === cryonaut.model.points.at(-1).id")
        frame = page.ask("document.getElementById('proofread').getAttribute('href').split('/').pop()")

        page.page.locator("#proofread").click()
        page.page.wait_for_url(f"**/proofread/{frame}")
        page.until("document.body.dataset.ready === '1'")
        left, top, scale = view(page)
        page.until("document.body.dataset.marks === '0'")
        page.page.mouse.click((200.5 - left) * scale, (180.5 - top) * scale)
        page.until("document.body.dataset.marks === '1'")
        page.page.keyboard.press("Control+s")
        page.until("document.body.dataset.unsaved === '0'")
        page.until("document.getElementById('state').textContent.includes('saved to')")
        page.picture("link-proofread")

        menu = page.page.get_by_role("navigation", name="Pages")
        menu.get_by_role("link", name="Annotate").click()
        page.page.wait_for_url("**/annotate/mito")
        page.until("document.body.dataset.ready === '1'")
        page.picture("link-annotate")
        menu.get_by_role("link", name="Session").click()
        page.until("window.cryonaut?.model.summary && !document.body.classList.contains('stale')")
        page.until(f"{SHOT} && document.getElementById('proofread').href.endsWith('/' + v.frame)", frame=frame)
        state = running.core.state
    (sheet,) = read_project(running.folder / "proofread")
    ((x, y, by),) = [(m.x, m.y, m.by) for m in sheet.marks]
    assert (round(x), round(y), by) == (200, 180, "person")
    assert [h.frame_id for s in state.grids["G1"].squares.values() for h in s.holes.values() if h.frame_id] == [frame]
