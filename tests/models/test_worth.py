"""What holes and squares are worth: calibrated, in one frame, whatever else is in the batch."""

from pathlib import Path

import numpy as np
import pytest

from models.conditions import Conditions
from models.detections import HoleDetection
from models.holes.learned import NetHoleFinder
from models.holes.worth import Worth, thickness_nm, transmissions
from simulators.specimen import Specimen, SpecimenSettings, View, detector

AT_300_KV = Conditions(voltage_kv=300.0, open_beam=1000.0)


def hole(x: float, y: float = 50.0, *, inferred: bool = False, **features: float) -> HoleDetection:
    return HoleDetection(x=x, y=y, radius_px=6.0, score=0.1, inferred=inferred, features={"seen": 1.0} | features)


def curve() -> Worth:
    return Worth(np.array([0.0, 40.0, 200.0]), np.array([-4.0, 3.0, -5.0]))


def foil_with(levels: dict[float, float]) -> np.ndarray:
    """Foil of 300 counts with a hole of 6 pixels at each x, of that level."""
    y, x = np.mgrid[:100, :200]
    image = np.full((100, 200), 300.0, np.float32)
    for at, level in levels.items():
        image[np.hypot(x - at, y - 50.0) <= 6.0] = level
    return image


def test_a_hole_s_share_of_the_open_beam_is_measured_and_a_lump_in_it_does_not_count() -> None:
    image = foil_with({30.0: 800.0, 90.0: 500.0})
    image[49:52, 88:91] = 5.0  # a lump
    shares, why = transmissions(image, (hole(30.0), hole(90.0)), 1000.0)
    assert why == ""
    assert shares is not None
    assert shares == pytest.approx([0.8, 0.5], abs=1e-3)
    assert thickness_nm(shares, AT_300_KV) == pytest.approx(-303.0 * np.log(shares))


def test_a_reference_that_the_frame_belies_is_not_used_and_the_reason_is_said() -> None:
    bright = foil_with({30.0: 800.0, 90.0: 700.0})
    holes = (hole(30.0), hole(90.0))
    assert transmissions(bright, holes, 500.0)[0] is None
    assert "brighter than the open beam" in transmissions(bright, holes, 500.0)[1]
    assert "darker than the foil" in transmissions(foil_with({30.0: 100.0, 90.0: 90.0}), holes, 1000.0)[1]
    assert "no zero" in transmissions(bright - 900.0, holes, 1000.0)[1]


def test_the_hole_with_the_better_ice_comes_first_whatever_the_frame_s_other_holes_are() -> None:
    thick, right, bare = np.exp(-np.array([200.0, 40.0, 0.0]) / 303.0)
    judged = curve().judged((hole(1.0), hole(2.0), hole(3.0)), np.array([thick, right, bare]), AT_300_KV)
    assert [h.x for h in judged] == [2.0, 3.0, 1.0]
    assert judged[0].score == pytest.approx(1 / (1 + np.exp(-3.0)), abs=1e-5)
    assert judged[0].features["transmission"] == pytest.approx(right, abs=1e-5)
    (alone,) = curve().judged((hole(2.0),), np.array([right]), AT_300_KV)
    assert alone.score == judged[0].score


def test_half_seen_inferred_and_dirty_holes_count_for_less() -> None:
    share = np.full(4, np.exp(-40.0 / 303.0))
    holes = (hole(1.0), hole(2.0, seen=0.5), hole(3.0, inferred=True), hole(4.0, dark_share=0.4))
    score = {h.x: h.score for h in curve().judged(holes, share, AT_300_KV)}
    assert score[2.0] == pytest.approx(0.5 * score[1.0], abs=1e-5)
    assert score[3.0] == pytest.approx(0.5 * score[1.0], abs=1e-5)
    assert score[4.0] < 0.5 * score[1.0]


def test_settings_without_a_curve_give_none() -> None:
    assert Worth.of({}) is None


def test_with_the_open_beam_good_ice_outranks_thick_ice_of_another_frame_and_nothing_else_changes() -> None:
    finder, frames = NetHoleFinder(), []
    for seed, ice in ((3, "good"), (5, "thick")):
        grid = Specimen(SpecimenSettings(seed=seed, grid_radius_um=150.0, foil="gold", ice=ice))
        square = max(grid.squares, key=lambda s: len(grid.holes(s.index)))
        view = View(square.x_um, square.y_um, 1500.0, (256, 256), dose_e_per_a2=4e-4)
        image = grid.render(view)
        counts = 4e-4 * 1500.0**2 * detector.camera_gain(4e-4, 1500.0)
        known, plain = finder.find(image, 1500.0, Conditions(open_beam=counts)), finder.find(image, 1500.0)
        assert sorted((h.x, h.y, h.label) for h in known.holes) == sorted((h.x, h.y, h.label) for h in plain.holes)
        assert all("transmission" in h.features for h in known.holes)
        assert not any("transmission" in h.features for h in plain.holes)
        frames.append(np.median([h.score for h in known.holes if not h.inferred]))
        belied = finder.find(image, 1500.0, Conditions(open_beam=0.2 * counts))
        assert belied.holes == plain.holes
        assert "the frame's own greys" in belied.note
    good, thick = frames
    assert good > 0.5 > thick


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
