"""A recorded session plays the microscope behind SerialEM's socket, and the folder it lies in is only read."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from agent.errors import BadFileError, JournalError
from agent.session import events as ev
from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import ScriptError
from simulators.clock import SimClock
from simulators.microscope import MicroscopeError
from simulators.replay import Recording, ReplayedMicroscope
from simulators.serialem.server import SerialEMServer
from tests.end_to_end.live import daemon, events_of, wait_for
from tests.end_to_end.scene import driver, quick_settings
from tests.end_to_end.serialem_scene import driven
from tests.ports import free_endpoints

pytestmark = pytest.mark.timeout(90)


@dataclass
class Night:
    """A session that was recorded."""

    folder: Path

    def frames(self) -> list[ev.FrameReceived]:
        return [event for event in events_of(self.folder) if isinstance(event, ev.FrameReceived)]

    def of(self, level: str) -> ev.FrameReceived:
        return next(event for event in self.frames() if event.frame.level == level)

    def seen(self) -> list[tuple[str, str, str]]:
        """Level, place in the session and digest of the pixels of each frame, in order."""
        return [(e.frame.level, e.area_id, e.frame.digest) for e in self.frames()]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """Recorded with the virtual microscope's own driver, not with SerialEM's."""
    folder = tmp_path_factory.mktemp("recorded")
    settings = quick_settings(folder, free_endpoints("drivers", "control", "events"))
    with daemon(settings) as running, driver(settings.endpoints.drivers, folder / "ledger.sqlite"):
        wait_for(lambda: running.core.state.phase == "stopped", 60)
    return Night(folder / "short")


def replayed(night: Night) -> SerialEMServer:
    scope = ReplayedMicroscope(Recording.open(night.folder), SimClock(float("inf")))
    return SerialEMServer(scope, slots=scope.recording.slots, gap_s=0.0, busy_wait_s=0.05)


@pytest.fixture
def sem(night: Night) -> Callable[..., SerialEMClient]:
    with replayed(night) as server:
        client = SerialEMClient("127.0.0.1", server.port)
        yield client
        client.close()


def test_the_same_session_on_its_own_recording_sees_the_same_images(night: Night, tmp_path: Path) -> None:
    """Through another driver, over SerialEM's socket: same squares, same holes, same pixels.

    SerialEM does not tell the counts of the open beam, which holes are scored by: the site's settings do.
    """
    beam = {f"quality__open_beam_counts{end}": night.of(level).frame.open_beam_counts
            for level, end in (("medium", "_medium"), ("high", ""))}  # fmt: skip
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"), **beam)
    with (
        replayed(night) as server,
        daemon(settings) as running,
        driven(settings.endpoints.drivers, server, tmp_path / "ledger.sqlite"),
    ):
        wait_for(lambda: running.core.state.phase in ("stopped", "fault"), 60)
        assert running.core.state.phase == "stopped", running.core.state.why
    again = Night(tmp_path / "short")
    assert again.seen() == night.seen()
    assert {level for level, _, _ in night.seen()} == {"low", "medium", "high"}


def test_the_folder_of_a_recording_is_only_read(night: Night) -> None:
    def content() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in night.folder.rglob("*") if p.is_file() and p.suffix != ".sqlite-shm"}

    before = content()
    with replayed(night) as server:
        client = SerialEMClient("127.0.0.1", server.port)
        where = night.of("medium").frame.stage
        client.call("SetLowDoseMode", 1)
        client.call("MoveStageTo", where.x_um, where.y_um)
        client.call("Search")
        client.close()
    assert content() == before


def test_an_image_says_where_it_was_recorded(night: Night, sem: SerialEMClient) -> None:
    """Asked for half a micrometre beside it, the recorded place is told, so that what is found on it lies there."""
    frame = night.of("medium").frame
    sem.call("SetLowDoseMode", 1)
    sem.call("MoveStageTo", frame.stage.x_um + 3.0, frame.stage.y_um - 2.0)
    sem.call("Search")
    image = sem.buffer_image("A")
    assert image is not None
    rows, columns = frame.shape
    assert image.shape == (rows, columns)
    x, y = sem.numbers("BufImagePosToStagePos", "A", 0, columns / 2, rows / 2)[:2]
    assert (x, y) == pytest.approx((frame.stage.x_um, frame.stage.y_um), abs=1e-3)
    assert sem.numbers("BufImageToStageMatrix", "A", 0)[:4] == pytest.approx(frame.image_to_stage)


def test_what_was_never_recorded_is_a_script_error_that_says_so(night: Night, sem: SerialEMClient) -> None:
    frame = night.of("high").frame
    sem.call("SetLowDoseMode", 1)
    sem.call("MoveStageTo", frame.stage.x_um + frame.image_shift_um[0] + 30.0, frame.stage.y_um)
    before = sem.buffer_image("A")
    with pytest.raises(
        ScriptError, match=r"never recorded: no high-mag image at .* of grid G1; the nearest is .* away"
    ):
        sem.call("Record")
    np.testing.assert_array_equal(sem.buffer_image("A"), before)
    assert sem.numbers("ReportStageXYZ", least=3)  # the connection is as it was


def test_a_montage_of_places_that_were_not_recorded_is_refused(sem: SerialEMClient) -> None:
    sem.call("SetLowDoseMode", 0)
    sem.call("SetMagIndex", 3)
    sem.call("MoveStageTo", 100.0, 0.0)
    sem.call("OpenNewMontage", 1, 1, "C:\\m.mrc")
    with pytest.raises(ScriptError, match="never recorded: the piece of the montage"):
        sem.call("Montage")


def test_at_the_start_buffer_a_holds_a_recorded_overview(night: Night, sem: SerialEMClient) -> None:
    image = sem.buffer_image("A")
    assert image is not None
    assert image.shape == night.of("low").frame.shape
    assert float(image.std()) > 0
    assert sem.buffer_image("S") is None


def test_a_place_that_was_recorded_twice_shows_both_in_turn(night: Night) -> None:
    recording = Recording.open(night.folder)
    one = next(frame for frame in recording.frames if frame.header.level == "medium")
    other = next(frame for frame in recording.frames if frame.header.level == "low")
    twin = type(one)(
        type(one.header)(**{**_fields(one.header), "frame_id": "again", "digest": other.header.digest}),
        other.file,
        one.grid_id,
        one.area_id,
    )
    scope = ReplayedMicroscope(
        Recording(night.folder, (*recording.frames, twin), recording.grids), SimClock(float("inf"))
    )
    scope.move(one.header.stage.x_um, one.header.stage.y_um)
    files = [scope.acquire("medium").file for _ in range(3)]
    assert files == [one.file, other.file, other.file]


def _fields(header: object) -> dict[str, object]:
    return {name: getattr(header, name) for name in header.__struct_fields__}  # type: ignore[attr-defined]


def test_a_damaged_frame_is_told_when_it_is_asked_for(night: Night, tmp_path: Path) -> None:
    recording = Recording.open(night.folder)
    one = next(frame for frame in recording.frames if frame.header.level == "medium")
    (tmp_path / one.file).parent.mkdir(parents=True)
    (tmp_path / one.file).write_bytes((night.folder / one.file).read_bytes()[:-100])
    scope = ReplayedMicroscope(Recording(tmp_path, recording.frames, recording.grids), SimClock(float("inf")))
    scope.move(one.header.stage.x_um, one.header.stage.y_um)
    with pytest.raises(MicroscopeError, match=Path(one.file).name):
        scope.acquire("medium")


def test_a_folder_without_a_session_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is this a session folder"):
        Recording.open(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "simulate", "serialem", "--port", "0", "--session", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "is this a session folder" in line


def test_a_session_without_frames_is_refused(tmp_path: Path) -> None:
    settings = quick_settings(tmp_path, free_endpoints("drivers", "control", "events"))
    with daemon(settings):
        pass
    with pytest.raises(BadFileError, match="without a single recorded frame"):
        Recording.open(tmp_path / "short")
