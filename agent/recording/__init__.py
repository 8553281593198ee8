"""Recorded sessions: a session folder is a recording (docs/recordings.md), and here is how to read one."""

from agent.recording.damage import Trouble, Verdict, verify
from agent.recording.manifest import Manifest
from agent.recording.record import Happened, Record, Shot, read

__all__ = ["Happened", "Manifest", "Record", "Shot", "Trouble", "Verdict", "read", "verify"]
