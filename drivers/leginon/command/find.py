"""From an image file to Leginon's JSON: what the finders do for each request."""

import json
from pathlib import Path
from typing import Any

from agent.errors import BadFileError
from agent.inference import AnyModel, ask, build
from drivers.images import read_image
from drivers.leginon.records import hole_records, square_records
from models.base import BadImageError

SMALLEST_SIDE = 16


class UnusableError(Exception):
    """An image or a model that cannot be used, in one line."""


class Finders:
    """Two models, made once.

    Parameters
    ----------
    squares, holes
        Names of models, as in ``inference`` of the daemon's config.
    """

    def __init__(self, squares: str, holes: str) -> None:
        self.names = {"squares": squares, "holes": holes}
        self._models: dict[str, AnyModel] = {}

    def warm_up(self) -> None:
        """Make both models."""
        for what in self.names:
            self._model(what)

    def _model(self, what: str) -> AnyModel:
        if what not in self._models:
            try:
                self._models[what] = build(self.names[what])
            except Exception as error:
                raise UnusableError(f"model {self.names[what]}: {error}") from error
        return self._models[what]

    def find(self, request: dict[str, Any]) -> str:
        """One line of JSON for ``{"what": "squares" | "holes", "image": path, "shrunk": bool}``.

        Raises
        ------
        UnusableError
            If the image cannot be read or used.
        """
        path, what = Path(str(request["image"])), str(request["what"])
        try:
            image, _ = read_image(path)  # Leginon's files have no pixel size that could be trusted
        except BadFileError as error:
            raise UnusableError(str(error)) from error
        if min(image.shape) < SMALLEST_SIDE:
            raise UnusableError(f"{path}: {image.shape[0]} x {image.shape[1]} pixels are too few")
        try:
            finding: Any = ask(self._model(what), "low" if what == "squares" else "medium", image, None)
        except BadImageError as error:
            raise UnusableError(f"{path}: {error}") from error
        if what == "squares":
            records = square_records(image, finding)
        else:
            records = hole_records(image, finding, shrunk=bool(request.get("shrunk")))
        return json.dumps(records)
