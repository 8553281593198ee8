"""Where foil is left: flaps of a torn film, cracks through a whole one, punctures, rags along the bars."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulators.specimen import noise
from simulators.specimen.noise import Field

WHOLE = 1e3


@dataclass(frozen=True, slots=True)
class Flap:
    """Foil that stayed on one side of a ragged line: direction (cos, sin) points into it."""

    cos: float
    sin: float
    offset_um: float
    ragged_um: float


@dataclass(frozen=True, slots=True)
class Crack:
    """A gap along a wandering line through the foil, wider in some places than in others."""

    cos: float
    sin: float
    offset_um: float
    start_um: float
    end_um: float
    width_um: float
    wander_um: float


@dataclass(frozen=True, slots=True)
class Puncture:
    """A ragged opening around one point."""

    x_um: float
    y_um: float
    radius_um: float


@dataclass(frozen=True, slots=True)
class Damage:
    """All damage of one square.

    ``flaps`` empty means that the foil was not torn off; ``gone`` that nothing but ``rags_um`` of it is left.
    """

    seed: int
    shift: tuple[float, float]
    flaps: tuple[Flap, ...] = ()
    cracks: tuple[Crack, ...] = ()
    punctures: tuple[Puncture, ...] = ()
    gone: bool = False
    rags_um: float = 0.0
    curl_um: float = 1.2

    @property
    def torn(self) -> bool:
        """Whether a good part of the foil is missing."""
        return self.gone or bool(self.flaps)

    def film(self, x: Field, y: Field, opening: Field) -> Field:
        """Distance in µm from the nearest torn edge, positive where there is foil."""
        film = np.full(x.shape, -WHOLE if self.gone or self.flaps else WHOLE, np.float32)
        if self.flaps or self.punctures or self.gone:
            rough = noise.sample(self.seed, 2.9, x, y, 90.0, self.shift)
        for flap in self.flaps:
            edge = np.float32(flap.cos) * x + np.float32(flap.sin) * y - np.float32(flap.offset_um)
            film = np.maximum(film, edge + np.float32(flap.ragged_um) * rough)
        for hole in self.punctures:
            away = np.hypot(x - np.float32(hole.x_um), y - np.float32(hole.y_um))
            film = np.minimum(film, away - np.float32(hole.radius_um) * (1 + np.float32(0.35) * rough))
        for crack in self.cracks:
            film = np.minimum(film, self._gap(crack, x, y))
        if self.gone or self.flaps:
            film = np.maximum(film, self.rag(x, y, opening))
        return np.asarray(film, dtype=np.float32)

    def rag(self, x: Field, y: Field, opening: Field) -> Field:
        """Distance inside the rolled-up foil that still hangs on the bars; negative outside it."""
        if not self.rags_um:
            return np.full(x.shape, -WHOLE, np.float32)
        rough = noise.sample(self.seed + 5, 2.8, x, y, 75.0, self.shift)
        return np.asarray(np.float32(self.rags_um) * (rough - np.float32(0.1)) - opening * 0.55, dtype=np.float32)

    def _gap(self, crack: Crack, x: Field, y: Field) -> Field:
        along = np.float32(crack.cos) * x + np.float32(crack.sin) * y
        across = np.float32(crack.cos) * y - np.float32(crack.sin) * x - np.float32(crack.offset_um)
        row = np.full_like(along, 37.0 + 3.1 * crack.offset_um)  # each crack wanders its own way
        bend = noise.sample(self.seed + 1, 3.2, along, row, 140.0, self.shift)
        fine = noise.sample(self.seed + 2, 2.6, along, row, 60.0, self.shift)
        gape = noise.sample(self.seed + 3, 2.6, along, row, 80.0, self.shift)
        centre = np.float32(crack.wander_um) * bend + np.float32(0.3) * fine
        taper = np.clip(
            np.minimum(along - np.float32(crack.start_um), np.float32(crack.end_um) - along) / 6.0, -1.0, 1.0
        )
        width = np.float32(crack.width_um) * np.exp(np.float32(0.5) * gape) * taper
        return np.asarray(np.abs(across - centre) - width, dtype=np.float32)


def draw(seed: int, square: int, half_um: float, amount: float) -> Damage:
    """Damage of one square; ``amount`` from 0 (rarely any) to 1 (mostly broken)."""
    rng = noise.stream(seed, 11, square)
    shift = (float(rng.uniform()), float(rng.uniform()))
    gone = flaps = cracks = punctures = ()  # type: tuple[object, ...]
    what = rng.uniform()
    rags = 0.0
    if what < 0.45 * amount:
        rags = float(rng.uniform(2.0, 6.0))
        gone = (True,)
    elif what < amount:
        rags = float(rng.uniform(0.0, 4.5))
        flaps = tuple(_flap(rng, half_um) for _ in range(1 + int(rng.uniform() < 0.35)))
    if not gone and rng.uniform() < 0.07 + 0.5 * amount:
        cracks = tuple(_crack(rng, half_um) for _ in range(1 + int(rng.uniform() < 0.3)))
    if not gone and rng.uniform() < 0.04 + 0.4 * amount:
        punctures = tuple(_puncture(rng, half_um) for _ in range(int(rng.integers(1, 4))))
    return Damage(
        seed=seed,
        shift=shift,
        flaps=flaps,  # type: ignore[arg-type]
        cracks=cracks,  # type: ignore[arg-type]
        punctures=punctures,  # type: ignore[arg-type]
        gone=bool(gone),
        rags_um=rags,
        curl_um=float(rng.uniform(0.5, 2.5)),
    )


def _flap(rng: np.random.Generator, half_um: float) -> Flap:
    angle = rng.uniform(0, 2 * math.pi)
    return Flap(math.cos(angle), math.sin(angle), half_um * rng.uniform(-0.6, 0.75), rng.uniform(0.8, 4.0))


def _crack(rng: np.random.Generator, half_um: float) -> Crack:
    angle, start = rng.uniform(0, math.pi), rng.uniform(-1.5, 0.1) * half_um
    return Crack(
        cos=math.cos(angle),
        sin=math.sin(angle),
        offset_um=half_um * rng.uniform(-0.6, 0.6),
        start_um=start,
        end_um=start + half_um * rng.uniform(0.7, 2.6),
        width_um=float(rng.uniform(0.15, 1.1)),
        wander_um=float(rng.uniform(1.0, 4.0)),
    )


def _puncture(rng: np.random.Generator, half_um: float) -> Puncture:
    return Puncture(
        half_um * rng.uniform(-0.9, 0.9),
        half_um * rng.uniform(-0.9, 0.9),
        float(np.exp(rng.normal(0.9, 0.6))),
    )
