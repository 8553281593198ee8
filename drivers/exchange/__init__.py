"""Sessions of other programs as recordings, and recordings as files that other programs read (docs/recordings.md)."""
