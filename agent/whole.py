"""Files that are written as a whole or not at all: a reader sees the old one or the new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write into beside ``path``; it takes its place when the block ends well, else it is gone."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> Path:
    """Write a text as a whole; its path. What cannot be encoded becomes a question mark.

    Raises
    ------
    OSError
        If it cannot be written; what was there is then as it was.
    """
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")
    return path
