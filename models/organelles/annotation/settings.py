"""The numbers of annotation, from ``annotation.yaml`` beside this file, where each names its source."""

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from models.organelles.annotation.grey import AnnotationError

DEFAULTS = Path(__file__).with_name("annotation.yaml")


class CutSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Supervoxels and energy; meaning, unit and source of each stand in ``annotation.yaml``."""

    percentiles: tuple[float, float]
    supervoxels: int
    largest_edge: float
    compactness: float
    iterations: int
    bins: int
    smoothing: float
    grey_weight: float
    distance_weight: float
    boundary_weight: float
    seed_cost: float
    components: int

    def __post_init__(self) -> None:
        """Refuse what no cut can be made with."""
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {low:g}, {high:g}: expected 0 <= low < high <= 100")
        for name in ("supervoxels", "compactness", "iterations", "smoothing", "seed_cost"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name):g}: expected more than 0")
        for name in ("grey_weight", "distance_weight", "boundary_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name):g}: expected 0 or more")
        if not self.largest_edge >= 2 or not 2 <= self.bins <= 256 or self.components < 1:
            raise ValueError("expected largest_edge of at least 2, 2 to 256 bins, and at least one component")


class Structure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clean-up of one kind of structure, in voxels; 0 leaves a step out.

    Attributes
    ----------
    smallest_object, largest_hole
        Objects below the one, in voxels, are dropped; holes below the other are filled.
    grow
        Voxels by which the outline moves outwards.
    exclude_outside, exclude_inside
        Width of the band along the outline in which scores do not count.
    """

    smallest_object: float = 0
    largest_hole: float = 0
    grow: float = 0
    exclude_outside: float = 0
    exclude_inside: float = 0

    def at(self, factor: float) -> "Structure":
        """The same lengths and volumes for voxels ``factor`` times as large."""
        return Structure(
            smallest_object=self.smallest_object / factor**3,
            largest_hole=self.largest_hole / factor**3,
            grow=_whole(self.grow / factor),
            exclude_outside=_whole(self.exclude_outside / factor),
            exclude_inside=_whole(self.exclude_inside / factor),
        )


def _whole(voxels: float) -> float:
    # what is wanted at all stays at least one voxel wide
    return max(1.0, float(round(voxels))) if voxels > 0 else 0.0


class AnnotationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that annotation follows from."""

    cut: CutSettings
    published_voxel_nm: float
    structures: dict[str, Structure]

    def structure(self, name: str, voxel_nm: float | None = None) -> Structure:
        """Rules of a structure for voxels of this edge; without one, as if they were the published ones.

        Raises
        ------
        AnnotationError
            When there is no structure of this name.
        """
        if name not in self.structures:
            raise AnnotationError(
                f"structure {name!r}: known are {', '.join(sorted(self.structures))}; others: --config"
            )
        rules = self.structures[name]
        return rules if voxel_nm is None else rules.at(voxel_nm / self.published_voxel_nm)


def read_settings(file: Path | None = None) -> AnnotationSettings:
    """The defaults, changed by what a YAML file says.

    Raises
    ------
    AnnotationError
        When the file cannot be read, or holds a key or value that does not belong there.
    """
    if file is None:
        return _defaults()
    try:
        changes = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if not isinstance(changes, dict):
            raise ValueError("expected keys such as `cut:` and `structures:`")
        return msgspec.convert(_merged(msgspec.to_builtins(_defaults()), changes), AnnotationSettings)
    except (OSError, ValueError, yaml.YAMLError) as error:  # msgspec.ValidationError is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise AnnotationError(f"{file}: {' '.join(str(reason).split())}") from error


@cache
def _defaults() -> AnnotationSettings:
    return msgspec.convert(yaml.safe_load(DEFAULTS.read_text(encoding="utf-8")), AnnotationSettings)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in changes.items():
        inner = both.get(key)
        both[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both
