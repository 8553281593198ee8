"""Detectors beside the quality of a micrograph: what they find is kept, told, shown, and may steer."""

import pytest

from agent import inference
from agent.answers import detections_for
from agent.inference import Analyst, build_detector
from agent.messages import Expose
from agent.session import events as ev
from agent.session import inputs as inp
from agent.settings import InferenceSettings
from agent.words import text_of
from models.detections import MarkedObject, ObjectFinding, QualityFinding
from tests.agent.play import Play, small
from tests.helpers import frame_of, image_of


def found(n: int) -> tuple[inp.Detected, ...]:
    objects = tuple(MarkedObject(x=float(k), y=2.0, diameter_nm=12.0, group="12 nm") for k in range(n))
    return (inp.Detected("gold", "f", ObjectFinding(objects=objects, counts={"12 nm": n, "6 nm": 1}), 0.1),)


class Rich(Play):
    """A session whose micrographs all show ``n`` particles of 12 nm."""

    n = 4

    def do(self, what: inp.AnyInput) -> list[ev.AnyEvent]:
        if isinstance(what, inp.Analysed) and isinstance(what.finding, QualityFinding):
            what = inp.Analysed(
                frame=what.frame, finding=what.finding, model=what.model, fingerprint=what.fingerprint,
                elapsed_s=0.1, detected=found(self.n),
            )  # fmt: skip
        return super().do(what)


def test_what_a_detector_found_stays_with_its_hole_and_adds_up_for_its_square() -> None:
    play = Rich()
    play.to_the_end()
    shot = play.exposed()
    assert all(play.hole(area).detected == {"gold 12 nm": 4, "gold 6 nm": 1} for area in shot)
    square = play.state.square("G1-S001")
    assert square is not None
    assert square.all_detected == {"gold 12 nm": 12, "gold 6 nm": 3}
    assert square.more_exposures == 0
    play.check_fold()


def test_a_square_rich_in_gold_gets_more_exposures_once() -> None:
    rule = {"what": "gold 12 nm", "at_least": 8, "more_exposures": 4, "priority": 3}
    play = Rich(small(squares__rich=[rule], holes__per_square=2))
    play.to_the_end()
    favoured = [e for _, _, e in play.rows if isinstance(e, ev.SquareFavoured)]
    assert [e.area_id for e in favoured] == ["G1-S001", "G1-S002"]
    shots = [c.work.area_id for c in play.issued() if isinstance(c.work, Expose)]
    assert [sum(area.startswith(s) for area in shots) for s in ("G1-S001", "G1-S002")] == [6, 6]
    square = play.state.square("G1-S001")
    assert square is not None
    assert square.priority == 3
    assert "8 gold 12 nm" in favoured[0].decision.why
    play.check_fold()


def test_a_square_that_is_not_rich_gets_its_usual_number() -> None:
    rule = {"what": "gold 12 nm", "at_least": 9, "more_exposures": 4}
    play = Rich(small(squares__rich=[rule], holes__per_square=2))
    play.to_the_end()
    assert not [e for _, _, e in play.rows if isinstance(e, ev.SquareFavoured)]
    assert len(play.exposed()) == 4


def test_watchers_are_told_positions_and_numbers_by_size() -> None:
    play = Rich()
    play.to_the_end()
    event = next(e for _, _, e in play.rows if isinstance(e, ev.ObjectsDetected))
    told = detections_for(event)
    assert told is not None
    assert told.detector == "gold"
    assert told.values == {"12 nm": 4.0, "6 nm": 1.0}
    assert [o.x for o in told.objects] == [0.0, 1.0, 2.0, 3.0]
    assert text_of(event) == f"gold in {event.area_id}: 4 12 nm, 1 6 nm"


class Stub:
    """A detector that does what a test wants."""

    name, fingerprint = "gold", "abc"

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def detect(self, image: object, pixel_size_angstrom: float | None = None) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


HIGH = frame_of(image_of(shape=(64, 64)), level="high")


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("no"),
        None,
        ObjectFinding(objects=(MarkedObject(x=float("nan"), y=0.0),)),
        ObjectFinding(objects=(MarkedObject(x=0.0, y=0.0),) * 20_001),
    ],
    ids=["raises", "none", "nan", "too-many"],
)
async def test_a_detector_that_fails_costs_its_finding_and_no_more(answer: object) -> None:
    analyst = Analyst(InferenceSettings())
    analyst.detectors = {"gold": Stub(answer)}  # type: ignore[dict-item]
    try:
        what = await analyst.analyse(HIGH, image_of(shape=(64, 64)))
        assert isinstance(what, inp.Analysed)
        assert isinstance(what.finding, QualityFinding)
        assert what.detected == ()
        assert what.degraded.startswith("gold: ")
        analyst.detectors = {"gold": Stub(ObjectFinding(counts={"6 nm": 0}))}  # type: ignore[dict-item]
        what = await analyst.analyse(HIGH, image_of(shape=(64, 64)))
        assert isinstance(what, inp.Analysed)
        assert (len(what.detected), what.degraded) == (1, "")
    finally:
        analyst.close()


def test_an_unknown_detector_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="there are gold"):
        build_detector("silver", InferenceSettings())


async def test_weights_that_are_not_there_are_told_and_the_night_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inference.DETECTORS, "gold", "tests.agent.test_detectors:Missing")
    analyst = Analyst(InferenceSettings(detectors=("gold",)))
    analyst.close()
    assert "no weights" in analyst.troubles["gold"]
    assert type(analyst.detectors["gold"]).__name__ == "ClassicalGold"  # the published rules need none


class Missing:
    """A detector without weights."""

    def __init__(self, sizes_nm: tuple[float, ...]) -> None:
        raise FileNotFoundError("no weights")
