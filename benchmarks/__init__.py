"""Measurements: how good and how fast the models and the daemon are."""
