"""A session that looks for gold: what is on each micrograph is counted, kept, shown in the report, and steers."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.report import render
from agent.session import events as ev
from simulators.microscope import Preset
from tests.end_to_end.live import daemon, events_of, state_of, wait_for
from tests.end_to_end.scene import GRID, QUICK, driver, quick_settings
from tests.ports import free_endpoints

pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed (cpu or gpu extra)")


@pytest.mark.timeout(400)
def test_gold_is_counted_on_every_micrograph_and_a_rich_square_gets_more_exposures(tmp_path: Path) -> None:
    settings = quick_settings(
        tmp_path,
        free_endpoints("drivers", "control", "events"),
        inference__detectors=["gold"],
        inference__gold_sizes_nm=[6, 12],
        squares__rich=[{"what": "gold 6 nm", "at_least": 1, "more_exposures": 1}],
    )
    grid = replace(GRID, content=("gold",))
    scope = replace(QUICK, presets={**QUICK.presets, "high": Preset(10.0, (700, 700), 40.0, 3.0)})
    ledger = tmp_path / "ledger.sqlite"
    with daemon(settings) as running, driver(settings.endpoints.drivers, ledger, grids={"G1": grid}, settings=scope):
        wait_for(lambda: running.core.state.phase == "stopped", seconds=300)
    folder = tmp_path / "short"
    events = events_of(folder)
    found = [e for e in events if isinstance(e, ev.ObjectsDetected)]
    judged = [e for e in events if isinstance(e, ev.MicrographJudged)]
    assert len(found) == len(judged) == 3  # two as always, and one more
    assert sum(e.counts.get("6 nm", 0) for e in found) > 20
    assert all(len(e.objects) == sum(e.counts.values()) for e in found)
    (favoured,) = [e for e in events if isinstance(e, ev.SquareFavoured)]
    assert favoured.more_exposures == 1
    square = next(s for g in state_of(folder).grids.values() for s in g.squares.values() if s.favoured)
    assert square.all_detected["gold 6 nm"] == sum(e.counts.get("6 nm", 0) for e in found)
    text = render(folder).read_text(encoding="utf-8")
    assert f"{square.all_detected['gold 6 nm']} gold 6 nm" in text
