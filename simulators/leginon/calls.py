"""Leginon's HTTP calls: one connection each, JSON text without a Content-Type, the status looked at only for ``/``."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from simulators.leginon import reader
from simulators.leginon.reader import Row, UnreadableError

Image = NDArray[Any]


class Calls:
    """Leginon's client. ``warnings`` collects what would stand in its log.

    Parameters
    ----------
    url
        Scheme, host and port, as ptolemy.cfg has them.
    timeout_s
        Leginon has none; a simulator does not wait for ever.
    """

    def __init__(self, url: str, *, timeout_s: float = 300.0) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.timeout_s = timeout_s
        self.warnings: list[str] = []

    def send(self, verb: str, path: str, values: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Status and parsed answer of one call; an answer that is no JSON is its text."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout_s)
        try:
            text = None if values is None else json.dumps(values)
            connection.request(verb, path, body=text, headers={"Accept": "*/*"})
            response = connection.getresponse()
            raw = response.read().decode("utf-8")
        finally:
            connection.close()
        try:
            return response.status, json.loads(raw)
        except ValueError:
            return response.status, raw

    def is_there(self) -> bool:
        """``GET /``: the one call whose status counts."""
        return self.send("GET", "/")[0] < 400

    def initialize_new_session(self, historical_state_paths: list[str] | None = None) -> Any:
        """A session name was proposed."""
        return self._post("/initialize_new_session", historical_state_paths=historical_state_paths or [])

    def push_lm(self, image: Image, grid_id: int, tile_id: int) -> Any:
        """An atlas tile."""
        return self._post("/push_lm", image=image.tolist(), grid_id=grid_id, tile_id=tile_id)

    def current_lm_state(self) -> list[Row]:
        """All squares of the session."""
        return reader.squares(self.send("GET", "/current_lm_state")[1], self.warnings)

    def select_next_square(self, grid_id: int = -1) -> list[Row]:
        """Squares not visited yet, with learned scores."""
        return reader.squares(self._post("/select_next_square", value=grid_id), self.warnings)

    def set_noice_hole_intensity(self, value: float) -> Any:
        """Mean counts of an empty hole."""
        return self._post("/set_noice_hole_intensity", value=value)

    def push_and_evaluate_mm(
        self, image: Image, *, grid_id: int, tile_id: int, square_id: int, mm_img_id: int
    ) -> list[Row]:
        """A hole image; its holes."""
        ids = {"grid_id": grid_id, "tile_id": tile_id, "square_id": square_id, "mm_img_id": mm_img_id}
        return reader.holes(self._post("/push_and_evaluate_mm", image=image.tolist(), **ids), self.warnings)

    def visit_holes(self, hole_ids: list[int], ctfs: list[float | None], ice_thicknesses: list[float | None]) -> Any:
        """What became of exposures."""
        return self._post("/visit_holes", hole_ids=hole_ids, ctfs=ctfs, ice_thicknesses=ice_thicknesses)

    def _post(self, path: str, **values: Any) -> Any:
        status, answer = self.send("POST", path, values)
        if status >= 400:
            self.warnings.append(f"{path} answered {status}: {answer}")
        return answer


def as_float32(image: Image) -> NDArray[np.float32]:
    """Pixels as Leginon keeps them."""
    return np.asarray(image, np.float32)


__all__ = ["Calls", "Row", "UnreadableError", "as_float32"]
