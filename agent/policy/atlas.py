"""Where the frames of an atlas are taken."""

import math

from agent.settings import AtlasSettings, EnvelopeSettings

Point = tuple[float, float]


def positions(atlas: AtlasSettings, envelope: EnvelopeSettings) -> tuple[Point, ...]:
    """Stage positions (x, y) in micrometres of the low-mag frames that cover the grid, row by row, there and back.

    Positions outside the stage's limits are left out, so that the atlas never asks for what the interlock refuses.
    """
    step = atlas.field_um * (1.0 - atlas.overlap)
    half = max(0, math.ceil((atlas.radius_um - atlas.field_um / 2) / step))
    found: list[Point] = []
    for row in range(-half, half + 1):
        columns = range(-half, half + 1) if (row + half) % 2 == 0 else range(half, -half - 1, -1)
        for column in columns:
            x_um, y_um = round(column * step, 3), round(row * step, 3)
            if math.hypot(x_um, y_um) > atlas.radius_um:
                continue
            if not envelope.stage_x_um[0] <= x_um <= envelope.stage_x_um[1]:
                continue
            if not envelope.stage_y_um[0] <= y_um <= envelope.stage_y_um[1]:
                continue
            found.append((x_um, y_um))
    return tuple(found)
