"""Small sessions with a known outcome, written event by event: enough of them to see how an evaluation scales."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent import wire
from agent.frames import FrameStore
from agent.journal import Draft, Journal
from agent.messages import Frame, Level, ScopeState, Stage
from agent.recording.manifest import Manifest, write_manifest
from agent.session import events as ev
from agent.session.state import Hole, Square, hole_id, square_id

PIXEL_UM, PITCH_PX, RADIUS_PX, SIDE = 0.1, 40, 12, 320


def write_session(folder: Path, seed: int, *, squares: int = 2, chosen: int = 6) -> Path:
    """One session: squares with a lattice of holes, some exposed and judged; a better score is good more often."""
    rng = np.random.default_rng(seed)
    journal, store = Journal(folder), FrameStore(folder)
    utc = 1.79e9 + seed

    def add(*events: ev.AnyEvent) -> None:
        nonlocal utc
        utc += 1.0
        journal.append([Draft(ev.kind_of(e), ev.encode_event(e)) for e in events], utc=utc, epoch=1)

    add(ev.SessionOpened(session_id=f"s{seed}", name=f"small-{seed}", config="none", version="0", mode="advisor",
                         autonomy="suggest", thresholds={}, grids=(("G1", None),)))  # fmt: skip
    add(ev.EpochBegan(epoch=1, config="none", version="0"))
    add(ev.DriverJoined(driver="drawn", software="drawn", can_pilot=False, state=ScopeState(grid_id="G1")))
    places = [(120.0 * n, 0.0) for n in range(squares + 2)]
    add(ev.SquaresFound(grid_id="G1", frame_id="", model="drawn", fingerprint="", squares=tuple(
        Square(area_id=square_id("G1", n), x_um=x, y_um=y, size_um=90.0, score=float(rng.uniform(0.2, 1.0)))
        for n, (x, y) in enumerate(places, 1))))  # fmt: skip
    for number, (x_um, y_um) in enumerate(places[:squares], 1):
        _square(add, store, rng, square_id("G1", number), x_um, y_um, chosen)
    add(ev.PhaseChanged(phase="collecting", why="drawn"))
    head = journal.head
    journal.close()
    write_manifest(
        folder, Manifest(session_id=f"s{seed}", name=f"small-{seed}", ended=True, events=head[0], chain=head[1])
    )
    return folder


def _square(
    add: Callable[..., None],
    store: FrameStore,
    rng: np.random.Generator,
    name: str,
    x_um: float,
    y_um: float,
    chosen: int,
) -> None:
    """A map of one square with its holes drawn, and exposures of some of them."""
    centres = [(x, y) for y in range(PITCH_PX, SIDE - 20, PITCH_PX) for x in range(PITCH_PX, SIDE - 20, PITCH_PX)]
    rows, columns = np.indices((SIDE, SIDE))
    image = rng.normal(200.0, 6.0, (SIDE, SIDE))
    for x, y in centres:
        image[np.hypot(columns - x, rows - y) <= RADIUS_PX] += 150.0
    pixels = np.clip(image, 0, 65535).astype("<u2")
    frame = _frame(f"{name}-map", "medium", pixels, x_um, y_um, PIXEL_UM * 1e4)
    add(ev.FrameReceived(frame=frame, file=store.save(frame, pixels), grid_id="G1", area_id=name))
    middle = (SIDE - 1) / 2
    scores = rng.uniform(0.0, 1.0, len(centres))
    holes = [
        Hole(area_id=hole_id(name, n), x_um=x_um + PIXEL_UM * (x - middle), y_um=y_um + PIXEL_UM * (y - middle),
             radius_um=PIXEL_UM * RADIUS_PX, score=float(score))
        for n, ((x, y), score) in enumerate(zip(centres, scores, strict=True), 1)
    ]  # fmt: skip
    add(ev.HolesFound(square_id=name, frame_id=frame.frame_id, model="drawn", fingerprint="", holes=tuple(holes)))
    for hole in sorted(holes, key=lambda h: -h.score)[:: max(1, len(holes) // (2 * chosen))][:chosen]:
        shot = np.asarray(rng.integers(80, 120, (32, 32)), "<u2")
        high = _frame(f"{hole.area_id}-shot", "high", shot, hole.x_um, hole.y_um, 4.0)
        add(ev.FrameReceived(frame=high, file=store.save(high, shot), grid_id="G1", area_id=hole.area_id))
        good = bool(rng.random() < 0.15 + 0.75 * hole.score)
        label, score = ("good", 0.9) if good else ("thick", 0.1)
        judged = ev.MicrographJudged(
            area_id=hole.area_id,
            frame_id=high.frame_id,
            model="drawn",
            fingerprint="",
            score=score,
            label=label,
            features={},
        )
        add(judged)


def _frame(name: str, level: Level, image: NDArray[Any], x_um: float, y_um: float, pixel: float) -> Frame:
    return Frame(frame_id=name, session_id="small", level=level, pixel_size_angstrom=pixel, shape=image.shape,
                 dtype="<u2", digest=wire.digest(image), stage=Stage(x_um=x_um, y_um=y_um))  # fmt: skip
