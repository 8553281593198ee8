"""Training of organelle networks, small: the published arithmetic and rules hold, and runs go on exactly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (train extra)")
pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed")

from models import runtime  # noqa: E402
from models.training import organelles  # noqa: E402
from models.training.loop import TrainingError, load_recipe  # noqa: E402
from models.training.organelles import Data, fine_tune, load_weights, predict  # noqa: E402
from models.training.organelles_data import Annotated, Blocks, cut, displacements, fixed_blocks, place  # noqa: E402
from models.training.organelles_loop import train  # noqa: E402
from models.training.organelles_network import (  # noqa: E402
    STEP,
    FastNet,
    PublishedNet,
    Standardised,
    build,
    parameters,
)
from models.training.organelles_protocol import Scores, balanced_loss, best_threshold, fit_regime, overlap_loss, score  # noqa: E402
from models.training.organelles_recipe import (  # noqa: E402
    Augmentation,
    FineTuning,
    Optimisation,
    OrganelleRecipe,
    Sampling,
    Validation,
)

pytestmark = pytest.mark.timeout(400)
RECIPES = Path(__file__).resolve().parents[2] / "config" / "training"
STILL = Augmentation(mirror=False, transpose=False, jitter=0, rotation_rad=0, shift=0, scale=(1, 1), offset=(0, 0))
TINY = OrganelleRecipe(
    arch="fast",
    width=2,
    structures=("mitochondrion", "er"),
    voxel_nm=8.0,
    sampling=Sampling(block=8, centred=0.5, padding=None),
    optimisation=Optimisation(iterations=6, learning_rate=1e-2, schedule="cosine"),
    validation=Validation(every=2, window=4, blocks=1),
    finetuning=FineTuning(iterations=4, edge=24),
)


def blobs(seed: int = 0, edge: int = 40) -> Annotated:
    """Dark balls in bright noise, and a plane of something else."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(170, 10, (edge, edge, edge))
    truth = np.zeros(raw.shape, bool)
    z, y, x = np.ogrid[:edge, :edge, :edge]
    for centre in rng.uniform(0, edge, (5, 3)):
        truth |= (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < 36
    raw[truth] -= 90
    plane = np.zeros(raw.shape, bool)
    plane[edge // 2] = True
    labels = {"mitochondrion": truth, "er": plane}
    return Annotated.of(f"blobs-{seed}", np.clip(raw, 0, 255).astype(np.uint8), labels, TINY.structures)


def quiet(_text: str) -> None:
    """Say nothing."""


# ------------------------------------------------------------------------------------------------- networks


def test_the_published_network_has_the_published_size_and_answers_110_voxels_to_204() -> None:
    assert parameters(PublishedNet()) == 5_837_730
    assert PublishedNet.published_size(204) == 110
    assert PublishedNet.published_size(300) == 206
    small = PublishedNet(2)
    with torch.no_grad():
        for edge in (108, 116):
            assert small.classes(torch.zeros(1, 1, edge, 108, 108)).shape[2] == PublishedNet.published_size(edge)
        assert small(torch.zeros(1, 1, 108, 116, 108)).shape == (1, 1, 8, 16, 8)
    with pytest.raises(ValueError, match="odd"):
        PublishedNet.published_size(206)


@pytest.mark.parametrize(("kind", "sizes"), [(PublishedNet, (2,)), (FastNet, (2, 4))], ids=["published", "fast"])
def test_answers_follow_the_volume_and_no_block_shows_a_seam(kind: Any, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    network = kind(*sizes).eval()
    c, n = network.context, 2 * STEP
    volume = torch.rand(1, 1, 2 * c + n, 2 * c + STEP, 2 * c + STEP, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network(volume)
        assert whole.shape[2:] == (n, STEP, STEP)
        first, second = network(volume[:, :, :-STEP]), network(volume[:, :, STEP:])
        assert torch.allclose(torch.cat([first, second], 2), whole, atol=1e-6)
        # what is further away than the context changes nothing
        far = volume.clone()
        far[:, :, -STEP:] = 0
        assert torch.allclose(network(far)[:, :, :STEP], whole[:, :, :STEP], atol=1e-6)
        near = volume.clone()
        near[:, :, c : c + n] = 0
        assert not torch.allclose(network(near), whole, atol=1e-4)


def test_normalised_kernels_are_folded_into_plain_weights_without_a_change() -> None:
    network = FastNet(2, 4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    volume = torch.rand(1, 1, 80, 88, 80, generator=generator)
    with torch.no_grad():
        assert torch.allclose(network(volume), network.folded()(volume), atol=1e-5)
    assert not any(name.endswith("gain") for name in network.folded().state_dict())


def test_kernels_have_mean_0_and_the_length_of_their_gain_and_training_answers_as_later() -> None:
    layer = Standardised(3, 5, 3)
    with torch.no_grad():
        layer.weight.add_(2.0)
        layer.gain.copy_(torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0]))
    kernels = layer.kernels().detach()
    assert kernels.sum((1, 2, 3, 4)).abs().max() < 1e-4
    assert torch.allclose(kernels.square().sum((1, 2, 3, 4)).sqrt(), layer.gain.detach(), atol=1e-4)
    network, volume = FastNet(1, 2), torch.rand(1, 1, 80, 80, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network.train()(volume), network.eval()(volume))


def test_a_network_begins_with_every_level_heard() -> None:
    """Calibrated, each convolution answers with mean 0 and the deviation of its gain, whatever the greys are."""
    torch.manual_seed(2)
    network = FastNet(2, 4)
    volume = 0.4 + 0.02 * torch.rand(2, 1, 88, 88, 88, generator=torch.Generator().manual_seed(1))
    before = volume.clone()
    network.calibrate(volume)
    assert torch.equal(volume, before)
    found: dict[str, tuple[float, float]] = {}

    def note(name: str) -> Any:
        def hook(_layer: Any, _given: Any, answer: Any) -> None:
            found[name] = (float(answer.mean((0, 2, 3, 4)).abs().max()), float(answer.std((0, 2, 3, 4)).mean()))

        return hook

    for name, layer in network.named_modules():
        if isinstance(layer, Standardised):
            layer.register_forward_hook(note(name))
    with torch.no_grad():
        network(volume)
    assert len(found) == 12
    for name, (mean, spread) in found.items():
        assert mean < 1e-3, name
        assert spread == pytest.approx(0.3 if name.endswith("second") else 1.0, rel=0.01), name


def test_an_unlearned_network_shows_no_checkerboard() -> None:
    """The eight voxels that come from one at half the sampling begin alike."""
    with torch.no_grad():
        answer = FastNet(2, 4)(torch.rand(1, 1, 88, 88, 88, generator=torch.Generator().manual_seed(0)))
    one = answer[:, :, ::2, ::2, ::2]
    for z, y, x in np.ndindex(2, 2, 2):
        assert torch.allclose(answer[:, :, z::2, y::2, x::2], one, atol=1e-6)
    assert 0.02 < float(answer.mean()) < 0.4


# ------------------------------------------------------------------------------------------------- protocol


def test_the_published_recipe_is_what_the_defaults_say() -> None:
    assert load_recipe(RECIPES / "organelles-published.yaml", OrganelleRecipe) == OrganelleRecipe()
    fast = load_recipe(RECIPES / "organelles.yaml", OrganelleRecipe)
    assert fast.arch == "fast"
    same = (
        "mirror",
        "transpose",
        "spacing",
        "jitter",
        "subsample",
        "rotation_rad",
        "shift",
        "misalign",
        "scale",
    )
    assert all(getattr(fast.augmentation, name) == getattr(Augmentation(), name) for name in same)


def test_recipes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for text, word in (
        ("arch: published\nstructures: [a, b]", "marks one"),
        ("sampling: {block: 60}", "multiple of 8"),
        ("structures: []", "one to eight"),
        ("optimisation: {learning_rat: 1}", "learning_rat"),
    ):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(TrainingError, match=word):
            load_recipe(tmp_path / "recipe.yaml", OrganelleRecipe)


def test_both_classes_weigh_alike_in_the_loss_and_at_most_1_to_100() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 1, 10, 10, 10, generator=generator)
    for count, clip in ((100, 0.01), (1, 0.01), (1, 0.2)):
        truth = torch.zeros(1, 1, 10, 10, 10)
        truth.view(-1)[:count] = 1
        mask = torch.ones_like(truth)
        mask.view(-1)[900:] = 0
        known = 900
        share = min(max(count / known, clip), 1 - clip)
        each = np.logaddexp(0, np.where(truth.numpy() > 0, -logits.numpy(), logits.numpy())).ravel()[:900]
        weight = np.where(truth.numpy().ravel()[:900] > 0, 1 / (2 * share), 1 / (2 * (1 - share)))
        expected = (each * weight).sum() / weight.sum()
        assert float(balanced_loss(logits, truth, mask, clip)) == pytest.approx(expected, rel=1e-5)


def test_overlap_counts_the_structures_that_are_in_the_block_alike() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 3, 10, 10, 10, generator=generator)
    truth = torch.zeros_like(logits)
    truth[0, 0, :5], truth[0, 1, 0, :3] = 1, 1  # the third is not there
    mask = torch.ones_like(logits)
    mask[..., 8:] = 0
    p, t, m = (v.numpy()[0].reshape(3, -1) for v in (torch.sigmoid(logits), truth, mask))
    dice = [(2 * (p[k] * t[k] * m[k]).sum() + 1) / ((p[k] * m[k]).sum() + (t[k] * m[k]).sum() + 1) for k in (0, 1)]
    assert float(overlap_loss(logits, truth, mask)) == pytest.approx(1 - np.mean(dice), rel=1e-5)
    assert float(overlap_loss(logits[:, 2:], truth[:, 2:], mask[:, 2:])) == 0


def test_blocks_with_little_of_the_structure_are_mostly_refused() -> None:
    """Half of a volume is empty; a try there passes one time in ten, so 1 of 11 blocks comes from there."""
    bits = np.zeros((8, 8, 400), np.uint8)
    bits[:, :, 200:] = 1
    volume = Annotated("half", np.zeros(bits.shape, np.uint8), bits)
    rng = np.random.default_rng(0)
    how = Sampling(block=8, tries=10_000)
    empty = np.mean([place(volume, [], 1, how, rng)[2] <= 192 for _ in range(1500)])
    assert empty == pytest.approx(1 / 11, abs=0.03)


def test_blocks_outside_the_sample_are_refused() -> None:
    mask = np.zeros((8, 8, 400), bool)
    mask[:, :, :100] = True
    bits = np.ones(mask.shape, np.uint8)
    volume = Annotated("edge", np.zeros(bits.shape, np.uint8), bits, mask)
    rng = np.random.default_rng(0)
    starts = [place(volume, [], 1, Sampling(block=8, reject_outside=1.0, tries=10_000), rng)[2] for _ in range(300)]
    assert max(starts) <= 94  # at most 2 of 8 columns beyond 100


def test_blocks_are_put_on_a_structure_where_it_is_annotated() -> None:
    """Half of a volume is annotated; what is marked elsewhere draws no block."""
    bits = np.zeros((16, 16, 200), np.uint8)
    bits[:, :, 20:22], bits[:, :, 150:152] = 1, 1
    mask = np.zeros(bits.shape, bool)
    mask[:, :, 100:] = True
    one = msgspec.structs.replace(TINY, structures=("er",), augmentation=STILL)
    one = msgspec.structs.replace(one, sampling=Sampling(block=8, centred=1.0, padding=None))
    blocks = Blocks([Annotated("half", np.zeros(bits.shape, np.uint8), bits, mask)], one, 12, 0)
    for number in range(12):
        block = blocks.batch(number)
        assert float(block.mask.min()) == 1
        assert float(block.truth.sum()) > 0


def test_a_structure_that_is_not_in_the_block_is_not_unlearned(tmp_path: Path) -> None:
    volume = blobs()
    without = Annotated("no plane", volume.raw, volume.bits & np.uint8(1))
    assert (volume.marked(), without.marked()) == (3, 1)
    _, _, mask = cut(replace(without, known=1), (8, 8, 8), TINY, 12, np.random.default_rng(0))
    assert (float(mask[0].mean()), float(mask[1].mean())) == (1.0, 0.0)
    start = FastNet(2, 2)
    torch.save(start.state_dict(), tmp_path / "start.pt")
    lines: list[str] = []
    data = Data((without,), (blobs(1),))
    tuned, run = fine_tune(TINY, data, tmp_path / "run", tmp_path / "start.pt", say=lines.append)
    assert any("nothing is learned of them: er" in line for line in lines)
    before, after = start.folded().state_dict(), tuned.state_dict()
    assert torch.equal(before["head.weight"][8:], after["head.weight"][8:])
    assert not torch.allclose(before["head.weight"][:8], after["head.weight"][:8], atol=1e-3)
    assert len(run.checkpoints) == 2


def test_a_block_is_a_function_of_its_number() -> None:
    blocks = Blocks([blobs()], TINY, 12, seed=3)
    one, again, other = blocks.batch(5), Blocks([blobs()], TINY, 12, seed=3).batch(5), blocks.batch(6)
    assert torch.equal(one.volume, again.volume)
    assert torch.equal(one.truth, again.truth)
    assert not torch.equal(one.volume, other.volume)
    assert one.volume.shape == (1, 1, 32, 32, 32)
    assert one.truth.shape == (1, 2, 8, 8, 8)


def test_variation_that_is_switched_off_changes_nothing_and_truth_follows_the_volume() -> None:
    volume = blobs()
    shown = Annotated("truth", np.where(volume.bits & 1, np.uint8(255), np.uint8(0)), volume.bits)
    rng = np.random.default_rng(1)
    still = msgspec.structs.replace(TINY, augmentation=STILL)
    plain = cut(volume, (9, 10, 11), still, 12, rng, varied=False)
    same = cut(volume, (9, 10, 11), still, 12, rng)
    for a, b in zip(plain, same, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    for turned in (
        Augmentation(scale=(1, 1), offset=(0, 0)),
        Augmentation(scale=(1, 1), offset=(0, 0), jitter=0),
        Augmentation(scale=(1, 1), offset=(0, 0), deformed=0),
    ):
        recipe = msgspec.structs.replace(TINY, augmentation=turned)
        for _ in range(6):
            seen, truth, _ = cut(shown, (14, 15, 16), recipe, 12, rng)
            inner = seen[0, 12:-12, 12:-12, 12:-12]
            sure = (inner - 0.5).abs() > 0.45
            assert bool(((inner > 0.5) == (truth[0] > 0))[sure].all())


def test_control_points_move_voxels_by_what_they_are_told() -> None:
    moved = displacements(64, Augmentation(jitter=2.0, shift=0, slip=0), np.random.default_rng(0))
    assert moved.shape == (3, 64, 64, 64)
    assert 0.5 < moved.std() < 2.5
    assert np.abs(np.diff(moved, axis=1)).max() < 1.0  # smooth
    slipped = displacements(32, Augmentation(jitter=0, shift=1.0, misalign=2), np.random.default_rng(0))
    assert not slipped[0].any()  # sections stay in their planes
    assert np.abs(np.diff(slipped[1], axis=0)).max() <= 2
    assert np.ptp(slipped[1], axis=(1, 2)).max() == 0


def test_beyond_the_volume_is_what_the_recipe_says_and_it_does_not_count() -> None:
    volume = blobs()
    grey = msgspec.structs.replace(TINY, sampling=Sampling(block=8, padding=0.5))
    seen, _, mask = cut(volume, (0, 0, 0), grey, 12, np.random.default_rng(0), varied=False)
    assert bool((seen[0, :12] == 0.5).all())
    assert bool(mask.all())
    seen, _, mask = cut(volume, (-4, 0, 0), TINY, 12, np.random.default_rng(0), varied=False)
    assert float(mask[0, :4].sum()) == 0
    assert bool((seen[0, 12:16].flip(0) == seen[0, 16:20]).all())  # mirrored


def test_labels_off_the_grid_are_refused_by_name() -> None:
    raw = np.zeros((8, 8, 8), np.uint8)
    with pytest.raises(TrainingError, match="no labels of er"):
        Annotated.of("c", raw, {"mitochondrion": raw}, ("mitochondrion", "er"))
    with pytest.raises(TrainingError, match=r"\(8, 8, 9\)"):
        Annotated.of("c", raw, {"er": np.zeros((8, 8, 9))}, ("er",))
    with pytest.raises(TrainingError, match=r"sampling\.block"):
        Blocks([Annotated("small", raw[:4], raw[:4])], TINY, 12, 0)


@pytest.mark.parametrize(
    ("losses", "window", "expected"),
    [
        ([9, 6, 4, 3, 2.0, 2.0, 2.01, 2.0, 2.0, 3, 5, 7], 3, (4, 6, 8, True)),  # under-fit, fit, over-fit
        ([5, 5, 5, 5, 2, 2, 2, 2], 3, (4, 5, 7, True)),  # a plateau far above the best is no fit
        ([8, 4, 2, 1], 2, (2, 2, 3, False)),  # still falling: the lowest window
        ([3.0], 5, (0, 0, 0, True)),
    ],
)
def test_the_fit_regime_is_where_validation_loss_is_low_and_stays(
    losses: list[float], window: int, expected: tuple[int, int, int, bool]
) -> None:
    found = fit_regime(losses, window, 0.05)
    assert (found.first, found.middle, found.last, found.found) == expected


def test_scores_are_counts_and_excluded_voxels_do_not_count() -> None:
    found = np.array([1, 1, 1, 0, 0, 1], bool)
    truth = np.array([1, 1, 0, 1, 0, 0], bool)
    one = score(found, truth)
    assert (one.true_positive, one.false_positive, one.false_negative) == (2, 2, 1)
    assert one.precision == 0.5
    assert one.recall == pytest.approx(2 / 3)
    assert one.f1 == pytest.approx(2 * one.precision * one.recall / (one.precision + one.recall))
    assert score(found, truth, np.array([1, 1, 0, 0, 1, 1], bool)) == Scores(2, 1, 0)
    assert one + Scores(1, 0, 0) == Scores(3, 2, 1)
    assert best_threshold(np.array([0.2, 0.6, 0.9], np.float32), np.array([0, 0, 1], bool)) == pytest.approx(0.65)


# ------------------------------------------------------------------------------------------------- runs


def run(folder: Path, stop_after: int | None = None, recipe: OrganelleRecipe = TINY) -> Any:
    organelles.seeded(0)
    network = build(recipe.arch, len(recipe.structures), recipe.width)
    held_out = {"other": fixed_blocks(blobs(1), recipe, network.context, 1)}
    blocks = Blocks([blobs()], recipe, network.context, seed=0)
    return network, train(network, blocks, held_out, recipe, folder, stop_after=stop_after, say=quiet)


def test_a_run_that_was_interrupted_goes_on_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    whole, through = run(tmp_path / "whole")
    with pytest.raises(TrainingError, match="interrupted after iteration 3 of 6"):
        run(tmp_path / "parts", stop_after=3)
    parts, resumed = run(tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    assert resumed.checkpoints == through.checkpoints
    assert [c.iteration for c in through.checkpoints] == [2, 4, 6]
    for number in range(3):
        one, two = (torch.load(r.weights(number), weights_only=True) for r in (through, resumed))
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_weights_of_an_older_form_are_refused_in_a_word(tmp_path: Path) -> None:
    state = FastNet(2, 2).state_dict()
    torch.save({**state, "stem.conv.weight": torch.zeros(2)}, tmp_path / "old.pt")
    with pytest.raises(TrainingError, match="older form"):
        load_weights(FastNet(2, 2), tmp_path / "old.pt")


def test_a_folder_with_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="interrupted"):
        run(tmp_path, stop_after=1)
    other = msgspec.structs.replace(TINY, optimisation=msgspec.structs.replace(TINY.optimisation, learning_rate=0.5))
    with pytest.raises(TrainingError, match="another recipe"):
        run(tmp_path, recipe=other)


def test_learned_weights_are_written_loaded_and_gone_on_with(tmp_path: Path) -> None:
    lines: list[str] = []
    data = Data((blobs(),), (blobs(1),), "blobs")
    file = organelles.trained(TINY, data, tmp_path / "first", command="cryonaut train organelles", say=lines.append)
    model = runtime.load(file.with_suffix(".yaml"))
    settings = model.manifest.settings
    assert (settings["structures"], settings["context"], settings["step"]) == (["mitochondrion", "er"], 36, 8)
    assert settings["voxel_size_nm"] == 8.0
    assert "Where not to trust it" in file.with_suffix(".md").read_text()
    assert any("mitochondrion" in line for line in lines)
    # the answer of the file is the answer of the network, also of one that marks fewer structures
    volume = runtime.question(2, {"volume": [1, 1, 80, 88, 80]})["volume"]
    answer = model.run(volume)["probability"]
    fewer = build("fast", 1, 2, norm=False)
    load_weights(fewer, file, ("er",))
    with torch.no_grad():
        assert np.allclose(fewer(torch.from_numpy(volume)).numpy(), answer[:, 1:], atol=1e-5)
    # one block of another cell
    site = Data((blobs(2),), (blobs(3),), "a block")
    lines.clear()
    tuned = organelles.fine_tuned(TINY, site, tmp_path / "site", tmp_path / "first" / "run", say=lines.append)
    assert [line.split()[0] for line in lines if "(" in line][-3:] == ["before", "from", "fine-tuned"]
    assert runtime.load(tuned.with_suffix(".yaml")).fingerprint != model.fingerprint


def test_fine_tuning_wants_a_block_that_is_large_enough_and_does_not_go_on_for_ever(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"at least 24 .*finetuning\.edge"):
        fine_tune(TINY, Data((blobs(edge=20),)), tmp_path, None, say=quiet)
    with pytest.raises(TrainingError, match="4 at most"):
        fine_tune(TINY, Data((blobs(),)), tmp_path, None, iterations=5, say=quiet)
    with pytest.raises(TrainingError, match="no training"):
        fine_tune(TINY, Data((blobs(),)), tmp_path, tmp_path, say=quiet)


def test_a_whole_volume_is_answered_the_same_in_blocks_of_any_size() -> None:
    network = FastNet(1, 2).eval()
    raw = blobs(edge=20).raw
    one, other = predict(network, raw, block=24), predict(network, raw, block=8)
    assert one.shape == (1, 20, 20, 20)
    assert np.allclose(one, other, atol=1e-6)


def test_the_shipped_network_loads_and_says_what_it_marks() -> None:
    model = runtime.load("organelles-fast")
    settings = model.manifest.settings
    answer = model.run(np.full((1, 1, 80, 80, 88), 0.6, np.float32))["probability"]
    assert answer.shape == (1, len(settings["structures"]), 8, 8, 16)
    assert float(answer.min()) >= 0
    assert float(answer.max()) <= 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_network_learns_mitochondria_of_a_simulated_cell(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "organelles.yaml", OrganelleRecipe)
    data = organelles.simulated_data(recipe, ("train-1",), regions=1)
    network, _ = organelles.learn(recipe, data, tmp_path, iterations=200, say=quiet)
    assert organelles.measure(network, data.held_out, recipe)["mitochondrion"].f1 > 0.6
