"""Squares: mesh openings in low-mag frames."""

from models.squares.finder import MixtureSquareFinder

__all__ = ["MixtureSquareFinder"]
