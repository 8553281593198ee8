"""Immunogold on replicas and sections at a pixel size, with every particle known: for training and for measuring."""

from simulators.specimen.immunogold.scene import DIFFICULTIES, Bead, GoldImage, Ground, Look, draw_look, render

__all__ = ["DIFFICULTIES", "Bead", "GoldImage", "Ground", "Look", "draw_look", "render"]
