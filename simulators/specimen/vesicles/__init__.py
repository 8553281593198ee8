"""Vesicles in high-mag frames at a pixel size, every one known: cryo projections, stained sections, FIB-SEM slices."""

from simulators.specimen.vesicles.scene import DIFFICULTIES, KINDS, FrameVesicle, Kind, Look, VesicleFrame, draw_look
from simulators.specimen.vesicles.scene import render as render

__all__ = ["DIFFICULTIES", "KINDS", "FrameVesicle", "Kind", "Look", "VesicleFrame", "draw_look", "render"]
