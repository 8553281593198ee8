"""Networks at work: weights that are known by their hash, on ONNX Runtime, and what they really run on.

A network is two files: ``<name>.onnx`` and its manifest ``<name>.yaml``, which says what the weights are, what goes in,
and what they answered to a stored question when they were made. `load` believes none of it: the hash is compared, the
question is asked again, and the provider in use is read back. Weights are read into memory first, so what is hashed
is what runs, and a file beside them (external data) is never opened.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

WEIGHTS = Path(__file__).resolve().parent / "weights"
SAMPLES = 64  # numbers of each output that a manifest keeps of the stored answer

Array = NDArray[Any]
Provider = Literal["tensorrt", "cuda", "cpu"]
PROVIDERS: dict[Provider, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


class ModelError(RuntimeError):
    """Weights that cannot be used, or a network that gave no answer, and why."""


@dataclass(frozen=True, slots=True)
class Options:
    """What networks may use.

    Attributes
    ----------
    providers
        In the order of preference; empty: CUDA where this ONNX Runtime and machine have it, else the CPU. TensorRT
        builds an engine for minutes at its first start, so it is used only where it is asked for.
    threads
        Threads of one network on the CPU; 0: as many as there are cores, at most 4.
    time_limit_s
        Longest time for one answer; None: no limit.
    """

    providers: tuple[Provider, ...] = ()
    threads: int = 0
    time_limit_s: float | None = None

    def names(self, available: list[str]) -> list[str]:
        """Provider names for ONNX Runtime, the CPU last.

        Raises
        ------
        ModelError
            When a provider that was asked for is not in this build of ONNX Runtime.
        """
        wanted = self.providers or tuple(p for p in ("cuda", "cpu") if PROVIDERS[p] in available)
        for provider in wanted:
            if PROVIDERS[provider] not in available:
                there = ", ".join(short(name) for name in available)
                raise ModelError(
                    f"provider {provider} is not in this ONNX Runtime (it has {there}): install the gpu extra"
                )
        names = [PROVIDERS[provider] for provider in wanted]
        return names if PROVIDERS["cpu"] in names else [*names, PROVIDERS["cpu"]]

    def cpu_threads(self) -> int:
        """Threads that a network on the CPU takes."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or min(4, cores)


class Probe(BaseModel):
    """A question with its answer: standard normal numbers of ``seed`` in, `SAMPLES` numbers of each output back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    shapes: dict[str, list[int]]
    outputs: dict[str, list[float]]
    tolerance: float = Field(default=2e-3, gt=0)

    def question(self) -> dict[str, NDArray[np.float32]]:
        """The arrays that go in."""
        return question(self.seed, self.shapes)


class Manifest(BaseModel):
    """What stands beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str
    what: str  # one sentence
    made_by: str  # the command, with its seed
    trained_on: str
    licence: str = "Apache-2.0"
    opset: int
    inputs: dict[str, list[int | str]]  # axes of each input: a number, or a name where any size is allowed
    outputs: list[str]
    settings: dict[str, Any] = {}  # what the code around the network must know: pixel size, classes, calibration …
    probe: Probe


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A network ready to answer; see `load`.

    Attributes
    ----------
    name, fingerprint
        Name of the weights and the head of their sha256.
    provider
        What the network really runs on, such as ``CPU``.
    note
        What a person should know, such as that a GPU was asked for and is not used; else empty.
    """

    name: str
    fingerprint: str
    provider: str
    note: str
    manifest: Manifest
    options: Options
    _session: Any = field(repr=False)

    def run(self, inputs: Array | Mapping[str, Array], *, time_limit_s: float | None = None) -> dict[str, Array]:
        """Outputs by name.

        Parameters
        ----------
        inputs
            An array for the only input, or arrays by input name; shapes as `Manifest.inputs` says.
        time_limit_s
            Longest time for this answer; by default that of the options.

        Raises
        ------
        ModelError
            When an input does not fit, the network fails, or the time is over.
        """
        import onnxruntime

        given = dict(inputs) if isinstance(inputs, Mapping) else {next(iter(self.manifest.inputs)): inputs}
        self._check(given)
        options = onnxruntime.RunOptions()
        limit = self.options.time_limit_s if time_limit_s is None else time_limit_s
        try:
            with _alarm(options, limit) as rung:
                answers = self._session.run(self.manifest.outputs, given, options)
        except Exception as error:  # ONNX Runtime raises many kinds, all of its own
            if rung.is_set():
                raise ModelError(f"{self.name}: no answer within {limit:g} s") from error
            raise ModelError(f"{self.name}: {_line(error)}") from error
        return dict(zip(self.manifest.outputs, answers, strict=True))

    def batches(self, array: Array, size: int) -> dict[str, Array]:
        """Outputs for many items, shape (n, ...), asked in parts of at most ``size``; n may be 0 to any number."""
        if len(array) <= size:
            return self.run(array)
        parts = [self.run(array[i : i + size]) for i in range(0, len(array), size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.manifest.outputs}

    def _check(self, given: Mapping[str, Array]) -> None:
        if set(given) != set(self.manifest.inputs):
            raise ModelError(f"{self.name}: inputs {sorted(given)} given, {sorted(self.manifest.inputs)} expected")
        for name, axes in self.manifest.inputs.items():
            shape = given[name].shape
            fits = len(shape) == len(axes) and all(
                want == have for want, have in zip(axes, shape, strict=True) if isinstance(want, int)
            )
            if not fits:
                raise ModelError(f"{self.name}: input {name} of shape {shape}; {axes} expected")


_loaded: dict[tuple[str, Options], OnnxModel] = {}
_defaults: list[Options] = [Options()]
_lock = threading.Lock()


def configure(options: Options) -> None:
    """Let `load` use these options from now on, where it is not told others; a process does it once, at its start."""
    _defaults[0] = options


def load(name: str | Path, options: Options | None = None) -> OnnxModel:
    """Network ``name`` of this package, or that of a manifest file, checked, warmed up and kept for the next call.

    Raises
    ------
    ModelError
        When ONNX Runtime is not installed, files are missing or damaged, the hash is another than the manifest's, or
        the stored question gets another answer.
    """
    options = options or _defaults[0]
    path = WEIGHTS / f"{name}.yaml" if isinstance(name, str) else name
    with _lock:
        key = (str(path.resolve()), options)
        if key not in _loaded:
            _loaded[key] = _open(path, options)
        return _loaded[key]


def read_manifest(path: Path) -> Manifest:
    """The manifest in a YAML file.

    Raises
    ------
    ModelError
        When there is none, or it is none.
    """
    try:
        return Manifest.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ModelError(f"no weights {path.stem!r} in {path.parent}; there are: {there}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise ModelError(f"{path}: is no manifest: {_line(error)}") from error


def _open(path: Path, options: Options) -> OnnxModel:
    manifest = read_manifest(path)
    file = path.with_suffix(".onnx")
    try:
        weights = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}") from error
    digest = hashlib.sha256(weights).hexdigest()
    if digest != manifest.sha256:
        raise ModelError(
            f"{file}: sha256 {digest[:12]}… is not the manifest's {manifest.sha256[:12]}…: damaged or exchanged"
        )
    session, note = _session(weights, options, manifest.name)
    model = OnnxModel(
        name=manifest.name,
        fingerprint=digest[:16],
        provider=short(session.get_providers()[0]),
        note=note,
        manifest=manifest,
        options=options,
        _session=session,
    )
    _warm_up(model)
    return model


def _session(weights: bytes, options: Options, name: str) -> tuple[Any, str]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "onnxruntime is not installed: `pip install 'cryonaut[cpu]'` or `'cryonaut[gpu]'`, never both"
        ) from error
    names = options.names(onnxruntime.get_available_providers())
    wanted = onnxruntime.SessionOptions()
    wanted.intra_op_num_threads = options.cpu_threads()
    wanted.inter_op_num_threads = 1
    wanted.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(weights, wanted, providers=names)
    except Exception as error:
        raise ModelError(f"{name}: ONNX Runtime refuses these weights: {_line(error)}") from error
    used = session.get_providers()[0]
    note = "" if used == names[0] else f"{short(names[0])} cannot be used here; {name} runs on {short(used)}"
    return session, note


def _warm_up(model: OnnxModel) -> None:
    probe = model.manifest.probe
    answers = model.run(probe.question(), time_limit_s=120.0)
    for name, expected in probe.outputs.items():
        got = sampled(answers[name])
        scale = max(1.0, float(np.abs(expected).max()))
        off = float(np.abs(got - expected).max()) if len(got) == len(expected) else float("inf")
        if not off <= probe.tolerance * scale:
            raise ModelError(
                f"{model.name} on {model.provider}: output {name} is off by {off:g} from its stored answer"
                f" (allowed {probe.tolerance * scale:g}): do not use this provider, or make the weights anew"
            )


def write_manifest(onnx_file: Path, *, opset: int, probe_shapes: Mapping[str, list[int]], **facts: Any) -> Manifest:
    """Ask a new network the stored question on the CPU and write its manifest beside it.

    Parameters
    ----------
    onnx_file
        The weights, ``<name>.onnx``.
    opset
        Their operator set.
    probe_shapes
        Shape of each input of the stored question.
    facts
        ``what``, ``made_by``, ``trained_on``, and where wanted ``licence`` and ``settings`` (see `Manifest`); ``seed``
        and ``tolerance`` of the question.
    """
    weights = onnx_file.read_bytes()
    session, _ = _session(weights, Options(providers=("cpu",), threads=1), onnx_file.stem)
    seed, tolerance = int(facts.pop("seed", 0)), float(facts.pop("tolerance", 2e-3))
    shapes = {name: [int(n) for n in shape] for name, shape in probe_shapes.items()}
    outputs = [output.name for output in session.get_outputs()]
    answers = session.run(outputs, question(seed, shapes))
    manifest = Manifest(
        name=onnx_file.stem,
        sha256=hashlib.sha256(weights).hexdigest(),
        opset=opset,
        inputs={i.name: [n if isinstance(n, int) else str(n) for n in i.shape] for i in session.get_inputs()},
        outputs=outputs,
        probe=Probe(
            seed=seed,
            shapes=shapes,
            outputs={n: [round(float(v), 6) for v in sampled(a)] for n, a in zip(outputs, answers, strict=True)},
            tolerance=tolerance,
        ),
        **facts,
    )
    text = yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False, width=120, allow_unicode=True)
    onnx_file.with_suffix(".yaml").write_text(text, encoding="utf-8")
    return manifest


def question(seed: int, shapes: Mapping[str, list[int]]) -> dict[str, NDArray[np.float32]]:
    """Standard normal numbers of each shape, the same on every machine."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in sorted(shapes.items())}


def sampled(answer: Array) -> NDArray[np.float64]:
    """At most `SAMPLES` numbers spread evenly over an output."""
    flat = np.asarray(answer, np.float64).ravel()
    if flat.size <= SAMPLES:
        return flat
    return flat[np.linspace(0, flat.size - 1, SAMPLES).astype(np.int64)]


def short(provider: str) -> str:
    """A provider's name as people say it."""
    return provider.removesuffix("ExecutionProvider")


@contextmanager
def _alarm(options: Any, limit_s: float | None) -> Iterator[threading.Event]:
    """Ends a run when the time is over; the event says that it did."""
    rung = threading.Event()
    if limit_s is None:
        yield rung
        return

    def ring() -> None:
        rung.set()
        options.terminate = True

    timer = threading.Timer(limit_s, ring)
    timer.daemon = True
    timer.start()
    try:
        yield rung
    finally:
        timer.cancel()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
