"""Measuring policies: what they would have made of recorded surveys."""
