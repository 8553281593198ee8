"""Python's interpreter as a daemon wants it: what answers a frame does not wait long for a thread."""

import sys

SWITCH_S = 0.0005  # so long a thread that computes keeps the loop waiting; Python's own value is ten times that


def share_fairly() -> None:
    """Let threads hand over sooner: models and pictures compute beside the loop, which a frame needs several times."""
    sys.setswitchinterval(SWITCH_S)
