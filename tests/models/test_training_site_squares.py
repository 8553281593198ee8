"""Fine-tuning of the square scorer: what is read of marks and sessions, what it learns, and what it keeps."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from agent.cli.marks import judged_squares
from agent.errors import BadFileError, ConfigError
from agent.recording import read
from models import runtime
from models.squares.learned import NetSquareFinder
from models.training.loop import TrainingError
from models.training.scores import auc
from models.training.squares_site import JudgedFrame, SiteRecipe, learn
from simulators.specimen import Specimen, SpecimenSettings, View
from tests import golden

SHIPPED = runtime.WEIGHTS / "squares-score.yaml"


def frames(seeds: range) -> list[JudgedFrame]:
    """Frames of a site that wants bright squares: those above the middle of the frame."""
    found = []
    for seed in seeds:
        grid = Specimen(SpecimenSettings(seed=seed, grid_radius_um=500.0, ice="mixed"))
        image = grid.render(View(0.0, 0.0, 16000.0, (400, 400), 10.0, dose_e_per_a2=1e-6, frame_seed=seed))
        squares = [s for s in NetSquareFinder().find(image).squares if not s.touches_edge]
        light = np.array([s.features["mean"] for s in squares])
        points = np.array([(s.x, s.y) for s in squares])
        found.append(JudgedFrame(f"{seed}", image, points, (light > np.median(light)).astype(float)))
    return found


def told(finder: NetSquareFinder, judged: list[JudgedFrame]) -> float:
    """Area under the curve of the finder's scores, by its own places."""
    quality, scores = [], []
    for frame in judged:
        at = [(s.x, s.y, s.score) for s in finder.find(frame.image).squares]
        for point, wanted in zip(frame.points, frame.quality, strict=True):
            quality.append(wanted)
            scores.append(min(at, key=lambda s, p=point: np.hypot(s[0] - p[0], s[1] - p[1]))[2])
    return auc(np.array(quality), np.array(scores))


def test_a_site_that_wants_bright_squares_gets_them_on_frames_that_nothing_was_learned_from(tmp_path: Path) -> None:
    said: list[str] = []
    path = learn(SiteRecipe(), frames(range(3)), SHIPPED, tmp_path, command="here", say=said.append)
    asked = frames(range(10, 12))
    before, after = told(NetSquareFinder(), asked), told(NetSquareFinder(path.with_suffix(".yaml")), asked)
    assert before < 0.5 < 0.9 < after
    assert [line.split(",")[0] for line in said[1:]] == ["before", "after"]
    assert "here" in (tmp_path / "squares-score.md").read_text()
    assert path.read_bytes() == SHIPPED.with_suffix(".onnx").read_bytes()


def test_squares_judged_as_the_shipped_scorer_says_leave_its_scores_where_they_are(tmp_path: Path) -> None:
    agreed = []
    for frame in frames(range(2)):
        squares = [s for s in NetSquareFinder().find(frame.image).squares if not s.touches_edge]
        points = np.array([(s.x, s.y) for s in squares])
        agreed.append(JudgedFrame(frame.name, frame.image, points, np.array([s.score for s in squares])))
    path = learn(SiteRecipe(), agreed, SHIPPED, tmp_path, command="here", say=lambda _: None)
    ours, theirs = NetSquareFinder(path.with_suffix(".yaml")), NetSquareFinder()
    for frame in agreed:
        pairs = zip(ours.find(frame.image).squares, theirs.find(frame.image).squares, strict=True)
        assert max(abs(a.score - b.score) for a, b in pairs) < 0.02


def test_too_few_squares_and_squares_of_one_kind_are_refused(tmp_path: Path) -> None:
    frame = frames(range(1))[0]
    few = JudgedFrame("few", frame.image, frame.points[:6], frame.quality[:6])
    alike = JudgedFrame("alike", frame.image, frame.points, np.ones(len(frame.points)))
    for judged in (few, alike):
        with pytest.raises(TrainingError, match="at least 12 are needed, good ones and others"):
            learn(SiteRecipe(), [judged], SHIPPED, tmp_path, command="here", say=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_marks_beside_images_say_that_all_others_are_unwanted(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 50), np.uint8))
    (tmp_path / "a.json").write_text(json.dumps([{"x": 3.0, "y": 4.5, "score": 0.2}]))
    ((name, image, points, whole),) = judged_squares(tmp_path)
    assert (name, image.shape, points, whole) == ("a.png", (40, 50), [(3.0, 4.5, 1.0)], True)
    (tmp_path / "a.json").write_text('[{"x": 3.0}]')
    with pytest.raises(BadFileError, match=r"a\.json: is no list of squares"):
        judged_squares(tmp_path)
    (tmp_path / "a.json").unlink()
    with pytest.raises(ConfigError, match="accepted, rejected or exposed"):
        judged_squares(tmp_path)


def test_of_a_session_come_the_operator_s_words_and_the_shares_of_good_micrographs() -> None:
    record = read(golden.FOLDER / "pilot")
    squares = {s.area_id: s for grid in record.state.grids.values() for s in grid.squares.values()}
    expected = {}
    for area_id, square in squares.items():
        labels = [h.quality_label for h in square.holes.values() if h.quality_label]
        if square.word or labels:
            expected[area_id] = float(square.word == "accepted") if square.word else labels.count("good") / len(labels)
    assert expected
    rows = judged_squares(golden.FOLDER / "pilot")
    assert sorted(q for *_, points, _ in rows for *_, q in points) == sorted(expected.values())
    assert not any(whole for *_, whole in rows)
