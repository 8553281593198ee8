"""Ice thickness of holes that were not measured, from those that were: the hierarchy of merit, in logarithms."""

import math
from dataclasses import replace

import numpy as np

from agent.policy.evidence import Evidence
from agent.policy.learning import Belief, Posterior
from agent.session.state import Hole, State

USUAL_NM, THINNEST_NM = 40.0, 3.0
LOOK_SD = 0.2  # of the logarithm, per deviation of a look: brightness and the like tell of ice, which way is learned
USUAL = Belief(
    offset=0.0, offset_sd=0.6, grid_sd=0.3, square_sd=0.3, across_sd=0.3, across_reach_um=300.0,
    wide_sd=0.25, wide_reach=8.0, near_sd=0.1, chance_sd=0.18,
)  # fmt: skip


def measured_nm(hole: Hole) -> float | None:
    """Thickness that was measured in ``hole``; readings brighter than their reference count as the thinnest ice."""
    thickness = hole.features.get("ice_thickness_nm") if hole.frame_id or hole.measurements else None
    if thickness is None or not math.isfinite(thickness):
        return None
    return max(thickness, THINNEST_NM)


def expected(state: State, evidence: Evidence) -> Posterior | None:
    """What is expected of ``ln(thickness / 40 nm)`` of every hole; None where nothing was measured yet."""
    regions, count = [], 0
    for region in evidence.regions:
        square = state.square(region.key)
        logs = np.full(len(region.merit), math.nan)
        for i, hole in enumerate(square.holes.values() if square is not None else ()):
            if (thickness := measured_nm(hole)) is not None:
                logs[i] = math.log(thickness / USUAL_NM)
                count += 1
        regions.append(replace(region, merit=logs, features=np.zeros(0), _messages={}))
    if not count:
        return None
    looks = len(evidence.belief.hole_weights)
    belief = replace(USUAL, hole_weights=(0.0,) * looks, hole_weight_sds=(0.02, 0.02, *(LOOK_SD,) * (looks - 2)))
    return Posterior(regions, belief, graded=True)
