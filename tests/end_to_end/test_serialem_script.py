"""The script that runs inside SerialEM, with SerialEM's module played by the client before the simulator."""

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from drivers.serialem.client import SerialEMClient
from simulators.serialem.groups.camera import take
from tests.end_to_end.live import daemon
from tests.end_to_end.scene import quick_settings
from tests.end_to_end.serialem_scene import microscope
from tests.ports import free_endpoints

pytestmark = pytest.mark.timeout(60)
SCRIPT = Path(__file__).parents[2] / "drivers" / "serialem" / "scripts" / "cryonaut_targets.py"


class SerialEMModule(ModuleType):
    """SerialEM's own Python module: every command as a function."""

    def __init__(self, client: SerialEMClient) -> None:
        super().__init__("serialem")
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name == "bufferImage":
            return self._client.buffer_image
        return lambda *arguments: self._client.call(name, *arguments)


def run_script(monkeypatch: pytest.MonkeyPatch, client: SerialEMClient, endpoint: str) -> None:
    monkeypatch.setitem(sys.modules, "serialem", SerialEMModule(client))
    monkeypatch.setenv("CRYONAUT_DAEMON", endpoint)
    levels = {"low": (500.0, 5000.0), "medium": (10.0, 500.0), "high": (0.01, 1.0)}
    monkeypatch.setenv("CRYONAUT_LEVELS_NM", json.dumps(levels))
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_script_puts_the_answer_into_the_navigator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = free_endpoints("drivers", "control", "events")
    settings = quick_settings(tmp_path, ports, session__mode="advisor", session__autonomy="suggest")
    with microscope() as server, daemon(settings):
        client = SerialEMClient("127.0.0.1", server.port)
        program = server.program
        for level, letter in (("low", "R"), ("medium", "S")):
            program.low_dose, program.level = False, level
            if level == "medium":
                best = next(item for item in program.navigator.items if item.acquire)
                server.scope.move(best.x_um, best.y_um)
            program.buffers.put("A", take(program, letter))
            run_script(monkeypatch, client, ports["drivers"])
        items = program.navigator.items
        squares = [item for item in items if "-H" not in item.label]
        holes = [item for item in items if "-H" in item.label]
        assert len(squares) > 5
        assert len(holes) > 50
        on = sum(server.scope.specimen.hole_at(item.x_um, item.y_um) is not None for item in holes)
        assert on > 0.9 * len(holes)
        assert any(line.startswith("Cryonaut:") for line in program.journal)
        client.close()


def test_the_script_says_why_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    with microscope() as server:
        client = SerialEMClient("127.0.0.1", server.port)
        program = server.program
        program.buffers.put("A", program.buffers.get("P"))
        with pytest.raises(SystemExit, match="LEVELS_NM"):
            run_script(monkeypatch, client, "tcp://127.0.0.1:1")
        client.close()
