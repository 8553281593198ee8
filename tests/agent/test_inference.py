"""The models at work: whatever a model does, the night goes on and it is said."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from agent import inference
from agent.inference import FALLBACK, PROBE_AFTER, REGISTRY, Analyst, unusable
from agent.messages import ErrorKind, Level
from agent.session.inputs import Analysed, AnalysisFailed
from agent.settings import InferenceSettings, QualitySettings
from models.base import BadImageError
from models.detections import (
    HoleDetection,
    HoleFinding,
    Lattice,
    QualityFinding,
    SquareDetection,
    SquareFinding,
)
from tests.helpers import frame_of, image_of

IMAGE = image_of(shape=(64, 64))
NAN = float("nan")
NONE: dict[Level, Any] = {
    "low": SquareFinding(squares=()),
    "medium": HoleFinding(holes=()),
    "high": QualityFinding(score=0.5, label="good"),
}


class Odd:
    """A model that does what a test wants."""

    fingerprint = "abc"

    def __init__(self, name: str, answer: Any) -> None:
        self.name = name
        self.answer = answer
        self.asked = 0

    def find(self, image: Any, pixel_size_angstrom: float | None = None, conditions: Any = None) -> Any:
        self.asked += 1
        answer = self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    judge = find


@pytest.fixture
def analyst() -> Iterator[Analyst]:
    analyst = Analyst(InferenceSettings(timeout_s=0.2))
    yield analyst
    analyst.close()


def odd(analyst: Analyst, level: Level, answer: Any, good: Any = None) -> Odd:
    """Put an odd model before a plain fallback."""
    model = Odd("odd", answer)
    analyst.models[level] = model
    analyst.fallbacks[level] = Odd(FALLBACK[level], NONE[level] if good is None else good)
    return model


def square(**fields: Any) -> SquareFinding:
    values = {"x": 1.0, "y": 1.0, "vertices": ((0.0, 0.0),), "score": 0.5, "area_px": 4.0}
    return SquareFinding(squares=(SquareDetection(**(values | fields)),))


def hole(**fields: Any) -> HoleFinding:
    return HoleFinding(holes=(HoleDetection(**({"x": 1.0, "y": 1.0, "radius_px": 2.0, "score": 0.5} | fields)),))


LATTICE = Lattice(origin=(0.0, 0.0), a=(NAN, 0.0), b=(0.0, 1.0), symmetry="square", residual_px=0.1)
NONSENSE: list[tuple[Level, Any]] = [
    ("low", RuntimeError("CUDA is out of memory")),
    ("low", MemoryError()),
    ("low", None),
    ("low", [1, 2, 3]),
    ("low", HoleFinding(holes=())),
    ("medium", SquareFinding(squares=())),
    ("high", HoleFinding(holes=())),
    ("low", square(x=NAN)),
    ("low", square(score=float("inf"))),
    ("low", square(area_px=NAN)),
    ("low", square(vertices=((NAN, 0.0),))),
    ("low", square(features={"mean": NAN})),
    ("low", square(x=1e6)),
    ("medium", hole(radius_px=NAN)),
    ("medium", hole(y=-1e9)),
    ("medium", hole(features={"edge": float("-inf")})),
    ("medium", HoleFinding(holes=(), lattice=LATTICE)),
    ("medium", HoleFinding(holes=hole().holes * 1_000_000)),
    ("high", QualityFinding(score=NAN, label="good")),
    ("high", QualityFinding(score=0.5, label="good", features={"ice": NAN})),
]


@pytest.mark.parametrize(("level", "answer"), NONSENSE, ids=[f"{n}" for n in range(len(NONSENSE))])
async def test_a_model_that_raises_or_talks_nonsense_is_replaced_and_this_is_said(
    analyst: Analyst, level: Level, answer: Any
) -> None:
    odd(analyst, level, answer)
    said = await analyst.analyse(frame_of(IMAGE, level=level), IMAGE)
    assert isinstance(said, Analysed)
    assert said.model == FALLBACK[level]
    assert said.finding == NONE[level]
    assert said.degraded.startswith("odd: ")
    assert len(said.degraded) < 400


async def test_a_model_that_hangs_is_left_behind_and_replaced(analyst: Analyst) -> None:
    release = threading.Event()
    odd(analyst, "medium", lambda: release.wait(20) and NONE["medium"])
    said = await analyst.analyse(frame_of(IMAGE, level="medium"), IMAGE)
    assert isinstance(said, Analysed)
    assert said.model == FALLBACK["medium"]
    assert "no answer within 0.2 s" in said.degraded
    release.set()


async def test_a_model_that_is_well_again_is_found_out_and_said(analyst: Analyst) -> None:
    model = odd(analyst, "low", RuntimeError("not now"))
    for _ in range(PROBE_AFTER):
        said = await analyst.analyse(frame_of(IMAGE), IMAGE)
        assert isinstance(said, Analysed)
        assert said.degraded
    assert model.asked == 1, "a model that failed is not asked for every frame"
    model.answer = NONE["low"]
    said = await analyst.analyse(frame_of(IMAGE), IMAGE)
    assert isinstance(said, Analysed)
    assert (said.model, said.degraded) == ("odd", "")


async def test_without_any_model_that_works_the_frame_is_set_aside_with_the_reason(analyst: Analyst) -> None:
    odd(analyst, "low", RuntimeError("broken"), good=ValueError("broken too"))
    said = await analyst.analyse(frame_of(IMAGE, frame_id="f-1"), IMAGE)
    assert isinstance(said, AnalysisFailed)
    assert said.error == ErrorKind.MODEL_FAILED
    assert "f-1" in said.why
    assert "ValueError: broken too" in said.why


async def test_an_image_that_no_model_can_use_is_the_images_fault(analyst: Analyst) -> None:
    odd(analyst, "low", BadImageError("image of shape (8, 8)"))
    said = await analyst.analyse(frame_of(IMAGE), IMAGE)
    assert isinstance(said, AnalysisFailed)
    assert said.error == ErrorKind.FRAME_WRONG
    assert not analyst.troubles


def with_one(image: np.ndarray, value: float) -> np.ndarray:
    image = image.copy()
    image[3, 3] = value
    return image


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (np.zeros((32, 32), np.uint16), ErrorKind.FRAME_DARK),
        (np.full((32, 32), 7, np.uint16), ErrorKind.FRAME_DARK),
        (np.full((32, 32), 65_535, np.uint16), ErrorKind.FRAME_SATURATED),
        (np.full((32, 32), 255, np.uint8), ErrorKind.FRAME_SATURATED),
        (np.full((32, 32), 127, np.int8), ErrorKind.FRAME_SATURATED),
        (with_one(np.full((32, 32), 65_535, np.uint16), 5), ErrorKind.FRAME_SATURATED),
        (with_one(np.zeros((32, 32), np.uint16), 1), ErrorKind.FRAME_DARK),
        (np.full((32, 32), np.nan, np.float32), ErrorKind.FRAME_DARK),
        (np.full((32, 32), np.inf, np.float32), ErrorKind.FRAME_DARK),
        (np.full((1, 1), 3, np.float32), ErrorKind.FRAME_DARK),
        (IMAGE, None),
        (IMAGE.astype(np.float32), None),
        (with_one(IMAGE.astype(np.float32), np.nan), None),
        (with_one(IMAGE, 65_535), None),
    ],
)
def test_images_that_show_nothing_need_no_model(image: np.ndarray, kind: ErrorKind | None) -> None:
    found = unusable(image)
    assert (found[0] if found else None) == kind


async def test_the_models_that_ship_answer_every_pixel_type(analyst: Analyst) -> None:
    analyst.settings = InferenceSettings(timeout_s=20)
    for level in ("low", "medium", "high"):
        for dtype in ("|u1", "|i1", "<u2", "<i2", "<f4"):
            image = image_of(dtype, (96, 96))
            said = await analyst.analyse(frame_of(image, level=level), image)
            assert isinstance(said, Analysed), (level, dtype, said)
            assert said.degraded == ""


def test_every_registered_model_has_a_name_of_its_own_and_a_fingerprint() -> None:
    assert set(FALLBACK.values()) <= set(REGISTRY)
    for name in set(FALLBACK.values()):
        model = inference.build(name)
        assert model.name == name
        assert model.fingerprint == inference.build(name).fingerprint
    with pytest.raises(KeyError, match="squares-mixture"):
        inference.build("nothing")


def test_what_a_frame_says_of_its_optics_comes_before_what_the_site_set() -> None:
    site = QualitySettings(voltage_kv=200.0, cs_mm=2.0, counts_per_electron=2.0, phase_plate=True)
    silent = frame_of(IMAGE, level="high", pixel_size_angstrom=1.5, dose_e_per_a2=40.0)
    conditions = inference.conditions_of(silent, site)
    assert (conditions.voltage_kv, conditions.cs_mm, conditions.phase_shift_deg) == (200.0, 2.0, None)
    assert conditions.open_beam == pytest.approx(2.0 * 40.0 * 1.5**2)
    told = frame_of(IMAGE, level="high", voltage_kv=300.0, cs_mm=2.7, open_beam_counts=77.0, dose_e_per_a2=40.0)
    conditions = inference.conditions_of(told, site)
    assert (conditions.voltage_kv, conditions.cs_mm, conditions.open_beam) == (300.0, 2.7, 77.0)
    assert inference.conditions_of(told, QualitySettings(open_beam_counts=5.0)).open_beam == 77.0
    unknown = inference.conditions_of(silent, QualitySettings())
    assert (unknown.open_beam, unknown.phase_shift_deg) == (None, 0.0)


def test_the_reference_of_one_magnification_is_not_taken_for_another() -> None:
    site = QualitySettings(open_beam_counts=45.0, open_beam_counts_medium=620.0)
    known = {
        level: inference.conditions_of(frame_of(IMAGE, level=level), site).open_beam
        for level in ("low", "medium", "high")
    }
    assert known == {"low": None, "medium": 620.0, "high": 45.0}


async def test_the_hole_finder_is_told_the_open_beam_of_the_frame(analyst: Analyst) -> None:
    seen: list[Any] = []

    class Curious(Odd):
        def find(self, image: Any, pixel_size_angstrom: float | None = None, conditions: Any = None) -> Any:
            seen.append(conditions.open_beam)
            return self.answer

    analyst.models["medium"] = Curious("curious", HoleFinding(holes=()))
    await analyst.analyse(frame_of(IMAGE, level="medium", open_beam_counts=620.0), IMAGE)
    assert seen == [620.0]


async def test_the_scorer_is_told_the_optics_of_the_frame(analyst: Analyst) -> None:
    seen: list[Any] = []

    class Curious(Odd):
        def judge(self, image: Any, pixel_size_angstrom: float | None = None, conditions: Any = None) -> Any:
            seen.append((pixel_size_angstrom, conditions.voltage_kv))
            return NONE["high"]

    analyst.models["high"] = Curious("curious", None)
    await analyst.analyse(frame_of(IMAGE, level="high", pixel_size_angstrom=1.5, voltage_kv=120.0), IMAGE)
    assert seen == [(1.5, 120.0)]
