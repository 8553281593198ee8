"""The way of a frame: checked, on disk, journalled, acknowledged, shown to a model, answered with targets."""

import asyncio
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import structlog
import zmq
from numpy.typing import NDArray

from agent import geometry, wire
from agent.answers import targets_for
from agent.core import Core
from agent.errors import BadMessageError, CryonautError
from agent.frames import FrameStore
from agent.inference import Analyst
from agent.links import Links
from agent.messages import Accepted, ErrorKind, Frame, Refused
from agent.metrics import METRICS
from agent.session import events as ev
from agent.session import inputs as inp
from agent.settings import Settings

log = structlog.get_logger("intake")
MOST_ANSWERS = 10_000
AHEAD = 8  # findings that may wait for the journal
SMALLEST_PIXEL_UM, LARGEST_PIXEL_UM = 1e-7, 1e3


class Writing(NamedTuple):
    """Pixels on their way to disk; ``file`` gives their path once they are there."""

    image: NDArray[Any]
    file: "asyncio.Future[str]"


class Intake:
    """Takes frames in, one after the other, and answers each once its model has spoken."""

    def __init__(self, links: Links, core: Core, store: FrameStore, analyst: Analyst, settings: Settings) -> None:
        self.links = links
        self.core = core
        self.store = store
        self.analyst = analyst
        self.settings = settings
        self._known = core.journal.keys("frame:")  # frames on disk or on their way there
        self._writers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="frames")
        self._saving: asyncio.Queue[tuple[bytes, Frame, Writing | None]] = asyncio.Queue(settings.limits.frames_waiting)
        self._analysing: asyncio.Queue[tuple[Frame, str, NDArray[Any] | None]] = asyncio.Queue()
        self._found: asyncio.Queue[tuple[Frame, inp.Analysed | inp.AnalysisFailed]] = asyncio.Queue(AHEAD)
        self._images_held = 0
        self._in_hand = 0  # frames that came and are neither acknowledged nor refused
        self._askers: dict[str, str] = {}  # frame id -> name of the driver that sent it
        self._answers: dict[str, tuple[str, str]] = {}  # frame id -> note and model of its answer
        self._owed: dict[str, Frame] = {}  # answered while its driver was away
        self._places: dict[str, tuple[str, str]] = {}  # frame id -> grid and area that it shows

    @property
    def idle(self) -> bool:
        """Whether no frame waits to be stored."""
        return self._saving.empty()

    @property
    def busy(self) -> bool:
        """Whether a driver waits for an acknowledgement."""
        return self._in_hand > 0 or self.links.busy

    # ------------------------------------------------------------------------------------------ coming in

    def take(self, peer: bytes, frame: Frame, part: zmq.Frame) -> None:
        """Check a frame's header and start to write its pixels.

        Raises
        ------
        BadMessageError
            If header and pixels do not fit each other, or the frame is no possible one.
        """
        if frame.session_id != self.core.state.session_id:
            reason = f"frame {frame.frame_id} is of session {frame.session_id}, not of {self.core.state.session_id}"
            self.links.send(peer, Refused(reason=reason, about=frame.frame_id))
            return
        limit = self.settings.limits.frame_mb << 20
        if (size := wire.pixel_bytes(frame)) > limit:
            raise BadMessageError(f"frame {frame.frame_id} of {size} bytes: limits.frame_mb allows {limit}")
        if self._saving.full():
            METRICS.frames_refused.inc()
            reason = f"{self._saving.maxsize} frames are waiting already (limits.frames_waiting)"
            self.links.send(peer, Refused(reason=reason, retry=True, about=frame.frame_id))
            return
        if not SMALLEST_PIXEL_UM <= (scale := geometry.micron_per_pixel(frame)) <= LARGEST_PIXEL_UM:
            raise BadMessageError(
                f"frame {frame.frame_id}: its pixels are {scale:.3g} µm (pixel_size_angstrom, image_to_stage);"
                f" {SMALLEST_PIXEL_UM:g} to {LARGEST_PIXEL_UM:g} µm are possible"
            )
        key = f"frame:{frame.frame_id}"
        written = None
        if key not in self._known:
            image = wire.view_pixels(frame, wire.part_buffer(part))
            self._known.add(key)
            # pixels of the next frame may go to disk while this one waits for its commit
            loop = asyncio.get_running_loop()
            written = Writing(image, loop.run_in_executor(self._writers, self._check_and_write, frame, image))
        self._saving.put_nowait((peer, frame, written))
        self._in_hand += 1

    def _check_and_write(self, frame: Frame, image: NDArray[Any]) -> str:
        if (found := wire.digest(image)) != frame.digest:
            raise BadMessageError(
                f"frame {frame.frame_id}: digest of the pixels is {found}, its header says {frame.digest}"
            )
        need = image.nbytes + (self.settings.limits.free_disk_gb * 1e9)
        if (free := shutil.disk_usage(self.store.folder).free) < need:
            raise CryonautError(
                f"disk of {self.store.folder} has {free / 1e9:.1f} GB left, limits.free_disk_gb keeps"
                f" {self.settings.limits.free_disk_gb:g} GB free"
            )
        return self.store.save(frame, image)

    async def save_frames(self) -> None:
        """Journal and acknowledge frames in the order in which they came, until cancelled."""
        try:
            while True:
                peer, frame, written = await self._saving.get()
                begun = time.monotonic()
                try:
                    await self._save(peer, frame, written)
                except BadMessageError as error:
                    await self._failed(peer, frame, str(error))
                except (OSError, CryonautError) as error:
                    self._known.discard(f"frame:{frame.frame_id}")
                    METRICS.frames_refused.inc()
                    reason = f"{frame.frame_id}: {error}"[:2000]
                    self.links.send(peer, Refused(reason=reason, retry=True, about=frame.frame_id))
                except Exception as error:  # a defect of ours in one frame must not end the night
                    log.exception("intake.defect", frame=frame.frame_id)
                    await self._failed(peer, frame, f"internal error: {type(error).__name__}: {error}")
                self._in_hand -= 1
                METRICS.ingest_seconds.observe(time.monotonic() - begun)
        finally:
            self._writers.shutdown(wait=True, cancel_futures=True)

    async def _failed(self, peer: bytes, frame: Frame, why: str) -> None:
        self._known.discard(f"frame:{frame.frame_id}")
        if hold := self.links.refuse(peer, why, about=frame.frame_id):
            await self.core.insist(inp.Held(cause="errors", detail=hold))

    async def _save(self, peer: bytes, frame: Frame, written: Writing | None) -> None:
        if written is None:  # sent again: nothing changes, the same answers
            await self._again(peer, frame)
            return
        file = await written.file
        outcome = await self.core.submit(inp.FrameCame(frame=frame, file=file))
        METRICS.frames.labels(level=frame.level).inc()
        place = next((e for e in outcome.events if isinstance(e, ev.FrameReceived)), None)
        if place is not None:
            self._places[frame.frame_id] = (place.grid_id, place.area_id)
            frame = place.frame  # with its place on the grid
        self._accept(peer, frame, outcome.seq)
        if frame.frame_id in self.core.state.pending:
            hold = self._images_held < self.settings.limits.frames_waiting
            self._images_held += hold
            self._analysing.put_nowait((frame, file, written.image if hold else None))
        else:
            self._answer(frame)

    async def _again(self, peer: bytes, frame: Frame) -> None:
        seq = await self.core.find(f"frame:{frame.frame_id}")
        if seq is None:
            raise CryonautError("its first copy could not be stored")
        self._accept(peer, frame, seq)
        if frame.frame_id not in self.core.state.pending:
            event = await self.core.read(seq)
            if isinstance(event, ev.FrameReceived):
                self._places[frame.frame_id] = (event.grid_id, event.area_id)
                frame = event.frame
            self._answer(frame)

    def _accept(self, peer: bytes, frame: Frame, seq: int) -> None:
        if link := self.links.by_peer.get(peer):
            link.bad_in_a_row = 0
            self._askers[frame.frame_id] = link.name
        self.links.send(peer, Accepted(about=frame.frame_id, seq=seq))

    # ------------------------------------------------------------------------------------------ models

    def resume(self) -> None:
        """After a start: queue the frames whose analysis was due when the daemon ended."""
        wanted = {entry.seq for entry in self.core.state.pending.values()}
        for row in self.core.journal.replay(after=min(wanted) - 1) if wanted else ():
            if row.seq in wanted:
                event = ev.decode_event(row.body)
                if isinstance(event, ev.FrameReceived):
                    self._places[event.frame.frame_id] = (event.grid_id, event.area_id)
                    self._analysing.put_nowait((event.frame, event.file, None))

    async def analyse_frames(self) -> None:
        """Ask the models about saved frames, one after the other, until cancelled.

        Models run ahead of the journal, as they know nothing of the session; what they find waits in `take_findings`.
        """
        while True:
            frame, file, image = await self._analysing.get()
            held = image is not None
            try:
                if image is None:
                    image = await asyncio.to_thread(self.store.load, file, frame.digest)
                what = await self._ask(frame, image)
            except Exception as error:
                log.exception("analysis.failed", frame=frame.frame_id)
                what = inp.AnalysisFailed(frame_id=frame.frame_id, error=ErrorKind.MODEL_FAILED, why=str(error))
            image = None
            self._images_held -= held
            await self._found.put((frame, what))

    async def _ask(self, frame: Frame, image: NDArray[Any]) -> inp.Analysed | inp.AnalysisFailed:
        pending = self.core.state.pending.get(frame.frame_id)
        if pending is None or not pending.like:
            return await self.analyst.analyse(frame, image)
        seq = await self.core.find(f"frame:{pending.like}")
        before = await self.core.read(seq) if seq is not None else None
        if not isinstance(before, ev.FrameReceived):
            raise CryonautError(f"frame {pending.like}, which it is compared with, is not in the journal")
        earlier = await asyncio.to_thread(self.store.load, before.file, before.frame.digest)
        return await self.analyst.sight(frame, image, earlier)

    async def take_findings(self) -> None:
        """Hand in what the models said, in the order of the frames, and answer them, until cancelled."""
        while True:
            frame, what = await self._found.get()
            await self.analyst.turn(frame.frame_id)
            if isinstance(what, inp.Analysed):
                METRICS.inference_seconds.labels(level=frame.level).observe(what.elapsed_s)
            if not await self.core.insist(what):
                what = inp.AnalysisFailed(
                    frame_id=frame.frame_id, error=ErrorKind.MODEL_FAILED, why="its finding could not be worked with"
                )
                await self.core.insist(what)
            if isinstance(what, inp.AnalysisFailed):
                self._answers[frame.frame_id] = (what.why[:2000], "")
            else:
                self._answers[frame.frame_id] = (what.finding.note[:2000], what.model)
            self._answer(frame)

    # ------------------------------------------------------------------------------------------ going out

    def answer_owed(self) -> None:
        """A driver is back: give it the answers that came while it was away."""
        for frame in list(self._owed.values()):
            self._answer(frame)

    def _answer(self, frame: Frame) -> None:
        place = self._places.get(frame.frame_id)
        if place is None:
            return
        for kept in (self._places, self._answers, self._owed, self._askers):
            while len(kept) > MOST_ANSWERS:
                kept.pop(next(iter(kept)))
        # who asked is not known after a start of the daemon: then whoever is there
        links = self.links.named(self._askers.get(frame.frame_id))
        if not links:
            self._owed[frame.frame_id] = frame
            return
        self._owed.pop(frame.frame_id, None)
        self._askers.pop(frame.frame_id, None)
        note, model = self._answers.get(frame.frame_id, ("", ""))
        for link in links:
            self.links.send(link.peer, targets_for(self.core.state, frame, *place, note, model))
