"""Holes: the perforated foil in medium-mag frames."""

from models.holes.finder import TemplateHoleFinder

__all__ = ["TemplateHoleFinder"]
