"""One grid with a known truth, rendered at any magnification."""

from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.specimen import Specimen
from simulators.specimen.truth import HoleTruth, ObjectTruth, SquareTruth
from simulators.specimen.view import View

__all__ = ["HoleTruth", "ObjectTruth", "Specimen", "SpecimenSettings", "SquareTruth", "View"]
