"""The vision models: squares, holes and quality today, each behind a small protocol."""
