"""The golden recordings: two small simulated sessions whose decisions every change of the code has to keep.

``python -m tests.golden`` makes them again and says what changed: the one way to accept a change of decisions. Their
settings name every model, so that a new default changes nothing here.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import zmq

from agent import control_messages as say
from agent import recording, wire
from agent.control import ControlClient
from agent.messages import PROTOCOL, Accepted, Frame, Hello, Measured, Stage, Targets, Welcome
from agent.recording.difference import Difference, compare
from agent.recording.trim import trim
from simulators.specimen import Specimen, SpecimenSettings, View
from tests.end_to_end.live import daemon, wait_for
from tests.end_to_end.scene import driver, quick_settings
from tests.ports import free_endpoints

FOLDER = Path(__file__).parent / "data" / "golden"
NAMES = ("pilot", "advisor")
ACCEPT = "python -m tests.golden"
MODELS = {
    "inference__squares": "squares-mixture",
    "inference__holes": "holes-template",
    "inference__quality": "quality-simple",
}
CARBON = SpecimenSettings(seed=11, grid_radius_um=330.0, foil="carbon", lattice="hexagonal", ice="mixed")


def settings(folder: Path, name: str, **changes: Any) -> Any:
    """Settings of a golden session: everything that decides is named."""
    values = {"session__name": name, **MODELS, **changes}
    return quick_settings(folder, free_endpoints("drivers", "control", "events"), **values)


def record_pilot(folder: Path) -> Path:
    """A whole session of one gold grid in which an operator rejects one hole and asks for another square first."""
    made = settings(folder, "pilot", squares__per_grid=2, holes__per_square=2, session__autonomy="approve")
    with daemon(made) as running, driver(made.endpoints.drivers, folder / "ledger.sqlite"):
        wait_for(lambda: running.core.state.phase == "idle")
        with ControlClient(made.endpoints.control) as operator:
            best = sorted(running.core.state.grids["G1"].squares.values(), key=lambda s: (-s.score, s.area_id))
            assert operator.ask(say.Accept(area_ids=(best[0].area_id, best[2].area_id)), "accept-two").ok
            assert operator.ask(say.Resume(), "go-on").ok
            wait_for(lambda: running.core.state.phase == "idle")
            assert operator.ask(say.Stop(), "enough").ok
        wait_for(lambda: running.core.state.phase == "stopped")
    return folder / "pilot"


class _Software:
    """A microscope software that shows what it has and reads what comes back."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)
        self.socket.send(wire.encode(Hello(protocol=PROTOCOL, driver="software", software="golden")))
        self.session_id = self._next(Welcome).session_id
        self.specimen = Specimen(CARBON)

    def _next(self, kind: type[Any]) -> Any:
        while True:
            assert self.socket.poll(60_000), f"no {kind.__name__} came"
            message = wire.decode(self.socket.recv_multipart()[-1], wire.TO_DRIVER)
            if isinstance(message, kind):
                return message

    def show(self, frame_id: str, level: str, view: View) -> Targets:
        """Send one frame and give the answer."""
        image = self.specimen.render(view)
        frame = Frame(
            frame_id=frame_id,
            session_id=self.session_id,
            level=level,  # type: ignore[arg-type]
            pixel_size_angstrom=view.pixel_size_angstrom,
            shape=view.shape,
            dtype="<u2",
            digest=wire.digest(image),
            stage=Stage(x_um=view.x_um, y_um=view.y_um),
            image_to_stage=self.specimen.image_to_stage(view),
        )
        self.socket.send_multipart(wire.frame_parts(frame, image))
        targets: Targets = self._next(Targets)
        return targets

    def measured(self, name: str, area_id: str, ctf_angstrom: float) -> None:
        """Say what an own pipeline measured."""
        self.socket.send(
            wire.encode(
                Measured(
                    measured_id=name,
                    session_id=self.session_id,
                    area_id=area_id,
                    ctf_resolution_angstrom=ctf_angstrom,
                )
            )
        )
        self._next(Accepted)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close(0)
        self.context.term()


def record_advisor(folder: Path) -> Path:
    """A software that leads shows a carbon grid, two squares and four holes; an operator rejects one of them."""
    made = settings(folder, "advisor", session__mode="advisor", session__autonomy="suggest")
    with daemon(made) as running:
        software = _Software(made.endpoints.drivers)
        try:
            low = software.show("atlas", "low", View(0.0, 0.0, 12000.0, (448, 448), rotation_deg=3.0, frame_seed=1))
            whole = [t for t in low.targets if abs(t.x_um) < 150 and abs(t.y_um) < 150][:2]
            for number, square in enumerate(whole, 1):
                view = View(square.x_um, square.y_um, 1600.0, (384, 384), rotation_deg=1.0, frame_seed=1 + number)
                holes = software.show(f"square-{number}", "medium", view).targets
                with ControlClient(made.endpoints.control) as operator:
                    assert operator.ask(say.Reject(area_ids=(holes[2].area_id,)), f"reject-{number}").ok
                for shot, hole in enumerate(holes[:2], 1):
                    name = f"hole-{number}-{shot}"
                    view = View(hole.x_um, hole.y_um, 4.0, (256, 256), defocus_um=1.2, dose_e_per_a2=40.0,
                                frame_seed=10 * number + shot)  # fmt: skip
                    software.show(name, "high", view)
                    software.measured(f"ctf-{name}", hole.area_id, 3.5 + 0.5 * shot)
            with ControlClient(made.endpoints.control) as operator:
                assert operator.ask(say.Stop(), "enough").ok
            wait_for(lambda: running.core.state.phase == "stopped")
        finally:
            software.close()
    return folder / "advisor"


RECORD = {"pilot": record_pilot, "advisor": record_advisor}


def readable(difference: Difference, most: int = 12) -> str:
    """What changed, in lines that a developer can read in a terminal."""
    then, now = difference.decisions
    lines = [f"{then} decisions then, {now} now; {len(difference.changes)} targets changed"]
    lines += [f"  {name}: {value:g} -> {difference.counts[1][name]:g}" for name, value in difference.counts[0].items()
              if value != difference.counts[1][name]]  # fmt: skip
    for change in difference.changes[:most]:
        lines.append(f"  {change.then_id or change.now_id} {change.kind}")
        lines.append(f"      then: {change.then}")
        lines.append(f"      now:  {change.now}")
    if difference.first != ("", ""):
        lines += [
            "the first decision that differs:",
            f"  then {difference.first[0][:600]}",
            f"  now  {difference.first[1][:600]}",
        ]
    return "\n".join(lines)


def make(name: str) -> None:
    """Record one of them again, in place of the old one."""
    with tempfile.TemporaryDirectory() as folder:
        made = recording.read(RECORD[name](Path(folder)))
        target = FOLDER / name
        old = recording.read(target) if target.exists() else None
        fresh = Path(folder) / "packed"
        trim(made, fresh, pack=True)
        if old is not None:
            difference = compare(old, recording.read(fresh))
            print(f"{name}: {'the same decisions' if difference.same_decisions else readable(difference)}")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(fresh, target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{name}: {made.rows} events, {len(made.shots)} frames, {size / 1e6:.2f} MB in {target}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or NAMES:
        make(wanted)
