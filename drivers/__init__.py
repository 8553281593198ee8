"""Adapters between microscope software and the daemon."""
