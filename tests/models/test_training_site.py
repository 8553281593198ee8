"""Fine-tuning on a site's own marks: what is read, what is kept of the shipped network, what is said."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from agent.cli.marks import marked_images  # noqa: E402
from agent.errors import BadFileError, ConfigError  # noqa: E402
from models import runtime  # noqa: E402
from models.training import holes_site  # noqa: E402
from models.training.loop import LoopSettings, TrainingError  # noqa: E402
from tests.models.drawing import foil, lattice_points  # noqa: E402

SHIPPED = runtime.WEIGHTS / "holes-net.yaml"


def marks_in(folder: Path, count: int) -> None:
    for k in range(count):
        points = lattice_points((260, 280), 44.0, 11.0 * k, margin=14.0)
        cv2.imwrite(str(folder / f"{k}.png"), np.clip(foil((260, 280), points, 11.0, seed=k), 0, 255).astype(np.uint8))
        rows = [{"x": x, "y": y, "radius": 11.0, "label": "good"} for x, y in points.tolist()]
        (folder / f"{k}.json").write_text(json.dumps(rows if k % 2 else {"holes": rows}))


def test_marks_beside_images_are_read_in_both_forms(tmp_path: Path) -> None:
    marks_in(tmp_path, 2)
    first, second = marked_images(tmp_path)
    assert (first[0], second[0]) == ("0.png", "1.png")
    assert first[1].shape == (260, 280)
    assert len(first[2]) == len(lattice_points((260, 280), 44.0, 0.0, margin=14.0))
    (tmp_path / "1.json").write_text('[{"x": 1}]')
    with pytest.raises(BadFileError, match=r"1\.json"):
        marked_images(tmp_path)


def test_a_folder_without_marks_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "alone.png"), np.zeros((64, 64), np.uint8))
    with pytest.raises(ConfigError, match="no image with marks"):
        marked_images(tmp_path)


def test_the_shipped_weights_come_back_from_their_export() -> None:
    network = holes_site.frozen_norms(holes_site.weights_of(SHIPPED)).train()
    planes = np.random.default_rng(0).standard_normal((2, 2, 48, 64)).astype(np.float32)
    with torch.no_grad():
        ours = torch.sigmoid(network.logits(torch.from_numpy(planes))[:, :1]).numpy()
    assert np.abs(ours - runtime.load("holes-net").run(planes)["centre"]).max() < 1e-5


def test_a_few_steps_on_a_site_s_images_give_weights_that_load_and_a_card_that_says_before_and_after(
    tmp_path: Path,
) -> None:
    marks_in(tmp_path, 3)
    images = []
    for name, image, rows in marked_images(tmp_path):
        x, y, radius, unsure = (np.array(column) for column in zip(*rows, strict=True))
        images.append(holes_site.Marked(name, image, np.column_stack([x, y]), radius, unsure.astype(bool)))
    recipe = holes_site.SiteRecipe(pictures=7, batch=2, side=96, loop=LoopSettings(steps=3, learning_rate=1e-4))
    said: list[str] = []
    path = holes_site.learn(recipe, images, SHIPPED, tmp_path / "site", command="a test", say=said.append)
    assert runtime.load(path.with_suffix(".yaml")).name == "holes-net"
    assert "Fine-tuned" in (tmp_path / "site" / "holes-net.md").read_text()
    assert any(text.startswith("before") for text in said)
    assert any(text.startswith("after") for text in said)
    with pytest.raises(TrainingError, match="at least 3"):
        holes_site.learn(recipe, images[:2], SHIPPED, tmp_path / "site", command="a test", say=said.append)
