"""Any order of words, frames, findings, results, losses and restarts: what must hold, holds."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent import control_messages as say
from agent import messages as m
from agent.messages import ErrorKind, ScopeState
from agent.session import NotPossibleError, State, advance
from agent.session import events as ev
from agent.session import inputs as inp
from agent.session.state import Hole, Square, square_of
from models.detections import HoleFinding, QualityFinding, SquareFinding
from tests.agent.play import SQUARES_UM, Play, holes, small, squares

index = st.integers(0, 60)
place = st.floats(-15, 15)
CAREFUL = ("collecting", "stopping")


class Night(RuleBasedStateMachine):
    """One session with a microscope, models and an operator who do as they like."""

    @initialize(
        autonomy=st.sampled_from(["unattended", "unattended", "approve", "suggest"]),
        per_square=st.integers(0, 4),
        shift=st.sampled_from([0.0, 5.0, 8.0]),
        progress=st.integers(0, 9),
    )
    def begin(self, autonomy: str, per_square: int, shift: float, progress: int) -> None:
        self.play = Play(
            small(session__autonomy=autonomy, holes__per_square=per_square, holes__max_image_shift_um=shift),
            started=False,
        )
        self.frames: dict[str, Any] = {}
        self.ever: set[str] = set()
        self.now: set[str] = set()
        self.turn(lambda: self.play.start())
        self.turn(lambda: self.play.hello())
        self.work(progress)

    # ---------------------------------------------------------------------------- the frame of every rule

    def areas(self) -> dict[str, Square | Hole]:
        found: dict[str, Square | Hole] = {}
        for grid in self.play.state.grids.values():
            for square in grid.squares.values():
                found[square.area_id] = square
                found.update(square.holes)
        return found

    def turn(self, act: Any, *, operator: bool = False) -> None:
        before, known, rows = self.play.state, self.areas(), len(self.play.rows)
        try:
            act()
        except NotPossibleError:
            assert self.play.state is before
            return
        state = before
        for seq, utc, event in self.play.rows[rows:]:
            if isinstance(event, ev.CommandIssued):
                self.check_command(state, event)
            state = advance(state, event, seq=seq, utc=utc)
        if not operator:
            self.check_words(known)
        after = set(self.areas())
        assert not (after - self.now) & self.ever, "an id was used again"
        self.ever |= after
        self.now = after

    def check_command(self, state: State, event: ev.CommandIssued) -> None:
        work = event.command.work
        assert not state.outstanding, "one command at a time"
        if isinstance(work, m.Goto):
            assert state.phase in ("paused", "idle")
            return
        assert state.phase in CAREFUL
        if isinstance(work, m.Park):
            assert state.phase == "stopping" or state.autonomy == "approve"  # waiting for a word, off the beam
            return
        assert not state.suspensions
        assert state.driver
        assert state.autonomy != "suggest"
        area = state.area(getattr(work, "area_id", "")) if hasattr(work, "area_id") else None
        if area is not None:
            assert area.word != "rejected", f"{area.area_id} was rejected"
            square = state.square(area.area_id)
            assert square is not None
            assert square.word != "rejected"
        if isinstance(work, m.Expose):
            assert isinstance(area, Hole)
            assert area.dose_e_per_a2 == 0
            assert not area.frame_id
            assert abs(work.x_um + work.image_shift_x_um - area.x_um) < 1e-3
            assert abs(work.y_um + work.image_shift_y_um - area.y_um) < 1e-3
            limit = self.play.settings.holes.max_image_shift_um
            assert (work.image_shift_x_um**2 + work.image_shift_y_um**2) ** 0.5 <= limit + 1e-3

    def check_words(self, known: dict[str, Square | Hole]) -> None:
        """What an operator said stands after everything that was no operator's word."""
        now = self.areas()
        for area_id, old in known.items():
            if old.word or old.priority:
                new = now[area_id]
                assert (new.word, new.priority, new.x_um, new.y_um) == (old.word, old.priority, old.x_um, old.y_um)
                if old.word == "rejected":
                    assert new.state not in ("queued", "mapped", "found")

    def some(self, n: int, *, hole: bool | None = None) -> str:
        ids = sorted(i for i, a in self.areas().items() if hole is None or isinstance(a, Hole) is hole)
        return ids[n % len(ids)] if ids else "G1-S001"

    # ---------------------------------------------------------------------------- the operator

    def ask(self, verb: say.AnyVerb) -> None:
        self.turn(lambda: self.play.ask(verb), operator=True)

    @rule(n=st.lists(index, min_size=1, max_size=3), accept=st.booleans())
    def word(self, n: list[int], accept: bool) -> None:
        ids = tuple(dict.fromkeys(self.some(i) for i in n))
        self.ask(say.Accept(area_ids=ids) if accept else say.Reject(area_ids=ids))

    @rule(n=index, x=place, y=place, inside=st.booleans())
    def add(self, n: int, x: float, y: float, inside: bool) -> None:
        square = self.play.state.area(self.some(n, hole=False)) if inside else None
        if isinstance(square, Square):
            self.ask(say.AddTarget(x_um=square.x_um + x, y_um=square.y_um + y, square_id=square.area_id))
        else:
            self.ask(say.AddTarget(x_um=10 * x, y_um=10 * y))

    @rule(n=index, x=place, y=place)
    def move(self, n: int, x: float, y: float) -> None:
        area = self.play.state.area(self.some(n))
        if area is not None:
            self.ask(say.MoveTarget(area_id=area.area_id, x_um=area.x_um + x, y_um=area.y_um + y))

    @rule(n=index, priority=st.integers(-3, 3))
    def rerank(self, n: int, priority: int) -> None:
        self.ask(say.Rerank(area_id=self.some(n), priority=priority))

    @rule(n=index, named=st.booleans())
    def skip(self, n: int, named: bool) -> None:
        self.ask(say.Skip(area_id=self.some(n) if named else ""))

    @rule()
    def undo(self) -> None:
        depth = len(self.play.state.undo)
        self.ask(say.Undo())
        assert len(self.play.state.undo) in (depth, depth - 1)

    @rule(
        name=st.sampled_from(["square_score", "hole_score", "squares_per_grid", "exposures_per_square"]),
        value=st.sampled_from([0.0, 0.3, 0.86, 1.0]),
        many=st.integers(0, 6),
    )
    def threshold(self, name: Any, value: float, many: int) -> None:
        self.ask(say.SetThreshold(name=name, value=value if name.endswith("score") else float(many)))

    @rule(
        verb=st.sampled_from(
            [
                say.Pause(),
                say.Pause(now=True),
                say.Resume(),
                say.Resume(),
                say.Resume(),
                say.Clear(),
                say.EmergencyStop(),
                say.SetAutonomy(level="approve"),
                say.SetAutonomy(level="unattended"),
                say.SetAutonomy(level="unattended"),
                say.SetMode(mode="advisor"),
                say.SetMode(mode="pilot"),
                say.SetMode(mode="pilot"),
                say.GoTo(x_um=3.0, y_um=4.0),
            ]
        )
    )
    def lead(self, verb: say.AnyVerb) -> None:
        self.ask(verb)

    @rule(verb=st.sampled_from([say.Stop(), say.Stop(after="square"), say.Abort()]), really=st.integers(0, 6))
    def stop(self, verb: say.AnyVerb, really: int) -> None:
        if really == 0:
            self.ask(verb)

    # ---------------------------------------------------------------------------- microscope and models

    @rule(times=st.integers(1, 6))
    def go_on(self, times: int) -> None:
        """Everything is well again, and the session goes on for a while."""
        play = self.play
        if play.state.phase == "stopped":
            return
        self.turn(lambda: play.do(inp.Held(cause="disk")))
        self.turn(lambda: play.do(inp.Reported(state=ScopeState(valves_open=True))))
        self.turn(lambda: play.hello(running=next(iter(play.state.outstanding), "")))
        self.ask(say.Clear())
        self.ask(say.SetMode(mode="pilot"))
        self.ask(say.Resume())
        for pending in [i for i in play.state.pending if i in self.frames]:
            frame = self.frames[pending]
            if frame.level == "medium":
                self.turn(lambda frame=frame: play.found(frame, holes(frame)))
            else:
                failed = inp.AnalysisFailed(frame_id=pending, error=ErrorKind.MODEL_FAILED, why="no")
                self.turn(lambda failed=failed: play.do(failed))
        self.work(times)

    @precondition(lambda self: self.play.state.outstanding)
    @rule(times=st.integers(1, 6))
    def work(self, times: int) -> None:
        for _ in range(times):
            if self.play.state.outstanding and not self.play.state.pending:
                self.turn(self.play.finish)

    @precondition(lambda self: self.play.state.outstanding)
    @rule(
        status=st.sampled_from(["done", "failed", "refused", "cancelled", "unknown"]),
        error=st.none() | st.sampled_from(list(ErrorKind)),
        dose=st.sampled_from([None, 0.0, 40.0]),
    )
    def end(self, status: Any, error: ErrorKind | None, dose: float | None) -> None:
        if status == "cancelled" and dose is None:
            dose = 0.0
        self.turn(lambda: self.play.result(status, error, dose_e_per_a2=dose))

    @rule(level=st.sampled_from(m.LEVELS), n=index, asked=st.booleans())
    def frame(self, level: m.Level, n: int, asked: bool) -> None:
        x, y = SQUARES_UM[n % 3]
        more: dict[str, Any] = {} if asked else {"command_id": ""}
        if not asked and level == "high":
            more["dose_e_per_a2"] = 40.0

        def act() -> None:
            frame = self.play.frame(level, x, y, **more)
            self.frames[frame.frame_id] = frame

        self.turn(act)

    @precondition(lambda self: any(i in self.frames for i in self.play.state.pending))
    @rule(n=index, much=st.integers(0, 9), fails=st.sampled_from([None, None, None, *ErrorKind]))
    def answer(self, n: int, much: int, fails: ErrorKind | None) -> None:
        pending = sorted(i for i in self.play.state.pending if i in self.frames)
        frame = self.frames[pending[n % len(pending)]]
        if fails is not None:
            self.turn(lambda: self.play.do(inp.AnalysisFailed(frame_id=frame.frame_id, error=fails, why="no")))
            return
        finding: Any
        if frame.level == "low":
            finding = squares(frame, SQUARES_UM[: much % 4]) if much else SquareFinding(squares=())
        elif frame.level == "medium":
            shifted = [(4.0 * (i % 3) - 4, 4.0 * (i // 3) - 4) for i in range(much)]
            finding = holes(frame, shifted) if much else HoleFinding(holes=())
        else:
            finding = QualityFinding(score=much / 9, label="good" if much > 4 else "dark" if much < 2 else "dirty")
        self.turn(lambda: self.play.found(frame, finding, degraded="slow" if much == 7 else ""))

    # ---------------------------------------------------------------------------- the world

    @rule(what=st.sampled_from(["left", "hello", "hello", "restart", "trip", "clear", "valves", "tick", "taken"]))
    def world(self, what: str) -> None:
        play = self.play
        acts: dict[str, Any] = {
            "left": lambda: play.do(inp.Left(driver="scope", why="silent")),
            "hello": lambda: play.hello(running=next(iter(play.state.outstanding), "")),
            "restart": play.start,
            "trip": lambda: play.do(inp.Held(cause="disk", detail="full")),
            "clear": lambda: play.do(inp.Held(cause="disk")),
            "valves": lambda: play.do(inp.Reported(state=ScopeState(valves_open=play.utc % 2 == 0))),
            "tick": lambda: play.do(inp.Tick()),
            "taken": lambda: play.do(inp.TakenOver(why="STOP")),
        }
        self.turn(acts[what])

    @precondition(lambda self: self.play.state.outstanding)
    @rule()
    def overdue(self) -> None:
        self.turn(lambda: self.play.do(inp.Overdue(command_id=self.play.command.command_id)))

    # ---------------------------------------------------------------------------- what always holds

    @invariant()
    def one_command_at_a_time(self) -> None:
        assert len(self.play.state.outstanding) <= 1

    @invariant()
    def no_hole_is_shot_twice_with_dose(self) -> None:
        dosed: dict[str, float] = {}
        for _, _, event in self.play.rows:
            if isinstance(event, ev.CommandIssued) and isinstance(event.command.work, m.Expose):
                assert not dosed.get(event.command.work.area_id)
            elif isinstance(event, ev.CommandEnded) and event.result.dose_e_per_a2 and event.area_id:
                dosed[event.area_id] = event.result.dose_e_per_a2

    @invariant()
    def groups_hold_only_holes_that_there_are(self) -> None:
        for square in self.play.state.grids["G1"].squares.values():
            members = [i for group in square.groups.values() for i in group.hole_ids]
            assert len(members) == len(set(members))
            assert set(members) <= set(square.holes)

    def teardown(self) -> None:
        if not hasattr(self, "play"):
            return
        self.play.check_fold()
        self.settle()

    def settle(self) -> None:
        """Whatever happened: a patient operator brings it to its end, with a microscope that works again."""
        play = self.play
        for pending in list(play.state.pending):
            play.do(inp.AnalysisFailed(frame_id=pending, error=ErrorKind.MODEL_FAILED, why="end of test"))
        play.do(inp.Held(cause="disk"))
        play.do(inp.Reported(state=ScopeState(valves_open=True)))
        if not play.state.driver:
            play.hello(running=next(iter(play.state.outstanding), ""))
        if play.state.phase == "fault":
            play.ask(say.Clear())
        if play.state.phase != "stopped":
            play.ask(say.Stop())
        for _ in range(5):
            if play.state.outstanding:
                play.result("done") if isinstance(play.work, m.Park) else play.result("cancelled", dose_e_per_a2=0.0)
        if play.state.mode == "advisor" and play.state.phase != "stopped":
            play.ask(say.SetMode(mode="pilot"))
            play.result("done")
        assert play.state.phase == "stopped"
        assert square_of("G1-S001-H001") == "G1-S001"


Night.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestNight = Night.TestCase
