"""The daemon: frames in, decisions and targets out."""

__version__ = "0.1.0"
