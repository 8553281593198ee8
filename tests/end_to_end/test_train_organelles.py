"""``cryonaut simulate cell`` and ``cryonaut train organelles``: files, weights that load, words that help."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed (train extra)")
pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed")

from agent.cli import app
from agent.cli.organelle_data import read
from agent.errors import CryonautError
from models.runtime import load

pytestmark = pytest.mark.timeout(400)
RECIPE = """
arch: fast
width: 2
structures: [mitochondrion, er]
voxel_nm: 8.0
normalisation: rescale
sampling: {block: 8, padding: null, centred: 0.5}
optimisation: {iterations: 2}
validation: {every: 1, window: 2, blocks: 1}
finetuning: {iterations: 2, edge: 64}
"""


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small regions of a naive cell in files, and a recipe that is over at once."""
    folder = tmp_path_factory.mktemp("cell")
    run("simulate", "cell", "naive-2", "--region", "5", "--region", "6", "--edge", "64", "--out", str(folder))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def run(*words: str) -> None:
    """A command, without the exit of a process."""
    app(list(words), result_action="return_value")


def test_a_cell_in_files_trains_a_network_and_is_gone_on_with(
    cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ("--data", str(cell / "data.yaml"), "--config", str(cell / "recipe.yaml"))
    run("train", "organelles", *usual, "--out", str(tmp_path / "one"))
    manifest = tmp_path / "one" / "organelles-fast.yaml"
    assert load(manifest).manifest.settings["normalisation"] == "rescale"
    capsys.readouterr()
    run("train", "organelles", "--finetune", *usual, "--start", str(manifest), "--out", str(tmp_path / "two"))
    said = capsys.readouterr().out
    rows = [line.split()[0] for line in said.splitlines() if "(" in line]
    assert rows[-3:] == ["before", "from", "fine-tuned"]
    assert "weights: " in said


def test_what_does_not_fit_is_said_before_anything_is_learned(cell: Path, tmp_path: Path) -> None:
    text = (cell / "data.yaml").read_text()
    for old, new, word in (
        ("naive-2-5-er.tif", "nowhere.tif", "nowhere.tif"),
        ("er:", "reticulum:", "no labels of er"),
        ("raw:", "row:", "row"),
    ):
        (cell / "broken.yaml").write_text(text.replace(old, new))
        with pytest.raises(CryonautError, match=word):
            run(
                "train", "organelles", "--data", str(cell / "broken.yaml"), "--config", str(cell / "recipe.yaml"),
                "--out", str(tmp_path),
            )  # fmt: skip
    with pytest.raises(CryonautError, match="5 nm: set voxel_nm"):
        read(cell / "data.yaml", 5.0, "none")
    with pytest.raises(CryonautError, match="--finetune goes with --data"):
        run("train", "organelles", "--finetune", "--out", str(tmp_path))


def test_a_dry_run_prints_cost_and_memory_and_writes_nothing(
    cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train", "organelles", "--config", str(cell / "recipe.yaml"), "--dry-run", "--out", str(tmp_path / "none"))
    said = capsys.readouterr().out
    assert all(word in said for word in ("iterations", "time", "memory", "disk", "parameters"))
    assert not (tmp_path / "none").exists()
