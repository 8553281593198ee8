"""The proofreading page in a real browser: every change is undone, done again, saved and found again."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from agent.web.proofread import read_project
from drivers.volumes import new_mrc
from models.gold.files import write_csv
from models.gold.records import GoldParticle
from tests.browser.browse import browser_page, command

pytestmark = pytest.mark.timeout(400)  # real programs and networks, on any machine
ARTEFACTS = Path(__file__).resolve().parents[2] / "artefacts"
TRUTH = ((150.0, 120.0, 12.0), (320.0, 200.0, 6.0), (500.0, 330.0, 12.0))


@pytest.fixture
def replica(tmp_path: Path) -> tuple[Path, Path]:
    """An image of 900 x 700 pixels with three particles, and a table with two of them and a wrong one."""
    rng = np.random.default_rng(1)
    image = rng.normal(180, 8, (700, 900))
    y, x = np.mgrid[0:700, 0:900]
    for cx, cy, d in TRUTH:
        image -= 150 * (np.hypot(x - cx, y - cy) < d / 2)
    cv2.imwrite(str(tmp_path / "replica.png"), image.clip(0, 255).astype(np.uint8))
    marks = [GoldParticle(x=x, y=y, diameter_nm=d, score=0.9, group=f"{d:.0f} nm") for x, y, d in TRUTH[:2]]
    marks.append(GoldParticle(x=700.0, y=500.0, diameter_nm=6.0, score=0.41, group="6 nm"))
    write_csv(marks, 1.0, tmp_path / "replica.csv")
    return tmp_path / "replica.png", tmp_path / "replica.csv"


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the image is in the window, once what was asked for has been drawn."""
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    left, top, scale = json.loads(page.locator("#view").get_attribute("data-view"))
    return (x + 0.5 - left) * scale, (y + 0.5 - top) * scale


def shows(page: Any, marks: int, selected: str = "") -> None:
    """Wait until the page has so many marks, and says this of the selected one."""
    page.wait_for_selector(f"body[data-marks='{marks}']")
    page.wait_for_function("(words) => document.getElementById('selected').textContent.includes(words)", arg=selected)


def opened(page: Any, link: str) -> None:
    page.goto(link)
    page.wait_for_selector("body[data-ready='1']")
    page.wait_for_function("() => document.getElementById('view').dataset.view !== undefined")


def test_marks_are_removed_added_resized_undone_and_saved(replica: tuple[Path, Path], tmp_path: Path) -> None:
    image, table = replica
    project = tmp_path / "project"
    words = ("proofread", str(image), "--detections", str(table), "--pixel-size", "1.0nm", "--project", str(project))
    with command(*words, "--no-browser", until="http://") as line, browser_page() as page:
        link = line.split()[-1]
        opened(page, link)
        shows(page, 3)
        # the least certain mark is wrong: it is shown, and goes
        page.keyboard.press("n")
        shows(page, 3, "0.41")
        page.keyboard.press("Delete")
        shows(page, 2)
        page.keyboard.press("Control+z")
        shows(page, 3)
        page.keyboard.press("Control+y")
        shows(page, 2)
        # the particle that was missed
        page.keyboard.press("f")
        page.keyboard.press("2")
        page.mouse.click(*at(page, 500, 330))
        shows(page, 3, "12.0 nm")
        page.keyboard.press("]")
        shows(page, 3, "12.6 nm")
        page.keyboard.press("Control+z")
        shows(page, 3, "12.0 nm")
        # one mark is moved, one of them is removed with the mouse and comes back
        page.mouse.move(*at(page, 320, 200))
        page.mouse.down()
        page.mouse.move(*at(page, 330, 205), steps=3)
        page.mouse.move(*at(page, 340, 210), steps=3)
        page.mouse.up()
        page.mouse.click(*at(page, 150, 120), button="right")
        shows(page, 2)
        page.locator("#undo").click()
        shows(page, 3)
        # only this part was gone through
        page.keyboard.press("c")
        page.mouse.move(*at(page, 20, 20))
        page.mouse.down()
        page.mouse.move(*at(page, 600, 400), steps=4)
        page.mouse.up()
        page.wait_for_selector("body[data-unsaved='4']")
        page.keyboard.press("Control+s")
        page.wait_for_selector("body[data-unsaved='0']")
        page.wait_for_function("() => document.getElementById('state').textContent.includes('saved to')")
        page.reload()
        page.wait_for_selector("body[data-ready='1']")
        shows(page, 3)
    (sheet,) = read_project(project)
    placed = {(round(m.x), round(m.y)): m for m in sheet.marks}
    assert set(placed) == {(150, 120), (500, 330), (340, 210)}
    assert (placed[500, 330].by, placed[150, 120].by) == ("person", "model")
    assert placed[500, 330].diameter_nm == 12.0
    assert [round(m.x) for m in sheet.removed] == [700]
    ((left, top, right, bottom),) = sheet.checked
    assert np.allclose((left, top, right, bottom), (20, 20, 600, 400), atol=2)


def test_a_large_image_is_looked_at_through_tiles(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    big = rng.normal(150, 10, (3000, 5000)).clip(0, 255).astype(np.uint8)
    cv2.circle(big, (4321, 2345), 6, 10, -1)
    cv2.imwrite(str(tmp_path / "big.png"), big)
    words = ("proofread", str(tmp_path / "big.png"), "--pixel-size", "1.11", "--project", str(tmp_path / "p"))
    with command(*words, "--no-browser", until="http://") as line, browser_page() as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        opened(page, line.split()[-1])
        page.mouse.move(*at(page, 4321, 2345))
        for _ in range(14):
            page.mouse.wheel(0, -100)
        page.wait_for_function("() => JSON.parse(document.getElementById('view').dataset.view)[2] > 3")
        x, y = at(page, 4321, 2345)
        page.wait_for_function(
            """([x, y]) => { const c = document.getElementById('view'), r = window.devicePixelRatio || 1;
            return c.getContext('2d').getImageData(x * r, y * r, 1, 1).data[0] < 60; }""",
            arg=[x, y],
        )
        page.mouse.click(x, y)
        shows(page, 1)
        levels = {url.split("/tile/")[1].split("/")[0] for url in asked if "/tile/" in url}
        assert "0" in levels
        assert len([url for url in asked if "/tile/0/" in url]) < 30  # not the whole image
        page.keyboard.press("Control+s")
        page.wait_for_selector("body[data-unsaved='0']")
    (sheet,) = read_project(tmp_path / "p")
    assert np.allclose((sheet.marks[0].x, sheet.marks[0].y), (4321, 2345), atol=0.6)


def test_without_the_link_nobody_gets_in(replica: tuple[Path, Path], tmp_path: Path) -> None:
    image, _ = replica
    words = ("proofread", str(image), "--pixel-size", "1.0nm", "--project", str(tmp_path / "p"), "--no-browser")
    with command(*words, until="http://") as line, browser_page() as page:
        root = line.split()[-1].split("/signin")[0]
        assert page.goto(f"{root}/proofread").url.endswith("/signin?next=/proofread")
        assert page.goto(f"{root}/signin?token=guess").url.endswith("/signin?token=guess")
        answer = page.request.get(f"{root}/proofread/replica.png/marks")
        assert answer.status == 401
        page.goto(line.split()[-1])
        assert page.request.get(f"{root}/proofread/replica.png/marks").status == 200
        # a page of another origin cannot save: it has no token against forgery
        refused = page.request.post(f"{root}/proofread/replica.png/save", data={"revision": 0})
        assert refused.status == 403


SPHERES = ((30.0, 32.0, 20.0, 9.0), (66.0, 60.0, 22.0, 8.0), (34.0, 70.0, 12.0, 10.0))  # x, y, z, radius in voxels


@pytest.fixture
def synapse(tmp_path: Path) -> tuple[Path, Path]:
    """A tomogram of 2 nm voxels with three vesicles, and a table with two of them and a wrong one."""
    z, y, x = np.mgrid[:40, :96, :96]
    volume = np.random.default_rng(3).normal(0, 0.25, (40, 96, 96))
    for cx, cy, cz, r in SPHERES:
        far = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        volume -= np.exp(-(((far - r + 1.5) / 1.2) ** 2))  # the membrane; r is its outside
    with new_mrc(tmp_path / "synapse.mrc", volume.shape, 2.0, np.float32) as file:
        file.data[...] = volume
    rows = ["number,x,y,z,radius_nm,score,outlier"]
    rows += [f"{n},{x},{y},{z},{2 * r},0.9," for n, (x, y, z, r) in enumerate(SPHERES[:2], start=1)]
    rows.append("3,80,20,22,16,0.8,membrane hardly seen")
    (tmp_path / "vesicles.csv").write_text("\n".join(rows))
    return tmp_path / "synapse.mrc", tmp_path / "vesicles.csv"


def test_vesicles_of_a_tomogram_are_corrected_section_by_section(synapse: tuple[Path, Path], tmp_path: Path) -> None:
    volume, table = synapse
    project = tmp_path / "project"
    words = ("proofread", str(volume), "--detections", str(table), "--project", str(project), "--no-browser")
    with command(*words, until="http://") as line, browser_page() as page:
        opened(page, line.split()[-1])
        drawn = "(z) => JSON.parse(document.getElementById('view').dataset.drawn ?? '{}').section === z"
        page.wait_for_function(drawn, arg=20)
        shows(page, 3)
        # what the finder doubted most is nothing: shown in its section, and gone
        page.keyboard.press("n")
        shows(page, 3, "0.50")
        page.wait_for_function(drawn, arg=22)
        page.keyboard.press("Delete")
        shows(page, 2)
        # one that was missed: found by its section, clicked beside its centre, snapped to its membrane
        page.keyboard.press("f")
        page.locator("#section").fill("12")
        page.wait_for_function(drawn, arg=12)
        ARTEFACTS.mkdir(exist_ok=True)
        page.mouse.click(*at(page, 37, 68))
        shows(page, 3)
        page.wait_for_function("() => document.body.dataset.snapping === undefined")
        page.screenshot(path=str(ARTEFACTS / "proofread-tomogram.png"))
        # the first one is larger than the finder said, and lies one section deeper
        page.locator("#section").fill("20")
        page.wait_for_function(drawn, arg=20)
        page.mouse.click(*at(page, 30, 32))
        shows(page, 3, "36.0 nm at (30.0, 32.0, 20.0)")
        page.keyboard.press("]")
        shows(page, 3, "37.8 nm")
        page.keyboard.press(">")
        shows(page, 3, "21.0)")
        # in the section through its top it is a small circle; beyond it, there is nothing to select
        page.keyboard.press("PageDown")
        page.wait_for_function(drawn, arg=30)
        page.keyboard.press("Escape")
        page.mouse.click(*at(page, 30, 36), button="right")
        shows(page, 3, "nothing selected")
        page.keyboard.press("t")
        page.wait_for_function("() => JSON.parse(document.getElementById('view').dataset.drawn).thick === 5")
        # this part was gone through, in some sections
        page.locator("#first").fill("5")
        page.locator("#last").fill("30")
        page.locator("#check").click()
        page.mouse.move(*at(page, 5, 5))
        page.mouse.down()
        page.mouse.move(*at(page, 90, 88), steps=3)
        page.mouse.up()
        page.wait_for_selector("body[data-unsaved='4']")
        page.keyboard.press("Control+s")
        page.wait_for_selector("body[data-unsaved='0']")
        page.reload()
        page.wait_for_selector("body[data-ready='1']")
        shows(page, 3)
    (sheet,) = read_project(project)
    assert (sheet.structure, sheet.sections, sheet.pixel_nm) == ("vesicles", 40, 2.0)
    by_id = {mark.id: mark for mark in sheet.marks}
    x, y, z, r = SPHERES[2]
    new = by_id[max(by_id)]
    assert np.hypot(new.x - x, new.y - y) < 0.5 * np.hypot(3, 2)  # nearer than half of where the click was
    assert abs(new.z - z) < 1
    assert abs(new.diameter_nm / 2 / 2 - r) < 1
    assert (by_id[1].z, by_id[1].diameter_nm, by_id[1].by, by_id[2].by) == (21.0, 37.8, "person", "model")
    assert [mark.id for mark in sheet.removed] == [3]
    ((left, top, right, bottom, first, last),) = sheet.checked
    assert np.allclose((left, top, right, bottom), (5, 5, 90, 88), atol=2)
    assert (first, last) == (5, 30)
