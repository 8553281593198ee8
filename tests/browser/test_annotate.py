"""The annotation page in a real browser: paint, cut, correct, undo, save; and nothing is read before it is drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.volumes import new_mrc, open_volume
from tests.browser.browse import browser_page, command
from tests.browser.test_everyone import axe
from tests.models.test_annotation import body, dice

pytestmark = pytest.mark.timeout(400)  # real programs and a browser, on any machine
ARTEFACTS = Path(__file__).resolve().parents[2] / "artefacts"


def settled(page: Any) -> None:
    """Wait until what was asked for has been drawn."""
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the slice is in the window."""
    settled(page)
    left, top, scale = json.loads(page.locator("#view").get_attribute("data-view"))
    return (x + 0.5 - left) * scale, (y + 0.5 - top) * scale


def stroke(page: Any, *points: tuple[float, float]) -> None:
    """Draw a stroke through pixels of the slice with the mouse."""
    page.mouse.move(*at(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(page, *point), steps=4)
    page.mouse.up()


def until(page: Any, condition: str, **values: Any) -> None:
    """Wait until a condition holds: ``body`` is what the page says of itself, ``drawn`` what its slice shows."""
    page.wait_for_function(
        "(v) => { const body = document.body.dataset, drawn = JSON.parse(document.getElementById('view').dataset.drawn"
        " ?? '{}'), said = document.getElementById('state').textContent; return Boolean(" + condition + "); }",
        arg=values,
        timeout=120_000,
    )


def test_a_structure_is_painted_cut_corrected_and_saved(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed (volumes extra)")
    volume, truth, _ = body()
    with new_mrc(tmp_path / "cell.mrc", volume.shape, 5.0, np.float32) as file:
        file.data[...] = volume
    project, out = tmp_path / "mito", tmp_path / "mito.zarr"
    words = ("annotate", str(tmp_path / "cell.mrc"), "--project", str(project), "--out", str(out), "--no-browser")
    with command(*words, until="http://") as line, browser_page(viewport={"width": 1280, "height": 800}) as page:
        page.goto(line.split()[-1])
        until(page, "body.ready === '1' && drawn.index === 24")
        # structure and background on one slice; one stroke is taken back and made again
        for _ in range(3):
            page.keyboard.press("[")
        page.keyboard.press("]")
        stroke(page, (14, 26), (28, 26))
        until(page, "Number(body.structure) > 30 && drawn.ink === 1")
        page.keyboard.press("2")
        stroke(page, (4, 4), (43, 4))
        until(page, "Number(body.background) > 80")
        page.keyboard.press("Control+z")
        until(page, "body.background === '0'")
        page.keyboard.press("Control+y")
        until(page, "Number(body.background) > 80")
        # on another plane too, by slider and key
        page.keyboard.press("y")
        until(page, "drawn.axis === 1")
        page.locator("#slice").fill("45")
        until(page, "drawn.axis === 1 && drawn.index === 45")
        stroke(page, (5, 5), (40, 40))
        until(page, "Number(body.background) > 160")
        page.keyboard.press("z")
        page.keyboard.press("Enter")
        until(page, "Number(body.labelled) > 1000 && body.busy === '0' && drawn.axis === 0 && drawn.labels === 1")
        ARTEFACTS.mkdir(exist_ok=True)
        page.screenshot(path=str(ARTEFACTS / "annotate.png"))
        # a corner of it is none: painted, cut again, and back
        before = page.locator("body").get_attribute("data-labelled")
        page.keyboard.press("2")
        stroke(page, (30, 20), (33, 32))
        until(page, "Number(body.background) > 180")
        page.keyboard.press("Enter")
        until(page, "Number(body.labelled) < v.before && body.busy === '0' && drawn.labels === 2", before=int(before))
        page.keyboard.press("Control+z")
        until(page, "Number(body.labelled) === v.before", before=int(before))
        page.keyboard.press("Control+s")
        until(page, "said.includes('saved to') && body.unsaved === '0'")
        page.keyboard.press("?")
        page.get_by_text("Clean-up and method").click()
        assert axe_of(page) == []
        page.reload()
        until(
            page, "body.ready === '1' && Number(body.labelled) === v.before && drawn.index === 24", before=int(before)
        )
    labels = open_volume(out)
    made = np.asarray(labels.array[:]) > 0
    assert int(made.sum()) == int(before)
    assert dice(made, truth) > 0.9
    assert labels.voxel_nm == pytest.approx(5.0)


class _Of:
    def __init__(self, page: Any) -> None:
        self.page = page


def axe_of(page: Any) -> list[str]:
    """What axe-core finds wrong."""
    return axe(_Of(page))  # type: ignore[arg-type]
