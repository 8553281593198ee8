"""What can reach a session from outside: facts, each with the time at which it came in."""

from typing import Any

import msgspec

from agent.control_messages import AnyVerb
from agent.messages import CommandResult, ErrorKind, Frame, Hello, Measured, Past, ScopeState
from agent.session.state import Prior


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all inputs."""


class Started(Input, frozen=True, kw_only=True):
    """The daemon has opened the journal."""

    session_id: str
    version: str
    models: dict[str, str]
    prior: Prior | None = None


class SaidHello(Input, frozen=True, kw_only=True):
    """A driver is here, with everything it still has to tell."""

    hello: Hello


class Left(Input, frozen=True, kw_only=True):
    """The driver is gone."""

    driver: str
    why: str


class TakenOver(Input, frozen=True, kw_only=True):
    """A person works at the microscope's own console."""

    why: str


class FrameCame(Input, frozen=True, kw_only=True):
    """A checked frame whose pixels are on disk at ``file``."""

    frame: Frame
    file: str


class Detected(msgspec.Struct, frozen=True):
    """What a detector said of a high-mag frame: its name and fingerprint, an `ObjectFinding`, and how long it took."""

    detector: str
    fingerprint: str
    finding: Any
    elapsed_s: float


class Analysed(Input, frozen=True, kw_only=True):
    """A model's answer to a pending frame: a finding of `models.detections`."""

    frame: Frame
    finding: Any
    model: str
    fingerprint: str
    elapsed_s: float
    degraded: str = ""
    detected: tuple[Detected, ...] = ()


class AnalysisFailed(Input, frozen=True, kw_only=True):
    """A pending frame that no model could work with."""

    frame_id: str
    error: ErrorKind
    why: str


class MeasurementCame(Input, frozen=True, kw_only=True):
    """The microscope software measured something at an area, or says that it was visited."""

    measured: Measured


class PastCame(Input, frozen=True, kw_only=True):
    """A driver recalls a square of an earlier session."""

    past: Past


class OrderAsked(Input, frozen=True, kw_only=True):
    """A driver was about to be told in which order to visit squares."""

    driver: str
    order: tuple[str, ...]
    why: str


class ResultCame(Input, frozen=True, kw_only=True):
    """A command has ended."""

    result: CommandResult


class Reported(Input, frozen=True, kw_only=True):
    """The microscope said how it is."""

    state: ScopeState


class Held(Input, frozen=True, kw_only=True):
    """A suspender tripped (``detail``) or cleared (empty detail)."""

    cause: str
    detail: str = ""


class Controlled(Input, frozen=True, kw_only=True):
    """An operator's request."""

    request_id: str
    by: str
    verb: AnyVerb


class Overdue(Input, frozen=True, kw_only=True):
    """A command had no result in its time."""

    command_id: str


class Tick(Input, frozen=True, kw_only=True):
    """Time has passed."""


AnyInput = (
    Started | SaidHello | Left | TakenOver | FrameCame | Analysed | AnalysisFailed | MeasurementCame | PastCame
    | OrderAsked | ResultCame | Reported | Held | Controlled | Overdue | Tick
)  # fmt: skip
