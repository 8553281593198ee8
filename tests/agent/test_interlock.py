"""The last gate: refused exactly when outside, never clipped, and only one module can send a command."""

import ast
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

import agent
from agent import interlock
from agent.errors import EnvelopeError
from agent.messages import AcquireAtlas, AnyWork, Expose, Focus, Goto, LoadGrid, MapSquare, Park
from agent.settings import EnvelopeSettings
from tests.agent.samples import WORKS, command

ENVELOPE = EnvelopeSettings(
    stage_x_um=(-900.0, 800.0),
    stage_y_um=(-700.0, 600.0),
    stage_z_um=(-200.0, 100.0),
    tilt_deg=(-60.0, 50.0),
    image_shift_um=12.0,
    defocus_um=(-2.0, 4.0),
    dose_per_area_e_per_a2=80.0,
)


def near(*limits: float) -> st.SearchStrategy[float]:
    """Anything, with the limits, their neighbours and the odd numbers often among them."""
    odd = [0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e308]
    for limit in limits:
        odd += [limit, math.nextafter(limit, math.inf), math.nextafter(limit, -math.inf)]
    return st.sampled_from(odd) | st.floats() | st.floats(min(limits, default=-1.0), max(limits, default=1.0))


x, y = near(*ENVELOPE.stage_x_um), near(*ENVELOPE.stage_y_um)
defocus = near(*ENVELOPE.defocus_um)
shift = near(-12.0, 12.0)
dose = near(0.0, 80.0, 40.0)
works = st.one_of(
    st.builds(LoadGrid, grid_id=st.just("G1"), slot=st.integers(1, 12)),
    st.builds(AcquireAtlas, grid_id=st.just("G1"), positions_um=st.lists(st.tuples(x, y), max_size=4).map(tuple)),
    st.builds(MapSquare, area_id=st.just("G1-S001"), x_um=x, y_um=y),
    st.builds(Focus, area_id=st.just("G1-S001"), x_um=x, y_um=y, defocus_um=defocus),
    st.builds(
        Expose,
        area_id=st.just("G1-S001-H001"),
        x_um=x,
        y_um=y,
        image_shift_x_um=shift,
        image_shift_y_um=shift,
        defocus_um=defocus,
        dose_e_per_a2=dose,
    ),
    st.builds(
        Goto,
        x_um=x,
        y_um=y,
        z_um=st.none() | near(*ENVELOPE.stage_z_um),
        tilt_deg=st.none() | near(*ENVELOPE.tilt_deg),
    ),
    st.builds(Park),
)


def between(value: float | None, limits: tuple[float, float]) -> bool:
    return value is None or (value >= limits[0] and value <= limits[1])


def inside(work: AnyWork, dose_so_far: float) -> bool:
    """The same rule written a second way."""
    plain: dict[str, Any] = msgspec.structs.asdict(work)
    places = plain.get("positions_um") or ([(plain["x_um"], plain["y_um"])] if "x_um" in plain else [])
    good = all(between(px, ENVELOPE.stage_x_um) and between(py, ENVELOPE.stage_y_um) for px, py in places)
    good &= between(plain.get("z_um"), ENVELOPE.stage_z_um)
    good &= between(plain.get("tilt_deg"), ENVELOPE.tilt_deg)
    good &= between(plain.get("defocus_um"), ENVELOPE.defocus_um)
    if isinstance(work, Expose):
        good &= math.hypot(work.image_shift_x_um, work.image_shift_y_um) <= 12.0
        good &= 0.0 <= dose_so_far + work.dose_e_per_a2 <= 80.0
    return good


@bounded(max_examples=600, deadline=None)
@given(work=works, dose_so_far=st.sampled_from([0.0, 40.0, math.nextafter(40.0, 41.0), 80.0]) | st.floats(0, 100))
def test_a_command_is_refused_exactly_when_it_is_outside_and_is_never_changed(
    work: AnyWork, dose_so_far: float
) -> None:
    asked = command(work)
    before = repr(asked)
    try:
        result = interlock.check(asked, ENVELOPE, dose_so_far_e_per_a2=dose_so_far)  # type: ignore[func-returns-value]
    except EnvelopeError:
        assert not inside(work, dose_so_far)
    else:
        assert result is None
        assert inside(work, dose_so_far)
    assert repr(asked) == before


OUTSIDE = [
    (MapSquare(area_id="A", x_um=1204.0, y_um=0.0), "stage x 1204 µm is outside -900…800 µm (interlocks.stage_x_um)"),
    (MapSquare(area_id="A", x_um=0.0, y_um=math.nan), "stage y nan µm is outside -700…600 µm (interlocks.stage_y_um)"),
    (Goto(x_um=0.0, y_um=0.0, z_um=101.0), "stage z 101 µm is outside -200…100 µm (interlocks.stage_z_um)"),
    (Goto(x_um=0.0, y_um=0.0, tilt_deg=51.0), "tilt 51 ° is outside -60…50 ° (interlocks.tilt_deg)"),
    (Focus(area_id="A", x_um=0.0, y_um=0.0, defocus_um=5.0), "defocus 5 µm is outside -2…4 µm (interlocks.defocus_um)"),
    (
        Expose(area_id="A", x_um=0.0, y_um=0.0, image_shift_x_um=9.0, image_shift_y_um=12.0),
        "image shift 15 µm is outside 0…12 µm (interlocks.image_shift_um)",
    ),
    (
        Expose(area_id="A", x_um=0.0, y_um=0.0, dose_e_per_a2=81.0),
        "dose of the area 81 e/Å² is outside 0…80 e/Å² (interlocks.dose_per_area_e_per_a2)",
    ),
    (
        AcquireAtlas(grid_id="G1", positions_um=((0.0, 0.0), (900.0, 0.0))),
        "stage x 900 µm is outside -900…800 µm (interlocks.stage_x_um)",
    ),
]


@pytest.mark.parametrize(("work", "text"), OUTSIDE)
def test_a_refusal_names_value_limit_and_key(work: AnyWork, text: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        interlock.check(command(work), ENVELOPE)
    assert str(caught.value) == f"C000001: {text}"


def test_dose_adds_up_over_the_area() -> None:
    shot = command(Expose(area_id="A", x_um=0.0, y_um=0.0, dose_e_per_a2=50.0))
    interlock.check(shot, ENVELOPE, dose_so_far_e_per_a2=30.0)
    with pytest.raises(EnvelopeError, match=r"dose of the area 80\.5"):
        interlock.check(shot, ENVELOPE, dose_so_far_e_per_a2=30.5)


@pytest.mark.parametrize(("levels", "refused"), [(("low", "medium"), 2), (("low",), 3), ((), 4)])
def test_a_magnification_that_is_not_allowed_is_refused(levels: Any, refused: int) -> None:
    envelope = EnvelopeSettings(levels=levels)
    said = [problem for work in WORKS for problem in interlock.problems(command(work), envelope)]
    assert len(said) == refused
    assert all("interlocks.levels" in text for text in said)


def test_every_kind_of_work_passes_the_gate_or_is_known_to_move_nothing() -> None:
    """A new kind of work must be written into the gate: an envelope that allows nothing refuses all that move."""
    nothing = EnvelopeSettings(stage_x_um=(4999.0, 4999.0), stage_y_um=(4999.0, 4999.0), levels=())
    for work in WORKS:
        refused = any(interlock.problems(command(work), nothing))
        assert refused is not isinstance(work, LoadGrid | Park)


SOURCES = sorted(Path(agent.__file__).parent.rglob("*.py"))


def test_no_module_but_the_door_can_send_a_command() -> None:
    """Commands are made in one place of the session, and leave through the gate of the door only."""
    makers, senders, outbox, gates = set(), set(), set(), set()
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = path.relative_to(Path(agent.__file__).parent).as_posix()
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "Command":
                makers.add(name)
            if called == "send_multipart":
                senders.add(name)
            if called == "send" and isinstance(node.func, ast.Attribute):  # a bare send is a browser's connection
                outbox.add(name)
            if called == "_gate":
                gates.add(name)
    assert makers == {"session/turn.py"}
    assert gates == {"door.py"}
    own = {name for name in outbox if name.startswith("cli/")} | {"control.py"}  # ControlClient, not to drivers
    assert senders == {"links.py", "control.py", "watch.py"}
    assert outbox - own == {"door.py", "intake.py", "advice.py", "links.py"}
    for name in ("intake.py", "advice.py"):
        assert "Command" not in (Path(agent.__file__).parent / name).read_text(encoding="utf-8")


def test_the_door_sends_commands_in_one_place_behind_the_check() -> None:
    tree = ast.parse((Path(agent.__file__).parent / "door.py").read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    holding = {
        function.name
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "interlock"
    }
    assert holding == {"_gate"}
    gate = next(function for function in functions if function.name == "_gate")
    lines = ast.unparse(gate)
    assert lines.index("interlock.check") < lines.index("self.links.send(pilot.peer, command)")
    callers = [f.name for f in functions if f.name != "_gate" and "self._gate(" in ast.unparse(f)]
    assert callers == ["_dispatch"]
