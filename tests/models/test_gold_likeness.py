"""Hits are weighed beside their fellows: what is told of them, and what follows from it."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from models.gold.likeness import ALIKE, FACTS, FELLOWS, NEAR_NM, SURE, Weigher, facts
from models.gold.refine import Discs


def hits(n: int, seed: int = 0) -> tuple[np.ndarray, Discs]:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(40, 60, n)
    discs = Discs(
        x=rng.uniform(0, 900, n), y=rng.uniform(0, 900, n),
        diameter=rng.choice([6.0, 12.0], n) * rng.uniform(0.9, 1.1, n),
        ground=rng.uniform(150, 170, n), depth=depth, softness=rng.uniform(0.5, 1, n), misfit=rng.uniform(0.05, 0.2, n),
        held=rng.uniform(size=n) < 0.9,
    )  # fmt: skip
    return rng.uniform(0.2, 0.99, n), discs


def column(known: np.ndarray, name: str) -> np.ndarray:
    return known[:, FACTS.index(name)]


def test_fellows_are_the_sure_hits_that_are_nearest_in_place_and_size():
    score, discs = hits(60)
    known = facts(score, discs, 1.1)
    sure = np.flatnonzero((score > SURE) & discs.held)
    places = np.stack([discs.x * 1.1 / NEAR_NM, discs.y * 1.1 / NEAR_NM, np.log(discs.diameter * 1.1) / ALIKE], axis=1)
    far = cdist(places, places[sure])
    far[sure, np.arange(len(sure))] = np.inf  # none is a fellow of its own
    depth = column(known, "depth")
    for k in range(60):
        fellows = sure[np.argsort(far[k])[:FELLOWS]]
        wanted = depth[k] - np.median(depth[fellows])
        assert column(known, "depth against fellows")[k] == pytest.approx(np.clip(wanted, -2, 2), abs=1e-9)


def test_brightness_and_contrast_of_the_image_change_nothing():
    score, discs = hits(40)
    other = Discs(
        discs.x, discs.y, discs.diameter, discs.ground * 37 + 900, discs.depth * 37, discs.softness, discs.misfit,
        discs.held,
    )  # fmt: skip
    assert np.allclose(facts(score, discs, 1.1), facts(score, other, 1.1), atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_a_few_hits_are_told_of_too(n):
    known = facts(*hits(n), 1.1)
    assert known.shape == (n, len(FACTS))
    assert np.isfinite(known).all()


def test_a_weigher_is_read_back_from_its_settings_and_refuses_other_facts():
    rng = np.random.default_rng(1)
    n = len(FACTS)
    weigher = Weigher(rng.normal(size=n), rng.uniform(1, 2, n), rng.normal(size=(n, 4)), rng.normal(size=4),
                      rng.normal(size=4), 0.3)  # fmt: skip
    known = facts(*hits(30), 1.1)
    again = Weigher.from_settings(weigher.to_settings())
    assert np.allclose(again.score(known), weigher.score(known), atol=1e-3)
    with pytest.raises(ValueError, match="other facts"):
        Weigher.from_settings(weigher.to_settings() | {"facts": ["logit"]})


def test_a_faint_hit_among_dark_fellows_is_believed_less_than_among_its_like():
    pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed (cpu or gpu extra)")
    from models.runtime import load

    weigher = Weigher.from_settings(load("gold-fast").manifest.settings["likeness"])

    def believed(depths: list[float]) -> float:
        n = len(depths)
        at = np.arange(n) * 40.0
        dark = np.array(depths)
        discs = Discs(at, at, np.full(n, 6.0), np.full(n, 150.0), dark, np.full(n, 0.8), 9.0 / dark, np.ones(n, bool))
        return float(weigher.score(facts(np.array([0.55] + [0.9] * (n - 1)), discs, 1.1))[0])

    assert believed([30.0] + [90.0] * 15) < 0.3 < 0.5 < believed([90.0] * 16)
