"""Metrics by their published rules, checked by hand and a second way; sessions, labels, workers, pages around them."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from agent import recording
from agent.cli import app
from agent.cluster import Cluster
from agent.errors import BadFileError, ConfigError
from agent.evaluation import many, timing
from agent.evaluation.labels import judge_image, read_labels
from agent.evaluation.rule import Counts, in_discs, in_polygons, one_to_one, overlap
from agent.evaluation.sessions import Judged, Variant, judge
from agent.evaluation.statistics import average_precision, compare, figure, roc_auc
from agent.evaluation.summary import summarise
from agent.inference import DETECTORS
from benchmarks.small_sessions import write_session
from models.detections import MarkedObject, ObjectFinding
from tests import golden

BOX = np.array([(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)])


def test_the_one_to_one_rule_as_published() -> None:
    """Found; two in one region; alone in two regions; in none; an empty region."""
    discs = np.array([(0.0, 0.0), (10.0, 0.0), (20.0, 0.0), (20.5, 0.0), (40.0, 0.0)])
    locations = np.array([(0.1, 0.0), (9.9, 0.0), (10.1, 0.0), (20.2, 0.0), (30.0, 0.0)])
    counts, pairs = one_to_one(in_discs(locations, discs, np.full(5, 1.0)))
    assert pairs == [(0, 0)]
    assert counts == Counts(hits=1, false=4, missed=4)
    assert (counts.precision, counts.recall, counts.f1) == (0.2, 0.2, 0.2)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 10_000))
@bounded(max_examples=60, derandomize=True)
def test_the_rule_by_its_own_words_a_second_way(locations: int, regions: int, seed: int) -> None:
    inside = np.random.default_rng(seed).random((locations, regions)) < 0.3
    hits = 0
    for i, j in itertools.product(range(locations), range(regions)):
        hits += bool(inside[i, j]) and sum(inside[i]) == 1 and sum(inside[:, j]) == 1
    assert one_to_one(inside)[0] == Counts(hits, regions - hits, locations - hits)


def test_overlap_and_polygons_by_hand() -> None:
    assert overlap(BOX, BOX + np.array([1.0, 0.0])) == pytest.approx(1 / 3)
    assert overlap(BOX, BOX + np.array([5.0, 0.0])) == 0.0
    assert in_polygons(np.array([(1.0, 1.0), (3.0, 1.0)]), [BOX]).tolist() == [[True], [False]]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
@bounded(max_examples=60, derandomize=True)
def test_roc_auc_is_the_chance_that_a_wanted_one_ranks_higher(items: list[tuple[bool, int]]) -> None:
    wanted, scores = [w for w, _ in items], [float(s) for _, s in items]
    yes, no = (
        [s for w, s in zip(wanted, scores, strict=True) if w],
        [s for w, s in zip(wanted, scores, strict=True) if not w],
    )
    found = roc_auc(wanted, scores)
    if not yes or not no:
        assert found is None
        return
    wins = sum((a > b) + 0.5 * (a == b) for a in yes for b in no)
    assert found == pytest.approx(wins / len(yes) / len(no))


def test_average_precision_by_hand() -> None:
    assert average_precision([True, False, True], [0.9, 0.8, 0.7]) == pytest.approx((1.0 + 2 / 3) / 2)
    assert average_precision([False, False], [0.1, 0.2]) is None


def test_intervals_hold_the_mean_of_the_population_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for number in range(200):
        found = figure(rng.normal(3.0, 1.0, 25).tolist(), seed=number)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 3.0 <= found.high
    assert 0.86 <= inside / 200 <= 0.99
    assert figure([0.5]).low is None  # type: ignore[union-attr]
    assert figure([None]) is None


def test_a_paired_test_against_all_signs() -> None:
    first, second = [0.5, 0.6, 0.4, 0.7, 0.5, 0.3], [0.6, 0.65, 0.5, 0.72, 0.58, 0.41]
    gaps = np.array(second) - first
    means = [abs((gaps * signs).mean()) for signs in itertools.product((-1, 1), repeat=6)]
    found = compare(first, second)
    assert found is not None
    assert found.difference == pytest.approx(gaps.mean())
    assert found.p == pytest.approx(np.mean(np.array(means) >= abs(gaps.mean()) - 1e-12))
    assert compare([0.5, None], [None, 0.5]) is None
    same = compare(first, first)
    assert same is not None
    assert same.p == 1.0
    few = compare(first[:3], second[:3])
    assert few is not None
    assert few.p is None


def outcome(name: str, square: str, x: float, *, score: float, good: bool) -> timing.Outcome:
    return timing.Outcome(name, square, x, 0.0, score, 0.5, good)


FOUND = [
    outcome("a", "S1", 0.0, score=0.9, good=False),
    outcome("b", "S1", 1.0, score=0.1, good=True),
    outcome("c", "S2", 10.0, score=0.8, good=True),
]
COSTS = {"expose": 1.0, "focus": 2.0, "map_square": 10.0}


def test_time_spent_and_good_micrographs_by_hand() -> None:
    times, goods = timing.curve(FOUND, [0, 1, 2], COSTS)
    assert times.tolist() == [13.0, 14.0, 27.0]
    assert goods.tolist() == [0, 1, 2]
    times, goods = timing.curve(FOUND, [0, 2, 1], COSTS)  # back to a mapped square: focus, no map
    assert times.tolist() == [13.0, 26.0, 29.0]
    orders = timing.orders(FOUND)
    assert orders["rank-only"] == [[0, 1, 2]]
    assert orders["oracle"][0][:2] in ([1, 2], [2, 1])
    assert sorted(orders["snowball"][0]) == [0, 1, 2]


def test_a_snowball_goes_to_the_nearest_hole_not_visited_yet() -> None:
    line = [outcome(str(n), "S1", x, score=0.5, good=True) for n, x in enumerate((0.0, 1.0, 2.5, -0.9, 7.0))]
    for order in timing.orders(line)["snowball"]:
        for step in range(1, len(order)):
            here, left = line[order[step - 1]].x_um, order[step:]
            assert abs(line[order[step]].x_um - here) == min(abs(line[i].x_um - here) for i in left)


def test_the_oracle_is_never_beaten_and_chance_is_zero() -> None:
    rng = np.random.default_rng(2)
    found = [
        outcome(str(n), f"S{n % 4}", float(n), score=float(rng.random()), good=bool(rng.random() < 0.4))
        for n in range(40)
    ]
    table = timing.curves(found, {"expose": 1.0, "focus": 0.0, "map_square": 0.0})
    oracle = np.array(table["oracle"])
    for name in timing.ORDERS:
        assert (np.array(table[name]) <= oracle + 1e-9).all()
        share = timing.share_of_oracle(table, name)
        assert share is not None
        assert share <= 1.0 + 1e-9
    assert timing.share_of_oracle(table, "random") == pytest.approx(0.0)
    assert timing.share_of_oracle(table, "oracle") == pytest.approx(1.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("small")
    return [write_session(folder / f"small-{seed}", seed) for seed in range(6)]


def test_a_session_of_known_outcome_is_judged_as_it_is(small: list[Path]) -> None:
    """The drawn holes are where the record says: as recorded every chosen one is found, with no error at all."""
    judged = judge(small[0], Variant())
    assert not judged.trouble
    record = recording.read(small[0])
    exposed = sum(
        bool(h.frame_id) for g in record.state.grids.values() for s in g.squares.values() for h in s.holes.values()
    )
    holes = sum(len(s.holes) for s in record.state.grids["G1"].squares.values())
    assert judged.metrics["holes.recall"] == 1.0
    assert judged.metrics["holes.precision"] == pytest.approx(exposed / holes)
    assert judged.metrics["holes.centre_error_um"] == 0.0
    assert judged.metrics["micrographs.judged"] == exposed
    assert judged.metrics["squares.recall"] == 1.0
    assert judged.metrics["squares.box_iou"] == pytest.approx(1.0)


def test_another_finder_is_judged_on_the_same_pixels(small: list[Path]) -> None:
    judged = judge(small[0], Variant.of("holes=holes-template"))
    assert not judged.trouble
    recall, error = judged.metrics["holes.recall"], judged.metrics["holes.centre_error_um"]
    assert recall is not None
    assert recall > 0.9
    assert error is not None
    assert 0.0 < error < 0.1
    assert judged.metrics["seconds_per_frame"]
    assert judged.worst[0]["picture"].startswith("data:image/jpeg")


def test_a_session_that_cannot_be_read_costs_itself_only(small: list[Path], tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database")
    judged = [judge(folder, Variant()) for folder in (*small[:2], tmp_path)]
    assert judged[2].trouble
    summary = summarise([judged])
    found = {row.metric: row.figures[0] for row in summary.rows}["holes.recall"]
    assert found is not None
    assert found.sessions == 2
    assert any("JournalError" in text for text in summary.troubles)


def test_labels_are_judged_with_what_is_neither_hit_nor_miss(tmp_path: Path) -> None:
    """Drawn holes: one not marked is a false alarm, one marked partial and one ignored are nothing at all."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((320, 320))
    image = rng.normal(200.0, 5.0, (320, 320))
    centres = [(x, y) for y in range(40, 300, 48) for x in range(40, 300, 48)]
    for x, y in centres:
        image[np.hypot(columns - x, rows - y) <= 14] += 120.0
    marks = [{"x": x, "y": y, "radius": 14.0, "state": "good"} for x, y in centres[:-3]]
    marks.append({"x": centres[-2][0], "y": centres[-2][1], "radius": 14.0, "state": "partial"})
    ix, iy = centres[-3]
    ignore = [[[ix - 24, iy - 24], [ix + 24, iy - 24], [ix + 24, iy + 24], [ix - 24, iy + 24]]]
    labels = {"holes": marks, "ignore": ignore, "pixel_size_angstrom": 500.0, "lattice": {"a": [48, 0], "b": [0, 48]}}
    found = judge_image(image.astype(np.float32), labels, "holes-template", "drawn", "a").metrics
    assert found["holes.recall"] == 1.0
    assert found["holes.precision"] == pytest.approx((len(centres) - 3) / (len(centres) - 2))
    assert found["holes.centre_error_um"] is not None
    assert found["holes.centre_error_um"] < 0.02
    for bad in ("[1]", '{"holes": 3}', "{", "[" * 5000):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(BadFileError):
            read_labels(tmp_path / "bad.json")
    with pytest.raises(ConfigError, match="no model"):
        judge_image(image, labels, "holes-tea", "drawn", "a")


class Rings:
    """Stands for a detector that somebody registers: it finds what is drawn, but the last, and a ghost."""

    name, fingerprint = "rings", "f"

    def detect(self, image: np.ndarray, pixel_size_angstrom: float | None = None) -> ObjectFinding:
        y, x = np.nonzero(image)
        found = [
            MarkedObject(x=float(u) + 1.0, y=float(v), diameter_nm=40.0, score=0.9) for u, v in zip(x, y, strict=True)
        ][:-1]
        return ObjectFinding(objects=(*found, MarkedObject(x=5.0, y=5.0, diameter_nm=40.0, score=0.2)))


def test_points_are_judged_by_any_detector_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DETECTORS, "rings", f"{__name__}:Rings")
    image = np.zeros((300, 300), np.uint8)
    places = [(60, 80), (150, 90), (200, 220), (250, 260)]
    for x, y in places:
        image[y, x] = 255
    points = [{"x": x, "y": y, "diameter_nm": 40.0, "group": "vesicle"} for x, y in places]
    found = judge_image(image, {"points": points, "pixel_size_angstrom": 10.0}, "rings", "drawn", "a").metrics
    assert (found["points.recall"], found["points.precision"]) == (0.75, 0.75)
    assert found["points.centre_error_um"] == pytest.approx(1e-3)
    assert found["points.count_error"] == 0.0


def test_the_command_line_compares_two_models_and_writes_page_json_and_parquet(
    small: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folders = [str(folder) for folder in small[:5]]
    arguments = [
        "evaluate",
        "sessions",
        *folders,
        "--against",
        "holes=holes-template",
        "--out",
        str(tmp_path),
        "--parquet",
    ]
    app(arguments, result_action="return_value")
    said = capsys.readouterr().out
    assert "holes.f1" in said
    values = json.loads((tmp_path / "evaluation.json").read_text())
    row = values["metrics"]["holes.centre_error_um"]
    assert row["comparison"]["sessions"] == 5
    assert row["comparison"]["p"] == pytest.approx(2 / 2**5)  # all five differences have one sign
    page = (tmp_path / "evaluation.html").read_text()
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "")
    table = parquet.read_table(tmp_path / "evaluation.parquet").to_pylist()
    by_hand = [r["value"] for r in table if r["metric"] == "holes.recall" and r["variant"] == "as recorded"]
    assert by_hand == [1.0] * 5
    for bad in (["--model", "holes=tea"], ["--model", "tea"], ["--against", "recorded"], ["--workers", "-1"]):
        with pytest.raises(ConfigError):
            app([*arguments[:3], *bad], result_action="return_value")


LOST = """
import os, sys
from pathlib import Path
from agent.cluster import Cluster
from agent.evaluation.many import run
from agent.evaluation.sessions import Judged

def fragile(number, folder):
    mark = Path(folder) / f"died-{number}"
    if number == 3 and not mark.exists():
        mark.touch()
        os._exit(1)  # the worker is gone, with everything it had
    if number == 4:
        raise ValueError("never works")
    return Judged(f"s{number}", "v", {"m": float(number)})

if __name__ == "__main__":
    tasks = [(fragile, (n, sys.argv[1])) for n in range(8)]
    found = run(tasks, Cluster(workers=2), Path(sys.argv[1]) / "rows.parquet", lambda done, total: print(done, total))
    print("RESULT", [one.metrics.get("m") for one in found], found[4].trouble)
"""


@pytest.mark.timeout(300)
def test_a_lost_worker_costs_a_retry_and_not_the_run(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    (tmp_path / "lost.py").write_text(LOST)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "lost.py"), str(tmp_path)],
        capture_output=True, text=True, timeout=280, check=False, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), done.stderr[-2000:])
    assert line.startswith("RESULT [0.0, 1.0, 2.0, 3.0, None, 5.0, 6.0, 7.0]"), line
    assert "never works" in line
    assert (tmp_path / "died-3").exists()


def test_results_stream_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    tasks: list[many.Task] = [(lambda n: Judged(f"s{n}", "v", {"m": float(n)}), (n,)) for n in range(3)]
    found = many.run(tasks, Cluster(), None, lambda done, total: told.append((done, total)))
    assert [one.metrics["m"] for one in found] == [0.0, 1.0, 2.0]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_golden_sessions_are_evaluated(tmp_path: Path) -> None:
    for name in golden.NAMES:
        judged = judge(golden.FOLDER / name, Variant())
        assert not judged.trouble
        assert judged.metrics["micrographs.judged"] == 4
