"""What the page remembers beside the state: trends, the times of exposures, where frames lie; all of it bounded."""

from collections import OrderedDict, deque
from collections.abc import Iterable

import msgspec

from agent.core import Core
from agent.session import events as ev

MOST_POINTS = 20_000
MOST_FRAMES = 4_000


class Point(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One micrograph of the trends: ``ctf`` in Å, ``ice`` in nm, where they were measured."""

    utc: float
    id: str
    score: float
    good: bool = False
    ctf: float | None = None
    ice: float | None = None


class History:
    """Follows the events of a session; `load` brings in what was before the daemon's start."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.points: deque[Point] = deque(maxlen=MOST_POINTS)
        self.exposed_utc: deque[float] = deque(maxlen=500)
        self._frames: OrderedDict[str, ev.FrameReceived] = OrderedDict()
        core.listeners.append(self.heard)

    def load(self) -> None:
        """Read the trends of earlier epochs from the journal; before the core runs."""
        for row in self.core.journal.of_kind("micrograph_judged"):
            event = ev.decode_event(row.body)
            self.heard(row.seq, row.utc, event)
            self.exposed_utc.append(row.utc)
        for row in self.core.journal.of_kind("area_measured"):
            self.heard(row.seq, row.utc, ev.decode_event(row.body))

    def heard(self, _seq: int, utc: float, event: ev.AnyEvent) -> None:
        """Take one event in."""
        match event:
            case ev.MicrographJudged():
                self.points.append(point_of(utc, event))
            case ev.AreaMeasured(quality=quality) if quality is not None:
                self.points.append(measured_point(utc, event))
                self.exposed_utc.append(utc)
            case ev.FrameReceived(frame=frame):
                self._keep(event)
                if frame.level == "high":
                    self.exposed_utc.append(utc)
            case _:
                pass

    def _keep(self, received: ev.FrameReceived) -> None:
        self._frames[received.frame.frame_id] = received
        if len(self._frames) > MOST_FRAMES:
            self._frames.popitem(last=False)

    async def frame(self, frame_id: str) -> ev.FrameReceived | None:
        """The header of a frame and where its pixels are."""
        known = self._frames.get(frame_id)
        if known is None:
            seq = await self.core.find(f"frame:{frame_id}")
            event = await self.core.read(seq) if seq is not None else None
            if not isinstance(event, ev.FrameReceived):
                return None
            self._keep(event)
            known = event
        return known

    async def frames(self, frame_ids: Iterable[str]) -> list[ev.FrameReceived]:
        """The headers of several frames, without those that are not known."""
        found = [await self.frame(frame_id) for frame_id in frame_ids]
        return [received for received in found if received is not None]


def point_of(utc: float, event: ev.MicrographJudged) -> Point:
    """A judged micrograph as a point of the trends."""
    features = event.features
    return Point(
        utc=round(utc, 2),
        id=event.area_id,
        score=round(event.score, 3),
        good=event.label == "good",
        ctf=features.get("ctf_resolution_angstrom"),
        ice=features.get("ice_thickness_nm"),
    )


def measured_point(utc: float, event: ev.AreaMeasured) -> Point:
    """An exposure that the microscope software measured itself, as a point of the trends."""
    return Point(
        utc=round(utc, 2),
        id=event.area_id,
        score=round(event.quality or 0.0, 3),
        good=event.label == "good",
        ctf=event.ctf_resolution_angstrom,
        ice=event.ice_thickness_nm,
    )
