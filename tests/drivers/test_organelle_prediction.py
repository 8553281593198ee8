"""Whole volumes by a network: the same for any block and any workers, whoever dies; no block done twice."""

import os
import signal
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from agent.cli import app
from agent.cluster import Cluster
from agent.errors import BadFileError, ConfigError, CryonautError
from drivers.organelles import predicting
from drivers.organelles.jobs import Journal, carry_out, once
from drivers.organelles.labelling import label
from drivers.organelles.predicting import Task, chunk_of, predict, predict_block
from drivers.volumes import open_volume
from models import runtime
from models.organelles.blocks import Block
from models.organelles.network import Described, Source, predicted
from models.organelles.normalise import normaliser
from tests.models import tiny_network

SHAPE = (45, 52, 70)
EDGES = (5.0, 5.0, 5.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_network.write(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def cell() -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=SHAPE), 3)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


@pytest.fixture
def stack(cell: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "cell.tif"
    tifffile.imwrite(path, cell, metadata={"axes": "ZYX"})
    return path


def whole(cell: np.ndarray, tiny: str) -> np.ndarray:
    """The answer to the whole volume at once, by the network itself on a mirrored volume."""
    model = runtime.load(Path(tiny))
    size = [8 * -(-n // 8) for n in cell.shape]
    wide = np.pad(cell / np.float32(255), [(3, 3 + s - n) for s, n in zip(size, cell.shape, strict=True)], "reflect")
    answer = model.run(wide.astype(np.float32)[None, None])["probability"][0]
    return np.rint(answer[:, : SHAPE[0], : SHAPE[1], : SHAPE[2]] * 255).astype(np.uint8)


@pytest.mark.parametrize("block", [8, 24, 128])
def test_any_block_gives_what_the_whole_volume_at_once_gives(
    tmp_path: Path, stack: Path, cell: np.ndarray, tiny: str, block: int
) -> None:
    if block == 8:
        cell = cell[:20, :20, :20]
        tifffile.imwrite(stack, cell, metadata={"axes": "ZYX"})
    made = predict(open_volume(stack), EDGES, tiny, tmp_path / "out", block=block, threads=1)
    wanted = whole(cell, tiny)
    for n, name in enumerate(("dark", "bright")):
        found = open_volume(made.paths[name])
        off = np.abs(found.array[:].astype(int) - wanted[n, : cell.shape[0], : cell.shape[1], : cell.shape[2]])
        assert off.max() <= 1, "a last bit of a sum may be rounded the other way"
        assert (off > 0).mean() < 1e-3
        assert found.voxel_nm == 5.0
    assert not np.array_equal(wanted[0], wanted[1])


def test_labels_are_the_same_for_any_block_and_as_scipy_finds_them(tmp_path: Path, stack: Path, tiny: str) -> None:
    made = predict(open_volume(stack), EDGES, tiny, tmp_path / "out", block=64, threads=1)
    source = open_volume(made.paths["dark"])
    results = []
    for block in (16, 40, 128):
        objects = label(source, tmp_path / f"l{block}.zarr", level=128, smallest=27, block=block)
        volume = open_volume(tmp_path / f"l{block}.zarr")
        assert volume.array.dtype == np.uint32
        assert volume.voxel_nm == 5.0
        results.append(volume.array[:])
        assert np.array_equal(objects.parts.voxels, np.bincount(results[-1].ravel())[1:])
    assert len(objects.parts) > 3
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    theirs, count = ndimage.label(source.array[:] >= 128)
    kept = [n for n in range(1, count + 1) if (theirs == n).sum() >= 27]
    assert len(kept) == len(objects.parts)
    assert np.array_equal(results[0] > 0, np.isin(theirs, kept))


def test_a_volume_without_objects_has_labels_of_nothing(tmp_path: Path, stack: Path, tiny: str) -> None:
    made = predict(open_volume(stack), EDGES, tiny, tmp_path / "out", block=64, threads=1)
    found = label(open_volume(made.paths["dark"]), tmp_path / "none.zarr", level=256, block=32)
    assert len(found.parts) == found.left_out == 0
    assert not open_volume(tmp_path / "none.zarr").array[:].any()


def test_a_volume_of_other_voxels_is_brought_to_the_networks(tmp_path: Path, cell: np.ndarray, tiny: str) -> None:
    fine = np.repeat(cell, 2, axis=0)  # 2.5 nm along z
    path = tmp_path / "fine.tif"
    tifffile.imwrite(path, fine, metadata={"axes": "ZYX"})
    made = predict(open_volume(path), (2.5, 5.0, 5.0), tiny, tmp_path / "out", block=64, threads=1)
    found = open_volume(made.paths["bright"])
    assert found.shape == SHAPE
    assert found.voxel_nm == 5.0
    assert found.offset_nm == (1.25, 0.0, 0.0)
    plain = whole(cell, tiny)[1] / 255
    assert np.corrcoef(found.array[:].ravel(), plain.ravel())[0, 1] > 0.98


def test_a_resampled_ramp_stays_at_its_places() -> None:
    z, y, x = np.meshgrid(np.arange(30.0), np.arange(31.0), np.arange(32.0), indexing="ij")
    ramp = (z * 4 + y * 2 + x) / 250
    source = Source(ramp, (4.0, 5.0, 7.0), 5.0, normaliser(ramp, "none"))
    part = source.read((8, 8, 8), (16, 16, 16))
    places = [(np.arange(8, 16) + 0.5) * f - 0.5 for f in (5 / 4, 1.0, 5 / 7)]
    wanted = (places[0][:, None, None] * 4 + places[1][None, :, None] * 2 + places[2]) / 250
    assert part == pytest.approx(wanted, abs=1e-5)


def die_once_in_block(folder: str, task: Task, block: Block) -> dict:
    """Predict a block; the first worker that gets the one at x 32 dies in the middle of it, results half written."""
    mark = Path(folder) / "dead"
    if block[0] == (16, 16, 32) and not mark.exists():
        mark.touch()
        predict_block(task, block)
        os.kill(os.getpid(), signal.SIGKILL)
    return predict_block(task, block)


@pytest.mark.timeout(400)
def test_a_worker_killed_in_the_middle_costs_only_its_block(
    tmp_path: Path, stack: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    alone = predict(open_volume(stack), EDGES, tiny, tmp_path / "alone", block=16, threads=1)
    seen = {}

    def with_a_death(journal: Journal, function: object, arguments: list, cluster: Cluster, say: object) -> list:
        tasks = [(str(tmp_path), *given) for given in arguments]
        facts = carry_out(journal, die_once_in_block, tasks, cluster, say)
        for log in journal.folder.glob("starts-*.log"):
            for line in log.read_text().split():
                seen.setdefault(int(line), []).append(log.name)
        return facts

    monkeypatch.setattr(predicting, "carry_out", with_a_death)
    source = open_volume(stack)
    shared = predict(source, EDGES, tiny, tmp_path / "shared", block=16, threads=1, cluster=Cluster(workers=2))
    assert (tmp_path / "dead").exists(), "a worker did die"
    for name in ("dark", "bright"):
        one, other = (open_volume(made.paths[name]).array[:] for made in (alone, shared))
        assert np.array_equal(one, other)
    assert len(shared.facts) == len(alone.facts) == 3 * 4 * 5
    assert all("by" in f for f in shared.facts)
    twice = {n: who for n, who in seen.items() if len(who) > 1}
    assert len(twice) == 1, "only the block that a worker died in was begun again"
    assert len(set(next(iter(twice.values())))) == 2


def test_a_run_that_was_cut_off_goes_on_with_what_is_left(tmp_path: Path, stack: Path, tiny: str) -> None:
    def cut(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    source, out = open_volume(stack), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(source, EDGES, tiny, out, block=24, threads=1, say=cut)
    with pytest.raises(BadFileError, match="unfinished"):
        open_volume(out / "dark.probability.zarr")
    told: list[int] = []
    predict(source, EDGES, tiny, out, block=24, threads=1, say=lambda done, total: told.append(done))
    assert told[0] == 7
    begun = [line for log in (out / "journal").glob("starts-*.log") for line in log.read_text().split()]
    assert sorted(map(int, begun)) == list(range(2 * 3 * 3)), "each block was begun once"
    plain = predict(source, EDGES, tiny, tmp_path / "plain", block=24, threads=1)
    assert np.array_equal(
        *(
            open_volume(p.paths["dark"]).array[:]
            for p in (plain, predict(source, EDGES, tiny, out, block=24, threads=1))
        )
    )
    with pytest.raises(ConfigError, match=r"an earlier run had block 24, this one 16: .* --restart"):
        predict(source, EDGES, tiny, out, block=16, threads=1)
    predict(source, EDGES, tiny, out, block=64, threads=1, restart=True)


def test_two_who_do_the_same_block_keep_one_answer(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.begin({"n": 1})
    first = once(str(journal.folder), 3, dict, ())
    assert once(str(journal.folder), 3, lambda: pytest.fail("done twice"), ()) == first
    assert journal.done() == {3: first}


def test_what_was_written_and_lost_is_made_again(tmp_path: Path, stack: Path, tiny: str) -> None:
    import shutil

    made = predict(open_volume(stack), EDGES, tiny, tmp_path / "out", block=64, threads=1)
    before = open_volume(made.paths["dark"]).array[:]
    shutil.rmtree(made.paths["dark"])
    predict(open_volume(stack), EDGES, tiny, tmp_path / "out", block=64, threads=1)
    assert np.array_equal(open_volume(made.paths["dark"]).array[:], before)


def test_nothing_is_predicted_outside_the_mask(tmp_path: Path, stack: Path, tiny: str) -> None:
    from drivers.volumes import write_ome_zarr

    keep = np.zeros(SHAPE, np.uint8)
    keep[:, :, 20:30] = 1
    write_ome_zarr(tmp_path / "mask.zarr", keep, 5.0)
    mask = open_volume(tmp_path / "mask.zarr")
    made = predict(open_volume(stack), EDGES, tiny, tmp_path / "out", block=32, threads=1, mask=mask)
    plain = predict(open_volume(stack), EDGES, tiny, tmp_path / "plain", block=32, threads=1)
    found, free = (open_volume(p.paths["bright"]).array[:] for p in (made, plain))
    assert np.array_equal(found, np.where(keep, free, 0))
    assert sum(bool(f.get("outside")) for f in made.facts) == 2 * 2 * 2


def test_chunks_tile_blocks() -> None:
    for block in range(8, 520, 8):
        assert block % chunk_of(block) == 0
        assert 8 <= chunk_of(block) <= 128


def test_the_command_makes_maps_objects_and_says_what_it_took(
    tmp_path: Path, stack: Path, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["segment", "organelles", str(stack), "-o", str(tmp_path / "out"), "--model", tiny]
    words += ["--voxel-size", "5", "--block", "32", "--workers", "0"]
    app([*words, "--dry-run"], exit_on_error=False, result_action="return_value")
    assert "kvoxel/s" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    app(words, exit_on_error=False, result_action="return_value")
    said = capsys.readouterr().out
    rows = (tmp_path / "out" / "dark.csv").read_text().splitlines()
    labels = open_volume(tmp_path / "out" / "dark.labels.zarr").array[:]
    assert len(rows) - 1 == labels.max() > 3
    assert f"dark: {labels.max()} objects" in said
    assert "MB in a process" in said
    app([*words, "--threshold", "0.9"], exit_on_error=False, result_action="return_value")
    assert "dark: " in capsys.readouterr().out
    begun = [line for log in (tmp_path / "out" / "journal").glob("starts-*.log") for line in log.read_text().split()]
    assert len(begun) == len(set(begun)), "another threshold predicts nothing again"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"normalisation": "zscore"}, "the manifest's settings make no sense"),
        ({"structures": ["one"]}, r"answered \(1, 2, .*its manifest promises \(1, 1"),
    ],
)
def test_a_manifest_that_lies_is_told(tmp_path: Path, stack: Path, changes: dict, told: str) -> None:
    model = tiny_network.write(tmp_path, "liar", **changes)
    with pytest.raises(CryonautError, match=told):
        app(
            [
                "segment",
                "organelles",
                str(stack),
                "-o",
                str(tmp_path / "o"),
                "--model",
                str(model),
                "--voxel-size",
                "5",
                "--workers",
                "0",
            ],
            exit_on_error=False,
            result_action="return_value",
        )


def test_a_block_off_the_grid_is_refused(cell: np.ndarray, tiny: str) -> None:
    model = runtime.load(Path(tiny))
    source = Source(cell, EDGES, 5.0, normaliser(cell, "none"))
    with pytest.raises(runtime.ModelError, match="multiples of 8"):
        predicted(source, model, Described.of(model.manifest), (0, 4, 0), (8, 12, 8))


def test_the_inside_of_a_cell_has_no_holes_and_no_specks_and_no_seams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    z, y, x = np.mgrid[:50, :48, :52]
    inside = (z - 25) ** 2 + (y - 24) ** 2 + (x - 26) ** 2 < 20**2
    grey = np.where(inside, 100, 220).astype(np.uint8)
    grey[20:30, 20:28, 22:30] = 200  # a vacuole
    grey[2:7, 2:7, 2:7] = 100  # dirt
    grey[25, 24, 40] = 0
    tifffile.imwrite(tmp_path / "cell.tif", grey, metadata={"axes": "ZYX"})
    monkeypatch.setattr("drivers.organelles.labelling.BLOCK", 32)
    words = ["volume", "mask", str(tmp_path / "cell.tif"), "-o", str(tmp_path / "m.zarr"), "--voxel-size", "8"]
    app([*words, "--min-size", "500"], exit_on_error=False, result_action="return_value")
    found = open_volume(tmp_path / "m.zarr")
    ball = sum(g.astype(int) ** 2 for g in np.mgrid[-3:4, -3:4, -3:4]) <= 9
    small = sum(g.astype(int) ** 2 for g in np.mgrid[-2:3, -2:3, -2:3]) <= 4
    wanted = np.pad((grey > 2) & (grey < 180), 12, mode="reflect")
    wanted = ndimage.binary_closing(ndimage.binary_opening(wanted, ball), small)[12:-12, 12:-12, 12:-12]
    wanted = ndimage.binary_fill_holes(wanted)
    numbered, _ = ndimage.label(wanted)
    wanted = numbered == np.bincount(numbered.ravel())[1:].argmax() + 1
    assert np.array_equal(found.array[:], wanted)
    assert wanted[25, 24, 26]
    assert not wanted[4, 4, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cell.tif", "m.zarr"]
