"""A classical model is its code: the fingerprint follows it."""

from pathlib import Path

import pytest

from models import base
from models.base import source_fingerprint


def test_a_changed_line_changes_the_fingerprint_and_line_ends_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "__file__", str(tmp_path / "base.py"))
    (tmp_path / "holes").mkdir()
    code = tmp_path / "holes" / "finder.py"
    code.write_bytes(b"LEAST = 3\nMOST = 9\n")
    first = source_fingerprint("models.holes")
    code.write_bytes(b"LEAST = 3\r\nMOST = 9\r\n")
    assert source_fingerprint("models.holes") == first
    code.write_bytes(b"LEAST = 4\nMOST = 9\n")
    assert source_fingerprint("models.holes") != first
