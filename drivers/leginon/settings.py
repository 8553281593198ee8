"""What a site sets for the Leginon driver: ``config/leginon.yaml``, checked before anything listens."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agent.errors import ConfigError
from agent.settings import EnvelopeSettings, InferenceSettings, Name, Positive, Section, check, read_yaml

Coordinates = Literal["original", "shrunk"]
PixelSize = Annotated[float, Field(gt=0, le=1e6)]


class DaemonSettings(Section):
    """The daemon, and what this driver keeps on its side."""

    endpoint: str = "tcp://127.0.0.1:5870"  # endpoints.drivers of the daemon
    key: Path | None = None  # CURVE key of this driver, made by `cryonaut keys new`; needed off loopback
    server_key: Path | None = None  # public key of the daemon
    folder: Path = Path("leginon-driver")  # ids that Leginon was given, tiles on their way: keep it for ever


class HttpSettings(Section):
    """Where Leginon's ptolemy.cfg points."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)  # 0: any free one, which is printed
    allow: tuple[str, ...] = ()  # addresses or networks that may ask; Leginon has no password, so off loopback needed
    body_mb: int = Field(default=512, ge=1, le=4_096)  # largest request; 4096 x 4096 pixels are 330 MB of text
    answer_s: Positive = 30.0  # an answer that is not there after so long is a failure, said in one line

    @model_validator(mode="after")
    def _strangers_stay_out(self) -> Self:
        for text in self.allow:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"allow: {text}: {error}; such as 10.0.0.5 or 10.0.0.0/24") from error
        if self.host not in ("127.0.0.1", "::1", "localhost") and not self.allow:
            raise ValueError(
                f"host: {self.host} can be reached from other machines and Leginon sends no password: name in allow"
                " the addresses that may ask, such as [10.0.0.5]"
            )
        return self


class PixelSizeSettings(Section):
    """Leginon does not send pixel sizes; what is set here is told to the models and shown, in Å."""

    low: PixelSize | None = None
    medium: PixelSize | None = None


class FinderSettings(Section):
    """Models of the external command and the stateless calls; a session's are those of the daemon's config."""

    squares: Name = InferenceSettings().squares
    holes: Name = InferenceSettings().holes


class AnswerSettings(Section):
    """How answers are written."""

    hole_coordinates: Coordinates = "original"  # shrunk: of the image binned to at most 1440 pixels, as Leginon uses it
    hole_score: Literal["prior", "learned"] = "prior"  # learned: GP_probs with the learned chance of a good micrograph
    new_session: Literal["archive", "keep"] = "archive"  # what initialize_new_session does
    paused: Literal["none", "hold"] = "none"  # hole images while paused: no holes at once, or wait for resume


class LeginonSettings(Section):
    """Everything in ``config/leginon.yaml``."""

    name: Name = "leginon"
    daemon: DaemonSettings = DaemonSettings()
    http: HttpSettings = HttpSettings()
    pixel_size_angstrom: PixelSizeSettings = PixelSizeSettings()
    answers: AnswerSettings = AnswerSettings()
    finders: FinderSettings = FinderSettings()
    interlocks: EnvelopeSettings = EnvelopeSettings()


def load(path: Path, **changes: object) -> LeginonSettings:
    """Settings of a YAML file; ``changes`` such as ``http__port=8001`` that are not None go on top.

    Raises
    ------
    ConfigError
        If the file is missing or holds something that is not allowed.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file; start from config/leginon.yaml of Cryonaut")
    values = read_yaml(path)
    for dotted, value in changes.items():
        if value is None:
            continue
        section, _, key = dotted.partition("__")
        values[section] = {**values.get(section, {}), key: value}
    return check(LeginonSettings, values, str(path))
