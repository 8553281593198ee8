"""Vesicles: in tomograms as spheres, in high-mag frames as discs."""

from models.vesicles.finder import TomogramVesicleFinder, Vesicle, VesicleFinding, paint
from models.vesicles.network import BadVolumeError

__all__ = ["BadVolumeError", "TomogramVesicleFinder", "Vesicle", "VesicleFinding", "paint"]
