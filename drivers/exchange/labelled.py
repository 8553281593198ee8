"""Labelled image files: which label belongs to which image, and one of them judged."""

from pathlib import Path

from agent.errors import BadFileError
from agent.evaluation.labels import judge_image, read_labels
from agent.evaluation.sessions import Judged


def pairs(labels: Path, images: Path) -> list[tuple[Path, Path]]:
    """(image, labels) of each label file, by their names without ending.

    Raises
    ------
    BadFileError
        If there is no label file, or one without its image.
    """
    from drivers.images import READERS

    found = []
    for label in sorted(labels.glob("*.json")):
        beside = sorted(p for p in images.glob(f"{label.stem}.*") if p.suffix.lower() in READERS)
        if not beside:
            raise BadFileError(f"{label}: no image {label.stem}.* in {images}")
        found.append((beside[0], label))
    if not found:
        raise BadFileError(f"{labels}: holds no label file (*.json)")
    return found


def judge_file(image: Path, label: Path, model: str) -> Judged:
    """Judge one labelled image; what goes wrong is in ``trouble`` and costs this image only."""
    from drivers.images import read_image

    try:
        values = read_labels(label)
        pixels, pixel_size = read_image(image)
        if values.get("pixel_size_angstrom") is None:
            values["pixel_size_angstrom"] = pixel_size
        return judge_image(pixels, values, model, image.stem, model)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return Judged(image.stem, model, {}, trouble=said)
