"""Annotation of volumes from a few strokes: supervoxels, an energy over them, and the cut that makes it least.

The method is that of the graph-cut annotator of ASEM (Gallusser et al., J Cell Biol 222, e202208005, 2023, "Graph-cut
annotation"); `CutSettings` says where each number comes from and what differs.
"""

from models.organelles.annotation.cleaning import Parts, clean, exclusion_zone, grown, parts
from models.organelles.annotation.cut import BACKGROUND, STRUCTURE, Keep, annotated, cut
from models.organelles.annotation.grey import AnnotationError, to_grey
from models.organelles.annotation.settings import AnnotationSettings, CutSettings, Structure, read_settings
from models.organelles.annotation.supervoxels import Regions, regions_of, supervoxels

__all__ = [
    "BACKGROUND",
    "STRUCTURE",
    "AnnotationError",
    "AnnotationSettings",
    "CutSettings",
    "Keep",
    "Parts",
    "Regions",
    "Structure",
    "annotated",
    "clean",
    "cut",
    "exclusion_zone",
    "grown",
    "parts",
    "read_settings",
    "regions_of",
    "supervoxels",
    "to_grey",
]
