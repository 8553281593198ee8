"""Simulated nights: the real session core, a simulated clock, and the truth of `simulators.specimen`.

No image is rendered: squares and holes come with scores that follow the truth as loosely as a vision model's do, and a
micrograph is good with the probability that the specimen gives.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agent import messages as m
from agent.messages import Command, CommandResult, Frame, Hello, ScopeState, Stage
from agent.session import EMPTY, State, step
from agent.session import inputs as inp
from agent.settings import Settings, load
from models.detections import HoleDetection, HoleFinding, QualityFinding, SquareDetection, SquareFinding
from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.specimen import Specimen

SECONDS = {"load_grid": 600, "acquire_atlas": 600, "map_square": 100, "focus": 25, "expose": 25, "goto": 10, "park": 10}
SCALE_ANGSTROM = {"low": 60_000.0, "medium": 3_000.0, "high": 1.0}
SIDE = 4096
ALL = 5_000
# Deviation of the log odds that the vision models read off: their scores then part good from bad with an AUC of 0.75
# to 0.8 for squares and 0.7 for holes; `python -m benchmarks.finders` measures 0.75 to 0.94 and 0.5 to 0.6.
NOISE = 2.0


@dataclass(frozen=True)
class Spot:
    """A square or hole with what a model says of it, and the truth."""

    x_um: float
    y_um: float
    size_um: float
    score: float
    quality: float


class World:
    """One grid: its squares, their holes, and how each micrograph would turn out."""

    def __init__(self, seed: int, ice: str, *, most: int = 30, pitch_um: float = 7.0) -> None:
        self.specimen = Specimen(
            SpecimenSettings(seed=seed, ice=ice, grid_radius_um=450.0, hole_pitch_um=pitch_um)  # type: ignore[arg-type]
        )
        self.rng = np.random.default_rng([seed, 5])
        whole = [s for s in self.specimen.squares if s.state != "dark"][:most]
        self.squares = [Spot(s.x_um, s.y_um, 85.0, self._score(s.quality), s.quality) for s in whole]
        self.holes = [
            [Spot(h.x_um, h.y_um, h.radius_um, self._score(h.quality), h.quality) for h in self.specimen.holes(s.index)]
            for s in whole
        ]
        self.luck = [self.rng.uniform(size=len(holes)) for holes in self.holes]

    def _score(self, quality: float) -> float:
        """What a vision model makes of it: right on average, far off at times."""
        odds = math.log((quality + 0.08) / (1.08 - quality)) + self.rng.normal(0, NOISE)
        return float(np.clip(1 / (1 + math.exp(-0.8 * odds)), 0.02, 0.98))

    def is_good(self, x_um: float, y_um: float) -> bool:
        """Whether a micrograph taken here is good; the same each time it is asked."""
        s = min(
            range(len(self.squares)), key=lambda k: math.hypot(self.squares[k].x_um - x_um, self.squares[k].y_um - y_um)
        )
        h = min(
            range(len(self.holes[s])),
            key=lambda k: math.hypot(self.holes[s][k].x_um - x_um, self.holes[s][k].y_um - y_um),
        )
        return bool(self.luck[s][h] < self.holes[s][h].quality)


class Night:
    """One session of the real core on a world."""

    def __init__(self, world: World, settings: Settings, *, blind: bool = False) -> None:
        self.world, self.settings, self.blind = world, settings, blind
        self.state: State = EMPTY
        self.utc, self.frames, self.good, self.shots = 1_000.0, 0, 0, 0
        self.plan_s: list[float] = []
        self.exposed: list[tuple[float, float]] = []
        self.take_in(inp.Started(session_id="s", version="0", models={}))
        self.take_in(
            inp.SaidHello(hello=Hello(protocol=1, driver="sim", can_pilot=True, state=ScopeState(grid_id="G1")))
        )

    def take_in(self, what: inp.AnyInput) -> None:
        """One turn of the session core."""
        begun = time.process_time()
        _, self.state, _ = step(self.state, what, self.settings, self.utc)
        self.plan_s.append(time.process_time() - begun)

    def run(self) -> float:
        """Good micrographs per hour of the whole time that was given."""
        while self.state.outstanding:
            self.turn()
        return self.good / self.settings.budget.hours

    def turn(self) -> None:
        """Carry out the command under way."""
        (entry,) = self.state.outstanding.values()
        command = entry.command
        self.utc += SECONDS[str(command.work.__struct_config__.tag)]
        match command.work:
            case m.AcquireAtlas():
                self._take(command, "low", 0.0, 0.0, self._squares)
            case m.MapSquare(x_um=x, y_um=y):
                self._take(command, "medium", x, y, self.holes_of)
            case m.Expose() as shot:
                x, y = shot.x_um + shot.image_shift_x_um, shot.y_um + shot.image_shift_y_um
                fine = self.world.is_good(x, y)
                self.good += fine
                self.shots += 1
                self.exposed.append((x, y))
                label, score = ("good", 0.8) if fine else ("thick", 0.2)
                self._take(command, "high", x, y, lambda _: QualityFinding(score=score, label=label))  # type: ignore[arg-type]
            case _:
                self.take_in(self._result(command))

    def _result(self, command: Command) -> inp.ResultCame:
        return inp.ResultCame(result=CommandResult(
                command_id=command.command_id, session_id="s", status="done",
                elapsed_s=float(SECONDS[str(command.work.__struct_config__.tag)]),
            )
        )  # fmt: skip

    def _take(self, command: Command, level: m.Level, x_um: float, y_um: float, finding: object) -> None:
        self.frames += 1
        frame = Frame(
            frame_id=f"F{self.frames}", session_id="s", level=level, pixel_size_angstrom=SCALE_ANGSTROM[level],
            shape=(SIDE, SIDE), dtype="|u1", digest="0" * 32, stage=Stage(x_um=x_um, y_um=y_um),
            command_id=command.command_id,
        )  # fmt: skip
        self.take_in(inp.FrameCame(frame=frame, file="none"))
        self.take_in(self._result(command))
        found = finding(frame)  # type: ignore[operator]
        self.take_in(inp.Analysed(frame=frame, finding=found, model="simulated", fingerprint="0", elapsed_s=0.1))

    def _pixel(self, frame: Frame, spot: Spot) -> tuple[float, float]:
        scale = frame.pixel_size_angstrom * 1e-4
        centre = (SIDE - 1) / 2
        return (spot.x_um - frame.stage.x_um) / scale + centre, (spot.y_um - frame.stage.y_um) / scale + centre

    def _squares(self, frame: Frame) -> SquareFinding:
        scale = frame.pixel_size_angstrom * 1e-4
        found = []
        for spot in self.world.squares:
            x, y = self._pixel(frame, spot)
            half = spot.size_um / 2 / scale
            corners = tuple((x + u * half, y + v * half) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
            score = 0.5 if self.blind else spot.score
            found.append(SquareDetection(x=x, y=y, vertices=corners, score=score, area_px=(2 * half) ** 2))
        return SquareFinding(squares=tuple(found))

    def holes_of(self, frame: Frame) -> HoleFinding:
        """What a model finds on a medium-mag frame."""
        scale = frame.pixel_size_angstrom * 1e-4
        places = [(s.x_um - frame.stage.x_um) ** 2 + (s.y_um - frame.stage.y_um) ** 2 for s in self.world.squares]
        holes = self.world.holes[int(np.argmin(places))]
        found = []
        for spot in holes:
            x, y = self._pixel(frame, spot)
            score = 0.5 if self.blind else spot.score
            found.append(HoleDetection(x=x, y=y, radius_px=spot.size_um / scale, score=score))
        return HoleFinding(holes=tuple(found))


def settings(name: str, hours: float, per_square: int) -> Settings:
    """A session that may go everywhere for so many hours."""
    return load(
        None,
        {
            "policy.name": name, "budget.hours": hours, "squares.per_grid": 200, "squares.min_score": 0.0,
            "holes.min_score": 0.0, "holes.per_square": per_square, "holes.max_image_shift_um": 10.0,
            "atlas.radius_um": 100.0,
        },
    )  # fmt: skip


def knower(world: World, hours: float, reach_um: float = 10.0) -> float:
    """About what one who knows every outcome would get per hour: good holes only, the richest squares first."""
    left = hours * 3600.0 - SECONDS["load_grid"] - SECONDS["acquire_atlas"]
    squares = []
    for holes, luck in zip(world.holes, world.luck, strict=True):
        places = np.array([(h.x_um, h.y_um) for h, u in zip(holes, luck, strict=True) if u < h.quality]).reshape(-1, 2)
        near = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) <= reach_um
        open_, sizes = np.ones(len(places), bool), []
        while open_.any():
            centre = int(np.argmax(np.where(open_, (near & open_).sum(axis=1), -1)))
            sizes.append(int((near[centre] & open_).sum()))
            open_ &= ~near[centre]
        took, good, best = float(SECONDS["map_square"]), 0, (0.0, 0, 0.0)
        for size in sorted(sizes, reverse=True):
            took += SECONDS["focus"] + SECONDS["expose"] * size
            good += size
            best = max(best, (good / took, good, took))
        squares.append(best)
    total = 0.0
    for _, good, took in sorted(squares, reverse=True):
        share = min(1.0, max(left, 0.0) / took) if took else 0.0
        total, left = total + share * good, left - took
    return total / hours


def unseen(night: Night, world: World) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Maps every square that the session did not map, without exposing anything, and gives its holes."""
    grid = night.state.grids["G1"]
    for square in list(grid.squares.values()):
        if square.map_frame_id:
            continue
        night.frames += 1
        frame = Frame(
            frame_id=f"F{night.frames}", session_id="s", level="medium", pixel_size_angstrom=SCALE_ANGSTROM["medium"],
            shape=(SIDE, SIDE), dtype="|u1", digest="0" * 32, stage=Stage(x_um=square.x_um, y_um=square.y_um),
            area_id=square.area_id, grid_id="G1",
        )  # fmt: skip
        night.take_in(inp.FrameCame(frame=frame, file="none"))
        found = night.holes_of(frame)
        night.take_in(inp.Analysed(frame=frame, finding=found, model="simulated", fingerprint="0", elapsed_s=0.1))
    for area_id, now in night.state.grids["G1"].squares.items():
        if now.holes and not any(hole.visited for hole in now.holes.values()):
            yield area_id, [(hole.x_um, hole.y_um) for hole in now.holes.values()]
