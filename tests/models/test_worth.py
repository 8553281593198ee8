"""What holes and squares are worth: calibrated, in one frame, whatever else is in the batch."""

from pathlib import Path

import numpy as np
import pytest

from models.detections import HoleDetection
from models.holes.worth import FACTS, Worth, facts


def hole(
    x: float, *, step: float = 1.0, promise: float = 0.6, seen: float = 1.0, inferred: bool = False
) -> HoleDetection:
    features = dict(zip(FACTS, (0.0, step, 1.0, 0.0, 0.8, promise), strict=True)) | {"seen": seen}
    return HoleDetection(x=x, y=0.0, radius_px=5.0, score=0.1, inferred=inferred, features=features)


def line() -> Worth:
    count = 2 * len(FACTS)
    weights = np.zeros(count)
    weights[FACTS.index("promise")] = 1.0
    weights[FACTS.index("step")] = -0.5
    return Worth(np.zeros(count), np.ones(count), weights, 0.2)


def test_reasons_add_up_to_the_score() -> None:
    (judged,) = line().judged((hole(1.0),))
    total = 0.2 + sum(value for name, value in judged.features.items() if name.startswith("for_"))
    assert judged.score == pytest.approx(1 / (1 + np.exp(-total)), abs=1e-5)


def test_the_better_hole_comes_first_and_half_seen_ones_count_for_what_is_seen() -> None:
    judged = line().judged((hole(1.0, promise=0.2), hole(2.0, promise=0.9), hole(3.0, promise=0.9, seen=0.5)))
    assert judged[0].x == 2.0
    by_x = {h.x: h.score for h in judged}
    assert by_x[3.0] == pytest.approx(0.5 * by_x[2.0], abs=1e-5)


def test_a_hole_that_was_not_seen_counts_for_half() -> None:
    one, two = line().judged((hole(1.0), hole(2.0, inferred=True)))
    assert two.score == pytest.approx(0.5 * one.score, abs=1e-5)


def test_facts_hold_each_hole_and_its_distance_from_the_usual() -> None:
    table = facts([hole(0.0, step=s).features for s in (1.0, 1.0, 3.0)])
    at = FACTS.index("step")
    assert table.shape == (3, 2 * len(FACTS))
    assert table[0, len(FACTS) + at] == 0.0
    assert table[2, len(FACTS) + at] == pytest.approx(np.arcsinh(3.0) - np.arcsinh(1.0))
    assert facts([]).shape == (0, 2 * len(FACTS))


def test_settings_without_a_line_give_none() -> None:
    assert Worth.of({}) is None


def test_the_square_scorer_says_the_same_of_a_square_alone_and_in_its_batch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from models import runtime
    from models.squares.crops import FACTS as SQUARE_FACTS
    from models.squares.crops import SIDE, crops
    from models.squares.finder import MixtureSquareFinder, locate
    from models.squares.learned import NetSquareFinder
    from models.squares.located import Located
    from models.training.export import OPSET, export_onnx
    from models.training.networks import CropNet
    from tests.models.drawing import lattice_points, mesh

    path = tmp_path / "squares-score.onnx"
    torch.manual_seed(0)
    free = {"crops": {0: "n"}, "logit": {0: "n"}}
    export_onnx(CropNet(), [(torch.randn(4, 1, SIDE, SIDE),)], path, inputs=["crops"], outputs=["logit"], free=free)
    count = 2 * len(SQUARE_FACTS)
    settings = {
        "facts": list(SQUARE_FACTS), "middle": [0.0] * count, "spread": [1.0] * count, "weights": [0.1] * count,
        "intercept": 0.0, "look": 0.0, "calibration": [1.0, 0.0],
    }  # fmt: skip
    runtime.write_manifest(
        path, opset=OPSET, probe_shapes={"crops": [2, 1, SIDE, SIDE]}, what="w", made_by="a test", trained_on="nothing",
        settings=settings,
    )  # fmt: skip
    image = mesh((420, 420), lattice_points((420, 420), 90.0, 6.0), 60.0, 6.0)
    finder = NetSquareFinder(path.with_suffix(".yaml"))
    located = locate(image)
    assert isinstance(located, Located)
    seen = crops(located)
    together = finder._logits(seen)
    alone = np.concatenate([finder._logits(seen[k : k + 1]) for k in range(len(seen))])
    assert np.abs(together - alone).max() < 1e-5
    found, plain = finder.find(image).squares, MixtureSquareFinder().find(image).squares
    assert sorted((s.x, s.y) for s in found) == sorted((s.x, s.y) for s in plain)
    assert all(0 <= s.score <= 1 for s in found)
    for square in found:
        total = sum(value for name, value in square.features.items() if name.startswith("for_"))
        if not square.touches_edge:
            assert square.score == pytest.approx(1 / (1 + np.exp(-total)), abs=1e-3)
