"""A session core played by hand: inputs in, events out, purity checked at every step."""

import math
from typing import Any

import msgspec

from agent import control_messages as say
from agent import messages as m
from agent.messages import AnyWork, Command, CommandResult, ErrorKind, Frame, Hello, ScopeState, Stage
from agent.session import EMPTY, State, fold, step
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.state import Hole, Square
from agent.settings import Settings, load
from models.detections import GridSighting, HoleDetection, HoleFinding, QualityFinding, SquareDetection, SquareFinding
from tests.helpers import frame_of, image_of

IMAGE = image_of(shape=(32, 32))
SQUARES_UM = ((-60.0, 0.0), (60.0, 0.0), (0.0, 70.0))
HOLES_UM = tuple((4.0 * i, 4.0 * j) for i in (-1, 0, 1) for j in (-1, 0, 1))
encode = msgspec.msgpack.encode


def small(**changes: Any) -> Settings:
    """Settings of a short session: 2 squares of 3 holes; dots as ``__``."""
    values: dict[str, Any] = {
        "atlas.radius_um": 100.0,
        "squares.per_grid": 2,
        "holes.per_square": 3,
        "holes.min_score": 0.3,
        "squares.min_score": 0.3,
    }
    return load(None, values | {key.replace("__", "."): value for key, value in changes.items()})


class Play:
    """One session without daemon, disk or clock."""

    def __init__(self, settings: Settings | None = None, *, started: bool = True, pure: bool = True) -> None:
        self.settings = settings or small()
        self.state: State = EMPTY
        self.utc = 1_000.0
        self.rows: list[tuple[int, float, ev.AnyEvent]] = []
        self.inputs: list[inp.AnyInput] = []
        self.sighting = GridSighting(turn_deg=2.0, dx=3.0, dy=-1.0, correlation=0.9)  # of a grid that came back
        self.pure = pure
        self.requests = 0
        self.frames = 0
        if started:
            self.start()
            self.hello()

    # -------------------------------------------------------------------------------- inputs

    def do(self, what: inp.AnyInput) -> list[ev.AnyEvent]:
        """One turn; the state given to it must not change, and its events must lead to the same state."""
        self.utc += 1.0
        self.inputs.append(what)
        before = encode(self.state) if self.pure else b""
        old = self.state
        events, self.state, self.answer = step(self.state, what, self.settings, self.utc)
        if self.pure:
            assert encode(old) == before, "step changed the state it was given"
        for event in events:
            self.rows.append((len(self.rows) + 1, self.utc, event))
        return events

    def start(self) -> list[ev.AnyEvent]:
        return self.do(inp.Started(session_id="session-1", version="0", models={}))

    def hello(self, *, results: tuple[CommandResult, ...] = (), grid_id: str = "G1", **fields: Any) -> Any:
        values: dict[str, Any] = {"driver": "scope", "can_pilot": True, "running": ""} | fields
        return self.do(
            inp.SaidHello(hello=Hello(protocol=1, results=results, state=ScopeState(grid_id=grid_id), **values))
        )

    def ask(self, verb: say.AnyVerb, by: str = "ada") -> list[ev.AnyEvent]:
        self.requests += 1
        return self.do(inp.Controlled(request_id=f"r{self.requests}", by=by, verb=verb))

    def result(self, status: m.ResultStatus = "done", error: ErrorKind | None = None, **fields: Any) -> Any:
        """The command under way ends."""
        values: dict[str, Any] = {"command_id": self.command.command_id, "session_id": self.state.session_id} | fields
        return self.do(inp.ResultCame(result=CommandResult(status=status, error=error, **values)))

    def frame(self, level: m.Level, x_um: float = 0.0, y_um: float = 0.0, **fields: Any) -> Frame:
        """A frame comes in; that of the command under way unless ``command_id`` says otherwise."""
        self.frames += 1
        values: dict[str, Any] = {
            "frame_id": f"F{self.frames:04d}",
            "session_id": self.state.session_id,
            "level": level,
            "stage": Stage(x_um=x_um, y_um=y_um),
            "pixel_size_angstrom": {"low": 60_000.0, "medium": 10_000.0, "high": 2.0}[level],
            "command_id": next(iter(self.state.outstanding), ""),
        }
        frame = frame_of(IMAGE, **(values | fields))
        events = self.do(inp.FrameCame(frame=frame, file=f"frames/{frame.frame_id}.tif"))
        return next((event.frame for event in events if isinstance(event, ev.FrameReceived)), frame)

    def found(self, frame: Frame, finding: Any, **fields: Any) -> list[ev.AnyEvent]:
        """A model answers."""
        values: dict[str, Any] = {"model": "model", "fingerprint": "abc", "elapsed_s": 0.1}
        return self.do(inp.Analysed(frame=frame, finding=finding, **(values | fields)))

    # -------------------------------------------------------------------------------- a microscope that works

    @property
    def command(self) -> Command:
        """The command under way."""
        (entry,) = self.state.outstanding.values()
        return entry.command

    @property
    def work(self) -> AnyWork | None:
        """What the command under way asks for."""
        return self.command.work if self.state.outstanding else None

    def finish(self) -> None:
        """Carry out the command under way, as a good microscope and a good model would."""
        work = self.work
        match work:
            case m.AcquireAtlas():
                back = self.state.grids[work.grid_id].state == "realigning"
                frame = self.frame("low", *work.positions_um[0]) if back else self.frame("low")
                self.result()
                self.found(frame, self.sighting if back else squares(frame))
            case m.MapSquare(x_um=x, y_um=y):
                frame = self.frame("medium", x, y)
                self.result()
                self.found(frame, holes(frame))
            case m.Expose() as shot:
                frame = self.frame(
                    "high", shot.x_um, shot.y_um, image_shift_um=(shot.image_shift_x_um, shot.image_shift_y_um)
                )
                self.result(dose_e_per_a2=shot.dose_e_per_a2)
                self.found(frame, QualityFinding(score=0.8, label="good"))
            case None:
                raise AssertionError(f"nothing is under way; {self.state.phase}: {self.state.why}")
            case _:
                self.result()

    def until(self, kind: type[AnyWork], area: str = "") -> Any:
        """Carry out commands until one of this kind is asked for."""
        for _ in range(60):
            if isinstance(self.work, kind) and (not area or getattr(self.work, "area_id", "") == area):
                return self.work
            self.finish()
        raise AssertionError(f"no {kind.__name__} was asked for")

    def to_the_end(self) -> None:
        """Carry out whatever is asked for until nothing is."""
        for _ in range(300):
            if not self.state.outstanding:
                return
            self.finish()
        raise AssertionError("no end")

    # -------------------------------------------------------------------------------- looking

    def issued(self) -> list[Command]:
        return [event.command for _, _, event in self.rows if isinstance(event, ev.CommandIssued)]

    def exposed(self) -> list[str]:
        return [c.work.area_id for c in self.issued() if isinstance(c.work, m.Expose)]

    def mapped(self) -> list[str]:
        return [c.work.area_id for c in self.issued() if isinstance(c.work, m.MapSquare)]

    def square(self, number: int = 1) -> Square:
        return self.state.grids["G1"].squares[f"G1-S{number:03d}"]

    def hole(self, area_id: str) -> Hole:
        hole = self.state.hole(area_id)
        assert hole is not None
        return hole

    def told(self) -> list[str]:
        return [event.text for _, _, event in self.rows if isinstance(event, ev.Noticed)]

    def check_fold(self) -> None:
        """The events, through the journal's text and back, give the very same state."""
        again = [(seq, utc, ev.decode_event(ev.encode_event(event))) for seq, utc, event in self.rows]
        assert encode(fold(again)) == encode(self.state)


def to_pixel(frame: Frame, x_um: float, y_um: float) -> tuple[float, float]:
    scale = frame.pixel_size_angstrom * 1e-4
    rows, columns = frame.shape
    return (
        (x_um - frame.stage.x_um) / scale + (columns - 1) / 2,
        (y_um - frame.stage.y_um) / scale + (rows - 1) / 2,
    )


def squares(frame: Frame, places: Any = SQUARES_UM, score: float = 0.9) -> SquareFinding:
    """Squares of 40 µm at these places on the stage, each a little worse than the one before."""
    scale = frame.pixel_size_angstrom * 1e-4
    half = 20.0 / scale
    found = []
    for n, (x_um, y_um) in enumerate(places):
        x, y = to_pixel(frame, x_um, y_um)
        corners = tuple((x + u * half, y + v * half) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
        found.append(SquareDetection(x=x, y=y, vertices=corners, score=score - 0.05 * n, area_px=(2 * half) ** 2))
    return SquareFinding(squares=tuple(found))


def holes(frame: Frame, places: Any = HOLES_UM, score: float = 0.9) -> HoleFinding:
    """Holes of 1.2 µm at these places about the frame's centre."""
    scale = frame.pixel_size_angstrom * 1e-4
    centre = [(side - 1) / 2 for side in frame.shape[::-1]]
    return HoleFinding(
        holes=tuple(
            HoleDetection(
                x=x_um / scale + centre[0], y=y_um / scale + centre[1], radius_px=0.6 / scale, score=score - 0.01 * n
            )
            for n, (x_um, y_um) in enumerate(places)
        )
    )


def gap(a: Any, b: Any) -> float:
    return math.hypot(a.x_um - b.x_um, a.y_um - b.y_um)
