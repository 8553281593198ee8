"""Overlays and the report: circles where they belong, figures that add up, one file, nothing lost to bad input."""

import base64
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent import drawing, geometry
from agent.control_messages import Reject, SetThreshold
from agent.core import restore
from agent.errors import JournalError
from agent.frames import FrameStore
from agent.journal import Draft, Journal
from agent.messages import AcquireAtlas, Command, CommandResult, ErrorKind, Expose, Frame, Level, MapSquare, Stage
from agent.recording.manifest import Manifest, write_manifest
from agent.recording.record import read
from agent.report import render
from agent.report.maps import grid_view, square_view
from agent.report.pictures import mosaic
from agent.session import events as ev
from agent.session.state import Decision, Group, Hole, Square
from agent.wire import digest
from models.detections import HoleDetection, SquareDetection

HOSTILE = "<script>alert('x')</script>\"><img src=http://evil.example/a onerror=x>"
TURNED = (0.96, -0.28, 0.28, 0.96)  # a rotation
BEGUN = 1_790_000_000.0


class Session:
    """Writes a session folder event by event, as the daemon would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder)
        self.store = FrameStore(folder)
        self.utc = BEGUN

    def add(self, *events: ev.AnyEvent, later_s: float = 1.0) -> None:
        self.utc += later_s
        self.journal.append([Draft(ev.kind_of(e), ev.encode_event(e)) for e in events], utc=self.utc, epoch=1)

    def frame(
        self,
        name: str,
        level: Level,
        image: np.ndarray,
        at: tuple[float, float] = (0.0, 0.0),
        um_per_px: float = 1.0,
        area_id: str = "",
    ) -> Frame:
        matrix = tuple(um_per_px * v for v in TURNED)
        frame = Frame(
            frame_id=name, session_id="s", level=level, pixel_size_angstrom=um_per_px * 1e4, shape=image.shape,
            dtype="<u2", digest=digest(image), stage=Stage(x_um=at[0], y_um=at[1]), image_to_stage=matrix,
            taken_utc=self.utc, defocus_um=1.25, dose_e_per_a2=40.0 if level == "high" else None,
        )  # fmt: skip
        file = self.store.save(frame, image)
        self.add(ev.FrameReceived(frame=frame, file=file, grid_id="G1", area_id=area_id))
        return frame

    def command(self, number: int, work: AcquireAtlas | MapSquare | Expose, area_id: str = "") -> None:
        name = f"C{number}"
        command = Command(command_id=name, session_id="s", epoch=1, timeout_s=60, work=work)
        self.add(ev.CommandIssued(command=command, area_id=area_id, decision=Decision(why=f"reason of {name}")))
        result = CommandResult(command_id=name, session_id="s", status="done", elapsed_s=2.0)
        self.add(ev.CommandEnded(result=result, area_id=area_id), later_s=2.0)


def noise(rows: int, columns: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(900, 1100, (rows, columns), dtype=np.uint16)


def opened(name: str = "tonight", grid: str = "G1") -> ev.SessionOpened:
    return ev.SessionOpened(
        session_id="s", name=name, config="c0ffee", version="0.1.0", mode="pilot", autonomy="unattended",
        thresholds={"hole_score": 0.35}, grids=((grid, None),), models={"low": "squares-test 12ab"},
    )  # fmt: skip


def a_session(folder: Path, said: str = "because") -> Session:
    """Two tiles, two squares (one mapped), nine holes, three micrographs of which two are good."""
    s = Session(folder)
    s.add(opened(), ev.EpochBegan(epoch=1, config="c0ffee", version="0.1.0"))
    s.add(ev.PhaseChanged(phase="collecting", why="begun"))
    s.add(ev.GridChanged(grid_id="G1", state="mapping", decision=Decision(why=said)))
    s.command(1, AcquireAtlas(grid_id="G1", positions_um=((0.0, 0.0), (120.0, 0.0))))
    for number, x in enumerate((0.0, 120.0)):
        image = noise(150, 200)
        frame = s.frame(f"low{number}", "low", image, (x, 0.0))
        # a bright mark at stage (60, 10), which both tiles hold
        px, py = geometry.stage_to_pixel(frame, 60.0, 10.0)
        cv2.circle(image, (round(px), round(py)), 12, 4000, -1)
        frame = s.frame(f"low{number}m", "low", image, (x, 0.0))
    squares = tuple(
        Square(area_id=f"G1-S00{i}", x_um=60.0 * i, y_um=10.0, size_um=30.0, score=0.9 / i, why=said, label="good")
        for i in (1, 2)
    )
    s.add(ev.SquaresFound(grid_id="G1", frame_id="low0m", model="m", fingerprint="f", squares=squares, elapsed_s=0.2))
    s.command(2, MapSquare(area_id="G1-S001", x_um=60.0, y_um=10.0), "G1-S001")
    s.frame("med", "medium", noise(240, 300), (60.0, 10.0), 0.1, "G1-S001")
    holes = tuple(
        Hole(area_id=f"G1-S001-H00{i}", x_um=56.0 + i, y_um=10.0, radius_um=0.4, score=i / 10, inferred=i == 9)
        for i in range(1, 10)
    )
    s.add(ev.HolesFound(square_id="G1-S001", frame_id="med", model="m", fingerprint="f", holes=holes))
    ids = tuple(hole.area_id for hole in holes[:3])
    group = Group(number=0, x_um=57.0, y_um=10.0, focus_x_um=57.5, focus_y_um=10.5, hole_ids=ids)
    s.add(ev.GroupsPlanned(square_id="G1-S001", groups=(group,), decision=Decision(why=said)))
    for number, (hole, label) in enumerate(zip(ids, ("good", "dirty", "good"), strict=True)):
        s.command(3 + number, Expose(area_id=hole, x_um=57.0, y_um=10.0), hole)
        s.frame(f"hi{number}", "high", noise(128, 160, number), (57.0, 10.0), 1e-4, hole)
        s.add(
            ev.MicrographJudged(
                area_id=hole, frame_id=f"hi{number}", model="q", fingerprint="f", score=0.5, label=label,
                features={}, note=said,
            )
        )  # fmt: skip
        s.add(ev.AreaChanged(area_id=hole, state="done", decision=Decision(why=f"micrograph is {label}")))
    return s


class Page(HTMLParser):
    """The tags and the visible text of a report."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data + " "


# ---------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("shape", [(100, 150), (1000, 1200), (5000, 4500)])
def test_a_circle_is_at_the_pixel_asked_for(shape: tuple[int, int]) -> None:
    rows, columns = shape
    x, y, r = 0.3 * columns, 0.7 * rows, 0.05 * columns
    picture = drawing.overlay(np.zeros(shape), holes=[HoleDetection(x=x, y=y, radius_px=r, score=1.0)])
    scale = picture.shape[1] / columns
    drawn = np.argwhere(np.abs(picture.astype(int) - drawing.score_colour(1.0)).max(axis=2) < 30)
    drawn = drawn[drawn[:, 0] < round(rows * scale)]  # not the legend
    upper = drawn[drawn[:, 0] < (y + 0.5) * scale]  # not the score below the rim
    line = 2 + picture.shape[1] / 900  # half the thickness, at least
    left, right = drawn[:, 1].min(), drawn[:, 1].max()
    assert (left + right) / 2 == pytest.approx((x + 0.5) * scale - 0.5, abs=1.0)
    assert (right - left) / 2 == pytest.approx(r * scale, abs=line)
    assert upper[:, 0].min() == pytest.approx((y - r + 0.5) * scale - 0.5, abs=line)


def test_a_polygon_is_at_the_pixels_asked_for() -> None:
    corners = ((100.0, 200.0), (300.0, 220.0), (280.0, 400.0), (90.0, 380.0))
    square = SquareDetection(x=190, y=300, vertices=corners, score=0.0, area_px=36_000)
    picture = drawing.overlay(np.zeros((1000, 1000)), squares=[square])[:1000]
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        colour = picture[round((y0 + y1) / 2), round((x0 + x1) / 2)]
        assert np.abs(colour.astype(int) - drawing.score_colour(0.0)).max() < 40


def test_small_images_are_enlarged_and_large_ones_bounded() -> None:
    assert drawing.overlay(np.zeros((40, 60))).shape[1] == 900
    assert drawing.overlay(np.zeros((100, 9000))).shape[1] == 4096
    assert drawing.overlay(np.zeros((1, 1)), pixel_size_angstrom=1.0).dtype == np.uint8


def test_the_stretch_runs_from_black_to_white_and_bears_bad_pixels() -> None:
    image = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    image[0, 0], image[5, 5] = np.nan, np.inf
    grey = drawing.stretch(image)
    assert grey.min() == 0
    assert grey.max() == 255
    assert (drawing.stretch(np.full((9, 9), 7)) == 128).all()
    assert (drawing.stretch(np.full((9, 9), np.nan)) == 0).all()


@pytest.mark.parametrize(("um", "length", "words"), [(370, 200, "200 µm"), (0.9, 0.5, "500 nm"), (1.0, 1.0, "1 µm")])
def test_scale_bars_have_round_lengths(um: float, length: float, words: str) -> None:
    assert drawing.round_length_um(um) == pytest.approx(length)
    assert drawing.length_words(length) == words


def test_scores_are_told_apart_by_lightness_too() -> None:
    low, middle, high = (np.dot(drawing.score_colour(s), (0.299, 0.587, 0.114)) for s in (0.2, 0.6, 1.0))
    assert low < middle < high
    assert drawing.score_colour(float("nan")) == drawing.score_colour(0.0)


# ---------------------------------------------------------------------------------------------- the report


def test_the_figures_are_those_counted_a_second_way(tmp_path: Path) -> None:
    s = a_session(tmp_path)
    s.add(ev.PhaseChanged(phase="stopped", why="every grid is done"), later_s=3600.0)
    s.journal.close()
    journal = Journal(tmp_path, write=False)
    events = [ev.decode_event(entry.body) for entry in journal.replay()]
    state = restore(journal)
    journal.close()
    squares = {q.area_id for e in events if isinstance(e, ev.SquaresFound) for q in e.squares}
    mapped = {e.square_id for e in events if isinstance(e, ev.HolesFound)}
    holes = {h.area_id for e in events if isinstance(e, ev.HolesFound) for h in e.holes}
    shots = {e.area_id for e in events if isinstance(e, ev.FrameReceived) and e.frame.level == "high"}
    good = {e.area_id for e in events if isinstance(e, ev.MicrographJudged) and e.label == "good"}
    assert (len(squares), len(mapped), len(holes), len(shots), len(good)) == (2, 1, 9, 3, 2)
    assert state.exposures == len(shots)
    page = Page(render(tmp_path))
    assert f"squares mapped {len(mapped)} of {len(squares)} found" in page.words
    assert f"holes exposed {len(shots)} of {len(holes)} found" in page.words
    assert f"good micrographs {len(good)} of {len(shots)} judged" in page.words
    hours = (s.utc - BEGUN - 1.0) / 3600
    assert f"good per hour {len(good) / hours:.1f}" in page.words
    assert "Nothing is wrong" in page.words
    assert sum(tag == "article" for tag, _ in page.tags) == len(shots)
    assert sum(tag == "polygon" for tag, _ in page.tags) == len(squares)


def test_rates_of_a_simulated_session_are_at_its_clock(tmp_path: Path) -> None:
    s = a_session(tmp_path)
    s.add(ev.EpochBegan(epoch=1, config="fast", version="0"), later_s=60.0)
    s.journal.close()
    write_manifest(
        tmp_path, Manifest(session_id="s", name="tonight", configs={"fast": {"session": {"simulated_speed": 120.0}}})
    )
    page = Page(render(tmp_path))
    hours = 120.0 * (s.utc - BEGUN - 1.0) / 3600
    assert f"good per hour, simulated clock {2 / hours:.1f}" in page.words
    assert "120 × as fast as a real microscope" in page.words


def test_it_is_one_file_that_asks_for_nothing_else(tmp_path: Path) -> None:
    a_session(tmp_path).journal.close()
    path = render(tmp_path)
    assert path == tmp_path / "report.html"
    page = Page(path)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8")))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert "src" not in attributes or (attributes["src"] or "").startswith("data:image/")
        assert "href" not in attributes or (attributes["href"] or "")[1:] in ids
    assert not list(tmp_path.glob(".*part*"))


def test_an_empty_session_is_said_to_be_empty(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    assert "Empty session" in Page(render(tmp_path)).words


def test_a_session_that_has_only_begun_is_shown(tmp_path: Path) -> None:
    s = Session(tmp_path)
    s.add(opened(), ev.EpochBegan(epoch=1, config="c", version="0"))
    page = Page(render(tmp_path))  # the daemon still holds the folder
    s.journal.close()
    assert "Not ended: idle" in page.words
    assert "squares-test 12ab" in page.words


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="session folder"):
        render(tmp_path)


def test_the_report_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    Journal(tmp_path / "s").close()
    (tmp_path / "there").mkdir()
    assert render(tmp_path / "s", tmp_path / "there") == tmp_path / "there" / "report.html"
    assert render(tmp_path / "s", tmp_path / "new" / "a.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_no_text_from_outside_becomes_markup(tmp_path: Path) -> None:
    s = a_session(tmp_path, HOSTILE)
    decision = Decision(why=HOSTILE, by=HOSTILE, model=HOSTILE, fingerprint=HOSTILE, runner_up=HOSTILE, config=HOSTILE)
    s.add(
        opened(HOSTILE),
        ev.EpochBegan(epoch=2, config=HOSTILE, version=HOSTILE),
        ev.GridAdded(grid_id=HOSTILE),
        ev.SquaresFound(
            grid_id=HOSTILE, frame_id="x", model=HOSTILE, fingerprint=HOSTILE,
            squares=(
                Square(area_id=f"{HOSTILE}-S001", x_um=0, y_um=0, size_um=9, score=1, label=HOSTILE, why=HOSTILE),
            ),
        ),
        ev.Noticed(severity="alarm", text=HOSTILE),
        ev.ErrorCounted(error=ErrorKind.DRIFT, area_id=HOSTILE, why=HOSTILE, will=HOSTILE),
        ev.Suspended(cause=HOSTILE, detail=HOSTILE),
        ev.Requested(request_id="r", by=HOSTILE, verb=Reject(area_ids=("A1", "A2"))),
        ev.AreaChanged(area_id="G1-S002", state="rejected", decision=decision),
        ev.CommandIssued(
            command=Command(command_id="C99", session_id="s", epoch=1, timeout_s=1, work=MapSquare(
                area_id="A", x_um=0, y_um=0)),
            area_id=HOSTILE, decision=decision,
        ),
        ev.DegradedChanged(text=HOSTILE),
    )  # fmt: skip
    s.journal.close()
    path = render(tmp_path)
    page = Page(path)
    assert not any(tag == "script" or "onerror" in attributes for tag, attributes in page.tags)
    assert all((a.get("src") or "").startswith("data:") for tag, a in page.tags if tag == "img")
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert escape("<script>") in text


def test_frames_that_cannot_be_read_become_notes(tmp_path: Path) -> None:
    a_session(tmp_path).journal.close()
    (tmp_path / "frames/high/hi0.tif").unlink()
    (tmp_path / "frames/high/hi1.tif").write_bytes(b"")
    (tmp_path / "frames/medium/med.tif").write_bytes((tmp_path / "frames/high/hi2.tif").read_bytes())
    (tmp_path / "frames/low/low0.tif").write_bytes(b"II*\x00junk")
    page = Page(render(tmp_path))
    assert "4 frames cannot be read" in page.words
    assert "The picture is missing" in page.words
    assert sum(tag == "article" for tag, _ in page.tags) == 3


def test_no_file_outside_the_session_is_opened(tmp_path: Path) -> None:
    s = a_session(tmp_path / "s")
    frame = s.frame("hi9", "high", noise(64, 64), area_id="G1-S001-H005")
    (tmp_path / "s/frames/high/hi9.tif").rename(tmp_path / "secret.tif")
    changed = ev.FrameReceived(frame=frame, file="../secret.tif", grid_id="G1", area_id="G1-S001-H005")
    s.add(changed)
    s.journal.close()
    assert "outside the session folder" in Page(render(tmp_path / "s")).words


@pytest.mark.parametrize("matrix", [(0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0), (1e-300, 0.0, 0.0, 1.0)])
def test_a_frame_that_cannot_be_placed_is_left_out(tmp_path: Path, matrix: tuple[float, ...]) -> None:
    s = a_session(tmp_path)
    image = noise(32, 32)
    for name, level, area in (("odd1", "low", ""), ("odd2", "medium", "G1-S002")):
        frame = Frame(
            frame_id=name, session_id="s", level=level, pixel_size_angstrom=1e4, shape=image.shape, dtype="<u2",
            digest=digest(image), image_to_stage=matrix,
        )  # fmt: skip
        s.add(ev.FrameReceived(frame=frame, file=s.store.save(frame, image), grid_id="G1", area_id=area))
    s.journal.close()
    words = Page(render(tmp_path)).words
    assert "frame odd1: its image-to-stage matrix is flat" in words
    assert "G1-S002 · score" in words


def test_a_changed_row_is_told(tmp_path: Path) -> None:
    s = a_session(tmp_path)
    s.journal._db.execute("drop trigger no_change")
    s.journal._db.execute("update journal set body = replace(body, 'because', 'why not') where seq = 4")
    s.journal.close()
    page = Page(render(tmp_path))
    assert "The record is damaged" in page.words
    assert "whole only up to event 3" in page.words


def test_a_row_of_a_newer_version_ends_the_reading_there(tmp_path: Path) -> None:
    s = a_session(tmp_path)
    s.journal.append([Draft("made_tea", '{"event":"made_tea"}')], utc=s.utc + 1, epoch=1)
    s.journal.close()
    page = Page(render(tmp_path))
    assert "(made_tea) cannot be read" in page.words
    assert "holes exposed 3 of 9 found" in page.words


def test_what_went_wrong_stands_with_what_the_policy_did(tmp_path: Path) -> None:
    s = a_session(tmp_path)
    for area in ("G1-S001", "G1-S002"):
        s.add(ev.ErrorCounted(error=ErrorKind.AUTOFOCUS_FAILED, area_id=area, why="4 µm off", will="skip it"))
    s.add(
        ev.Suspended(cause="beam", detail="0.1 is below 0.5"),
        ev.Noticed(severity="warning", text="suspended (beam): 0.1 is below 0.5"),
        ev.Requested(request_id="r", by="ada", verb=SetThreshold(name="hole_score", value=0.5)),
        ev.SettingChanged(name="hole_score", before="0.35", after="0.5", by="ada"),
    )
    s.journal.close()
    page = Page(render(tmp_path))
    assert "3 warnings" in page.words  # the suspension and its notice are one
    assert re.search(r"autofocus failed 2 .* G1-S001, G1-S002 4 µm off skip it", page.words)
    assert "held by beam: 0.1 is below 0.5" in page.words
    assert "ada asked for threshold (name hole_score, value 0.5)" in page.words
    assert "0.5 (at first 0.35)" in page.words


def test_the_atlas_is_stage_x_right_y_down_and_tiles_fit(tmp_path: Path) -> None:
    a_session(tmp_path).journal.close()
    record = read(tmp_path)
    atlas = mosaic(record.folder, [record.frames["low0m"], record.frames["low1m"]])
    raw = base64.b64decode(atlas.picture.uri.partition(",")[2])
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image.shape == (atlas.picture.height, atlas.picture.width)
    heavy = np.argwhere(image > 128)
    y, x = heavy.mean(axis=0) + 0.5
    assert (x, y) == pytest.approx(atlas.at(60.0, 10.0), abs=1.5)
    assert np.ptp(heavy, axis=0).max() <= 28  # one mark, not two
    view = grid_view(record, record.state.grids["G1"])
    assert {shape.label: shape.kind for shape in view.squares} == {"S001": "visited", "S002": "open"}


def test_holes_are_drawn_at_their_pixels_of_the_frame(tmp_path: Path) -> None:
    a_session(tmp_path).journal.close()
    record = read(tmp_path)
    square = record.state.grids["G1"].squares["G1-S001"]
    view = square_view(record, square, 200)
    frame = record.frames["med"].frame
    assert (view.width, view.height) == (300, 240)
    for hole in square.holes.values():
        x, y = geometry.stage_to_pixel(frame, hole.x_um, hole.y_um)
        assert any(
            shape.x == pytest.approx(x + 0.5, abs=0.06) and shape.y == pytest.approx(y + 0.5, abs=0.06)
            and shape.r == pytest.approx(4.0, abs=0.06) for shape in view.holes
        )  # fmt: skip
    kinds = sorted(shape.kind for shape in view.holes)
    assert kinds == ["bad", "good", "good", "inferred", *["open"] * 5]
    assert len(view.groups[0].spokes) == 3


def test_the_time_table_adds_up(tmp_path: Path) -> None:
    a_session(tmp_path).journal.close()
    page = Page(render(tmp_path))
    assert re.search(r"microscope expose 3 2.0 s 2.0 s 6.0 s", page.words)
    assert re.search(r"inference squares \(low\) 1 0.2 s", page.words)
