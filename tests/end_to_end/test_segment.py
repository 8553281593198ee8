"""``cryonaut segment vesicles`` from file to files, as a user runs it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from drivers.volumes import open_volume
from simulators.specimen.tomogram import Tomogram, TomogramSettings, simulate

SETTINGS = TomogramSettings(seed=51, shape=(64, 128, 128), vesicles=24, snr=0.5, tilt_step_deg=4.0)


@pytest.fixture(scope="module")
def made() -> Tomogram:
    return simulate(SETTINGS)


@pytest.fixture(scope="module")
def tomogram(made: Tomogram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tomogram") / "synapse.mrc"
    with mrcfile.new(path) as file:
        file.set_data(made.volume)
        file.voxel_size = 22.0
    return path


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.cli", "segment", "vesicles", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_tomogram_becomes_tables_volumes_and_a_page(made: Tomogram, tomogram: Path, tmp_path: Path) -> None:
    formats = [word for name in ("mrc", "zarr", "csv", "star", "imod") for word in ("--format", name)]
    done = run(tomogram, "-o", tmp_path, "--block", "64", *formats)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "vesicles.csv")
    centres = np.array([(float(r["z"]), float(r["y"]), float(r["x"])) for r in rows])
    gaps = np.linalg.norm(made.centres[:, None] - centres[None], axis=2)
    assert (gaps.min(axis=1) < made.radii).mean() >= 0.9
    labels = open_volume(tmp_path / "labels.mrc")
    assert labels.voxel_nm == pytest.approx(2.2, rel=1e-4)
    assert set(np.unique(labels.array)) == {0, *(int(r["number"]) for r in rows)}
    zarr = open_volume(tmp_path / "labels.zarr")
    assert zarr.voxel_nm == pytest.approx(2.2)
    assert np.array_equal(zarr.array[:], labels.array)
    star = (tmp_path / "vesicles.star").read_text().splitlines()
    assert len([line for line in star if line and line[0].isdigit()]) == len(rows)
    assert "_rlnCoordinateX #1" in star
    import imodmodel

    points = imodmodel.read(tmp_path / "vesicles.mod")
    assert points["x"].to_numpy() == pytest.approx([float(r["x"]) + 0.5 for r in rows], abs=0.01)
    assert (tmp_path / "slices.png").stat().st_size > 10_000
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "synapse.mrc" in page
    assert "http" not in page.replace("http://www.w3.org", ""), "self-contained"
    assert json.loads((tmp_path / "summary.json").read_text())["vesicles"] == str(len(rows))

    again = run(tomogram, "-o", tmp_path, "--block", "64", "--format", "csv")
    assert "going on: 4 of 4 blocks are done" in again.stderr
    assert table(tmp_path / "vesicles.csv") == rows


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing.mrc", "-o", "out"], "nothing.mrc: no such file"),
        (["TOMOGRAM", "-o", "out", "--voxel-size", "30"], "voxel size 30 nm"),
        (["TOMOGRAM", "-o", "out", "--block", "60"], "--block 60: a multiple of 8"),
        (["TOMOGRAM", "-o", "out", "--weights", "no.yaml"], "no weights 'no'"),
    ],
)
def test_what_cannot_be_is_one_line(tomogram: Path, words: list[str], told: str) -> None:
    done = run(*[tomogram if word == "TOMOGRAM" else word for word in words])
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert told in lines[0]


def test_a_dry_run_says_the_cost_and_writes_nothing(tomogram: Path, tmp_path: Path) -> None:
    done = run(tomogram, "-o", tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "1.0 Mvoxel" in done.stdout
    assert "GiB" in done.stdout
    assert not (tmp_path / "out").exists()
