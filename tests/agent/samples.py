"""One sample of every message, verb, work and event: what tests walk over."""

from typing import Any

from agent import control_messages as say
from agent import messages as m
from agent.session import events as ev
from agent.session.state import Decision, Group, Hole, Placement, Prior, Square, Timing
from tests.helpers import frame_of, image_of

STAGE = m.Stage(x_um=-1.5, y_um=2.25, z_um=3.0, tilt_deg=-4.0)
SCOPE = m.ScopeState(stage=STAGE, grid_id="G1", level="low", readings={"beam_current": 0.98})
WORKS: tuple[m.AnyWork, ...] = (
    m.LoadGrid(grid_id="G2", slot=3),
    m.AcquireAtlas(grid_id="G1", positions_um=((0.0, 0.0), (500.0, -500.0))),
    m.MapSquare(area_id="G1-S001", x_um=10.0, y_um=20.0, find_eucentric=False),
    m.Focus(area_id="G1-S001", x_um=11.0, y_um=21.0, defocus_um=1.5),
    m.Expose(
        area_id="G1-S001-H002",
        x_um=12.0,
        y_um=22.0,
        image_shift_x_um=1.0,
        image_shift_y_um=-2.0,
        defocus_um=1.25,
        dose_e_per_a2=40.0,
    ),
    m.Goto(x_um=1.0, y_um=2.0, z_um=3.0, tilt_deg=4.0),
    m.Park(why="every grid is done"),
)


def command(work: m.AnyWork, **fields: Any) -> m.Command:
    values: dict[str, Any] = {"command_id": "C000001", "session_id": "session-1", "epoch": 1, "timeout_s": 10.0}
    return m.Command(work=work, **(values | fields))


RESULT = m.CommandResult(
    command_id="C000001",
    session_id="session-1",
    status="failed",
    error=m.ErrorKind.DRIFT,
    message="12 nm/s",
    stage=STAGE,
    defocus_um=1.5,
    dose_e_per_a2=40.0,
    elapsed_s=3.5,
)
FRAME = frame_of(
    image_of(),
    image_shift_um=(1.0, -1.0),
    image_to_stage=(0.6, 0.0, 0.0, -0.6),
    defocus_um=1.0,
    dose_e_per_a2=2.0,
    exposure_s=0.5,
    grid_id="G1",
    area_id="G1-S001",
    command_id="C000001",
    taken_utc=1.7e9,
)
TARGET = m.Target(
    area_id="G1-S001",
    x=1.0,
    y=2.0,
    x_um=3.0,
    y_um=4.0,
    score=0.5,
    label="good",
    vertices=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),
    radius_px=4.0,
    group=2,
    why="bright",
)
FROM_DRIVER: tuple[m.Message, ...] = (
    m.Hello(protocol=1, driver="scope", software="Sim 1", can_pilot=True, results=(RESULT,), state=SCOPE),
    FRAME,
    RESULT,
    m.Heartbeat(progress=7, working_on="C000001", state=SCOPE, epoch=3),
    m.Goodbye(why="end of shift"),
    m.Taken(why="STOP pressed"),
    m.Measured(
        measured_id="visit-1",
        session_id="session-1",
        area_id="G1-S001-H001",
        ctf_resolution_angstrom=4.5,
        ice_thickness_nm=-3.0,
    ),
    m.Past(
        past_id="past-1",
        session_id="session-1",
        grid_id="P1",
        square=m.PastSquare(
            x_um=1.0,
            y_um=2.0,
            size_um=50.0,
            score=0.5,
            holes=(m.PastHole(x_um=1.0, y_um=2.0, radius_um=0.6, score=0.9, ctf_resolution_angstrom=4.0),),
        ),
    ),
    m.Look(request_id="look-1", grid_ids=("G1",), square_ids=("G1-S001",), learn_from=("G0",), order=True),
)
TO_DRIVER: tuple[m.Message, ...] = (
    m.Welcome(protocol=1, session_id="s", epoch=2, heartbeat_s=1.0, safe_after_s=30.0, finished=("C000001",)),
    m.Refused(reason="no", retry=True, about="frame-1"),
    m.Accepted(about="frame-1", seq=12),
    *(command(work) for work in WORKS),
    m.Cancel(command_id="C000001", epoch=2, why="skipped"),
    m.Safe(why="fault", epoch=2),
    m.Release(epoch=2),
    m.View(
        request_id="look-1",
        seq=12,
        phase="collecting",
        squares=(m.SquareSeen(area_id="G1-S001", score=0.9, state="found", expected_good=3.5, sigma=1.0),),
        holes=(m.HoleSeen(area_id="G1-S001-H001", score=0.8, state="done", visited=True, ctf_angstrom=4.0),),
        order=("G1-S001",),
    ),
    m.Targets(frame_id="frame-1", level="low", targets=(TARGET,), model="mixture", note="few", degraded=True),
    m.Heartbeat(progress=7),
)
EVENT_LINE = m.Event(seq=1, utc=1.7e9, name="noticed", text="hello", area_id="G1-S001", by="ada")
PUBLISHED: tuple[m.Message, ...] = (
    EVENT_LINE,
    m.Detections(
        frame_id="frame-1",
        area_id="G1-S001-H001",
        detector="gold",
        objects=(m.DetectedObject(x=1.0, y=2.0, diameter_nm=10.0, group="10 nm", score=0.9),),
        values={"score": 0.5},
        label="good",
    ),
    TO_DRIVER[-2],
    TO_DRIVER[-1],
)
VERBS: tuple[say.AnyVerb, ...] = (
    say.Pause(now=True),
    say.Resume(),
    say.Stop(after="square"),
    say.Abort(),
    say.EmergencyStop(why="smoke"),
    say.Clear(),
    say.Skip(area_id="G1-S001"),
    say.Accept(area_ids=("G1-S001", "G1-S002")),
    say.Reject(area_ids=("G1-S001-H001",)),
    say.AddTarget(x_um=1.0, y_um=2.0, square_id="G1-S001"),
    say.MoveTarget(area_id="G1-S001", x_um=1.0, y_um=2.0),
    say.Rerank(area_id="G1-S001", priority=5),
    say.Pin(area_ids=("G1-S001-H001",)),
    say.Ban(area_ids=("G1-S001",)),
    say.SetBudget(area_id="G1-S001", exposures=3),
    say.Like(area_id="G1-S001-H001", more=False),
    say.SetThreshold(name="hole_score", value=0.5),
    say.SetAutonomy(level="approve"),
    say.SetMode(mode="advisor"),
    say.GoTo(x_um=1.0, y_um=2.0),
    say.Undo(),
    say.GetStatus(),
    say.GetEvents(after=3, most=5),
    say.GetAreas(square_id="G1-S001"),
)
STATUS = say.Status(
    session_id="s",
    epoch=1,
    phase="collecting",
    why="",
    mode="pilot",
    autonomy="approve",
    driver="scope",
    driver_well=True,
    agent_well=True,
    suspensions={"link": "silent"},
    grid_id="G1",
    working_on="",
    counts={"frames": 1},
    thresholds={"hole_score": 0.3},
    spent={"hours": 0.5},
    degraded="",
    last_seq=3,
    folder="/tmp/s",
    uptime_s=1.0,
)
REPLIES = (
    say.Reply(
        request_id="r",
        ok=True,
        text="done",
        status=STATUS,
        events=(EVENT_LINE,),
        areas=(say.Area(area_id="G1-S001", x_um=0.0, y_um=0.0, score=0.5, label="good", state="found", why="", by=""),),
        seq=4,
    ),
)

PLACEMENT = Placement(matrix=(1.0, -0.01, 0.01, 1.0), x_um=12.0, y_um=-8.0)
DECISION = Decision(why="because", by="ada", model="m", fingerprint="f", config="c", frame_id="frame-1", score=0.5)
HOLE = Hole(area_id="G1-S001-H001", x_um=1.0, y_um=2.0, radius_um=0.6, score=0.9, features={"step": 1.0}, group=1)
GROUP = Group(number=1, x_um=1.0, y_um=2.0, focus_x_um=2.0, focus_y_um=3.0, hole_ids=("G1-S001-H001",))
SQUARE = Square(
    area_id="G1-S001",
    x_um=0.0,
    y_um=0.0,
    size_um=50.0,
    vertices_um=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),
    score=0.8,
    holes={HOLE.area_id: HOLE},
    groups={1: GROUP},
)
EVENTS: tuple[ev.AnyEvent, ...] = (
    ev.SessionOpened(
        session_id="s",
        name="night",
        config="c",
        version="0",
        mode="pilot",
        autonomy="approve",
        thresholds={"hole_score": 0.3},
        grids=(("G1", None), ("G2", 2)),
        models={"low": "m f"},
    ),
    ev.PriorRead(
        prior=Prior(
            offset=(-0.1, 0.2),
            hole_weights={"score": (0.1, 0.05)},
            timings={"expose": Timing(count=3, mean_s=20.0)},
            source="sessions/last",
        )
    ),
    ev.EpochBegan(epoch=2, config="c", version="0"),
    ev.DriverJoined(driver="scope", software="Sim", can_pilot=True, state=SCOPE),
    ev.DriverLeft(driver="scope", why="silent"),
    ev.Suspended(cause="link", detail="waiting"),
    ev.Unsuspended(cause="link"),
    ev.PhaseChanged(phase="paused", why="paused by ada", by="ada"),
    ev.FrameReceived(frame=FRAME, file="frames/low/frame-1.tif", grid_id="G1", area_id=""),
    ev.FrameSetAside(frame_id="frame-1", error=m.ErrorKind.FRAME_DARK, why="dark"),
    ev.GridAdded(grid_id="G3"),
    ev.GridChanged(grid_id="G1", state="loaded", decision=DECISION),
    ev.GridSteered(grid_id="G1", word="accepted", decision=DECISION),
    ev.GridSighted(
        grid_id="G1",
        frame_id="frame-2",
        like="frame-1",
        model="realign-grid",
        fingerprint="1",
        placement=PLACEMENT,
        correlation=0.8,
        decision=DECISION,
    ),
    ev.AreaMeasured(
        measured_id="visit-1", area_id="G1-S001-H001", ctf_resolution_angstrom=4.5, quality=0.6, label="good"
    ),
    ev.ObjectsDetected(
        area_id="G1-S001-H001",
        frame_id="frame-1",
        detector="gold",
        fingerprint="f",
        objects=(m.DetectedObject(x=1.0, y=2.0, diameter_nm=6.1, group="6 nm", score=0.9),),
        counts={"6 nm": 1},
        doubt="few",
        elapsed_s=0.1,
    ),
    ev.SquareFavoured(area_id="G1-S001", rule="gold 6 nm", priority=2, more_exposures=3, decision=DECISION),
    ev.PastRecalled(past_id="past-1", grid_id="P1", square=SQUARE, decision=DECISION),
    ev.OrderGiven(driver="leginon", order=("G1-S001", "G1-S002"), decision=DECISION),
    ev.SquaresFound(grid_id="G1", frame_id="frame-1", model="m", fingerprint="f", squares=(SQUARE,), note="few"),
    ev.HolesFound(square_id="G1-S001", frame_id="frame-1", model="m", fingerprint="f", holes=(HOLE,), lattice="square"),
    ev.GroupsPlanned(square_id="G1-S001", groups=(GROUP,), decision=DECISION),
    ev.MicrographJudged(
        area_id="G1-S001-H001",
        frame_id="frame-1",
        model="m",
        fingerprint="f",
        score=0.5,
        label="good",
        features={"contrast": 1.0},
    ),
    ev.AreaChanged(area_id="G1-S001", state="mapped", decision=DECISION),
    ev.AreaPlaced(area=SQUARE, request="add", decision=DECISION),
    ev.AreaPlaced(area=HOLE, request="add", decision=DECISION),
    ev.Remembered(what="accepted G1-S001", before=(SQUARE, HOLE)),
    ev.UndoneOnce(by="ada"),
    *(ev.Requested(request_id=f"r{n}", by="ada", verb=verb) for n, verb in enumerate(VERBS)),
    ev.SettingChanged(name="hole_score", before="0.3", after="0.5", by="ada"),
    *(ev.CommandIssued(command=command(work), area_id="", decision=DECISION) for work in WORKS),
    ev.CommandCancelled(command_id="C000001", why="skipped"),
    ev.CommandEnded(result=RESULT, area_id="G1-S001-H001"),
    ev.ErrorCounted(error=m.ErrorKind.DRIFT, area_id="G1-S001-H001", why="12 nm/s", will="try again"),
    ev.ErrorsForgiven(errors=("drift",)),
    ev.SafeOrdered(why="fault"),
    ev.Released(),
    ev.DegradedChanged(text="holes-template: RuntimeError"),
    ev.IdleTold(text="nothing for 600 s"),
    ev.Noticed(severity="alarm", text="look"),
)
