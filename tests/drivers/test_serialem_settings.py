"""The driver's config is checked before anything is touched, and its imports stay light."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.settings import preset_folder
from drivers.serialem.settings import SerialEMSettings, load

HEAVY = (
    "cv2",
    "scipy",
    "sklearn",
    "mrcfile",
    "tifffile",
    "onnxruntime",
    "rich",
    "cyclopts",
    "starlette",
    "uvicorn",
    "jinja2",
    "prometheus_client",
    "models",
)


def test_the_commented_config_is_whole_and_right() -> None:
    settings = load(preset_folder() / "serialem.yaml")
    assert settings.mode == "pilot"
    assert settings.presets.low.mag_index == 3
    assert settings.interlocks.image_shift_um == 12
    assert load(preset_folder() / "serialem.yaml", mode="advisor").mode == "advisor"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("safty: {valves: close}", "did you mean safety"),
        ("safety: {valves: shut}", "valves"),
        ("presets: {low: {area: V, low_dose: false}}", "low-dose areas need low_dose"),
        ("presets: {low: {mag: 100, mag_index: 3}}", "not both"),
        ("serialem: {port: 0}", "port"),
        ("interlocks: {stage_x_um: [10, -10]}", "first value"),
        ("exposure: {keep_in: AA}", "keep_in"),
        ("mode: autopilot", "mode"),
        ("focus: {axis_um: 40}", "axis_um"),
        ("- a list", "list"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "serialem.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.yaml")


def test_defaults_are_safe() -> None:
    settings = SerialEMSettings()
    assert settings.safety.valves == "close"
    assert settings.serialem.host == "127.0.0.1"
    assert not settings.exposure.beam_tilt


def test_the_driver_runs_without_heavy_packages(tmp_path: Path) -> None:
    """The microscope PC needs none of the packages for models, images, reports or the web page."""
    code = (
        "import sys\n"
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"
        "import drivers.shell, drivers.serialem.run, drivers.serialem.__main__, drivers.serialem.files\n"
        "import drivers.serialem.mdoc, drivers.serialem.navfile\n"
        "from pathlib import Path\n"
        "from drivers.serialem.settings import load\n"
        "from drivers.serialem.run import build\n"
        "hooks, shell = build(load(Path('config/serialem.yaml'), daemon={'ledger': sys.argv[1]}))\n"
        "hooks.close(); shell.ledger.close()\n"
        "print('light')\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "ledger.sqlite")],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "light", done.stderr[-2000:]


@pytest.mark.parametrize("module", [["agent.cli", "driver", "serialem"], ["drivers.serialem"]])
def test_a_wrong_config_is_one_line_on_stderr(tmp_path: Path, module: list[str]) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("safety: {valve: close}")
    done = subprocess.run(
        [sys.executable, "-m", *module, "--config", str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("cryonaut: ")
    assert "did you mean valves" in line
