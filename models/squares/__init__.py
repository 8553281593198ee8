"""Squares: mesh openings in low-mag frames."""
