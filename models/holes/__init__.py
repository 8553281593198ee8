"""Holes: the perforated foil in medium-mag frames."""
