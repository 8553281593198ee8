"""Settings: what is not allowed is refused with file, key, value and the way out."""

import math
from pathlib import Path
from typing import Any, get_args

import pytest

from agent.errors import ConfigError
from agent.messages import ErrorKind
from agent.settings import DEFAULT_ON_ERROR, Settings, Then, load, preset_folder

DRIVERS = preset_folder().parent / "drivers"  # a file named after one of these is the driver's own, not the daemon's
PRESETS = sorted(path for path in preset_folder().glob("*.yaml") if not (DRIVERS / path.stem).is_dir())


def written(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text))
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "{}\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text)) == Settings() == load(None)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_loads(preset: Path) -> None:
    assert isinstance(load(preset), Settings)


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("sesion: {}", "sesion", "did you mean session?"),
        ("session: {nmae: x}", "session.nmae", "did you mean name?"),
        ("interlocks: {stage_x: [0, 1]}", "interlocks.stage_x", "did you mean stage_x_um?"),
        ("session: {grids: [{idd: G1}]}", "session.grids.0.idd", "did you mean id?"),
        ("on_error: {drift: {retrys: 1}}", "on_error.drift.retrys", "did you mean retries?"),
        ("suspend_when: [{reading: x, abov: 1}]", "suspend_when.0.abov", "did you mean above?"),
        ("link: {zzz: 1}", "link.zzz", "known here: heartbeat_s"),
    ],
)
def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path, text: str, where: str, hint: str) -> None:
    said = complaint(tmp_path, text)
    assert said.startswith(f"{tmp_path / 'site.yaml'}: {where}: there is no such key")
    assert hint in said


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("squares: {per_grid: many}", ["squares.per_grid", "'many'", "integer"]),
        ("holes: {min_score: 1.5}", ["holes.min_score", "1.5", "less than or equal to 1"]),
        ("session: {mode: drive}", ["session.mode", "'drive'", "'advisor' or 'pilot'"]),
        ("session: {name: a/b}", ["session.name", "'a/b'", "pattern"]),
        ("link: {heartbeat_s: .nan}", ["link.heartbeat_s", "nan", "finite"]),
        ("budget: {hours: .inf}", ["budget.hours", "inf", "finite"]),
        ("interlocks: {stage_x_um: [0]}", ["interlocks.stage_x_um", "[0]", "field required"]),
        ("on_error: {moon: {retries: 1}}", ["on_error.moon", "moon", "'drift'"]),
        ("session: {grids: []}", ["session.grids", "at least 1 item"]),
        ("on_error: {drift: {then: dance}}", ["on_error.drift.then", "'dance'", *map(repr, get_args(Then))]),
    ],
)
def test_a_wrong_value_is_refused_with_file_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    said = complaint(tmp_path, text)
    assert "\n" not in said
    for part in (str(tmp_path / "site.yaml"), *parts):
        assert part in said


def test_every_wrong_key_is_told_at_once(tmp_path: Path) -> None:
    said = complaint(tmp_path, "squares: {per_grid: many}\nholes: {min_score: 7}\nlinkk: {}\n").splitlines()
    assert [line.split(": ")[1].split(" =")[0] for line in said] == ["squares.per_grid", "holes.min_score", "linkk"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("holes: {max_image_shift_um: 20}", ["holes.max_image_shift_um: 20", "interlocks.image_shift_um: 15"]),
        ("exposure: {dose_e_per_a2: 200}", ["exposure.dose_e_per_a2: 200", "interlocks.dose_per_area_e_per_a2: 100"]),
        ("exposure: {defocus_um: [0.5, 200]}", ["exposure.defocus_um", "200", "interlocks.defocus_um"]),
        ("exposure: {defocus_um: [3, 1]}", ["exposure", "[3.0, 1.0]", "smaller"]),
        ("link: {safe_after_s: 1.5}", ["link", "twice heartbeat_s"]),
        ("interlocks: {tilt_deg: [60, -60]}", ["interlocks", "tilt_deg", "[60.0, -60.0]"]),
        ("interlocks: {stage_x_um: [-9000, 9000]}", ["interlocks", "stage_x_um", "9000", "5000"]),
        ("interlocks: {tilt_deg: [-95, 0]}", ["interlocks", "tilt_deg", "-95", "90"]),
        ("session: {grids: [{id: A}, {id: A}]}", ["session.grids", "differ"]),
        ("suspend_when: [{reading: beam}]", ["suspend_when.0", "above, below or both"]),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, text: str, parts: list[str]) -> None:
    said = complaint(tmp_path, text)
    for part in parts:
        assert part in said


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "a: [", "\tx: 1", "x: !!python/object:os.system {}"])
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    said = complaint(tmp_path, text)
    assert said.startswith(str(tmp_path / "site.yaml"))
    assert "\n" not in said


def test_a_file_that_is_missing_is_told_with_the_presets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_binary_rubbish_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="is no YAML"):
        load(path)


def test_a_change_on_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "squares: {per_grid: 3}")
    assert load(path).squares.per_grid == 3
    assert load(path, {"squares.per_grid": 5, "link.heartbeat_s": 0.5}).squares.per_grid == 5
    with pytest.raises(ConfigError, match=r"squares\.pergrid.*per_grid"):
        load(path, {"squares.pergrid": 5})
    with pytest.raises(ConfigError, match="no section"):
        load(path, {"squares.per_grid.x": 5})


def test_every_kind_of_error_has_a_row_and_the_site_can_change_it() -> None:
    assert set(DEFAULT_ON_ERROR) == set(ErrorKind)
    for kind in ErrorKind:
        assert Settings().error_row(kind) == DEFAULT_ON_ERROR[kind]
    changed = load(None, {"on_error": {"drift": {"retries": 7, "then": "suspend"}}})
    assert (changed.error_row(ErrorKind.DRIFT).retries, changed.error_row(ErrorKind.DRIFT).then) == (7, "suspend")
    assert changed.error_row(ErrorKind.CAMERA) == DEFAULT_ON_ERROR[ErrorKind.CAMERA]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"session.folder": "/elsewhere"}, True),
        ({"endpoints.drivers": "tcp://127.0.0.1:1"}, True),
        ({"keys": "/keys"}, True),
        ({"limits.frame_mb": 7}, True),
        ({"link.heartbeat_s": 0.5}, True),
        ({"squares.min_score": 0.5}, False),
        ({"holes.per_square": 5}, False),
        ({"exposure.dose_e_per_a2": 30}, False),
        ({"interlocks.tilt_deg": [-10, 10]}, False),
        ({"on_error": {"drift": {"then": "suspend"}}}, False),
        ({"session.mode": "advisor"}, False),
        ({"inference.timeout_s": 1}, False),
        ({"budget.hours": 1}, False),
    ],
)
def test_the_decision_hash_knows_what_can_change_a_decision(change: dict[str, Any], same: bool) -> None:
    assert (load(None, change).decision_hash() == Settings().decision_hash()) is same


def test_settings_never_change_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().squares.per_grid = 3  # type: ignore[misc]


def test_the_defaults_keep_their_own_rules() -> None:
    settings = Settings()
    assert settings.exposure.defocus_um[1] <= settings.interlocks.defocus_um[1]
    assert settings.link.lost_after_s >= 2 * settings.link.heartbeat_s
    assert all(math.isfinite(v) for v in settings.interlocks.stage_x_um)
