"""Log lines: one event with its facts; for people on a terminal, JSON elsewhere."""

import logging
import sys
from pathlib import Path
from typing import Any, TextIO, cast

import structlog


def configure(*, json: bool | None = None, level: str = "info", stream: "TextIO | RotatingFile | None" = None) -> None:
    """Set the log's form up once per process; every line has a UTC time."""
    out = stream or sys.stderr
    as_json = not out.isatty() if json is None else json
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", out)),
        cache_logger_on_first_use=False,
    )


class RotatingFile:
    """A log file that is set aside when it is full: ``log``, ``log.1`` (newer) to ``log.N`` (oldest)."""

    def __init__(self, path: Path, *, most_bytes: int = 20_000_000, keep: int = 10) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self.keep = keep
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, text: str) -> int:
        """Write, in a fresh file where this one is full."""
        if text != "\n" and self._file.tell() >= self.most_bytes:
            self._file.close()
            for number in range(self.keep, 0, -1):
                older = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
                if older.exists():
                    older.replace(self.path.with_name(f"{self.path.name}.{number}"))
            self._file = self.path.open("a", encoding="utf-8")
        return self._file.write(text)

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def isatty(self) -> bool:
        """Never a terminal."""
        return False

    def close(self) -> None:
        """Close the file."""
        self._file.close()
