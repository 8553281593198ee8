"""Counts of a session that are asked for several times a second: only squares that changed are counted anew."""

from typing import NamedTuple

from agent.session.state import Square, State


class SquareCounts(NamedTuple):
    """What one square holds."""

    holes: int
    exposed: int
    judged: int
    good: int


class Tally:
    """Counts by square, kept as long as the square's record is the same one."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Square, SquareCounts]] = {}

    def of(self, square: Square) -> SquareCounts:
        """The counts of one square."""
        known = self._known.get(square.area_id)
        if known is not None and known[0] is square:
            return known[1]
        holes = square.holes.values()
        counts = SquareCounts(
            holes=len(holes),
            exposed=sum(1 for h in holes if h.visited),
            judged=sum(1 for h in holes if h.quality is not None),
            good=sum(1 for h in holes if h.quality is not None and h.quality_label == "good"),
        )
        self._known[square.area_id] = (square, counts)
        return counts

    def counts(self, state: State) -> dict[str, int]:
        """The figures of a whole session."""
        squares = [s for grid in state.grids.values() for s in grid.squares.values()]
        each = [self.of(square) for square in squares]
        return {
            "grids": len(state.grids),
            "frames": state.frames,
            "squares": len(squares),
            "squares_mapped": sum(1 for s in squares if s.map_frame_id),
            "holes": sum(c.holes for c in each),
            "exposures": state.exposures,
            "judged": sum(c.judged for c in each),
            "good": sum(c.good for c in each),
            "pending": len(state.pending),
        }
