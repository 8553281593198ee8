"""A recorded session as a thing to look at again: its frames by place, and a microscope that shows them."""

from simulators.replay.microscope import ReplayedMicroscope
from simulators.replay.recording import RecordedFrame, Recording

__all__ = ["RecordedFrame", "Recording", "ReplayedMicroscope"]
