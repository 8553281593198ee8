"""What a facility installs refers to what exists: metrics, commands, settings, units."""

import configparser
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from agent.frames import FrameStore
from agent.journal import Draft, Journal
from agent.logs import RotatingFile
from agent.metrics import METRICS
from agent.retention import old_sessions, prune

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "config" / "facility"
DAY_S = 86_400.0


def families() -> dict[str, str]:
    """Metric and kind, under the name that a query uses (counters end in ``_total``)."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in METRICS.registry.collect()
    }


def known(name: str) -> bool:
    return name in families() or families().get(re.sub(r"_(bucket|sum|count)$", "", name)) == "histogram"


def test_every_metric_stands_in_the_monitoring_page_with_type_and_unit() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(cryonaut_\w+)` \| (\w+) \| ([^|]+) \|([^|]*)\| ([^|]+) \|$", text, re.MULTILINE)
    assert {name: kind for name, kind, *_ in rows} == families()
    labels = {f.name: set(s.labels) - {"le"} for f in METRICS.registry.collect() for s in f.samples}
    for name, _, unit, shown, meaning in rows:
        assert unit.strip()
        assert meaning.strip()
        wanted = labels.get(name.removesuffix("_total"))
        assert wanted is None or wanted == set(re.findall(r"`(\w+)`", shown)), name


def test_the_dashboard_asks_only_for_metrics_that_there_are_and_its_panels_do_not_overlap() -> None:
    board = json.loads((KIT / "grafana-dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\bcryonaut_\w+", query)}
    assert len(asked) >= 10
    assert all(map(known, asked)), [name for name in asked if not known(name)]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(0 <= x < 24 for x, _ in cells)
    for query in queries:
        assert query.count("(") == query.count(")")
        assert query.count("{") == query.count("}")


# what a panel says of metrics with a unit; rates and quantiles of the others are numbers
UNITS = {"seconds": "s", "bytes": "bytes"}


def test_each_panel_of_the_dashboard_is_in_the_unit_of_its_metrics_and_filters_by_labels_that_they_have() -> None:
    board = json.loads((KIT / "grafana-dashboard.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")  # which holds the labels of each metric
    rows = re.findall(r"^\| `cryonaut_\w+` \| \w+ \| [^|]+ \|([^|]*)\|", text, re.MULTILINE)
    own = {"le"} | {label for shown in rows for label in re.findall(r"`(\w+)`", shown)}
    scrape = yaml.safe_load((KIT / "prometheus.yml").read_text(encoding="utf-8"))
    own |= set(scrape["scrape_configs"][0]["static_configs"][0]["labels"])
    for panel in board["panels"]:
        queries = " ".join(target["expr"] for target in panel["targets"])
        names = re.findall(r"\bcryonaut_\w+", queries)
        bare = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in names}
        wanted = {unit for name in bare for end, unit in UNITS.items() if name.endswith(f"_{end}")}
        assert len(wanted) <= 1, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in (wanted or {"none", "short"}), panel["title"]
        shown = " ".join(target.get("legendFormat", "") for target in panel["targets"])
        asked = re.findall(r"[{,]\s*(\w+)\s*(?:=~|!=|=)", queries) + re.findall(r"\{\{(\w+)\}\}", shown)
        grouped = [name.strip() for names in re.findall(r"by \(([^)]*)\)", queries) for name in names.split(",")]
        assert own.issuperset([*asked, *grouped]), panel["title"]


def test_alerts_and_scrape_config_name_what_there_is() -> None:
    alerts = yaml.safe_load((KIT / "cryonaut-alerts.yml").read_text(encoding="utf-8"))
    rules = alerts["groups"][0]["rules"]
    names = {name for rule in rules for name in re.findall(r"\bcryonaut_\w+", rule["expr"])}
    assert all(map(known, names))
    scrape = yaml.safe_load((KIT / "prometheus.yml").read_text(encoding="utf-8"))
    assert scrape["rule_files"] == ["cryonaut-alerts.yml"]
    assert scrape["scrape_configs"][0]["static_configs"][0]["targets"] == ["127.0.0.1:5873"]


def unit(name: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(KIT / name)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_the_unit_waits_for_ready_is_watched_and_tells_of_its_failure() -> None:
    service = unit("cryonaut@.service")
    assert service["Service"]["Type"] == "notify"
    assert int(service["Service"]["WatchdogSec"]) >= 30
    assert service["Service"]["Restart"] == "on-failure"
    assert service["Unit"]["OnFailure"] == "cryonaut-failed@%i.service"
    failed = unit("cryonaut-failed@.service")
    assert " notices send " in failed["Service"]["ExecStart"]
    for name, run in (("cryonaut@.service", service), ("cryonaut-failed@.service", failed)):
        assert run["Service"]["ExecStart"].startswith("/opt/cryonaut/current/bin/cryonaut "), name


def test_systemd_itself_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    if not (tool := shutil.which("systemd-analyze")):
        pytest.skip("no systemd-analyze here")
    for name in ("cryonaut@.service", "cryonaut-failed@.service"):
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", (KIT / name).read_text(), flags=re.MULTILINE)
        (tmp_path / name.replace("@", "@krios")).write_text(text)
    done = subprocess.run([tool, "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True, timeout=60)
    wrong = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert wrong == []


def test_what_the_install_page_names_exists() -> None:
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for name in re.findall(r"config/facility/([\w@.\-]+)", text):
        assert (KIT / name).exists(), name
    for port in re.findall(r"^\| (\d+)/tcp \| workstation", text, re.MULTILINE):
        assert re.search(rf":{port}\b", (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")), port


def session(folder: Path, utc: float) -> Path:
    journal = Journal(folder)
    journal.append([Draft("noticed", '{"event":"noticed","severity":"info","text":"x"}')], utc=utc, epoch=1)
    journal.close()
    FrameStore(folder)
    (folder / "frames" / "low" / "a.tif").write_bytes(b"x" * 1000)
    return folder


def test_only_old_sessions_that_nobody_uses_may_go(tmp_path: Path) -> None:
    now = time.time()
    old = session(tmp_path / "old", now - 100 * DAY_S)
    oldest = session(tmp_path / "oldest", now - 200 * DAY_S)
    session(tmp_path / "young", now - 2 * DAY_S)
    session(tmp_path / "used", now - 100 * DAY_S)
    (tmp_path / "no-session").mkdir()
    (tmp_path / "no-session" / "thesis.txt").write_text("years of work")
    (tmp_path / "link").symlink_to(old)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "journal.sqlite").write_bytes(b"not a journal")
    using = Journal(tmp_path / "used")
    try:
        found = old_sessions(tmp_path, days=90, now_utc=now)
    finally:
        using.close()
    assert [one.folder for one in found] == [oldest, old]
    assert prune(found[1], keep_record=True) == 1000
    assert (old / "journal.sqlite").exists()
    assert not (old / "frames").exists()
    assert prune(found[0], keep_record=False) > 1000
    assert not oldest.exists()
    assert (tmp_path / "no-session" / "thesis.txt").exists()


def test_a_log_file_is_set_aside_when_it_is_full(tmp_path: Path) -> None:
    log = RotatingFile(tmp_path / "logs" / "daemon.log", most_bytes=100, keep=2)
    for number in range(40):
        print(f"line {number:03d} {'x' * 20}", file=log)  # type: ignore[call-overload]
    log.close()
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["daemon.log", "daemon.log.1", "daemon.log.2"]
    text = "".join((tmp_path / "logs" / name).read_text() for name in reversed(names))
    lines = text.splitlines()
    assert lines[-1].startswith("line 039")
    assert [int(line.split()[1]) for line in lines] == list(range(40 - len(lines), 40))  # nothing torn, nothing lost
