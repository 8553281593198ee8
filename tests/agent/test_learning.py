import math

import numpy as np
import pytest

from agent import messages as m
from agent.policy.learning import Belief, Posterior, Region
from agent.policy.outlook import outlook
from agent.session import events as ev
from agent.session import fold
from models.detections import QualityFinding
from tests.agent.play import Play, small

BELIEF = Belief(hole_weights=(0.2, 0.0), hole_weight_sds=(0.1, 0.3), square_weights=(0.1,), square_weight_sds=(0.2,))


def regions(rng: np.random.Generator, *, seen: float = 0.5, squares: int = 5, holes: int = 12) -> list[Region]:
    """Squares on two grids with random features and outcomes."""
    found = []
    for number in range(squares):
        merit = rng.normal(0, 0.5, holes)
        merit[rng.uniform(size=holes) > seen] = math.nan
        if number == squares - 1:
            merit[:] = math.nan
        found.append(
            Region(
                key=f"S{number}",
                grid=f"G{number % 2}",
                place_um=tuple(rng.uniform(-500, 500, 2)),
                features=rng.normal(size=1),
                holes=rng.normal(size=(holes, 2)),
                places=rng.uniform(0, 8, (holes, 2)),
                merit=merit,
            )
        )
    return found


def dense(found: list[Region], b: Belief) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every hole by plain Gaussian-process regression with the whole covariance matrix."""
    X = np.concatenate([r.holes for r in found])
    Z = np.concatenate([np.repeat(r.features[None], len(r.merit), 0) for r in found])
    at = np.concatenate([np.repeat(np.array(r.place_um)[None], len(r.merit), 0) for r in found])
    places = np.concatenate([r.places for r in found])
    square = np.repeat(np.arange(len(found)), [len(r.merit) for r in found])
    grid = np.repeat([r.grid for r in found], [len(r.merit) for r in found])
    y = np.concatenate([r.merit for r in found])
    far = ((at[:, None] - at[None]) ** 2).sum(2)
    near = ((places[:, None] - places[None]) ** 2).sum(2)
    one_square, one_grid = square[:, None] == square[None], grid[:, None] == grid[None]
    K = b.offset_sd**2 + (X * np.square(b.hole_weight_sds)) @ X.T + (Z * np.square(b.square_weight_sds)) @ Z.T
    K += one_grid * (b.grid_sd**2 + b.across_sd**2 * np.exp(-0.5 * far / b.across_reach_um**2))
    K += one_square * b.square_sd**2
    K += one_square * b.wide_sd**2 * np.exp(-0.5 * near / b.wide_reach**2)
    K += one_square * b.near_sd**2 * np.exp(-0.5 * near / b.near_reach**2)
    mean = b.offset + X @ np.array(b.hole_weights) + Z @ np.array(b.square_weights)
    o = np.isfinite(y)
    A = K[np.ix_(o, o)] + b.chance_sd**2 * np.eye(o.sum())
    gain = np.linalg.solve(A, K[o]).T
    return mean + gain @ (y - mean)[o], K.diagonal() - (gain * K[:, o]).sum(1)


@pytest.mark.parametrize("seen", [0.0, 0.1, 0.6, 1.0])
def test_the_hierarchy_gives_what_plain_gaussian_process_regression_gives(seen: float) -> None:
    found = regions(np.random.default_rng(7), seen=seen)
    posterior = Posterior(found, BELIEF, graded=True)
    forecasts = [posterior.forecast(region.key) for region in found]
    mean, variance = dense(found, BELIEF)
    assert np.concatenate([f.mean for f in forecasts]) == pytest.approx(mean, abs=1e-8)
    assert np.concatenate([f.place_variance for f in forecasts]) == pytest.approx(variance, abs=1e-8)


def played(score: float, label: str, shots: int = 3) -> Play:
    """A session whose first micrographs all turn out the same way."""
    play = Play(small())
    done = 0
    while play.state.outstanding and done < shots:
        work = play.work
        if isinstance(work, m.Expose):
            frame = play.frame("high", work.x_um, work.y_um)
            play.result(dose_e_per_a2=work.dose_e_per_a2)
            play.found(frame, QualityFinding(score=score, label=label))  # type: ignore[arg-type]
            done += 1
        else:
            play.finish()
    return play


def test_good_micrographs_raise_and_bad_ones_lower_what_is_expected_nearby() -> None:
    good, bad = played(0.9, "good"), played(0.1, "thick")
    up, down = outlook(good.state, good.settings), outlook(bad.state, bad.settings)
    assert set(up.holes) == {h for s in good.state.grids["G1"].squares.values() for h in s.holes}
    assert all(up.holes[h].p_good > down.holes[h].p_good for h in up.holes)
    for one in (*up.holes.values(), *down.holes.values()):
        assert 0 <= one.low <= one.p_good <= one.high <= 1
        assert one.ctf_angstrom > 0
        assert one.reasons


def test_every_square_not_visited_is_ranked_once_best_first() -> None:
    play = played(0.9, "good", 1)
    found = outlook(play.state, play.settings)
    assert set(found.squares) == set(play.state.grids["G1"].squares)
    assert set(found.square_order) == {s.area_id for s in play.state.grids["G1"].squares.values() if not s.map_frame_id}
    expected = [found.squares[a].expected_good for a in found.square_order]
    assert expected == sorted(expected, reverse=True)
    assert [found.squares[a].rank for a in found.square_order] == list(range(1, len(expected) + 1))


def test_what_the_medium_frame_showed_is_kept_beside_what_the_micrograph_measured() -> None:
    play = played(0.9, "good", 1)
    shot = next(h for s in play.state.grids["G1"].squares.values() for h in s.holes.values() if h.quality)
    assert shot.features == {}
    assert shot.looks == shot.seen_before


def test_the_outlook_is_the_same_whenever_it_is_asked_for() -> None:
    play = played(0.9, "good", 3)
    first = outlook(play.state, play.settings)
    again = fold([(seq, utc, ev.decode_event(ev.encode_event(event))) for seq, utc, event in play.rows])
    assert outlook(again, play.settings) == first


def test_intervals_of_a_squares_good_micrographs_hold_as_often_as_they_say() -> None:
    """Truth of known variance, drawn from the belief itself; squares that were not seen, beside six that were."""
    b = Belief(hole_weights=(0.1,), hole_weight_sds=(0.08,))
    rng = np.random.default_rng(5)
    places = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2).astype(float)
    squared = ((places[:, None] - places[None]) ** 2).sum(2)
    waves = b.wide_sd**2 * np.exp(-0.5 * squared / b.wide_reach**2)
    waves = np.linalg.cholesky(waves + b.near_sd**2 * np.exp(-0.5 * squared / b.near_reach**2) + 1e-9 * np.eye(36))
    inside = []
    for _ in range(24):
        weight, offset = rng.normal(0.1, 0.08), rng.normal(b.offset, b.offset_sd)
        common = rng.normal(0, math.hypot(b.grid_sd, b.across_sd))  # all squares lie at one place
        found, outcomes = [], []
        for number in range(12):
            looks = rng.normal(size=(36, 1))
            merit = offset + common + rng.normal(0, b.square_sd) + weight * looks[:, 0] + waves @ rng.normal(size=36)
            merit += rng.normal(0, b.chance_sd, 36)
            known = np.full(36, math.nan)
            if number < 6:
                rows = rng.permutation(36)[:8]
                known[rows] = merit[rows]
            found.append(Region(f"S{number}", "G", (0.0, 0.0), np.zeros(0), looks, places, known))
            outcomes.append(merit >= 0)
        posterior = Posterior(found, b)
        for number in range(6, 12):
            low, high = posterior.forecast(f"S{number}").count_interval()
            inside.append(low <= outcomes[number].sum() <= high)
    assert 0.84 <= np.mean(inside) <= 0.96
