"""What a session taught, as the next one of the project can begin with it: a small JSON file."""

import math

import msgspec
import numpy as np

from agent.policy.evidence import AROUND, gather
from agent.policy.learning import Posterior, Region
from agent.session.state import Prior, State

LEAST_OFFSET_SD, WIDER = 0.12, 1.5  # the next session differs: nothing is taken for quite certain


def lessons(state: State, good_ctf_angstrom: float, source: str) -> Prior:
    """Weights, level and timings by the end of ``state``, with room for the next session to be otherwise.

    Weights of features whose names a later model does not use are kept and do no harm.
    """
    evidence = gather(state, good_ctf_angstrom)
    belief = evidence.belief
    stranger = Region(
        key="?",
        grid="?",
        place_um=(0.0, 0.0),
        features=np.zeros(len(belief.square_weights)),
        holes=np.zeros((1, len(belief.hole_weights))),
        places=np.zeros((1, 2)),
        merit=np.full(1, math.nan),
    )
    posterior = Posterior([*evidence.regions, stranger], belief)
    mean, sd = posterior.level("?")
    own = belief.grid_sd**2 + belief.across_sd**2 + belief.square_sd**2
    offset_sd = max(math.sqrt(max(sd**2 - own, 0.0)) * WIDER, LEAST_OFFSET_SD)
    weights, sds = posterior.weights
    known = dict(state.prior.hole_weights) if state.prior else {}
    for name, weight, spread in zip(("score", AROUND, *evidence.looks), weights.tolist(), sds.tolist(), strict=True):
        known[name] = (round(weight, 5), round(spread * WIDER, 5))
    exposures = sum(int(np.isfinite(region.merit).sum()) - region.stand_ins for region in evidence.regions)
    before = state.prior
    return Prior(
        offset=(round(mean, 5), round(offset_sd, 5)),
        hole_weights=known,
        square_weights={"score": (belief.square_weights[0], belief.square_weight_sds[0])},
        timings=state.timings,
        sessions=1 + (before.sessions if before else 0),
        exposures=exposures + (before.exposures if before else 0),
        source=source,
    )


def encode(prior: Prior) -> bytes:
    """The file's text."""
    return msgspec.json.format(msgspec.json.encode(prior), indent=2) + b"\n"


def decode(text: bytes) -> Prior:
    """The lessons in a file.

    Raises
    ------
    ValueError
        If it is no such file, or a value is none that lessons can have.
    """
    prior = msgspec.json.decode(text, type=Prior)
    pairs = [prior.offset, *prior.hole_weights.values(), *prior.square_weights.values()]
    if not all(math.isfinite(mean) and 0 < sd < 10 and abs(mean) < 10 for mean, sd in pairs):
        raise ValueError("a weight is out of bounds: means lie within 10, standard deviations between 0 and 10")
    if any(t.count < 0 or not 0 <= t.mean_s < 1e6 for t in prior.timings.values()):
        raise ValueError("a timing is out of bounds")
    return prior
