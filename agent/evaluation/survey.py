"""A recorded survey: every hole that was exposed, where it lay, and how its micrograph turned out."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import CryonautError

WORST_ANGSTROM = 20.0
GOOD_ANGSTROM = 6.0
_V = r"(?:_v\d+)?_"  # version marks say nothing of the place
_NAME = re.compile(rf"^(?P<tile>.*?gr){_V}(?P<square>.*?sq){_V}(?P<patch>.*?hl){_V}.*en.*$")


class SurveyError(CryonautError):
    """A folder that holds no survey, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Holes as arrays of shape (n,): ids of tile, square and patch, place in the patch's image, outcome, prediction.

    Parameters
    ----------
    tile, square, patch
        Numbers from 0; squares and patches are numbered through the whole survey.
    xy
        Place in the image of the patch, (x, y) in pixels, shape (n, 2).
    ctf_angstrom
        CTF resolution of the micrograph, at most 20.
    predicted_angstrom
        What a network predicted before the exposure; NaN where nothing is known.
    """

    tile: NDArray[np.int64]
    square: NDArray[np.int64]
    patch: NDArray[np.int64]
    xy: NDArray[np.float64]
    ctf_angstrom: NDArray[np.float64]
    predicted_angstrom: NDArray[np.float64]

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which micrographs are good."""
        return np.asarray(self.ctf_angstrom <= GOOD_ANGSTROM)

    def __len__(self) -> int:
        return len(self.tile)

    def part(self, rows: NDArray[np.int64]) -> "Survey":
        """Some of the holes, as a survey of its own."""
        tile, square, patch = (_numbered(ids[rows]) for ids in (self.tile, self.square, self.patch))
        return Survey(tile, square, patch, self.xy[rows], self.ctf_angstrom[rows], self.predicted_angstrom[rows])


def _numbered(ids: NDArray[Any]) -> NDArray[np.int64]:
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def read(folder: Path) -> Survey:
    """The survey in ``folder``: a file ``target_CTF_*.csv`` and, if there is one, ``*_regress_*.txt`` with predictions.

    Raises
    ------
    SurveyError
        If there is not exactly one outcome file, or a line cannot be read.
    """
    outcomes = _one(folder, "target_CTF_*.csv", needed=True)
    forecasts = _one(folder, "*_regress_*.txt", needed=False)
    predicted: dict[str, float] = {}
    if forecasts is not None:
        for number, line in enumerate(forecasts.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                name, value = _columns(forecasts, number, line.split(), 2)[:2]
                predicted[name] = _number(forecasts, number, value)
    rows: list[tuple[str, str, str, float, float, float, float]] = []
    assert outcomes is not None  # noqa: S101 - asked for
    with outcomes.open(newline="", encoding="utf-8") as file:
        for number, cells in enumerate(csv.reader(file), 1):
            if not cells:
                continue
            name, x, y, ctf = _columns(outcomes, number, cells, 4)[:4]
            match = _NAME.match(name)
            if match is None:
                raise SurveyError(f"{outcomes}:{number}: {name!r} does not read ..gr_..sq_..hl_..en")
            tile, square, patch = match["tile"], match["square"], match["patch"]
            x_px, y_px, angstrom = (_number(outcomes, number, v) for v in (x, y, ctf))
            forecast = predicted.get(name, np.nan)
            rows.append((tile, f"{tile} {square}", f"{tile} {square} {patch}", x_px, y_px, angstrom, forecast))
    if not rows:
        raise SurveyError(f"{outcomes}: holds no hole")
    columns = list(zip(*rows, strict=True))
    ids = [_numbered(np.array(columns[k])) for k in range(3)]
    return Survey(
        ids[0],
        ids[1],
        ids[2],
        np.column_stack([np.array(columns[3], float), np.array(columns[4], float)]),
        np.clip(np.array(columns[5], float), 0.1, WORST_ANGSTROM),
        np.array(columns[6], float),
    )


def _one(folder: Path, pattern: str, *, needed: bool) -> Path | None:
    found = sorted(folder.glob(pattern))
    if len(found) == 1:
        return found[0]
    if not found and not needed:
        return None
    raise SurveyError(f"{folder}: {len(found)} files are named {pattern}; exactly one is needed")


def _columns(path: Path, number: int, cells: list[str], least: int) -> list[str]:
    if len(cells) < least:
        raise SurveyError(f"{path}:{number}: {len(cells)} columns, {least} are needed")
    return cells


def _number(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise SurveyError(f"{path}:{number}: {text!r} is no number")
    return value
