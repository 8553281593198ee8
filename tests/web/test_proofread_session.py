"""Micrographs of a session are proofread on the daemon's page; what a person corrects lies in the session's folder."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from agent.daemon import Daemon
from agent.frames import FrameStore
from agent.journal import Draft, Journal
from agent.keys import make
from agent.messages import Stage
from agent.session import events as ev
from agent.session.state import Decision, Hole, Square
from agent.web.access import new_token
from agent.web.proofread import read_project
from tests.helpers import frame_of, image_of, running, settings_in
from tests.web.talk import Answer, ask
from tests.web.test_live import page_of, read

FRAME, HOLE = "C000007-F001", "G1-S001-H001"


def detected(x: float, detector: str = "gold", group: str = "12 nm") -> ev.ObjectsDetected:
    objects = (ev.DetectedObject(x=x, y=20.0, diameter_nm=12.0, group=group, score=0.8),)
    return ev.ObjectsDetected(area_id=HOLE, frame_id=FRAME, detector=detector, fingerprint="f", objects=objects,
                              counts={group: 1})  # fmt: skip


def planted(folder: Path, *found: ev.ObjectsDetected) -> None:
    """A session with one micrograph and what detectors found on it."""
    folder.mkdir(parents=True)
    store, journal = FrameStore(folder), Journal(folder)
    image = image_of(shape=(600, 700))
    frame = frame_of(image, frame_id=FRAME, level="high", pixel_size_angstrom=10.0, stage=Stage())
    square = Square(area_id="G1-S001", x_um=0.0, y_um=0.0, size_um=60.0, score=0.9)
    hole = Hole(area_id=HOLE, x_um=0.0, y_um=0.0, radius_um=0.6, score=0.9)
    events: list[ev.AnyEvent] = [
        ev.SessionOpened(session_id="s", name="test", config="x", version="0", mode="advisor", autonomy="suggest",
                         thresholds={}, grids=(("G1", None),)),
        ev.GridChanged(grid_id="G1", state="screening", decision=Decision(why="planted")),
        ev.SquaresFound(grid_id="G1", frame_id="a", model="m", fingerprint="f", squares=(square,)),
        ev.HolesFound(square_id="G1-S001", frame_id="m", model="m", fingerprint="f", holes=(hole,)),
        ev.FrameReceived(frame=frame, file=store.save(frame, image), grid_id="G1", area_id=HOLE),
        ev.MicrographJudged(area_id=HOLE, frame_id=FRAME, model="m", fingerprint="f", score=0.7, label="good",
                            features={}),
        *found,
    ]  # fmt: skip
    drafts = [Draft(ev.kind_of(event), ev.encode_event(event)) for event in events[:4]]
    drafts.append(Draft("frame_received", ev.encode_event(events[4]), f"frame:{FRAME}"))
    drafts += [Draft(ev.kind_of(event), ev.encode_event(event)) for event in events[5:]]
    journal.append(drafts, utc=1.0, epoch=1)
    journal.close()


async def save(daemon: Daemon, change: dict[str, Any], **headers: str) -> Answer:
    csrf = (await read(daemon, "/me", **headers))["csrf"]
    path = f"/proofread/{FRAME}/save"
    return await ask(await page_of(daemon), path, "POST", json.dumps(change), x_csrf_token=csrf, **headers)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make(tmp_path / "keys", "anna", "operator")
    make(tmp_path / "keys", "olaf", "observer")
    return tmp_path / "keys"


async def test_what_the_detectors_marked_is_corrected_and_kept_in_the_sessions_folder(tmp_path: Path) -> None:
    planted(tmp_path / "test", detected(10.0), detected(30.0), detected(50.0, "vesicles", "vesicle"))
    async with running(settings_in(tmp_path, web__address="127.0.0.1:0", session__mode="advisor")) as daemon:
        listed = (await ask(await page_of(daemon), "/proofread")).headers["location"]
        assert listed == f"/proofread/{FRAME}"  # the only one
        assert (await ask(await page_of(daemon), listed)).status == 200
        told = await read(daemon, f"/proofread/{FRAME}/marks")
        assert [mark[1] for mark in told["marks"]] == [30.0, 50.0]  # the last run of each detector
        assert (told["rows"], told["columns"], told["pixel_nm"], told["revision"]) == (600, 700, 1.0, 3)
        assert told["sizes_nm"] == [12.0]
        assert (await ask(await page_of(daemon), f"/proofread/{FRAME}/tile/0/1/1")).status == 200
        assert (await ask(await page_of(daemon), f"/proofread/{FRAME}/tile/0/2/0")).status == 404
        answer = await save(daemon, {"revision": 3, "removed": [1], "placed": [[3, 99.0, 88.0, 6.0]]})
        assert answer.status == 200
        file = tmp_path / "test" / "proofread" / f"{FRAME}.json"
        assert json.loads(answer.text)["file"] == str(file)
        assert (await save(daemon, {"revision": 3, "removed": [2]})).status == 409  # another window's marks
        for path in ("/proofread/low-1", "/proofread/..%2Fx/marks", "/proofread/nothing/tile/0/0/0"):
            assert (await ask(await page_of(daemon), path)).status == 404
    (sheet,) = read_project(file.parent)
    assert {mark.x for mark in sheet.marks} == {50.0, 99.0}
    assert [mark.x for mark in sheet.removed] == [30.0]
    assert (file.parent / sheet.image).resolve() == (tmp_path / "test/frames/high" / f"{FRAME}.tif").resolve()
    async with running(settings_in(tmp_path, web__address="127.0.0.1:0", session__mode="advisor")) as daemon:
        assert {mark[1] for mark in (await read(daemon, f"/proofread/{FRAME}/marks"))["marks"]} == {50.0, 99.0}


async def test_an_observer_sees_the_marks_and_only_an_operator_saves(tmp_path: Path, keys: Path) -> None:
    planted(tmp_path / "test", detected(10.0))
    olaf, anna = ({"authorization": f"Bearer {new_token(keys, name)}"} for name in ("olaf", "anna"))
    changes = {"keys": str(keys), "web__address": "127.0.0.1:0", "session__mode": "advisor"}
    async with running(settings_in(tmp_path, **changes)) as daemon:
        assert len((await read(daemon, f"/proofread/{FRAME}/marks", **olaf))["marks"]) == 1
        refused = await save(daemon, {"revision": 1, "removed": [1]}, **olaf)
        assert (refused.status, "olaf is observer" in refused.text) == (403, True)
        assert not (tmp_path / "test" / "proofread").exists()
        assert (await save(daemon, {"revision": 1, "removed": [1]}, **anna)).status == 200


async def test_marks_that_came_meanwhile_are_not_saved_over(tmp_path: Path) -> None:
    planted(tmp_path / "test")
    async with running(settings_in(tmp_path, web__address="127.0.0.1:0", session__mode="advisor")) as daemon:
        assert (await read(daemon, f"/proofread/{FRAME}/marks"))["revision"] == 0
        event = detected(10.0)
        daemon.core.journal.append([Draft(ev.kind_of(event), ev.encode_event(event))], utc=2.0, epoch=2)
        assert (await read(daemon, f"/proofread/{FRAME}/marks"))["revision"] == 1
        answer = await save(daemon, {"revision": 0, "placed": [[1, 5.0, 5.0, 6.0]]})
        assert (answer.status, "load the page again" in answer.text) == (409, True)


async def test_a_frame_that_is_gone_is_told_in_words(tmp_path: Path) -> None:
    planted(tmp_path / "test", detected(10.0))
    file = tmp_path / "test/frames/high" / f"{FRAME}.tif"
    file.write_bytes(np.zeros(100).tobytes())
    async with running(settings_in(tmp_path, web__address="127.0.0.1:0", session__mode="advisor")) as daemon:
        answer = await ask(await page_of(daemon), f"/proofread/{FRAME}/marks")
        assert (answer.status, f"{FRAME}.tif: cannot be read" in answer.text) == (404, True)


async def test_what_several_detectors_marked_is_corrected_apart(tmp_path: Path) -> None:
    planted(tmp_path / "test", detected(10.0), detected(50.0, "vesicles", "under 65 nm"))
    changes = {"web__address": "127.0.0.1:0", "session__mode": "advisor", "inference__detectors": ["gold", "vesicles"]}
    async with running(settings_in(tmp_path, **changes), analyst=NoAnalyst()) as daemon:
        address = await page_of(daemon)
        page = (await ask(address, "/proofread")).text
        assert all(f"{FRAME}%40{name}" in page or f"{FRAME}@{name}" in page for name in ("gold", "vesicles"))
        assert unquote((await ask(address, f"/proofread/{FRAME}")).headers["location"]) == f"/proofread/{FRAME}@gold"
        assert (await ask(address, f"/proofread/{FRAME}/marks")).status == 404
        told = await read(daemon, f"/proofread/{FRAME}@vesicles/marks")
        assert [mark[1] for mark in told["marks"]] == [50.0]
        csrf = (await read(daemon, "/me"))["csrf"]
        body = json.dumps({"revision": 1, "placed": [[9, 99.0, 88.0, 40.0]]})
        answer = await ask(address, f"/proofread/{FRAME}@vesicles/save", "POST", body, x_csrf_token=csrf)
        assert answer.status == 200
        assert [mark[1] for mark in (await read(daemon, f"/proofread/{FRAME}@gold/marks"))["marks"]] == [10.0]
    folder = tmp_path / "test" / "proofread" / "vesicles"
    (sheet,) = read_project(folder)
    assert (sheet.structure, {mark.x for mark in sheet.marks}) == ("vesicles", {50.0, 99.0})
    assert (folder / sheet.image).resolve() == (tmp_path / "test/frames/high" / f"{FRAME}.tif").resolve()


class NoAnalyst:
    """Stands for models that nobody asks."""

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        pass
