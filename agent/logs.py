"""Log lines: one event with its facts; for people on a terminal, JSON elsewhere."""

import logging
import sys
from typing import Any, TextIO

import structlog


def configure(*, json: bool | None = None, level: str = "info", stream: TextIO | None = None) -> None:
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
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
