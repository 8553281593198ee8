"""The parts that every training shares: seeds, schedules, resuming, the proof at export, the card."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from models import runtime  # noqa: E402
from models.training import loop  # noqa: E402
from models.training.card import Card, Figure, write_card  # noqa: E402
from models.training.export import OPSET, export_onnx  # noqa: E402
from models.training.holes import HoleRecipe, batch_maker, loss_of, targets  # noqa: E402
from models.training.loop import LoopSettings, TrainingError, load_recipe, schedule, seeded, train  # noqa: E402
from models.training.networks import HoleNet, PublishedUNet  # noqa: E402
from models.training.scenes import piece, pool  # noqa: E402


def line(step: int) -> tuple[Any, Any]:
    """Points on y = 3 x - 1, the same for the same step."""
    x = torch.from_numpy(np.random.default_rng(step).uniform(-1, 1, (16, 1)).astype(np.float32))
    return x, 3 * x - 1


def squared(network: Any, batch: tuple[Any, Any]) -> Any:
    return ((network(batch[0]) - batch[1]) ** 2).mean()


def fitted(settings: LoopSettings, checkpoint: Path | None = None) -> Any:
    seeded(5)
    return train(torch.nn.Linear(1, 1), line, squared, settings, checkpoint=checkpoint, say=lambda text: None)


def test_a_training_learns_and_the_same_seed_gives_the_same_weights() -> None:
    settings = LoopSettings(steps=120, learning_rate=0.1, averaging=0.9, weight_decay=0.0)
    network, history = fitted(settings)
    assert network.weight.item() == pytest.approx(3.0, abs=0.05)
    assert network.bias.item() == pytest.approx(-1.0, abs=0.05)
    assert history.losses[-1][1] < history.losses[0][1]
    assert torch.equal(fitted(settings)[0].weight, network.weight)


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LoopSettings(steps=40, learning_rate=0.05, save_every=10, report_every=10)
    whole, _ = fitted(settings)
    saved, real = [], loop._save

    def stop_after_two(*given: Any) -> None:
        real(*given)
        saved.append(given)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        fitted(settings, tmp_path / "run.checkpoint")
    monkeypatch.setattr(loop, "_save", real)
    again, history = fitted(settings, tmp_path / "run.checkpoint")
    assert torch.allclose(again.weight, whole.weight, atol=1e-7)
    assert [step for step, _ in history.losses] == [10, 20, 30, 40]
    assert not (tmp_path / "run.checkpoint").exists()


def test_a_loss_that_is_no_number_stops_the_training_and_names_the_rate() -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(torch.nn.Linear(1, 1), line, lambda n, b: squared(n, b) * torch.nan, LoopSettings(steps=3), say=str)


def test_the_rate_rises_then_falls_to_a_hundredth() -> None:
    settings = LoopSettings(steps=100, warmup=0.1)
    rates = [schedule(step, settings) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] == 1.0
    assert rates[99] == pytest.approx(0.01, abs=1e-3)


def test_a_recipe_refuses_keys_that_it_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("seed: 4\nloop: {steps: 9}\n")
    assert load_recipe(file, HoleRecipe).loop.steps == 9
    file.write_text("sede: 4\n")
    with pytest.raises(TrainingError, match="sede"):
        load_recipe(file, HoleRecipe)


def test_an_export_says_what_torch_says_and_loads_through_the_runtime(tmp_path: Path) -> None:
    seeded(1)
    network = HoleNet((8, 8, 8, 8))
    path = tmp_path / "small.onnx"
    axes = {0: "n", 2: "rows", 3: "columns"}
    cells = {0: "n", 2: "down", 3: "right"}
    parity = export_onnx(
        network,
        [(torch.randn(3, 2, 32, 48),)],
        path,
        inputs=["planes"],
        outputs=["centre", "about"],
        free={"planes": axes, "centre": cells, "about": cells},
    )
    assert parity.torch_onnx < 1e-4
    assert parity.alone_batch < 1e-5
    runtime.write_manifest(
        path, opset=OPSET, probe_shapes={"planes": [1, 2, 32, 32]}, what="small", made_by="a test", trained_on="nothing"
    )
    answer = runtime.load(tmp_path / "small.yaml").run(np.zeros((1, 2, 64, 16), np.float32))
    assert answer["centre"].shape == (1, 1, 32, 8)
    assert answer["about"].shape == (1, 7, 32, 8)


def test_a_network_whose_answer_depends_on_its_batch_is_not_exported(tmp_path: Path) -> None:
    class Relative(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def forward(self, x: Any) -> Any:
            return x - x.mean()

    path = tmp_path / "relative.onnx"
    with pytest.raises(TrainingError, match="alone and in its batch"):
        export_onnx(Relative(), [(torch.randn(4, 3),)], path, inputs=["x"], outputs=["y"], free={"x": {0: "n"}})
    assert not path.exists()


def test_the_published_network_has_the_published_size() -> None:
    network = PublishedUNet()
    assert sum(p.numel() for name, p in network.named_parameters() if name != "log_sigma") == 886_977
    assert float(torch.exp(network.log_sigma.detach())) == pytest.approx(np.e)


def test_pictures_follow_from_the_seed_and_targets_stand_on_the_holes() -> None:
    scenes = pool(2, 3, 300, (4.0, 5.0), say=str)
    assert np.array_equal(scenes[1].image, pool(2, 2, 300, (4.0, 5.0), say=str)[1].image)
    scene = max(scenes, key=lambda s: len(s.radius))
    cut = piece(np.random.default_rng(1), scene, 160, 1.0, turn=30.0, shear=0.1)
    heat, weight, about = targets(cut, 160)
    assert len(about) > 3
    for j, i, log_radius, quality, _ in about:
        assert heat[int(j), int(i)] == 1.0
        assert 2.8 <= np.exp(log_radius) <= 6.6
        assert 0 <= quality <= 1
    assert heat.max() == 1.0
    assert weight.max() == 1.0


def test_a_few_steps_on_simulated_foil_lower_the_loss() -> None:
    recipe = HoleRecipe(pictures=4, picture_side=300, batch=2, side=96, loop=LoopSettings(steps=12, report_every=4))
    seeded(0)
    scenes = pool(0, recipe.pictures, recipe.picture_side, (3.0, 6.0), say=str)
    network, history = train(HoleNet((8, 8, 8, 8)), batch_maker(recipe, scenes), loss_of, recipe.loop, say=str)
    assert history.losses[-1][1] < history.losses[0][1]
    assert not network.training


def test_the_card_names_command_figures_and_limits(tmp_path: Path) -> None:
    card = Card(
        name="w", purpose="p", inputs="i", outputs="o", data="d", command="cryonaut train w --seed 1",
        figures=[Figure("recall", "0.99", "python -m benchmarks.finders")], limits=["lacey carbon"],
    )  # fmt: skip
    write_card(card, tmp_path / "w.md")
    page = (tmp_path / "w.md").read_text()
    assert "`cryonaut train w --seed 1`" in page
    assert "| recall | 0.99 | `python -m benchmarks.finders` |" in page
    assert "- lacey carbon" in page


@pytest.mark.slow
def test_the_published_recipe_runs_and_its_weights_load(tmp_path: Path) -> None:
    from models.training.holes import PublishedRecipe, learn_published

    recipe = PublishedRecipe(pictures=7, batch=2, loop=LoopSettings(steps=3, averaging=0.0))
    path = learn_published(recipe, tmp_path, command="a test", say=str)
    answer = runtime.load(path.with_suffix(".yaml")).run(np.zeros((1, 1, 256, 256), np.float32))
    assert answer["logit"].shape == (1, 1, 256, 256)
    assert runtime.read_manifest(path.with_suffix(".yaml")).settings["sigma_px"] > 0
