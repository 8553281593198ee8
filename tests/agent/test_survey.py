import itertools
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from agent.errors import CryonautError
from agent.evaluation import learner, policies
from agent.evaluation.routes import Tour
from agent.evaluation.survey import Survey, SurveyError, read
from agent.policy.learning import Forecast
from agent.policy.planning import Board, Costs, Here, Site


def made(seed: int = 3, squares: int = 6, patches: int = 3, holes: int = 8, noise: float = 0.25) -> Survey:
    """A survey whose squares differ much, with honest predictions."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.normal(-0.2, 0.45, squares), patches * holes)
    n = len(level)
    merit = level + rng.normal(0, noise, n)
    square = np.repeat(np.arange(squares), patches * holes)
    return Survey(
        tile=square // 2,
        square=square,
        patch=np.repeat(np.arange(squares * patches), holes),
        xy=np.tile(np.array([(180.0 * (k % 3), 180.0 * (k // 3)) for k in range(holes)]), (squares * patches, 1)),
        ctf_angstrom=np.clip(6 * np.exp(-merit), 2, 20),
        predicted_angstrom=np.clip(6 * np.exp(-merit + rng.normal(0, 0.2, n)), 2, 20),
    )


def write(folder: Path, survey: Survey, split: str = "any") -> None:
    names = [
        f"a_{t:05d}gr_{s:05d}sq_{'v01_' if k % 2 else ''}{p:05d}hl_v01_{k:05d}en-a"
        for k, (t, s, p) in enumerate(zip(survey.tile, survey.square, survey.patch, strict=True))
    ]
    rows = zip(names, survey.xy, survey.ctf_angstrom, strict=True)
    lines = [f"{name},{float(xy[0])},{float(xy[1])},{float(ctf)},0.9" for name, xy, ctf in rows]
    (folder / f"target_CTF_Y1_{split}.csv").write_text("\n".join(lines) + "\n")
    told = [f"{name} {float(p)}" for name, p in zip(names, survey.predicted_angstrom, strict=True)]
    (folder / f"Y1_2_regress_8bit_res50_{split}_by_hl.txt").write_text("\n".join(told) + "\n")


def test_a_survey_is_read_with_or_without_version_marks_in_its_names(tmp_path: Path) -> None:
    survey = made()
    write(tmp_path, survey, "val")
    found = read(tmp_path)
    assert found.patch.tolist() == survey.patch.tolist()
    assert found.ctf_angstrom == pytest.approx(survey.ctf_angstrom)
    assert found.predicted_angstrom == pytest.approx(survey.predicted_angstrom)


@pytest.mark.parametrize(
    ("text", "said"),
    [("name,1,2,3,4\n", "does not read"), ("a_1gr_1sq_1hl_1en,1,2\n", "columns"), ("a_1gr_1sq_1hl_1en,1,2,x\n", "'x'")],
)
def test_a_damaged_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "target_CTF_x.csv").write_text(text)
    with pytest.raises(SurveyError, match=said):
        read(tmp_path)


def test_a_folder_without_a_survey_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SurveyError, match="exactly one"):
        read(tmp_path)


@pytest.mark.parametrize("prior", [True, False])
def test_a_run_keeps_to_its_time_and_visits_no_hole_twice(prior: bool) -> None:
    survey = made()
    tour = Tour(survey, 5, 60, prior=prior)
    order: list[int] = []
    good = tour.run(lambda t: (order.append(h) or h for h in learner.policy(t)))
    done = [5] + [h for h in order if tour.visited[h]]
    assert len(done) == len(set(done)) == tour.visited.sum()
    minutes = 0.0
    for a, b in itertools.pairwise(done):
        same = [
            survey.tile[a] == survey.tile[b],
            survey.square[a] == survey.square[b],
            survey.patch[a] == survey.patch[b],
        ]
        minutes += 1 if same[2] else 2 if same[1] else 6 if same[0] else 8
    assert tour.minutes == minutes <= 60
    assert good == survey.good[done[1:]].sum()


def test_no_outcome_is_known_before_a_hole_was_visited() -> None:
    survey = made()
    tour = Tour(survey, 0, 40, prior=False)
    tour.run(learner.policy)
    assert np.isnan(tour.seen_angstrom[~tour.visited]).all()
    assert np.isnan(tour.predicted_angstrom).all()


def test_learning_is_far_better_than_the_nearest_hole_and_near_the_oracle() -> None:
    survey = made(seed=11, squares=8, patches=4, holes=9)
    means = {s.policy: s.mean for s in policies.compare(survey, [120.0], prior=True, count=3, seed=0)}
    cold = policies.compare(survey, [120.0], prior=False, count=3, seed=0, names=("learning",))[0].mean
    assert means["learning"] > 0.85 * means["oracle-greedy"]
    assert cold > 1.15 * means["snowball"]
    assert means["learning"] >= cold


def test_equal_seeds_give_equal_runs() -> None:
    survey = made()
    one, two = (policies.compare(survey, [60.0], prior=False, count=3, seed=4, names=("learning",)) for _ in range(2))
    assert one == two


def test_the_evaluation_prints_the_means_of_every_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agent.cli.evaluate import policy

    write(tmp_path, made())
    policy(survey=tmp_path, limits="30,60", starts=3, json=True)
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["mean_good_holes"]) == {"learning", "greedy", "rank-only", "snowball", "random", "oracle-greedy"}
    assert set(answer["mean_good_holes"]["learning"]) == {"30", "60"}
    assert 0 <= answer["calibration"]["brier"] <= 1
    policy(survey=tmp_path, limits="30", starts=2, prior=False, figure=tmp_path / "trust.svg")
    assert "learning" in capsys.readouterr().out
    picture = ElementTree.parse(tmp_path / "trust.svg")
    dots = [float(dot.get("cx", "")) for dot in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert dots == sorted(dots)
    assert dots
    with pytest.raises(CryonautError, match="--figure"):
        policy(survey=tmp_path, limits="30", starts=2, figure=tmp_path / "trust.jpg")


def site(key: str, p_mean: list[float], groups: list[int], grid: str = "G", level: float = 0.0) -> Site:
    mean = np.array(p_mean)
    none = np.zeros(len(mean))
    return Site(key, grid, Forecast(mean, none, none + level, none, none, 1e-4), np.array(groups))


def test_a_square_is_left_when_what_is_left_pays_less_than_going_elsewhere() -> None:
    costs, here = Costs(), Here("G", "A", 0)
    poor, rich = site("A", [-1.0] * 5, [0] * 5), site("B", [1.0] * 20, [0] * 10 + [1] * 10)
    assert Board([poor, rich], here, costs, 100).squares()[0].key == "B"
    fair = site("A", [1.0] * 5, [0] * 5)
    assert Board([fair, rich], here, costs, 100).squares()[0].key == "A"


def test_an_open_chance_is_worth_more_than_the_same_mean_for_certain() -> None:
    known, open_ = site("A", [-0.3] * 30, [0] * 30), site("B", [-0.3] * 30, [0] * 30, level=0.25)
    options = {o.key: o for o in Board([known, open_], Here("G"), Costs(), 60).squares()}
    assert options["B"].worth > options["A"].worth
    assert options["B"].rate > options["A"].rate


def test_time_is_dearer_the_less_of_it_is_left() -> None:
    sites = [site(str(k), [0.3 * k - 1] * 10, [0] * 10) for k in range(6)]
    sites = [s._replace(forecast=s.forecast._replace(chance=1.0)) for s in sites]
    prices = [Board(sites, Here("G"), Costs(), left).price for left in (20, 40, 1000)]
    assert prices[0] >= prices[1] >= prices[2]
    assert prices[0] > prices[2]
