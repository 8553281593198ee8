"""The learned square scorer on the classical localiser: chance of a good micrograph, with what speaks for and against.

The logit is the sum of what a small network sees in the upright crop and of a line through the published summary
statistics, so each statistic's share in a score can be said. Crops are scaled by their frame, never by their batch.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import runtime
from models.base import Image, source_fingerprint
from models.detections import SquareFinding
from models.squares.crops import FACTS, crops, facts
from models.squares.finder import finding, locate
from models.squares.located import Located
from models.squares.scoring import Judgement, judge

_BATCH = 256
_CUT = 0.5  # a square that the frame cuts is worth half of what is seen of it


class NetSquareFinder:
    """Finds squares as ``MixtureSquareFinder`` does and scores them with ``squares-score``.

    Parameters
    ----------
    weights
        Name of the weights, or path of their manifest.
    """

    def __init__(self, weights: str | Path = "squares-score") -> None:
        self._network = runtime.load(weights)
        settings = self._network.manifest.settings
        self._middle, self._spread, self._weights = (np.array(settings[k]) for k in ("middle", "spread", "weights"))
        self._intercept, self._look = float(settings["intercept"]), float(settings["look"])
        self._slope, self._offset = (float(v) for v in settings["calibration"])

    @property
    def name(self) -> str:
        """Name as configs and records show it."""
        return "squares-net"

    @property
    def fingerprint(self) -> str:
        """Hash of weights and code."""
        return f"{self._network.fingerprint}-{source_fingerprint('models.squares', 'models.holes')}"

    @property
    def provider(self) -> str:
        """What the network runs on."""
        return self._network.provider

    @property
    def note(self) -> str:
        """What a person should know about where the network runs."""
        return self._network.note

    def find(self, image: Image, pixel_size_angstrom: float | None = None) -> SquareFinding:
        """Squares of ``image`` (rows, columns), best first; see `MixtureSquareFinder.find`.

        Raises
        ------
        BadImageError
            When the array is no image at all (see ``models.base.as_plain``).
        ModelError
            When the network gives no answer.
        """
        located = locate(image)
        if isinstance(located, SquareFinding):
            return located
        return finding(located, self.judge(located))

    def judge(self, located: Located) -> list[Judgement]:
        """Score, label and reasons of each opening; ``for_*`` features are what each reason adds to the logit."""
        judged = judge(located)
        look = self._slope * (self._logits(crops(located)) - self._look)
        terms = (
            self._slope
            * np.clip((facts([f for _, _, f in judged]) - self._middle) / self._spread, -4, 4)
            * self._weights
        )
        terms = terms[:, : len(FACTS)] + terms[:, len(FACTS) :]
        start = self._slope * (self._intercept + self._look) + self._offset
        chance = 1.0 / (1.0 + np.exp(-(start + look + terms.sum(axis=1))))
        answers: list[Judgement] = []
        for k, (_, label, features) in enumerate(judged):
            reasons = {f"for_{name}": float(terms[k, j]) for j, name in enumerate(FACTS)} | {"for_look": float(look[k])}
            score = float(chance[k]) * (_CUT if located.cut[k] else 1.0)
            answers.append((round(score, 6), label, features | reasons))
        return answers

    def _logits(self, seen: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(self._network.batches(seen, _BATCH)["logit"], np.float64)
