"""The default scorer of micrographs: what the CTF, the ice and the dirt say, weighed to one number."""

from models.base import Image, as_plain, source_fingerprint
from models.conditions import Conditions
from models.detections import QualityFinding
from models.quality.measured import Measured, measure
from models.quality.scorer import SimpleQualityScorer
from models.quality.verdict import label_of, reasons, score_of


class CtfQualityScorer:
    """Judges a micrograph by its Thon rings, ice and cover, and gives its numbers as reasons.

    Offset and gain of the image change ``mean`` and ``deviation`` only; with a reference intensity
    (`Conditions.open_beam`) they change the thickness of the ice, too.
    """

    @property
    def name(self) -> str:
        """Name as configs and records show it."""
        return "quality-ctf"

    @property
    def fingerprint(self) -> str:
        """Hash of the code: there are no weights and no settings."""
        return source_fingerprint("models.quality")

    def judge(
        self, image: Image, pixel_size_angstrom: float | None = None, conditions: Conditions | None = None
    ) -> QualityFinding:
        """Quality of ``image`` (rows, columns).

        Parameters
        ----------
        image
            High-mag micrograph, any real dtype, shape (rows, columns).
        pixel_size_angstrom
            Pixel size in Å; without it there is no CTF fit.
        conditions
            Optics and reference intensity; ``None``: 300 kV, Cs 2.7 mm, amplitude contrast 0.07, no reference.

        Returns
        -------
        QualityFinding
            ``features`` are those of `models.quality.measured.Measured.features`.

        Raises
        ------
        BadImageError
            When the array is no image at all (see ``models.base.as_plain``).
        """
        m = self.measure(image, pixel_size_angstrom, conditions)
        return SimpleQualityScorer().judge(image) if m is None else self.verdict(m)

    def measure(
        self, image: Image, pixel_size_angstrom: float | None = None, conditions: Conditions | None = None
    ) -> Measured | None:
        """All that is measured, for pictures; ``None`` for an image of one value. As `judge` otherwise."""
        plain = as_plain(image)
        if not float(plain.max()) > float(plain.min()):
            return None
        return measure(image, pixel_size_angstrom, conditions)

    def verdict(self, m: Measured) -> QualityFinding:
        """The judgement that follows from what was measured."""
        label, why = label_of(m)
        note = "; ".join(part for part in (why, reasons(m)) if part)
        return QualityFinding(score=score_of(m, label), label=label, features=m.features(), note=note)
