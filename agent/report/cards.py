"""The micrographs of a session: each with thumbnail, power spectrum, what it is worth and why it was taken."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import BadFileError
from agent.recording.record import Record
from agent.report.collect import exposed_holes
from agent.report.pictures import Picture, load, thon_rings, view
from agent.session import events as ev
from agent.session.state import Hole

MOST_PICTURES = 600


@dataclass(frozen=True, slots=True)
class Card:
    """One micrograph; doses in e/Å², defocus in µm, positive in underfocus; ``edge_angstrom`` ends the spectrum."""

    hole: Hole
    picture: Picture
    spectrum: Picture
    edge_angstrom: float
    utc: float
    defocus_um: float | None
    dose_e_per_a2: float | None
    pixel_size_angstrom: float | None
    why: str
    verdict: str


def cards(record: Record) -> tuple[Card, ...]:
    """All micrographs in the order of their exposure; beyond `MOST_PICTURES` only the figures."""
    holes = [hole for _, hole in exposed_holes(record)]
    side = 320 if len(holes) <= 120 else 220 if len(holes) <= 300 else 150
    reasons = {
        item.event.area_id: item.event.decision.why
        for item in record.happened
        if isinstance(item.event, ev.CommandIssued) and item.event.area_id
    }
    notes = {
        item.event.area_id: item.event.note
        for item in record.happened
        if isinstance(item.event, ev.MicrographJudged) and item.event.note
    }
    return tuple(
        _card(record, hole, side if number < MOST_PICTURES else 0, reasons, notes) for number, hole in enumerate(holes)
    )


def _card(record: Record, hole: Hole, side_px: int, reasons: dict[str, str], notes: dict[str, str]) -> Card:
    received = record.frames.get(hole.frame_id)
    picture, spectrum, edge = Picture(note="not shown: too many micrographs for one page"), Picture(), 0.0
    if received is None:
        picture = Picture(note=f"frame {hole.frame_id} is not in the journal")
    elif side_px:
        try:
            image = load(record.folder, received)
            picture = view(image, side_px, 62)
            large = 168 if side_px > 250 else 112
            spectrum, edge = thon_rings(image, received.frame.pixel_size_angstrom, hole.features, large)
        except BadFileError as error:
            picture = Picture(note=str(error))
    frame = received.frame if received else None
    dose = frame.dose_e_per_a2 if frame and frame.dose_e_per_a2 is not None else hole.dose_e_per_a2
    return Card(
        hole=hole,
        picture=picture,
        spectrum=spectrum,
        edge_angstrom=edge,
        utc=frame.taken_utc if frame else 0.0,
        defocus_um=frame.defocus_um if frame and frame.defocus_um is not None else hole.defocus_um,
        dose_e_per_a2=dose,
        pixel_size_angstrom=frame.pixel_size_angstrom if frame else None,
        why=reasons.get(hole.area_id, ""),
        verdict=notes.get(hole.area_id, ""),
    )


def damaged(shown: Sequence[Picture]) -> int:
    """How many pictures are missing because their frame cannot be read."""
    return sum(bool(picture.note) and not picture.note.startswith("not shown") for picture in shown)
