"""The models at work: which model answers a frame, in which thread, for how long, and what happens when it cannot."""

import asyncio
import importlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from agent.messages import ErrorKind, Frame, Level
from agent.session import inputs as inp
from agent.settings import InferenceSettings, QualitySettings
from models import registration, runtime
from models.base import BadImageError, ObjectDetector
from models.conditions import Conditions
from models.detections import HoleFinding, ObjectFinding, QualityFinding, SquareFinding

log = structlog.get_logger("inference")

# The models that a config may name, and for each level the one that needs nothing but numpy and OpenCV.
REGISTRY: dict[str, str] = {
    "squares-mixture": "models.squares:MixtureSquareFinder",
    "squares-net": "models.squares.learned:NetSquareFinder",
    "holes-template": "models.holes:TemplateHoleFinder",
    "holes-net": "models.holes.learned:NetHoleFinder",
    "quality-simple": "models.quality:SimpleQualityScorer",
    "quality-ctf": "models.quality:CtfQualityScorer",
}
FALLBACK: dict[Level, str] = {"low": "squares-mixture", "medium": "holes-template", "high": "quality-simple"}
# What answers where nothing else is said: in sessions as on the command line.
BEST: dict[Level, str] = {"low": InferenceSettings().squares, "medium": InferenceSettings().holes}
# Detectors that a config may ask for beside the quality of each high-mag frame.
DETECTORS: dict[str, str] = {"gold": "models.gold.live:LiveGold", "vesicles": "models.vesicles.live:LiveVesicles"}
DETECTOR_FALLBACK: dict[str, str] = {"gold": "models.gold.live:ClassicalGold"}  # needs no weights
PROBE_AFTER = 20  # a model that failed is tried again after so many frames
MOST_DETECTIONS = 20_000
Finding = SquareFinding | HoleFinding | QualityFinding
ANSWERS: dict[Level, type[Finding]] = {"low": SquareFinding, "medium": HoleFinding, "high": QualityFinding}


class AnyModel(Protocol):
    """What a finder and a scorer share."""

    @property
    def name(self) -> str:
        """Name in configs and records."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings."""
        ...


def build(name: str, weights: Path | None = None) -> AnyModel:
    """The model of that name; with the manifest of other weights, a learned one on these.

    Raises
    ------
    KeyError
        If there is no such model; the text lists those that there are.
    """
    if name not in REGISTRY:
        raise KeyError(f"no model {name!r}; there are {', '.join(sorted(REGISTRY))}")
    module, _, attribute = REGISTRY[name].partition(":")
    model: AnyModel = getattr(importlib.import_module(module), attribute)(*([weights] if weights else []))
    return model


def build_detector(name: str, settings: InferenceSettings, table: dict[str, str] = DETECTORS) -> ObjectDetector:
    """The detector of that name in a table of them, with what the settings say about it.

    Raises
    ------
    KeyError
        If there is no such detector; the text lists those that there are.
    """
    if name not in table:
        raise KeyError(f"no detector {name!r}; there are {', '.join(sorted(table))}")
    module, _, attribute = table[name].partition(":")
    options = {"gold": {"sizes_nm": settings.gold_sizes_nm}}.get(name, {})
    detector: ObjectDetector = getattr(importlib.import_module(module), attribute)(**options)
    _ = detector.fingerprint  # weights are loaded now, not at the first frame
    return detector


def detect(detector: ObjectDetector, image: NDArray[Any], pixel_size_angstrom: float | None) -> ObjectFinding:
    """The detector's answer, checked as that of a model is."""
    finding = detector.detect(image, pixel_size_angstrom)
    if not isinstance(finding, ObjectFinding):
        raise TypeError(f"{detector.name} gave a {type(finding).__name__}; an ObjectFinding is expected")
    if len(finding.objects) > MOST_DETECTIONS:
        raise ValueError(
            f"{detector.name} gave {len(finding.objects)} objects; more than {MOST_DETECTIONS} are nonsense"
        )
    if not np.isfinite(list(_numbers(msgspec.to_builtins(finding)))).all():
        raise ValueError(f"{detector.name} gave numbers that are not finite")
    return finding


def conditions_of(frame: Frame, settings: QualitySettings) -> Conditions:
    """How a frame was taken: what it says itself, else what the site set."""
    open_beam = frame.open_beam_counts
    if open_beam is None and settings.counts_per_electron is not None and frame.dose_e_per_a2:
        open_beam = settings.counts_per_electron * frame.dose_e_per_a2 * frame.pixel_size_angstrom**2
    return Conditions(
        voltage_kv=settings.voltage_kv if frame.voltage_kv is None else frame.voltage_kv,
        cs_mm=settings.cs_mm if frame.cs_mm is None else frame.cs_mm,
        amplitude_contrast=settings.amplitude_contrast,
        phase_shift_deg=None if settings.phase_plate else 0.0,
        open_beam=_reference(frame.level, settings) if open_beam is None else open_beam,
        mean_free_path_nm=settings.mean_free_path_nm,
        vitreous=settings.vitreous,
    )


def _reference(level: Level, settings: QualitySettings) -> float | None:
    """What the site measured for frames of this level through an empty hole."""
    return {"medium": settings.open_beam_counts_medium, "high": settings.open_beam_counts}.get(level)


def ask(
    model: Any,
    level: Level,
    image: NDArray[Any],
    pixel_size_angstrom: float | None,
    conditions: Conditions | None = None,
) -> Finding:
    """The model's answer, checked: finite numbers inside a sane range, not too many of them."""
    finding: Finding
    if level == "low":
        finding = model.find(image, pixel_size_angstrom)
    else:
        look = model.judge if level == "high" else model.find
        finding = look(image, pixel_size_angstrom, conditions)
    if not isinstance(finding, ANSWERS[level]):
        raise TypeError(f"{model.name} gave a {type(finding).__name__}; a {ANSWERS[level].__name__} is expected")
    if not isinstance(finding, QualityFinding):
        items = finding.squares if isinstance(finding, SquareFinding) else finding.holes
        if len(items) > MOST_DETECTIONS:
            raise ValueError(f"{model.name} gave {len(items)} detections; more than {MOST_DETECTIONS} are nonsense")
        rows, columns = image.shape
        margin = max(rows, columns)
        for item in items:
            if not (-margin <= item.x <= columns + margin and -margin <= item.y <= rows + margin):
                raise ValueError(f"{model.name} gave a detection at ({item.x}, {item.y}), far outside the image")
    if not np.isfinite(list(_numbers(msgspec.to_builtins(finding)))).all():
        raise ValueError(f"{model.name} gave numbers that are not finite")
    return finding


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float | int):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)


def unusable(image: NDArray[Any]) -> tuple[ErrorKind, str] | None:
    """Why no model needs to look at this image: all dark, all saturated, nothing finite."""
    sample = np.ascontiguousarray(image[:: max(1, image.shape[0] // 512), :: max(1, image.shape[1] // 512)])
    if np.issubdtype(sample.dtype, np.floating):
        finite = np.isfinite(sample)
        if not finite.any():
            return ErrorKind.FRAME_DARK, "no finite pixel"
        sample = sample[finite]
    low, high = float(sample.min()), float(sample.max())
    if low == high:
        top = np.iinfo(sample.dtype).max if np.issubdtype(sample.dtype, np.integer) else np.inf
        kind = ErrorKind.FRAME_SATURATED if high >= top else ErrorKind.FRAME_DARK
        return kind, f"every pixel is {high:g}"
    if np.issubdtype(sample.dtype, np.integer):
        top = np.iinfo(sample.dtype).max
        share = float(np.mean(sample >= top))
        if share > 0.95:
            return ErrorKind.FRAME_SATURATED, f"{share:.0%} of the pixels are saturated"
    if high <= 1.0 and np.issubdtype(sample.dtype, np.integer) and float(sample.mean()) < 0.02:
        return ErrorKind.FRAME_DARK, f"mean of {float(sample.mean()):.4f} counts"
    return None


class Analyst:
    """Answers frames in worker threads; a model that fails or hangs is replaced by its fallback, and this is said."""

    def __init__(self, settings: InferenceSettings, quality: QualitySettings | None = None) -> None:
        self.settings = settings
        self.quality = quality or QualitySettings()
        runtime.configure(runtime.Options(settings.providers, settings.model_threads, settings.timeout_s))
        chosen: dict[Level, str] = {"low": settings.squares, "medium": settings.holes, "high": settings.quality}
        self.models: dict[Level, AnyModel] = {}
        self.troubles: dict[str, str] = {}
        self._skipped: dict[str, int] = {}
        for level, name in chosen.items():
            try:
                self.models[level] = build(name, settings.weights.get(name))
            except Exception as error:
                if name == FALLBACK[level] or isinstance(error, KeyError):
                    raise
                self._trouble(name, error)
                self.models[level] = build(FALLBACK[level])
        self.fallbacks = {
            level: self.models[level] if self.models[level].name == name else build(name)
            for level, name in FALLBACK.items()
        }
        self.detectors: dict[str, ObjectDetector] = {}
        self._replaced: set[str] = set()
        for name in settings.detectors:
            try:
                self.detectors[name] = build_detector(name, settings)
            except KeyError:
                raise
            except Exception as error:  # the night goes on without it, or with a simpler one, and it is said
                self._trouble(name, error)
                if name in DETECTOR_FALLBACK:
                    self.detectors[name] = build_detector(name, settings, DETECTOR_FALLBACK)
                    self._replaced.add(name)
        self._fingerprints: dict[str, str] = {}  # by name of the model
        self._threads = self._new_threads()

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.settings.threads, thread_name_prefix="model")

    def describe(self) -> dict[str, str]:
        """Model and fingerprint of each level, and what a network runs on, for the record."""
        detectors = {f"high, {name}": _described(detector) for name, detector in self.detectors.items()}
        return {**{level: _described(model) for level, model in self.models.items()}, **detectors}

    async def analyse(self, frame: Frame, image: NDArray[Any]) -> inp.Analysed | inp.AnalysisFailed:
        """The answer to a frame, or why there is none; never raises but for a cancel."""
        if bad := unusable(image):
            return inp.AnalysisFailed(frame_id=frame.frame_id, error=bad[0], why=f"frame {frame.frame_id}: {bad[1]}")
        last: Exception = RuntimeError("no model was asked")
        for model in self._line_up(frame.level):
            begun = time.monotonic()
            try:
                finding = await self._in_thread(model, frame, image)
            except BadImageError as error:
                why = f"frame {frame.frame_id}: {error}"
                return inp.AnalysisFailed(frame_id=frame.frame_id, error=ErrorKind.FRAME_WRONG, why=why)
            except Exception as error:
                last = error
                self._trouble(model.name, error)
                continue
            if model is self.models[frame.level]:
                self._well(model.name)
            elapsed_s = round(time.monotonic() - begun, 4)
            detected = await self._detected(frame, image) if frame.level == "high" else ()
            return inp.Analysed(
                frame=frame,
                finding=finding,
                detected=detected,
                model=model.name,
                fingerprint=self._fingerprint(model),
                elapsed_s=elapsed_s,
                degraded="; ".join(f"{name}: {why}" for name, why in sorted(self.troubles.items())),
            )
        why = f"frame {frame.frame_id}: no model could work with it, the last said: {_text(last)}"
        return inp.AnalysisFailed(frame_id=frame.frame_id, error=ErrorKind.MODEL_FAILED, why=why)

    async def sight(self, frame: Frame, image: NDArray[Any], before: NDArray[Any]) -> inp.Analysed | inp.AnalysisFailed:
        """How a grid that came back lies, by a frame of the same place ``before``; never raises but for a cancel."""
        if bad := unusable(image):
            return inp.AnalysisFailed(frame_id=frame.frame_id, error=bad[0], why=f"frame {frame.frame_id}: {bad[1]}")
        begun = time.monotonic()
        try:
            finding = await self._run(registration.sight, before, image)
        except Exception as error:
            why = f"frame {frame.frame_id}: {_text(error)}"
            return inp.AnalysisFailed(frame_id=frame.frame_id, error=ErrorKind.MODEL_FAILED, why=why)
        return inp.Analysed(
            frame=frame,
            finding=finding,
            model=registration.NAME,
            fingerprint=registration.VERSION,
            elapsed_s=round(time.monotonic() - begun, 4),
            degraded="; ".join(f"{name}: {why}" for name, why in sorted(self.troubles.items())),
        )

    async def turn(self, frame_id: str) -> None:
        """Wait until the answer to this frame may be handed in: at once, but in a replay."""

    async def _detected(self, frame: Frame, image: NDArray[Any]) -> tuple[inp.Detected, ...]:
        """What each detector says; one that fails is left out, and this is said."""
        found = []
        for name, detector in self.detectors.items():
            begun = time.monotonic()
            known = frame.pixel_size_angstrom if frame.pixel_size_known else None
            try:
                finding: ObjectFinding = await self._run(detect, detector, image, known)
            except Exception as error:
                self._trouble(name, error)
                continue
            if name not in self._replaced:
                self._well(name)
            elapsed_s = round(time.monotonic() - begun, 4)
            found.append(inp.Detected(name, detector.fingerprint, finding, elapsed_s))
        return tuple(found)

    async def _in_thread(self, model: AnyModel, frame: Frame, image: NDArray[Any]) -> Finding:
        known = frame.pixel_size_angstrom if frame.pixel_size_known else None
        conditions = conditions_of(frame, self.quality)
        finding: Finding = await self._run(ask, model, frame.level, image, known, conditions)
        return finding

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        job = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await job
        except TimeoutError as error:
            # a thread cannot be killed: leave it behind with its pool and go on with fresh ones
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = self._new_threads()
            raise TimeoutError(f"no answer within {self.settings.timeout_s:g} s") from error

    def _line_up(self, level: Level) -> list[AnyModel]:
        model, fallback = self.models[level], self.fallbacks[level]
        if model is fallback:
            return [model]
        if model.name in self.troubles:
            self._skipped[model.name] = self._skipped.get(model.name, 0) + 1
            if self._skipped[model.name] % PROBE_AFTER:
                return [fallback]
        return [model, fallback]

    def _fingerprint(self, model: AnyModel) -> str:
        """Hashed once: what answers is what was loaded, whatever lies on the disk by now."""
        if model.name not in self._fingerprints:
            self._fingerprints[model.name] = model.fingerprint
        return self._fingerprints[model.name]

    def _trouble(self, name: str, error: Exception) -> None:
        if name not in self.troubles:
            log.warning("model.failed", model=name, error=_text(error))
        self.troubles[name] = _text(error)

    def _well(self, name: str) -> None:
        if self.troubles.pop(name, None):
            log.info("model.well_again", model=name)

    def close(self) -> None:
        """Give the threads back; one that hangs is left to die with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _described(model: AnyModel) -> str:
    provider, note = getattr(model, "provider", ""), getattr(model, "note", "")
    return " ".join(filter(None, (model.name, model.fingerprint, provider and f"on {provider}", note and f"({note})")))


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
