"""Finders without a session: an image in, a list of squares or holes out; nothing is kept."""

import asyncio
from typing import Any

from agent.errors import BadMessageError
from agent.inference import AnyModel, ask, build
from drivers.leginon import body
from drivers.leginon.records import crop, hole_records, square_records
from drivers.leginon.settings import LeginonSettings
from models.base import BadImageError

Records = list[dict[str, Any]]


class Stateless:
    """``process_stateless_*``; models are made when they are first asked for, one image at a time is looked at."""

    def __init__(self, settings: LeginonSettings) -> None:
        self.settings = settings
        self._models: dict[str, AnyModel] = {}
        self._turn = asyncio.Lock()

    async def squares(self, raw: bytes) -> Records:
        """Squares of a low-mag image, best first."""
        return await self._in_turn(self._squares, raw)

    async def holes(self, raw: bytes) -> Records:
        """Holes of a medium-mag image, best first."""
        return await self._in_turn(self._holes, raw)

    async def holes_with_crops(self, raw: bytes) -> Records:
        """Holes with the pixels about each of them."""
        return await self._in_turn(self._holes_with_crops, raw)

    async def _in_turn(self, what: Any, raw: bytes) -> Records:
        async with self._turn:
            found: Records = await asyncio.to_thread(what, raw)
            return found

    def _model(self, name: str) -> AnyModel:
        if name not in self._models:
            self._models[name] = build(name)
        return self._models[name]

    def _find(self, raw: bytes, level: Any) -> tuple[Any, Any]:
        image = body.image(raw)
        name = self.settings.finders.squares if level == "low" else self.settings.finders.holes
        try:
            return image, ask(self._model(name), level, image, getattr(self.settings.pixel_size_angstrom, level))
        except BadImageError as error:
            raise BadMessageError(f"image: {error}") from error

    def _squares(self, raw: bytes) -> Records:
        image, finding = self._find(raw, "low")
        records = square_records(image, finding)
        found = sorted(finding.squares, key=lambda square: -square.score)
        return [
            r | {"features": [s.features[n] for n in sorted(s.features)]} for r, s in zip(records, found, strict=True)
        ]

    def _holes(self, raw: bytes) -> Records:
        image, finding = self._find(raw, "medium")
        records = hole_records(image, finding, shrunk=self.settings.answers.hole_coordinates == "shrunk")
        found = sorted(finding.holes, key=lambda hole: -hole.score)
        return [
            r | {"features": [h.features[n] for n in sorted(h.features)]} for r, h in zip(records, found, strict=True)
        ]

    def _holes_with_crops(self, raw: bytes) -> Records:
        image, finding = self._find(raw, "medium")
        return [record | {"crop": crop(image, record)} for record in hole_records(image, finding)]
