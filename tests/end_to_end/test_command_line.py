"""What a person types: the demo, control, find, doctor, keys, and what they read when something is wrong."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.session import events as ev
from tests.end_to_end.live import daemon, events_of, state_of, wait_for
from tests.end_to_end.scene import driver, quick_settings
from tests.ports import free_endpoints


def cryonaut(*arguments: str | Path, status: int = 0, seconds: float = 300.0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.timeout(400)
def test_the_demo_runs_a_whole_session_and_says_where_its_report_is(tmp_path: Path) -> None:
    done = cryonaut(
        "demo", "--folder", tmp_path, "--name", "shown", "--squares", "2", "--holes", "3", "--speed", "2000"
    )
    folder = tmp_path / "shown"
    state = state_of(folder)
    assert (state.phase, state.parked, state.exposures) == ("stopped", True, 6)
    report = re.search(r"report: +file://(\S+)", done.stdout)
    assert report is not None
    assert Path(report.group(1)) == folder / "report.html"
    text = (folder / "report.html").read_text()
    assert "6 holes exposed of" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert any(isinstance(e, ev.MicrographJudged) for e in events_of(folder))


@pytest.mark.timeout(400)  # nine processes, each of which imports the command line
def test_an_operator_steers_a_session_from_the_command_line(tmp_path: Path) -> None:
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), session__autonomy="approve")
    link = ("--endpoint", settings.endpoints.control)
    with daemon(settings) as running, driver(settings.endpoints.drivers, tmp_path / "ledger.sqlite") as (scope, _):
        wait_for(lambda: running.core.state.phase == "idle")
        assert "waiting for an operator to accept squares" in cryonaut("control", "status", *link).stdout
        areas = json.loads(cryonaut("control", "areas", "--json", *link).stdout)["areas"]
        best = max(areas, key=lambda a: a["score"])["area_id"]
        assert "threshold" not in cryonaut("control", "threshold", "exposures_per_square", "3", *link).stderr
        assert "1 accepted" in cryonaut("control", "accept", best, *link).stdout
        wait_for(lambda: running.core.state.square(best).state == "done")  # type: ignore[union-attr]
        assert len(scope.ledger) == 3
        assert "paused" in cryonaut("control", "pause", "--now", *link).stdout
        assert "there is no area G1-S999" in cryonaut("control", "skip", "G1-S999", *link, status=1).stderr
        assert "parking" in cryonaut("control", "stop", *link).stdout
        wait_for(lambda: running.core.state.phase == "stopped")
        lines = cryonaut("control", "events", "--most", "50", *link).stdout
        assert "accepted by local" in lines
        assert "[local]" in lines
    mapped = [s.area_id for s in running.core.state.grids["G1"].squares.values() if s.map_frame_id]
    assert mapped == [best]


def test_no_daemon_is_one_line_with_the_way_out() -> None:
    endpoint = free_endpoints("control")["control"]
    done = cryonaut("control", "status", "--endpoint", endpoint, status=1)
    assert done.stderr.count("\n") == 1
    assert endpoint in done.stderr
    assert "cryonaut run" in done.stderr


def test_a_bad_config_is_one_line_for_each_mistake(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("squares: {min_scor: 0.2, per_grid: -1}\n")
    lines = cryonaut("run", "--config", config, status=1).stderr.strip().splitlines()
    assert len(lines) == 2
    assert "squares.min_scor: there is no such key; did you mean min_score?" in lines[0] + lines[1]
    assert "squares.per_grid = -1" in lines[0] + lines[1]


def test_a_second_daemon_on_a_session_is_refused(tmp_path: Path) -> None:
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"))
    with daemon(settings):
        ends = [f"endpoints.{name}={end}" for name, end in free_endpoints("drivers", "control", "events").items()]
        changes = [*ends, "endpoints.health=''", "web.address=''", f"session.folder={tmp_path}", "session.name=short"]
        done = cryonaut("run", *(part for change in changes for part in ("--set", change)), status=1)
    assert "another cryonaut daemon writes to this session" in done.stderr


def test_off_loopback_without_keys_nothing_starts(tmp_path: Path) -> None:
    changes = ["endpoints.drivers=tcp://0.0.0.0:5999", f"session.folder={tmp_path}"]
    done = cryonaut("run", *(part for change in changes for part in ("--set", change)), status=1)
    assert "there are no keys" in done.stderr
    assert "cryonaut keys new" in done.stderr


def test_doctor_says_what_is_here_and_fails_on_what_would_not_start(tmp_path: Path) -> None:
    rows = json.loads(cryonaut("doctor", "--config", "demo", "--json").stdout)
    assert {"python", "disk", "config", "keys", "onnx runtime"} <= {row["what"] for row in rows}
    bad = tmp_path / "bad.yaml"
    bad.write_text("session: {mode: pilott}\n")
    assert "pilott" in cryonaut("doctor", "--config", bad, status=1).stdout


def test_find_writes_json_csv_and_an_overlay_in_pixels_of_the_file(tmp_path: Path) -> None:
    """Nine bright squares on a dark mesh are nine squares, where they were drawn."""
    image = np.full((400, 500), 12, np.uint8)
    centres = [(100 + 110 * i, 90 + 110 * j) for i in range(3) for j in range(3)]
    for x, y in centres:
        image[y - 38 : y + 39, x - 38 : x + 39] = 170
    rng = np.random.default_rng(0)
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    file = tmp_path / "grid.png"
    cv2.imwrite(str(file), image)
    out = tmp_path / "found"
    cryonaut("find", "squares", file, "--out", out, "--format", "json,csv", "--format", "star", "--overlay")
    found = json.loads((out / "grid.json").read_text())
    assert len(found) == 9
    for x, y in centres:
        assert min(np.hypot(s["x"] - x, s["y"] - y) for s in found) < 2.0
    assert len((out / "grid.csv").read_text().splitlines()) == 10
    star = [line.split() for line in (out / "grid.star").read_text().splitlines() if line[:1] == " "]
    assert [[float(v) for v in row[:2]] for row in star] == [[s["x"], s["y"]] for s in found]
    drawn = cv2.imread(str(out / "grid.png"))
    assert drawn is not None
    assert drawn.ndim == 3


def test_find_says_which_formats_and_models_there_are(tmp_path: Path) -> None:
    file = tmp_path / "grid.png"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    assert "table, json, csv, star, nav" in cryonaut("find", "holes", file, "--format", "json,xml", status=1).stderr
    assert "holes-template" in cryonaut("find", "holes", file, "--model", "yolo", status=1).stderr
    assert "as a map" in cryonaut("find", "holes", file, "--format", "nav", "--out", tmp_path, status=1).stderr


def test_find_on_bad_files_says_which_and_goes_on_with_the_others(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.mrc"
    cv2.imwrite(str(good), np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8))
    bad.write_bytes(b"no image")
    done = cryonaut("find", "holes", bad, good, "--format", "json", status=1)
    assert "bad.mrc" in done.stderr
    assert json.loads(done.stdout.splitlines()[0])["holes"] == []


def test_keys_are_made_with_a_role_and_kept_from_others(tmp_path: Path) -> None:
    cryonaut("keys", "new", "anna", "--role", "operator", "--folder", tmp_path / "keys")
    secret = tmp_path / "keys" / "clients" / "anna.key_secret"
    assert secret.stat().st_mode & 0o077 == 0
    again = cryonaut("keys", "new", "anna", "--role", "operator", "--folder", tmp_path / "keys", status=1)
    assert "exists" in again.stderr
