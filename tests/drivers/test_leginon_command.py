"""The external command, sourced as Leginon sources it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from agent.errors import ConfigError
from drivers.leginon.command import client
from drivers.leginon.command.install import install
from tests.drivers.leginon_scene import blocks, discs, raster

TILE = blocks(raster(64.0, 3, 60.0), 40.0)
HOLES, CENTRES = discs(32.0, 9.0)
MODELS = {"squares": "squares-mixture", "holes": "holes-template"}
LONG_S = 120.0


def processes(meet: Path) -> set[int]:
    """Finders that hold a lock below ``meet``."""
    return {int(p.read_text()) for p in meet.glob("*.alive") if client.is_alive(p.with_suffix("")) and p.read_text()}


@pytest.fixture
def meet() -> Iterator[Path]:
    """Where clients and finders meet: a short path, as a socket needs one."""
    folder = Path(tempfile.mkdtemp(prefix="cn-", dir="/tmp"))
    yield folder
    for pid in processes(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)


@pytest.fixture
def place(tmp_path: Path, meet: Path) -> Path:
    """Scripts and images beside each other."""
    install(tmp_path / "bin", **MODELS, meet=meet)
    for name, image in (("tile", TILE), ("holes", HOLES)):
        write(tmp_path / f"{name}.mrc", image)
    return tmp_path


def write(path: Path, image: Any) -> None:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(image)


def source(place: Path, script: str, job: str, image: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """As Leginon: ``bash -c "source SCRIPT JOB INPUT OUTDIR"`` in an environment of its own."""
    line = f"source {place / 'bin' / script} {job} {image} {place}"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(place)} | environment
    return subprocess.run(
        ["/bin/bash", "-c", line], check=False, env=env, cwd="/", capture_output=True, text=True, timeout=LONG_S
    )


def read(place: Path, job: str) -> list[dict[str, Any]]:
    """What Leginon reads: the first line and nothing else."""
    lines = (place / f"{job}.json").read_text(encoding="utf-8").split("\n")
    found: list[dict[str, Any]] = json.loads(lines[0])
    assert lines[1:] == [""]
    return found


def test_squares_and_holes_come_as_leginon_reads_them_and_the_finders_stay_warm(place: Path, meet: Path) -> None:
    done = source(place, "squares.sh", "session_17", place / "tile.mrc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    squares = read(place, "session_17")
    assert all({"center", "vertices", "area", "brightness", "score"} <= set(one) for one in squares)
    found = sorted(tuple(one["center"]) for one in squares)
    assert len(found) == 9
    truth = sorted(raster(64.0, 3, 60.0))
    assert all(abs(x - u) < 3 and abs(y - v) < 3 for (x, y), (u, v) in zip(found, truth, strict=True))
    assert all(len(one["vertices"]) >= 3 and one["area"] ** 0.5 < 0.8 * 64 for one in squares)
    assert all(180 < one["brightness"] < 240 for one in squares)
    (warm,) = processes(meet)
    for _ in range(2):  # the same name for each image
        assert source(place, "holes.sh", "session_Exposure_Targeting", place / "holes.mrc").returncode == 0
    holes = read(place, "session_Exposure_Targeting")
    assert len(holes) == len(CENTRES)
    assert [one["score"] for one in holes] == sorted((one["score"] for one in holes), reverse=True)
    assert processes(meet) == {warm}


def test_the_environment_of_leginon_does_not_reach_the_finders(place: Path, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('python 2 of Leginon')", encoding="utf-8")
    done = source(
        place,
        "squares.sh",
        "j",
        place / "tile.mrc",
        PYTHONPATH=str(tmp_path),
        PYTHONHOME="/nowhere",
        LD_LIBRARY_PATH="/no",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read(place, "j")) == 9


def test_many_at_once_start_one_set_of_finders_and_are_all_answered(place: Path, meet: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: source(place, "squares.sh", f"s_{n}", place / "tile.mrc"), range(8)))
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 8
    assert [len(read(place, f"s_{n}")) for n in range(8)] == [9] * 8
    assert len(processes(meet)) == 1


def test_finders_that_were_killed_are_started_again(place: Path, meet: Path) -> None:
    source(place, "squares.sh", "a", place / "tile.mrc")
    (first,) = processes(meet)
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + LONG_S
    while processes(meet):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    done = source(place, "squares.sh", "b", place / "tile.mrc")
    assert (done.returncode, len(read(place, "b"))) == (0, 9)
    assert processes(meet) - {first}


def test_without_a_place_to_meet_the_client_works_alone_and_says_so(place: Path, meet: Path) -> None:
    meet.chmod(0o755)  # others could put a socket there
    done = source(place, "holes.sh", "alone", place / "holes.mrc")
    assert done.returncode == 0
    assert "works alone" in done.stderr
    assert len(read(place, "alone")) == len(CENTRES)
    assert not processes(meet)


@pytest.mark.parametrize(
    ("name", "words"), [("none.mrc", "no such file"), ("text.mrc", "text.mrc"), ("small.mrc", "too few")]
)
def test_an_image_that_cannot_be_used_leaves_no_file_one_line_and_a_status(place: Path, name: str, words: str) -> None:
    (place / "text.mrc").write_text("not an image", encoding="utf-8")
    write(place / "small.mrc", np.zeros((4, 4), np.float32))
    done = source(place, "squares.sh", "bad", place / name)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert not list(place.glob("*bad*"))


def test_an_image_without_squares_gives_an_empty_list(place: Path) -> None:
    write(place / "dark.mrc", np.random.default_rng(0).normal(5.0, 1.0, (128, 128)).astype(np.float32))
    source(place, "squares.sh", "dark", place / "dark.mrc")
    assert (place / "dark.json").read_text(encoding="utf-8").startswith("[")


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_row_0_is_the_first_row_of_the_file(tmp_path: Path, dtype: Any) -> None:
    image = blocks([(60.0, 50.0), (124.0, 50.0), (60.0, 114.0)], 40.0).astype(dtype)  # one corner is missing
    write(tmp_path / "i.mrc", image)
    assert client.main(["squares", str(tmp_path / "i.mrc"), str(tmp_path / "o.json"), "--alone"]) == 0
    found = sorted(tuple(round(v, -1) for v in one["center"]) for one in json.loads((tmp_path / "o.json").read_text()))
    assert found == [(60.0, 50.0), (60.0, 110.0), (120.0, 50.0)]


def test_shrunk_holes_are_told_on_the_binned_image(tmp_path: Path) -> None:
    image, centres = discs(48.0, 14.0, (160, 1472))
    write(tmp_path / "i.mrc", image)
    assert client.main(["holes", str(tmp_path / "i.mrc"), str(tmp_path / "o.json"), "--alone", "--shrunk"]) == 0
    found = [tuple(one["center"]) for one in json.loads((tmp_path / "o.json").read_text())]
    truth = [((x + 0.5) / 2 - 0.5, (y + 0.5) / 2 - 0.5) for x, y in centres]
    near = [min((x - u) ** 2 + (y - v) ** 2 for u, v in found) < 4 for x, y in truth]
    assert sum(near) >= 0.95 * len(truth)


def test_the_scripts_have_no_exit_no_dollar_zero_and_leave_no_variable(place: Path) -> None:
    for name in ("squares.sh", "holes.sh"):
        text = (place / "bin" / name).read_text(encoding="utf-8")
        assert "exit" not in text
        assert "$0" not in text
        assert not (place / "bin" / name).stat().st_mode & 0o111  # sourced, not run
    done = subprocess.run(
        ["/bin/bash", "-c", f"a=$(set | wc -l); source {place}/bin/squares.sh; b=$(set | wc -l); echo $a $b"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    before, after = map(int, done.stdout.split())
    assert after - before <= 2  # a, and the last argument
    assert "source squares.sh JOB INPUT.mrc OUTDIR" in done.stderr


@pytest.mark.skipif(shutil.which("tcsh") is None, reason="no csh here")
def test_the_csh_scripts_do_the_same(tmp_path: Path, meet: Path) -> None:
    install(tmp_path / "bin", **MODELS, meet=meet, shell="csh")
    write(tmp_path / "tile.mrc", TILE)
    line = f"source {tmp_path}/bin/squares.csh job {tmp_path}/tile.mrc {tmp_path}"
    subprocess.run(["tcsh", "-c", line], check=True, timeout=LONG_S)
    assert len(read(tmp_path, "job")) == 9


def test_a_path_that_leginon_cannot_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quotes nothing"):
        install(tmp_path / "with space", **MODELS)


def test_the_command_line_writes_both_scripts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "driver", "leginon", "install", "--dir", str(tmp_path / "b"), "--shrunk"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(tmp_path / "b" / "squares.sh"), str(tmp_path / "b" / "holes.sh")]
    assert "--shrunk" in (tmp_path / "b" / "holes.sh").read_text(encoding="utf-8")
    assert "--shrunk" not in (tmp_path / "b" / "squares.sh").read_text(encoding="utf-8")
