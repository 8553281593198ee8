"""Advisor: the microscope software leads and sends frames; the agent answers with targets and never commands."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from agent import wire
from agent.daemon import Daemon
from agent.messages import PROTOCOL, Accepted, Frame, Hello, Stage, Targets, Welcome
from simulators.specimen import Specimen, View
from tests.end_to_end.live import daemon
from tests.end_to_end.scene import GRID, quick_settings
from tests.ports import free_endpoints


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    return Specimen(GRID)


@pytest.fixture
def advised(tmp_path: Path) -> Iterator[Daemon]:
    changes = {"session__mode": "advisor", "session__autonomy": "suggest"}
    with daemon(quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), **changes)) as running:
        yield running


class Software:
    """A microscope software that sends what it has and reads what comes back."""

    def __init__(self, endpoint: str, specimen: Specimen) -> None:
        self.specimen = specimen
        self.context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)
        self.socket.send(wire.encode(Hello(protocol=PROTOCOL, driver="software")))
        welcome = self.next_of(Welcome)
        self.session_id = welcome.session_id
        self.seen: list[object] = []

    def next_of(self, kind: type[Any]) -> Any:
        while True:
            assert self.socket.poll(20_000), f"no {kind.__name__} came"
            message = wire.decode(self.socket.recv_multipart()[-1], wire.TO_DRIVER)
            if isinstance(message, kind):
                return message
            getattr(self, "seen", []).append(message)

    def send(self, frame_id: str, level: str, view: View) -> Targets:
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
        assert self.next_of(Accepted).about == frame_id
        answer = self.next_of(Targets)
        assert answer.frame_id == frame_id
        return answer

    def close(self) -> None:
        self.socket.close(0)
        self.context.term()


@pytest.fixture
def software(advised: Daemon, specimen: Specimen) -> Iterator[Software]:
    made = Software(advised.endpoints["drivers"], specimen)
    yield made
    made.close()


def test_frames_that_nobody_asked_for_are_answered_with_targets_where_the_truth_is(
    software: Software, specimen: Specimen, advised: Daemon
) -> None:
    low = View(0.0, 0.0, 8000.0, (768, 768), dose_e_per_a2=1e-5)
    squares = software.send("low-1", "low", low)
    truth = np.array([specimen.stage_to_pixel(low, s.x_um, s.y_um) for s in specimen.squares])
    half = 127.0 / 0.8 / 4  # a quarter of the mesh pitch, in pixels
    assert len(squares.targets) >= 8
    for target in squares.targets:
        if target.score > 0.4:
            assert np.hypot(*(truth - (target.x, target.y)).T).min() < half

    good = max(specimen.squares, key=lambda s: s.quality)
    medium = View(good.x_um, good.y_um, 800.0, (768, 768), rotation_deg=7.0, dose_e_per_a2=5e-4)
    holes = software.send("medium-1", "medium", medium)
    centres = np.array([specimen.stage_to_pixel(medium, h.x_um, h.y_um) for h in specimen.holes(good.index)])
    errors = [np.hypot(*(centres - (t.x, t.y)).T).min() for t in holes.targets[:50]]
    assert len(holes.targets) > 50
    assert np.median(errors) < 0.1 * 4.0 / 0.08  # a tenth of the hole pitch, in pixels

    best = max(specimen.holes(good.index), key=lambda h: h.quality)
    high = View(best.x_um, best.y_um, 3.0, (512, 512), defocus_um=1.5, dose_e_per_a2=40.0)
    assert software.send("high-1", "high", high).level == "high"
    state = advised.core.state
    exposed = [h for s in state.grids["G1"].squares.values() for h in s.holes.values() if h.frame_id == "high-1"]
    assert len(exposed) == 1
    assert exposed[0].quality is not None
    assert np.hypot(exposed[0].x_um - best.x_um, exposed[0].y_um - best.y_um) < 1.0
    assert state.commands_issued == 0


def test_a_frame_sent_again_gets_the_same_targets(software: Software) -> None:
    view = View(0.0, 0.0, 8000.0, (512, 512), dose_e_per_a2=1e-5)
    first = software.send("low-1", "low", view)
    again = software.send("low-1", "low", view)
    assert [(t.area_id, t.x, t.y, t.score) for t in first.targets] == [
        (t.area_id, t.x, t.y, t.score) for t in again.targets
    ]


def test_neighbouring_tiles_of_an_atlas_share_their_squares(software: Software, specimen: Specimen) -> None:
    """A square on two tiles is one square; cut by one tile's edge, it is taken from the other."""
    left = software.send("low-1", "low", View(-100.0, 0.0, 8000.0, (512, 512), dose_e_per_a2=1e-5))
    right = software.send("low-2", "low", View(100.0, 0.0, 8000.0, (512, 512), dose_e_per_a2=1e-5))
    seen = {t.area_id: (t.x_um, t.y_um) for t in (*left.targets, *right.targets)}
    shared = {t.area_id for t in left.targets} & {t.area_id for t in right.targets}
    assert len(shared) >= 3
    points = np.array(list(seen.values()))
    gaps = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)) + np.eye(len(points)) * 1e9
    assert gaps.min() > 60.0  # no square twice: centres lie a mesh pitch (127 µm) apart
